"""Files of finished runs: what is in the mp4 of a run, of a cell and of a whole table."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from opensora_demo.catalog import MODELS, NANO
from opensora_demo.media import read_settings
from opensora_demo.messages import message, plain
from opensora_demo.request.events import Clip, DecodedFrames, Finished
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.service import outputs
from opensora_demo.service.forms import Comparison
from opensora_demo.service.outputs import OutputFolder, english
from opensora_demo.toy.chips import knows_words

SIDE = 128  # of nano's clips


@pytest.fixture
def folder() -> Iterator[OutputFolder]:
    made = OutputFolder()
    yield made
    made.close()


def request_of(**raw: Any) -> GenerationRequest:
    asked = {"prompt": "a red ball", "seed": 3, "frames": 5} | raw
    return parse_request(asked, model_id=NANO.id, limits=NANO.limits)


def clips_of(request: GenerationRequest) -> tuple[Clip, ...]:
    """A grey of its own for each column."""
    shape = (request.shape.frames, SIDE, SIDE, 3)
    return tuple(
        Clip(frames=np.full(shape, 60 * (k + 1), np.uint8), request=request.column(k))
        for k in range(len(request.columns))
    )


def finished(request: GenerationRequest, **more: Any) -> Finished:
    return Finished(clips=clips_of(request), seconds={"text": 0.12345, "denoise": 1.0}, unknown=("dragon",), **more)


def frames_of(file: Path) -> np.ndarray[Any, Any]:
    """(t, h, w, 3) as a player shows them."""
    with av.open(str(file)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])


def test_a_run_of_one_clip_is_that_clip_with_its_settings(folder: OutputFolder) -> None:
    request = request_of()
    numbers = {"network": "bfloat16", "codec": "float32"}
    file, settings = folder.write_run(request, finished(request, peak_bytes=934_000_000, precision=numbers))
    assert settings == request.settings() | {
        "seconds": {"text": 0.123, "denoise": 1.0},
        "unknown": ["dragon"],
        "peak_gb": 0.93,
        "precision": numbers,
    }
    assert read_settings(file) == settings
    shown = frames_of(file)
    assert shown.shape == (5, 256, 256, 3)  # enlarged
    assert abs(shown.astype(float) - 60).max() < 4


def test_a_run_without_a_measured_peak_names_none(folder: OutputFolder) -> None:
    _, settings = folder.write_run(request_of(), finished(request_of()))
    assert "peak_gb" not in settings


def part_of(done: Finished, first: int, end: int, seconds: float) -> DecodedFrames:
    frames = done.clips[0].frames
    return DecodedFrames(first=first, frames=frames[first:end], total=len(frames), seconds=seconds)


def test_a_run_that_is_decoded_in_parts_has_pictures_of_them_and_the_same_mp4(folder: OutputFolder) -> None:
    request = request_of()
    done = finished(request)
    with closing(folder.run(request)) as files:
        shown = files.add(part_of(done, 0, 2, 10.0))
        assert shown is not None
        assert files.add(part_of(done, 2, 3, 0.0)) is None  # no time for a picture: these are in the next one
        later = files.add(part_of(done, 3, 4, 1e6))
        assert later is not None
        file, settings = files.finish(done)
    assert [(first, sheet.count) for first, sheet in (shown, later)] == [(0, 2), (2, 2)]
    assert all(sheet.file == folder.find(sheet.file.name) for _, sheet in (shown, later))
    plain, _ = folder.write_run(request, done)
    assert file.read_bytes() == plain.read_bytes()
    assert read_settings(file) == settings
    folder.delete(file)
    assert sorted(folder.path.iterdir()) == [plain]


def test_a_run_of_several_clips_is_a_grid_of_them(folder: OutputFolder) -> None:
    request = request_of(guidance=[1, 4])
    file, settings = folder.write_run(request, finished(request))
    assert settings["guidance"] == [1, 4]
    assert read_settings(file) == settings
    picture = frames_of(file)[0]
    left, right = (int(column) for column in (picture.shape[1] * 0.25, picture.shape[1] * 0.75))
    middle = picture.shape[0] * 2 // 3
    assert abs(int(picture[middle, left, 0]) - 60) < 4
    assert abs(int(picture[middle, right, 0]) - 120) < 4


def test_a_cell_is_an_mp4_a_sheet_of_frames_and_what_was_seen(
    folder: OutputFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks: Any = {"colour": {"asked": "red", "seen": "red", "right": True, "confidence": 0.9}}
    monkeypatch.setattr(outputs, "marks_of", lambda clip: marks)
    (_, second) = clips_of(request_of(guidance=[1, 4]))
    made = folder.write_cell(second)
    assert read_settings(made.file) == second.request.settings()
    assert second.request.settings()["guidance"] == 4
    assert (made.sheet.file, made.marks) == (made.file.with_suffix(".jpg"), marks)
    height, width = made.sheet.size_px
    with Image.open(made.sheet.file) as sheet:
        lines = -(-len(second.frames) // made.sheet.across)
        assert sheet.size == (made.sheet.across * width, lines * height)
        first = np.asarray(sheet.convert("RGB"))[:height, :width]
        assert abs(first.astype(float) - 120).max() < 4


def test_a_table_holds_the_settings_of_its_rows(folder: OutputFolder) -> None:
    rows = [request_of(guidance=[1, 4], seed=seed) for seed in (3, 9)]
    labels = [message("note.row.seed", n=row.seed) for row in rows]
    both = Comparison(axis="seed", labels=tuple(labels), requests=tuple(rows))
    clips = [[clip.frames for clip in clips_of(row)] for row in rows]
    file = folder.write_table(both, clips, []).grid
    assert file is not None
    settings = read_settings(file)
    assert settings is not None
    assert [row["seed"] for row in settings["rows"]] == [3, 9]
    assert {name: value for name, value in settings.items() if name != "rows"} == rows[0].settings()
    single = folder.write_table(both, [clips[0], []], []).grid  # stopped after the first row
    assert single is not None
    assert frames_of(file).shape[1] > frames_of(single).shape[1]


def test_what_belongs_to_a_file_goes_with_it(tmp_path: Path) -> None:
    small = OutputFolder(keep=2)
    old = small.new_file("opensora-1.2", "a ball", 3)
    parts = [old, old.with_suffix(".csv"), old.with_name(f"{old.stem}.0.1.jpg")]
    for file in parts:
        file.touch()
        os.utime(file, (1, 1))
    small.new_file("nano", "a star", 4).touch()
    small.new_file("nano", "a star", 5)
    assert not any(file.exists() for file in parts)
    small.close()


def test_a_clip_is_had_in_other_forms_and_nothing_else_is(folder: OutputFolder) -> None:
    (clip,) = clips_of(request_of(guidance=4.0))
    made = folder.write_cell(clip)
    gif, png = folder.converted(f"{made.file.stem}.gif"), folder.converted(f"{made.file.stem}.png", 99)
    assert gif is not None
    assert png is not None
    assert read_settings(gif) == read_settings(png) == clip.request.settings()
    assert folder.converted(f"{made.file.stem}.gif") == gif
    assert (
        folder.converted(f"{made.file.stem}.png", 10**8) == png
    )  # a frame beyond the last one makes no file of its own
    with Image.open(png) as picture:
        assert (picture.format, picture.size) == ("PNG", (256, 256))
    secret = folder.path.parent / "secret.mp4"
    for name in ("no-clip.gif", f"../{secret.stem}.gif", f"{made.file.stem}.exe", f"{made.file.stem}.jpg", "..gif", ""):
        assert folder.converted(name) is None


def test_labels_in_a_file_are_english() -> None:
    assert english([message("note.row.no_negative"), None, plain("nano")]) == ["no negative prompt", "", "nano"]


@pytest.mark.parametrize("model", [name for name in MODELS if knows_words(name)])
def test_clips_of_every_model_that_knows_words_are_marked_or_left(model: str) -> None:
    """The reader reads squares; a debug model's clips are none."""
    limits = MODELS[model].limits
    request = parse_request({"prompt": "a star"}, model_id=model, limits=limits)
    height_px, width_px = limits.size_px
    clip = Clip(frames=np.zeros((limits.default_frames, height_px, width_px, 3), np.uint8), request=request)
    (marks,) = outputs.scene_marks(clip)
    assert (marks is None) == (height_px != width_px)
