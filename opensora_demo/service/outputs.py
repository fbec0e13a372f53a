"""The files of finished runs, and where they wait to be fetched: one folder per process, swept so that it never grows.

Every mp4 carries the settings that make it again.
"""

from __future__ import annotations

import errno
import logging
import re
import secrets
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from opensora_demo.errors import DemoError
from opensora_demo.grid import compose_grid, tiled
from opensora_demo.media import Mp4, read_mp4, read_settings, write_animation, write_mp4, write_png, write_sprite
from opensora_demo.messages import Message, render
from opensora_demo.preview import Budget
from opensora_demo.request.events import Clip, DecodedFrames, Finished
from opensora_demo.request.request import GenerationRequest
from opensora_demo.request.video import Frames
from opensora_demo.service.folders import process_folder
from opensora_demo.service.forms import Comparison
from opensora_demo.service.samples import Sample, numbers_csv
from opensora_demo.toy.chips import knows_words
from opensora_demo.toy.prompt_intent import Mark, mark_clips
from opensora_demo.toy.reader import Reader, can_read, load_reader

log = logging.getLogger(__name__)
KEEP = 150  # clips; a comparison has up to 25
KEEP_BYTES = 2_000_000_000
GIVEN = "given-"  # what names of pictures of given frames begin with
T = TypeVar("T")


def _state(file: Path) -> tuple[float, int]:
    """When a file was written, and its bytes."""
    try:
        state = file.stat()
    except FileNotFoundError:  # another visitor's sweep was faster
        return 0.0, 0
    return state.st_mtime, state.st_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """`count` frames of `size_px` (height, width) in one JPEG file, `across` in a line."""

    file: Path
    across: int
    size_px: tuple[int, int]
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFiles:
    """A finished clip: its mp4, its frames in one picture, and what a reader saw in it, where one can tell."""

    file: Path
    sheet: Sheet
    marks: dict[str, Mark] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFiles:
    """A comparison: all its clips in one mp4, every number in a CSV file, and by (row, column) the clips of all seeds
    of a cell in one picture."""

    grid: Path | None
    numbers: Path | None
    mosaics: dict[tuple[int, int], Sheet]


_READING = ThreadPoolExecutor(1, "reader")


def read_beside(read: Callable[[Clip], T], clip: Clip) -> Future[T]:
    """What `marks_of` or `scene_marks` will say, read while the clip's files are written."""
    return _READING.submit(copy_context().run, read, clip)


def marks_of(clip: Clip) -> dict[str, Mark] | None:
    """What the reader says of a toy clip, at its end where it extends a video, and of the last of its scenes; None for
    other models and for clips that it cannot read."""
    return scene_marks(clip)[-1]


def scene_marks(clip: Clip) -> list[dict[str, Mark] | None]:
    """The same of each scene, of a later one its new frames alone: what it took over shows what the one before says."""
    request = clip.request
    if request.scenes == 1:
        shown = [clip.own_frames]
    else:
        shown = [clip.frames[max(first, end - request.shape.frames) : end] for first, end in request.scene_frames]
    if not knows_words(request.model_id):
        return [None] * request.scenes
    try:
        return [_marks(request.scene(k).prompt, frames) for k, frames in enumerate(shown)]
    except DemoError as error:  # the reader's file is not here: the clips are worth showing all the same
        log.error("%s", error)
        return [None] * request.scenes


def _marks(prompt: str, frames: Frames) -> dict[str, Mark] | None:
    return mark_clips(reader(), prompt, [frames])[0] if can_read(frames) else None


@cache
def reader() -> Reader:
    """The network that says what a clip shows; a few milliseconds to load, so only when it is needed."""
    return load_reader()


def english(labels: Sequence[Message | None]) -> list[str]:
    return ["" if label is None else render(label) for label in labels]


def own_name(file: Path) -> str:
    """What the name of a file has in common with those that belong to it: all up to the random letters."""
    return "-".join([*file.name.split("-")[:-1], file.name.split("-")[-1].split(".")[0]])


def file_name(model_id: str, prompt: str, seed: int) -> str:
    """A name that a person recognises, and no other file has: model, first words of the prompt, seed, letters."""
    words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:40].strip("-") or "clip"
    return f"{model_id}-{words}-{seed}-{secrets.token_hex(8)}.mp4"


