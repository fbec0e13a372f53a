"""Files in and out: hostile images, mp4s that play everywhere, settings that survive."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from opensora_demo.errors import RequestError
from opensora_demo.media import compose_grid, enlarge, jpeg_strip, read_reference, read_settings, write_mp4


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
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(picture[128, 60].astype(int) - (222, 28, 36)).max() < 12
    assert np.abs(picture[128, 200].astype(int) - (36, 76, 232)).max() < 12


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011
        write_mp4(tmp_path / "c.mp4", np.zeros((2, 64, 64), np.uint8), 8, {})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_settings_of_other_files_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    assert read_settings(tmp_path / "a.mp4") is None
    assert read_settings(tmp_path / "missing.mp4") is None


def test_enlarging_is_by_whole_numbers() -> None:
    assert enlarge(np.zeros((1, 64, 48, 3), np.uint8)).shape == (1, 384, 288, 3)
    assert enlarge(np.zeros((1, 300, 400, 3), np.uint8)).shape == (1, 300, 400, 3)


def test_grid_holds_every_clip_under_its_label() -> None:
    clips = [np.full((3, 64, 64, 3), 40 * i, np.uint8) for i in range(1, 6)]
    grid = compose_grid(clips, [f"guidance {i}" for i in range(1, 6)])
    assert grid.shape[0] == 3
    for value in (40, 80, 120, 160, 200):
        assert (grid == value).all(-1).sum() >= 3 * 256 * 256


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
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )
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
        with pytest.raises(RequestError, match="reference: this is not a readable PNG, JPEG or WebP"):
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
