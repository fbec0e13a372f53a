"""Files in and out: hostile images, mp4s that play everywhere, settings that survive."""

from __future__ import annotations

import base64
import io
import json
import os
import struct
import tracemalloc
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageFont, PngImagePlugin

from opensora_demo import grid as table
from opensora_demo import media
from opensora_demo.errors import RequestError
from opensora_demo.grid import compose_grid
from opensora_demo.media import (
    Mp4,
    enlarge,
    jpeg_strip,
    read_settings,
    write_animation,
    write_mp4,
    write_png,
)
from opensora_demo.pictures import read_reference


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def test_an_mp4_plays_everywhere(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (17, 64, 64, 3), np.uint8)
    settings = {"prompt": 'a "ball" = \u7403; #\\ \n \u00e9', "seed": 0, "guidance": [1, 4.5]}
    file = tmp_path / "clip.mp4"
    write_mp4(file, frames, 12, settings)
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert (stream.width, stream.height) == (256, 256)
        assert stream.average_rate == 12
        assert sum(1 for _ in container.decode(video=0)) == 17
    data = file.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # faststart
    assert read_settings(file) == settings
    assert list(tmp_path.iterdir()) == [file]


def test_an_mp4_that_is_encoded_while_its_frames_come_is_the_same_file(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (70, 64, 64, 3), np.uint8)  # more than the encoder looks ahead
    write_mp4(tmp_path / "whole.mp4", frames, 12, {"prompt": "a ball"})
    with closing(Mp4(12)) as film:
        for part in (frames[:1], frames[1:60], frames[60:60], frames[60:]):
            film.add(part)
        assert film.count == 70
        with pytest.raises(FileNotFoundError):
            film.write(tmp_path / "no folder" / "parts.mp4", {})
        for name in ("parts", "again"):
            film.write(tmp_path / f"{name}.mp4", {"prompt": "a ball"})
    whole, parts, again = ((tmp_path / f"{name}.mp4").read_bytes() for name in ("whole", "parts", "again"))
    assert whole == parts == again
    with closing(Mp4(12)) as film, pytest.raises(ValueError, match="needs a picture"):
        film.write(tmp_path / "none.mp4", {})
    with closing(Mp4(12)) as film:  # given up
        film.add(frames[:3])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["again.mp4", "parts.mp4", "whole.mp4"]


@pytest.mark.parametrize("size", [(63, 65), (1, 1), (300, 301)])
@pytest.mark.parametrize("count", [1, 2])
def test_odd_sizes_and_single_frames_are_written(tmp_path: Path, size: tuple[int, int], count: int) -> None:
    file = tmp_path / "clip.mp4"
    write_mp4(file, np.full((count, *size, 3), 90, np.uint8), 4, {})
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        assert stream.width % 2 == stream.height % 2 == 0
        assert sum(1 for _ in container.decode(video=0)) == count


def test_colours_survive_the_file(tmp_path: Path) -> None:
    frames = np.zeros((4, 64, 64, 3), np.uint8)
    frames[:, :, :32] = (222, 28, 36)
    frames[:, :, 32:] = (36, 76, 232)
    write_mp4(tmp_path / "c.mp4", frames, 8, {})
    with av.open(str(tmp_path / "c.mp4")) as container:
        coded = container.streams.video[0].codec_context
        said = (coded.colorspace, coded.color_primaries, coded.color_trc, coded.color_range)
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert said == (6, 1, 13, 1)  # of H.273: BT.601's matrix, BT.709's primaries, sRGB's transfer, limited range
    assert np.abs(picture[128, 60].astype(int) - (222, 28, 36)).max() < 4
    assert np.abs(picture[128, 200].astype(int) - (36, 76, 232)).max() < 4


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011
        write_mp4(tmp_path / "c.mp4", np.zeros((2, 64, 64), np.uint8), 8, {})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