def write_run(
    file: Path,
    request: GenerationRequest,
    done: Finished,
    *,
    label: str = "",
    min_px: int = 256,
    begun: Mp4 | None = None,
) -> dict[str, Any]:
    """The mp4 of a finished run: its clip, enlarged by a whole number where its short side has fewer than `min_px`
    pixels, or a grid if there are several, with this `label` at its left. `begun` holds the clip's first frames,
    encoded while the others were decoded. Returns its settings."""
    settings = request.settings() | {
        "seconds": {k: round(v, 3) for k, v in done.seconds.items()},
        "unknown": list(done.unknown),
        **({} if done.refined is None else {"refined": done.refined}),
        **({"reused_steps": done.reused[0]} if len(done.reused) == 1 else {}),
        **({} if done.peak_bytes is None else {"peak_gb": round(done.peak_bytes / 1e9, 2)}),
        **({} if done.precision is None else {"precision": dict(done.precision)}),
    }
    if begun is not None:
        begun.add(done.clips[0].frames[begun.count :])
        begun.write(file, settings)
    elif len(done.clips) == 1:
        write_mp4(file, done.clips[0].frames, request.fps, settings, min_px=min_px)
    else:
        clips = [[clip.frames for clip in done.clips]]
        pictures, fps = compose_grid(clips, english(request.labels), [label], [request.fps])
        write_mp4(file, pictures, fps, settings, min_px=1)
    return settings


