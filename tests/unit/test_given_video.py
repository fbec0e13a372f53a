"""A given video: read from the files that people have, its frames kept, and a clip that goes on from it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

import opensora_demo as osd
from opensora_demo import cli, media
from opensora_demo.catalog import MODELS, NANO
from opensora_demo.errors import RequestError
from opensora_demo.media import read_mp4, read_settings, read_video, write_animation, write_mp4
from opensora_demo.messages import render
from opensora_demo.request.parse import parse_request
from opensora_demo.request.video import Frames
from opensora_demo.service.forms import read_frames, read_request
from opensora_demo.service.links import checked_settings, link_query, not_in_link


def film(count: int = 17, height: int = 64, width: int = 64) -> Frames:
    """Each frame ten levels brighter than the one before."""
    return np.stack([np.full((height, width, 3), 10 * k, np.uint8) for k in range(count)])


def levels(frames: Frames) -> list[int]:
    return [round(float(frame.mean()) / 10) for frame in frames]


def webm(file: Path, frames: Frames, fps: int) -> Path:
    with av.open(str(file), "w", format="webm") as container:
        stream = container.add_stream("libvpx-vp9", rate=Fraction(fps))
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return file


def written(file: Path, frames: Frames, fps: int) -> Path:
    match file.suffix:
        case ".webm":
            return webm(file, frames, fps)
        case ".mp4":
            write_mp4(file, frames, fps, {})
        case _:
            write_animation(file, frames, fps, {})
    return file


@pytest.mark.parametrize("kind", ["mp4", "webm", "gif", "webp"])
def test_videos_of_every_kind_come_frame_by_frame_at_their_own_rate(kind: str, tmp_path: Path) -> None:
    file = written(tmp_path / f"clip.{kind}", film(), 8)
    frames = read_video(file, 64, 64, 8)
    assert (frames.shape, frames.dtype) == ((17, 64, 64, 3), np.uint8)
    assert levels(frames) == list(range(17))
    assert read_video(file, 32, 48, 8).shape == (17, 32, 48, 3)


@pytest.mark.parametrize("kind", ["mp4", "webm", "gif", "webp"])
def test_another_rate_keeps_the_time(kind: str, tmp_path: Path) -> None:
    file = written(tmp_path / f"clip.{kind}", film(16), 10)
    for fps in (5, 20):
        frames = read_video(file, 64, 64, fps)
        assert abs(len(frames) - 16 * fps / 10) <= 1
        assert np.abs(np.array(levels(frames)) - np.arange(len(frames)) * 10 / fps).max() <= 1


def test_a_gif_of_our_own_loses_no_frame_to_its_rounded_times(tmp_path: Path) -> None:
    frames = np.concatenate([film(24)] * 3)
    file = written(tmp_path / "clip.gif", frames, 24)
    assert levels(read_video(file, 64, 64, 24)) == levels(frames)


def test_a_phone_film_is_turned_upright(tmp_path: Path) -> None:
    frames = film(3, 64, 128)
    frames[:, :, :32] = 255  # the left edge
    file = written(tmp_path / "clip.mp4", frames, 8)
    data = bytearray(file.read_bytes())
    at = data.index(b"tkhd") + 44  # the matrix of the first track
    quarter = [0, 65536, 0, -65536, 0, 0, 0, 0, 0x40000000]  # shown turned clockwise
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in quarter)
    file.write_bytes(data)
    upright = read_video(file, 128, 64, 8)
    assert upright.shape == (3, 128, 64, 3)
    assert upright[:, :24].min() > 240  # what was left is on top
    assert upright[:, 40:].max() < 60


def test_transparent_animations_lie_on_white(tmp_path: Path) -> None:
    pictures = [Image.new("RGBA", (64, 64), (255, 0, 0, 0)), Image.new("RGBA", (64, 64), (0, 0, 255, 255))]
    pictures[0].save(tmp_path / "a.webp", save_all=True, append_images=pictures[1:], duration=125, lossless=True)
    frames = read_video(tmp_path / "a.webp", 64, 64, 8)
    assert frames[0].min() == 255
    assert tuple(frames[1, 9, 9]) == (0, 0, 255)


def test_files_that_are_no_videos_are_refused(tmp_path: Path) -> None:
    good = written(tmp_path / "good.mp4", film(), 8).read_bytes()
    Image.new("RGB", (64, 64)).save(tmp_path / "still.png")
    unreadable, kind = (
        "video: this is not a readable mp4, MOV, WebM, GIF or WebP",
        "video: must be an mp4, MOV, WebM, GIF or WebP",
    )
    cases = {
        "empty.mp4": (b"", kind),
        "playlist.mp4": (b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", kind),
        "picture.gif": ((tmp_path / "still.png").read_bytes(), kind),
        "half.mp4": (good[: len(good) // 2], unreadable),
        "noise.webm": (b"\x1aE\xdf\xa3" + bytes(range(200)), unreadable),
        "gif.gif": (b"GIF89a" + b"\0" * 50, unreadable),
        "riff.webp": (b"RIFF\0\0\0\0WEBP" + b"\0" * 50, unreadable),
    }
    for name, (data, sentence) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(RequestError, match=sentence):
            read_video(tmp_path / name, 64, 64, 8)
    with pytest.raises(RequestError, match=r"video: there is no file missing\.mp4"):
        read_video(tmp_path / "missing.mp4", 64, 64, 8)
    with pytest.raises(RequestError, match=unreadable):
        read_video(tmp_path, 64, 64, 8)


@pytest.mark.parametrize(
    ("limit", "value", "sentence"),
    [
        ("MAX_VIDEO_BYTES", 100, "video: the video file is larger than"),
        ("MAX_VIDEO_PIXELS", 256 * 256 - 1, "video: the video has 256 x 256 pixels; at most"),
        ("MIN_SIDE_PX", 300, "video: the video has 256 x 256 pixels; each side must have at least 300"),
        ("MAX_SOURCE_FRAMES", 16, "video: the video has 17 frames; at most 16"),
        ("MAX_VIDEO_FRAMES", 16, "video: the video has more than 16 frames at 8 FPS; give at most 2 s"),
    ],
)
@pytest.mark.parametrize("kind", ["mp4", "gif", "webp"])
def test_a_video_is_bounded(
    limit: str, value: int, sentence: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path / f"clip.{kind}", film(17, 256, 256), 8)
    monkeypatch.setattr(media, limit, value)
    with pytest.raises(RequestError, match=sentence):
        read_video(file, 64, 64, 8)


def boxes(data: bytes) -> dict[bytes, bytes]:
    """The boxes in a part of an mp4, whole, by their kind; of several of a kind the last."""
    found, at = {}, 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found[data[at + 4 : at + 8]] = data[at : at + size]
        at += size
    return found


def test_a_film_of_a_thousand_tracks_is_not_opened(tmp_path: Path) -> None:
    """FFmpeg would take 760 MB to look at each."""
    write_mp4(tmp_path / "one.mp4", film(), 8, {"prompt": "a ball", "seed": 3})
    data = (tmp_path / "one.mp4").read_bytes()
    film_box = boxes(data)[b"moov"]
    track = boxes(film_box[8:])[b"trak"]
    for count, readable in ((media.MAX_TRACKS, True), (media.MAX_TRACKS + 1, False), (1000, False), (5000, False)):
        with_tracks = film_box[4:] + track * (count - 1)
        file = tmp_path / f"{count}.mp4"
        file.write_bytes(data.replace(film_box, (len(with_tracks) + 4).to_bytes(4, "big") + with_tracks))
        assert (read_settings(file) is not None) == readable
        if not readable:
            with pytest.raises(RequestError, match="video: the video has too many tracks; at most 32 are read"):
                read_video(file, 64, 64, 8)


def test_a_long_film_is_left_where_the_limit_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path / "clip.webm", film(17), 8)
    decoded = []
    crop = media.resize_to_fill

    def counting(*args: Any) -> Image.Image:
        decoded.append(args)
        return crop(*args)

    monkeypatch.setattr(media, "resize_to_fill", counting)
    monkeypatch.setattr(media, "MAX_VIDEO_FRAMES", 5)
    with pytest.raises(RequestError, match="more than 5 frames"):
        read_video(file, 64, 64, 8)
    assert len(decoded) == 5


# --- in a request -------------------------------------------------------------------------------------------------


def asked(model: str = "nano", video: Frames | None = None, **raw: Any) -> Any:
    spec = MODELS[model]
    return parse_request({"prompt": "a ball"} | raw, model_id=spec.id, limits=spec.limits, video=video)


def test_what_cannot_be_kept_of_a_video_is_refused() -> None:
    video, frame = film(17), film(1)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"model": "nano-dit", "video": video}, "video: this model takes no video"),
        ({"video": film(8)}, "video: the video must have at least 9 frames at 8 FPS, not 8"),
        ({"video": video, "frames": 5}, "video_frames: must be fewer than the 5 frames of the clip, not 9"),
        ({"video": video, "video_use": "tail"}, "video_use: must be one of extend, head"),
        ({"video": video, "video_frames": 3}, "video_frames: must be one of 1, 5, 9, 13, not 3"),
        ({"video": video, "rule": "apg"}, "rule: apg is for text alone"),
        ({"model": "nano-dit", "video_use": "head"}, "video_use: is not a setting of this model"),
    ]
    for given, sentence in cases:
        with pytest.raises(RequestError, match=sentence):
            asked(**given)
    with pytest.raises(RequestError, match="video: give either a video or a first or last frame"):
        parse_request({"prompt": "a ball"}, model_id="nano", limits=NANO.limits, reference=frame, video=video)


def test_settings_name_the_video_and_do_not_hold_it() -> None:
    settings = asked(video=film(17), video_use="head", video_frames=9).settings()
    assert (settings["video"], settings["video_use"], settings["video_frames"]) == (True, "head", 9)
    assert asked(video=film(17)).settings()["total_frames"] == 25
    assert {"video", "video_use", "video_frames", "total_frames"}.isdisjoint(asked().settings())
    query = link_query(settings)
    assert "video_use=head" in query
    assert "video=true" in query  # so that whoever opens it is told
    assert (said := not_in_link(settings)) is not None
    assert render(said) == "This link cannot carry: Video."
    found, ignored = checked_settings(settings)
    assert found["video_use"] == "head"
    assert [render(line) for line in ignored] == ["the given video, which is not among the settings"]


def test_a_form_reads_its_video_at_the_rate_of_the_clip(tmp_path: Path) -> None:
    file = written(tmp_path / "old.gif", film(20), 10)
    _, request = read_request({"prompt": "a ball", "model": "nano", "video": str(file), "fps": 5})
    assert request.video is not None
    assert request.video.shape[1:] == (128, 128, 3)
    assert abs(len(request.video) - 10) <= 1
    form = {"video": str(file), "fps": 10, "video_frames": 9}
    for use, first in (("extend", 11), ("head", 0)):
        seen = read_frames(form | {"video_use": use}, NANO.limits)
        assert levels(np.concatenate(seen)) == [first + 2 * k for k in range(5)]
    with pytest.raises(RequestError, match=r"video: there is no file none\.mp4"):
        read_request({"prompt": "a ball", "model": "nano", "video": str(tmp_path / "none.mp4")})


@pytest.mark.slow
def test_the_command_line_extends_a_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old.mp4", tmp_path / "new.mp4"
    usual = ["generate", "a red ball", "--steps", "2", "--seed", "1"]
    assert cli.main([*usual, "--out", str(old)]) == 0
    assert cli.main([*usual, "--video", str(old), "--out", str(new)]) == 0
    frames, fps = read_mp4(new)
    assert (len(frames), fps) == (25, 8)
    assert np.abs(frames[:17].astype(int) - read_mp4(old)[0]).mean() < 3
    settings = read_settings(new)
    assert settings is not None
    assert (settings["video"], settings["total_frames"], settings["frames"]) == (True, 25, 17)
    assert cli.main([*usual, "--model", "nano-dit", "--video", str(old), "--out", str(new)]) == 2
    assert "video: this model takes no video" in capsys.readouterr().err


def test_a_video_from_python(tmp_path: Path) -> None:
    file = written(tmp_path / "old.webm", film(17), 8)
    clip = osd.generate(osd.load("nano"), "a ball", video=str(file), video_use="head", steps=2, seed=1)
    assert len(clip.frames) == 17
    assert clip.settings["video"] is True