SETTINGS = {
    "prompt": 'a "ball" =;#\\ \n\r\t 红球 \U0001f534 \u00e9 \x00',
    "seed": 4_294_967_295,
    "guidance": [1, 4.5],
    "reference": None,
}


def test_a_png_keeps_picture_and_settings(tmp_path: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 255, (64, 48, 3), np.uint8)
    file = tmp_path / "picture.png"
    write_png(file, frame, SETTINGS)
    assert read_settings(file) == SETTINGS
    with Image.open(file) as image:
        assert (image.format, image.size, image.mode) == ("PNG", (48 * 6, 64 * 6), "RGB")
        assert json.loads(image.text["comment"]) == {"made_by": "opensora-demo", **SETTINGS}
    write_png(file, frame, {}, min_px=1)
    assert np.array_equal(np.asarray(Image.open(file)), frame)
    assert read_settings(file) == {}
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(Exception):  # noqa: B017, PT011
        write_png(file, frame, {"prompt": object()})
    with pytest.raises(Exception):  # noqa: B017, PT011
        write_png(tmp_path / "b.png", frame.astype(np.float64), {})  # type: ignore[arg-type]
    assert read_settings(file) == {}
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_an_animation_keeps_frames_rate_and_settings(kind: str, tmp_path: Path) -> None:
    frames = np.stack([np.full((64, 80, 3), 30 * k, np.uint8) for k in range(5)])
    settings = {"prompt": 'a "ball" \u7403' + "x" * 600, "seed": 0, "guidance": [1, 4.5]}
    file = tmp_path / f"clip.{kind}"
    write_animation(file, frames, 10, settings)
    with Image.open(file) as image:
        assert (image.format, image.size, image.n_frames) == (kind.upper(), (80, 64), 5)  # type: ignore[attr-defined]
        assert image.info["loop"] == 0
        image.seek(3)
        image.load()
        assert image.info["duration"] == 100
        assert abs(np.asarray(image.convert("RGB")).astype(int) - 90).max() <= 3
    assert read_settings(file) == settings
    data = file.read_bytes()
    for cut in (13, 20, 100, len(data) // 2):
        file.write_bytes(data[:cut])
        assert read_settings(file) in (None, settings)
    assert list(tmp_path.iterdir()) == [file]


def test_a_wide_table_becomes_a_smaller_animation(tmp_path: Path) -> None:
    file = tmp_path / "table.gif"
    write_animation(file, np.zeros((2, 100, 1920, 3), np.uint8), 8, {})
    with Image.open(file) as image:
        assert image.size == (960, 50)


def test_settings_are_found_by_content_not_by_name(tmp_path: Path) -> None:
    write_png(tmp_path / "a.mp4", np.zeros((64, 64, 3), np.uint8), SETTINGS)
    assert read_settings(tmp_path / "a.mp4") == SETTINGS
    write_mp4(tmp_path / "b.mp4", np.zeros((2, 64, 64, 3), np.uint8), 8, {"seed": 3})
    (tmp_path / "b.mp4").rename(tmp_path / "b.png")
    assert read_settings(tmp_path / "b.png") == {"seed": 3}


def comment_of_others(kind: str, text: str, path: Path) -> Path:
    """A file with a comment that another program wrote."""
    if kind == "png":
        info = PngImagePlugin.PngInfo()
        info.add_text("Comment", text)
        return saved(Image.new("RGB", (8, 8)), path / "a.png", pnginfo=info)
    if kind == "gif":
        return saved(Image.new("RGB", (8, 8)), path / "a.gif", comment=text.encode())
    if kind == "webp":
        return saved(Image.new("RGB", (8, 8)), path / "a.webp", xmp=text.encode())
    file = path / "a.mp4"
    with av.open(str(file), "w") as container:
        container.metadata["comment"] = text
        stream = container.add_stream("libx264", rate=8)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    return file


GRAPH = '{"1": {"class_type": "KSampler", "inputs": {"seed": 5}}}'


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ('{"title": "x", "seed": 5}', "another program"),
        ('{"prompt": "a cat", "seed": 5, "version": "1.2"}', "another program"),
        ('{"model": "sdxl", "prompt": "a cat", "version": "1.2"}', "another program"),
        (json.dumps({"prompt": GRAPH, "workflow": {}}), "ComfyUI"),
        (json.dumps({"prompt": json.loads(GRAPH)}), "ComfyUI"),
        ('{"type": "WanGP v1 by DeepBeepMeep", "prompt": "a cat", "seed": 5, "guidance_scale": 5}', "Wan2GP"),
        ('{"sui_image_params": {"prompt": "a cat", "model": "x"}}', "SwarmUI"),
    ],
)
@pytest.mark.parametrize("kind", ["png", "mp4", "gif", "webp"])
def test_another_program_s_comment_is_named_and_never_half_read(
    kind: str, text: str, program: str, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=f"this file holds settings of {program}, not of this demo"):
        read_settings(comment_of_others(kind, text, tmp_path), ("nano",))


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("parameters", "Stable Diffusion web UI"),
        ("workflow", "ComfyUI"),
        ("invokeai_metadata", "InvokeAI"),
        ("Dream", "InvokeAI"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_another_program_s_text_is_named(name: str, program: str, compressed: bool, tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text(name, "a cat\nSteps: 20, Seed: 5", zip=compressed)
    with pytest.raises(RequestError, match=program):
        read_settings(saved(Image.new("RGB", (8, 8)), tmp_path / "a.png", pnginfo=info))


def test_files_of_an_earlier_version_are_read_by_their_model(tmp_path: Path) -> None:
    old = {"prompt": "a ball", "seed": 5, "model": "nano"}
    assert read_settings(comment_of_others("mp4", json.dumps(old), tmp_path), ("nano",)) == old
    assert read_settings(comment_of_others("png", "a remark of a camera", tmp_path)) is None


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(*chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    return b"".join((media._PNG, header, *chunks, chunk(b"IDAT", zlib.compress(b"\0" * 4)), chunk(b"IEND", b"")))


ZEROS = zlib.compress(b"\0" * 100_000_000)
GOOD = chunk(b"iTXt", b'comment\0\0\0\0\0{"made_by": "opensora-demo", "seed": 1}')
HOSTILE = {
    "nothing": b"nothing",
    "empty": b"",
    "signature alone": media._PNG,
    "no text": png_with(),
    "compressed text bomb": png_with(chunk(b"zTXt", b"comment\0\0" + ZEROS)),
    "compressed international text bomb": png_with(chunk(b"iTXt", b"comment\0\1\0\0\0" + ZEROS)),
    "colour profile bomb": png_with(chunk(b"iCCP", b"x\0\0" + ZEROS)),
    "long text": png_with(chunk(b"iTXt", b'comment\0\0\0\0\0{"prompt": "' + b"x" * 20_000_000 + b'"}')),
    "long plain text": png_with(chunk(b"tEXt", b'comment\0{"prompt": "' + b"x" * 1_000_050 + b'"}')),
    "a length past the end": png_with(struct.pack(">I4s", 0xFFFFFFFF, b"tEXt")),
    "wrong checksum": png_with(GOOD[:-1] + b"\0"),
    "not UTF-8": png_with(chunk(b"iTXt", b'comment\0\0\0\0\0{"a": "\xff"}')),
    "fields missing": png_with(chunk(b"iTXt", b"comment\0\0")),
    "another name": png_with(chunk(b"tEXt", b'settings\0{"a": 1}')),
    "no object": png_with(chunk(b"tEXt", b"comment\0[1]")),
    "deep nesting": png_with(chunk(b"tEXt", b"comment\0" + b"[" * 900_000)),
    "huge number": png_with(chunk(b"tEXt", b'comment\0{"a": ' + b"9" * 900_000 + b"}")),
    "very many chunks": png_with(chunk(b"abCd", b"") * 1_000_000),
    "a playlist": b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
    "an mp4's beginning": b"\0\0\0\x18ftypisom\0\0\0\0isomiso2",
    "an mp4 of noise": b"\0\0\0\x18ftypisom" + np.random.default_rng(0).bytes(5000),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.timeout(10)
def test_settings_of_hostile_files_are_none_and_cost_nothing(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(HOSTILE[name])
    tracemalloc.start()
    try:
        assert read_settings(tmp_path / "a.png") is None
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def test_a_png_that_is_cut_off_anywhere_has_no_settings(tmp_path: Path) -> None:
    whole = png_with(GOOD)
    file = tmp_path / "a.png"
    file.write_bytes(whole)
    assert read_settings(file) == {"seed": 1}
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        assert read_settings(file) is None


def test_files_that_are_too_large_or_no_files_are_not_opened(tmp_path: Path) -> None:
    file = tmp_path / "large.png"
    file.write_bytes(png_with(GOOD))
    os.truncate(file, media.MAX_FILE_BYTES + 1)
    assert read_settings(file) is None
    assert read_settings(tmp_path) is None
    assert read_settings(tmp_path / "missing.mp4") is None
    os.mkfifo(tmp_path / "pipe")
    assert read_settings(tmp_path / "pipe") is None


def test_pillow_bounds_compressed_texts_as_well(tmp_path: Path) -> None:
    """Pictures given as a reference are opened by it."""
    for name in ("compressed text bomb", "compressed international text bomb"):
        (tmp_path / "a.png").write_bytes(HOSTILE[name])
        tracemalloc.start()
        try:
            with pytest.raises(RequestError):
                read_reference(tmp_path / "a.png", 64, 64)
            assert tracemalloc.get_traced_memory()[1] < 8_000_000
        finally:
            tracemalloc.stop()


def test_enlarging_is_by_whole_numbers() -> None:
    assert enlarge(np.zeros((1, 64, 48, 3), np.uint8)).shape == (1, 384, 288, 3)
    assert enlarge(np.zeros((1, 300, 400, 3), np.uint8)).shape == (1, 300, 400, 3)


def plain(value: int, frames: int = 3, height_px: int = 64, width_px: int = 64) -> np.ndarray:
    return np.full((frames, height_px, width_px, 3), value, np.uint8)


def film(*args: Any, **options: Any) -> tuple[np.ndarray, int]:
    """All of a table at once."""
    pictures, fps = compose_grid(*args, **options)
    return np.stack(list(pictures)), fps


def test_a_row_holds_every_clip_under_its_label() -> None:
    grid, fps = film([[plain(40 * i) for i in range(1, 6)]], [f"guidance {i}" for i in range(1, 6)], ["x"], [8])
    assert fps == 8
    assert grid.shape == (3, 28 + 256 + 2 * 6, 5 * (256 + 6) + 6, 3)
    for i, value in enumerate((40, 80, 120, 160, 200)):
        x = 6 + i * 262
        assert (grid[:, 34:290, x : x + 256] == value).all()
        assert grid[0, 6:34, x : x + 256].max() > 150  # the label


def test_rows_play_at_their_own_rate_in_one_time() -> None:
    count = np.arange(4, dtype=np.uint8)[:, None, None, None] * 10 + np.zeros((1, 64, 64, 3), np.uint8)
    grid, fps = film([[count, count[:2]], [count, count]], ["a", "b"], ["slow", "fast"], [4, 8], min_px=64)
    assert (len(grid), fps) == (8, 8)
    side = grid.shape[2] - 2 * 70 - 6
    assert side > 0
    at = (
        grid[:, [28 + 6 + 32, 28 + 6 + 70 + 32]][:, :, [side + 6 + 32, side + 6 + 70 + 32], 0] // 10
    )  # (t, rows, columns)
    assert at[:, 0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert at[:, 0, 1].tolist() == [0, 0, 1, 1, 1, 1, 1, 1]  # shorter: holds its last frame
    assert at[:, 1, 1].tolist() == [0, 1, 2, 3, 3, 3, 3, 3]
    assert len(film([[count], [count]], ["a"], ["12", "8"], [12, 8], min_px=1)[0]) == 6


def test_clips_of_several_sizes_share_one_cell() -> None:
    grid, _ = film([[plain(100), plain(200, height_px=300, width_px=400)]], ["", ""], [""], [8])
    assert grid.shape[1:3] == (28 + 300 + 12, 2 * 406 + 6)
    ys, xs = np.nonzero((grid[0] == 100).all(-1))
    assert (np.ptp(ys) + 1, np.ptp(xs) + 1) == (256, 256)  # four times, in the middle
    assert (ys.min(), xs.min()) == (6 + 28 + 22, 6 + 72)
    assert (grid[0] == 200).all(-1).sum() == 300 * 400


def test_small_clips_make_no_table_wider_than_a_screen() -> None:
    rows = [[plain(9, 1, 64, 96)] * 6 for _ in range(4)]
    grid, _ = film(rows, ["x"] * 6, ["a very long label " * 20] * 4, [4, 8, 12, 24])
    assert 6 * 2 * 96 < grid.shape[2] <= 1920
    assert table.cell_px(64, 64, 6) == (256, 256)
    assert table.cell_px(400, 700, 6) == (400, 700)  # large ones stay as they are


def test_a_long_table_is_not_held_in_memory() -> None:
    clip = np.broadcast_to(np.uint8(7), (100_000, 480, 640, 3))  # 92 GB
    pictures, fps = compose_grid([[clip] * 6] * 4, ["x"] * 6, ["y"] * 4, [8] * 4)
    assert next(pictures).shape[2] == 3
    assert fps == 8


def test_a_table_is_checked() -> None:
    for rows, columns, labels, fps in (
        ([], ["a"], [], []),
        ([[plain(1)]] * 5, ["a"], ["x"] * 5, [8] * 5),
        ([[plain(1)] * 7], ["a"] * 7, ["x"], [8]),
        ([[plain(1)], []], ["a"], ["x", "y"], [8, 8]),
        ([[plain(1)]], ["a"], ["x"], [8, 8]),
    ):
        with pytest.raises(ValueError, match="grid"):
            compose_grid(rows, columns, labels, fps)


LABELS = (
    "",
    "word " * 100,
    "w" * 5000,
    "左边一个红色的球" * 30,
    "\U0001f534 \x00\n\t\u202e \ud800",
    "مرحبا",
    "\u00e9",
    " ",
)


@pytest.mark.parametrize("font", [True, False])
@pytest.mark.slow
def test_labels_of_every_kind_stay_in_their_place(font: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not font:
        monkeypatch.setattr(table, "_cjk_font", lambda: None)
    for label in LABELS:
        grid, _ = film([[plain(77, 1)] * 2] * 2, [label, ""], [label, ""], [8, 8])
        assert (grid == 77).all(-1).sum() == 4 * 256 * 256
        assert grid.shape[2] <= 2 * 262 + 6 + 150 + 12


def test_text_that_is_too_long_ends_in_an_ellipsis() -> None:
    font = ImageFont.load_default(16)
    short = table._shortened("guidance 4, rescaled", font, 100)
    assert short.endswith("…")
    assert short.startswith("guidance")
    assert font.getlength(short) <= 100
    assert table._shortened("guidance 4", font, 100) == "guidance 4"
    assert table._legible("a\n b\x00")[0] == "a b"


def test_chinese_without_a_font_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_cjk_font", lambda: None)
    assert table._legible("ｒｅｄ 红球")[0] == "red ??"


def test_strip_is_a_small_jpeg() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (5, 8, 8, 3), np.uint8)
    uri = jpeg_strip(frames)
    data = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (320, 64)
    assert len(data) < 20_000


def test_references_are_cropped_to_fill(tmp_path: Path) -> None:
    image = Image.new("RGB", (300, 100), "red")
    image.paste("blue", (100, 0, 200, 100))
    frames = read_reference(saved(image, tmp_path / "a.png"), 64, 64)
    assert frames.shape == (1, 64, 64, 3)
    assert (frames[0, 32, 8:-8] == (0, 0, 255)).all()


def test_rotated_by_exif_16_bit_and_transparent(tmp_path: Path) -> None:
    image = Image.new("RGB", (64, 64), "white")
    image.paste("black", (0, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    assert read_reference(saved(image, tmp_path / "a.jpg", exif=exif), 64, 64)[0, 60, 30].max() < 20
    grey = Image.fromarray(np.full((64, 64), 32768, np.uint16))
    assert abs(int(read_reference(saved(grey, tmp_path / "b.png"), 64, 64)[0, 9, 9, 0]) - 127) <= 1
    clear = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    assert (read_reference(saved(clear, tmp_path / "c.png"), 64, 64) == 255).all()


def test_modes_and_animations(tmp_path: Path) -> None:
    for mode in ("L", "LA", "P", "CMYK", "1"):
        suffix = "jpg" if mode == "CMYK" else "png"
        assert read_reference(saved(Image.new(mode, (20, 20)), tmp_path / f"{mode}.{suffix}"), 64, 64).shape == (
            1,
            64,
            64,
            3,
        )
    first, second = Image.new("RGB", (32, 32), "red"), Image.new("RGB", (32, 32), "blue")
    file = saved(first, tmp_path / "m.webp", save_all=True, append_images=[second], lossless=True)
    assert (read_reference(file, 64, 64)[0, 5, 5] == (255, 0, 0)).all()


def bomb(path: Path, side: int) -> Path:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path.write_bytes(media._PNG + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""))
    return path


def test_refused_images(tmp_path: Path) -> None:
    good = saved(Image.new("RGB", (64, 64)), tmp_path / "good.png").read_bytes()
    cases: dict[str, bytes] = {
        "empty.png": b"",
        "half.png": good[: len(good) // 2],
        "text.png": b"<html><script>alert(1)</script>",
        "a.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "gif.png": b"GIF89a" + b"\0" * 50,
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(RequestError, match="reference: this is not a readable PNG, JPEG, WebP, AVIF or GIF"):
            read_reference(tmp_path / name, 64, 64)
    for side in (13_000, 30_000):
        with pytest.raises(RequestError, match="megapixels"):
            read_reference(bomb(tmp_path / "bomb.png", side), 64, 64)
    for size in ((1, 1), (4, 400), (3000, 20)):
        with pytest.raises(RequestError, match="reference: the image has"):
            read_reference(saved(Image.new("RGB", size), tmp_path / "s.png"), 64, 64)
    with pytest.raises(RequestError):
        read_reference(tmp_path / "missing.png", 64, 64)


def test_any_damage_gives_the_same_sentence(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x011A] = 72.0
    data = bytearray(saved(Image.new("RGB", (40, 40), "red"), tmp_path / "a.jpg", exif=exif).read_bytes())
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        broken = data.copy()
        for at in rng.integers(0, 120, 4):
            broken[at] = rng.integers(256)
        (tmp_path / "b.jpg").write_bytes(broken)
        try:
            read_reference(tmp_path / "b.jpg", 64, 64)
        except RequestError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("size", [(100, 150), (96, 160)])
def test_the_same_frames_make_the_same_file(size: tuple[int, int], tmp_path: Path) -> None:
    """Whatever lay in the memory that the encoder is given."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (5, *size, 3), dtype=np.uint8)
    files = set()
    for _ in range(12):
        before = [rng.bytes(frames[0].nbytes + 4096) for _ in range(3)]
        del before
        write_mp4(tmp_path / "clip.mp4", frames, 8, {}, min_px=1)
        files.add((tmp_path / "clip.mp4").read_bytes())
    assert len(files) == 1