class OutputFolder:
    """Hands out file names and keeps the newest `keep` clips, and pictures of given frames apart from them, as long as
    all take no more than `keep_bytes`; the folder goes when the process ends normally."""

    def __init__(self, keep: int = KEEP, keep_bytes: int = KEEP_BYTES) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="clips-", dir=process_folder(), ignore_cleanup_errors=True)
        self.keep, self.keep_bytes = keep, keep_bytes

    @property
    def path(self) -> Path:
        return Path(self._folder.name)

    def new_file(self, model_id: str, prompt: str, seed: int) -> Path:
        """A fresh path with a `file_name`. Nothing is written."""
        self.path.mkdir(parents=True, exist_ok=True)  # somebody may have cleaned the temporary files
        self.sweep()
        return self.path / file_name(model_id, prompt, seed)

    def new_picture(self) -> Path:
        """A fresh path for given frames as the model sees them."""
        return self.new_file(GIVEN.rstrip("-"), "frames", 0).with_suffix(".png")

    def sweep(self) -> None:
        """Delete all but the newest clips and pictures, each with what belongs to it under the same name; names end in
        random letters, so only times decide."""
        newest: dict[str, float] = {}
        sizes: dict[str, int] = {}
        for file in self.path.iterdir():
            name, (modified, size) = own_name(file), _state(file)
            newest[name] = max(newest.get(name, 0.0), modified)
            sizes[name] = sizes.get(name, 0) + size
        held = {True: 0, False: 0}  # files of given frames, which are looked at once, and clips
        total = 0
        for name in sorted(newest, key=newest.__getitem__, reverse=True):
            given = name.startswith(GIVEN)
            held[given] += 1
            total += sizes[name]
            if held[given] >= self.keep or total > self.keep_bytes:
                self._remove(name)

    def _remove(self, name: str) -> None:
        for old in self.path.glob(f"{name}.*"):
            old.unlink(missing_ok=True)

    def _with_room(self, write: Callable[[], T]) -> T:
        """Write, and where the disk is full once more without the older half of all files."""
        try:
            return write()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            names = {own_name(file): _state(file)[0] for file in self.path.iterdir()}
            for name in sorted(names, key=names.__getitem__)[: max(len(names) // 2, 1)]:
                self._remove(name)
            return write()

    def write_run(self, request: GenerationRequest, done: Finished) -> tuple[Path, dict[str, Any]]:
        """The mp4 of a finished run and its settings (`write_run`)."""
        return self.run(request).finish(done)

    def run(self, request: GenerationRequest) -> RunFiles:
        """The files of a run of one clip, written while it is decoded."""
        return RunFiles(self, request)

    def write_part(self, file: Path, first: int, frames: Frames) -> Sheet:
        """Frames from `first` on of the clip whose mp4 `file` will be, in one picture that goes with it."""
        return self._with_room(lambda: _sheet(file.with_suffix(f".{first}.jpg"), frames))

    def finish_run(self, file: Path, request: GenerationRequest, done: Finished, begun: Mp4 | None) -> dict[str, Any]:
        """See `write_run`."""
        return self._with_room(lambda: write_run(file, request, done, begun=begun))

    def write_cell(self, clip: Clip) -> ClipFiles:
        """One clip of a comparison, in all forms in which the page needs it."""
        request = clip.request
        file, marks = self.new_file(request.model_id, request.prompt, request.seed), read_beside(marks_of, clip)
        self._with_room(lambda: write_mp4(file, clip.frames, request.fps, request.settings()))
        sheet = self._with_room(lambda: _sheet(file.with_suffix(".jpg"), clip.frames))
        return ClipFiles(file=file, sheet=sheet, marks=marks.result())

    def write_table(
        self, comparison: Comparison, clips: Sequence[Sequence[Frames]], samples: Sequence[Sample]
    ) -> TableFiles:
        """A whole comparison as one mp4, a row for each request with its label, and its numbers. Rows that are not
        complete are left out. Labels in a picture are English for every reader: the file travels, and the font inside
        Pillow has no Chinese."""
        first = comparison.requests[0]
        file = self.new_file("compare", first.prompt, first.seed)
        made = [row for row, of_row in enumerate(clips) if len(of_row) == len(first.columns)]
        if made:
            rates = [comparison.requests[row].fps for row in made]
            labels = english([comparison.labels[row] for row in made])
            pictures, fps = compose_grid([clips[row] for row in made], english(first.labels), labels, rates)
            write_mp4(file, pictures, fps, comparison.settings(), min_px=1)
        numbers = file.with_suffix(".csv")
        if samples:
            numbers.write_text(numbers_csv(samples), "utf-8-sig", newline="")  # which a spreadsheet knows as UTF-8
        return TableFiles(
            grid=file if made else None,
            numbers=numbers if samples else None,
            mosaics=_write_mosaics(file, samples) if comparison.seeds > 1 else {},
        )

    def delete(self, file: Path) -> None:
        """Remove a clip, with what belongs to it."""
        self._remove(own_name(file))

    def find(self, name: object) -> Path | None:
        """The file of this name, where it is one that is handed out: a clip, its pictures, a table's numbers."""
        if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+\.(mp4|jpg|csv)", name):
            return None
        file = self.path / name
        return file if file.is_file() else None

    def clip(self, name: object) -> Path | None:
        """The mp4 of this name, where it is one of this folder."""
        file = self.find(name)
        return file if file is not None and file.suffix == ".mp4" else None

    def converted(self, name: str, frame: int = 0) -> Path | None:
        """A clip of this folder in another form, made when it is first asked for: `name` is its mp4's with the ending
        .gif, .webp, or .png for one of its frames. None where there is no such clip."""
        found = re.fullmatch(r"([\w.-]+)\.(gif|webp|png)", name)
        source = self.path / f"{found[1]}.mp4" if found else None
        if found is None or source is None or not source.is_file():
            return None
        if found[2] == "png":
            frames, _ = read_mp4(source)
            at = min(max(frame, 0), len(frames) - 1)  # before it names a file: there are no more files than frames
            file = source.with_suffix(f".{at}.png")
            if not file.is_file():
                write_png(file, frames[at], read_settings(source) or {})
            return file
        file = source.with_suffix(f".{found[2]}")
        if not file.is_file():
            write_animation(file, *read_mp4(source), read_settings(source) or {})
        return file

    def close(self) -> None:
        self._folder.cleanup()


class RunFiles:
    """The files of one run. Of a clip that is decoded in parts, its mp4 is encoded while they come, and its frames are
    there as pictures before the clip is. Close it at the end, whatever that is."""

    def __init__(self, folder: OutputFolder, request: GenerationRequest) -> None:
        self._folder, self._request = folder, request
        self._file: Path | None = None
        self._mp4: Mp4 | None = None
        self._budget = Budget()
        self._waiting: list[Frames] = []  # decoded, and not in a picture yet

    @property
    def _own_file(self) -> Path:
        if self._file is None:
            request = self._request
            self._file = self._folder.new_file(request.model_id, request.prompt, request.seed)
        return self._file

    def add(self, part: DecodedFrames) -> tuple[int, Sheet] | None:
        """Take in a part of the clip. Answers a picture of frames of it, and the first of them; None where the time of
        decoding has no room for one, and then they are in the next."""
        if self._mp4 is None:
            self._mp4 = Mp4(self._request.fps)
        self._mp4.add(part.frames)
        self._waiting.append(part.frames)
        if not self._budget.allows(part.seconds):
            return None
        frames = np.concatenate(self._waiting)
        self._waiting.clear()
        first = part.end - len(frames)
        return first, self._budget.take(lambda: self._folder.write_part(self._own_file, first, frames))

    def finish(self, done: Finished) -> tuple[Path, dict[str, Any]]:
        """The mp4 and its settings (`write_run`)."""
        return self._own_file, self._folder.finish_run(self._own_file, self._request, done, self._mp4)

    def close(self) -> None:
        """Let go of what is encoded."""
        if self._mp4 is not None:
            self._mp4.close()


def _sheet(file: Path, frames: Frames) -> Sheet:
    across, size_px = write_sprite(file, frames)
    return Sheet(file=file, across=across, size_px=size_px, count=len(frames))


def _write_mosaics(table: Path, samples: Sequence[Sample]) -> dict[tuple[int, int], Sheet]:
    """The clips of all seeds of each cell, side by side in lines, beside the file of the table."""
    cells: dict[tuple[int, int], list[Frames]] = {}
    for sample in samples:
        cells.setdefault((sample.row, sample.column), []).append(sample.frames)
    return {
        (row, column): _sheet(table.with_name(f"{table.stem}.{row}.{column}.jpg"), tiled(clips))
        for (row, column), clips in cells.items()
    }
