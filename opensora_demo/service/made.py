"""Clips that were made before are not made again: a comparison that differs in one scale from an earlier one takes the
time of one clip.

A clip is found by all that decides about it, the bytes of given frames too. (The same clip made in a batch of another
size differs by rounding, 1e-6 of its latents.)
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from opensora_demo.preview import Lazy
from opensora_demo.request.events import Clip, DecodedFrames, Decoding, Encoded, Finished, Started, StepPreview
from opensora_demo.request.request import GenerationRequest
from opensora_demo.request.video import Frames
from opensora_demo.service.engine import Engine, Job, RunEvent, State
from opensora_demo.service.folders import process_folder

log = logging.getLogger(__name__)
KEEP_BYTES = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A denoising step of one clip: its place among all steps of the run, its time t, the guidance that was in force,
    and the picture (t', h', w', 3) of its estimate."""

    place: int
    t: float
    guidance: float
    picture: Frames


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A clip, the steps on its way that somebody looked at, and what was read of its prompt."""

    frames: Frames
    steps: tuple[Step, ...]
    encoded: Encoded | None


def fingerprint(request: GenerationRequest) -> str:
    """Equal for requests that make equal clips. Given frames count by their bytes, everything else by its text."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, np.ndarray):
            digest.update(f"{value.dtype}{value.shape}".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
        elif is_dataclass(value):
            for part in fields(value):
                digest.update(part.name.encode())
                add(getattr(value, part.name))
        else:
            digest.update(repr(value).encode())
        digest.update(b"\0")

    add(request)
    return digest.hexdigest()


class MadeClips:
    """The clips of the last comparisons, on disk, as long as they take no more than `keep_bytes`; they go with the
    process. Safe to use from several threads."""

    def __init__(self, keep_bytes: int = KEEP_BYTES) -> None:
        self.keep_bytes = keep_bytes
        self._lock = threading.Lock()
        self._files: OrderedDict[str, tuple[Path, Encoded | None, int]] = OrderedDict()  # least recently used first
        self._folder: Path | None = None

    def submit(
        self,
        engine: Engine,
        request: GenerationRequest,
        owner: str | None = None,
        *,
        pictures: bool = True,
        job_id: str | None = None,
    ) -> Job[RunEvent]:
        """A run of the clips of a request that were not made before, and of the others all that was seen when they
        were. With `pictures` a clip whose steps nobody looked at counts as not made. `job_id` names a job of the whole
        request (`Engine.submit`): a part of it is no job that another process would ask for."""
        found = {
            column: made
            for column in range(len(request.columns))
            if (made := self.find(request.column(column))) is not None
            and (made.steps or not pictures or engine.blind is not None)
        }
        if not found:
            return _Recorded(engine.submit(request, owner, job_id=job_id), self)
        missing = [pair for column, pair in enumerate(request.columns) if column not in found]
        rules = tuple(rule for rule in request.rules if rule in {rule for _, rule in missing})
        scales = tuple(scale for scale in request.guidance if scale in {scale for scale, _ in missing})
        if not rules:
            return _Replayed(None, request, found)
        part = replace(request, guidance=scales, rules=rules)  # all pairs of these, some of which may be found
        own = set(part.columns)
        found = {column: made for column, made in found.items() if request.columns[column] not in own}
        return _Replayed(_Recorded(engine.submit(part, owner), self), request, found)

    def find(self, request: GenerationRequest) -> Made | None:
        """The clip of a request for one, if it is here."""
        key = fingerprint(request)
        with self._lock:
            if key not in self._files:
                return None
            self._files.move_to_end(key)
            file, encoded, _ = self._files[key]
            try:
                with np.load(file) as arrays:
                    numbers = arrays["numbers"]
                    steps = tuple(
                        Step(place=int(place), t=float(t), guidance=float(guidance), picture=arrays[f"step{i}"])
                        for i, (place, t, guidance) in enumerate(numbers)
                    )
                    return Made(frames=arrays["frames"], steps=steps, encoded=encoded)
            except (OSError, ValueError, KeyError) as error:  # somebody has cleaned up
                log.warning("a clip that was made before cannot be read: %s", error)
                del self._files[key]
                return None

    def keep(self, request: GenerationRequest, made: Made) -> None:
        """Where the disk has no room the clip is made again some day."""
        numbers = np.array([(step.place, step.t, step.guidance) for step in made.steps], np.float64).reshape(-1, 3)
        pictures = {f"step{i}": step.picture for i, step in enumerate(made.steps)}
        key = fingerprint(request)
        with self._lock:
            try:
                if self._folder is None or not self._folder.is_dir():
                    self._folder = Path(tempfile.mkdtemp(prefix="made-", dir=process_folder()))
                file = self._folder / f"{key}.npz"
                np.savez(file, allow_pickle=False, frames=made.frames, numbers=numbers, **pictures)
                self._files[key] = file, made.encoded, file.stat().st_size
            except OSError as error:
                log.warning("a clip could not be kept for the next comparison: %s", error)
                return
            self._files.move_to_end(key)
            while sum(size for _, _, size in self._files.values()) > self.keep_bytes:
                _, (old, _, _) = self._files.popitem(last=False)
                old.unlink(missing_ok=True)


class _Recorded:
    """A job whose clips are kept on their way. See `engine.Job`."""

    def __init__(self, job: Job[RunEvent], made: MadeClips) -> None:
        self._job, self._made = job, made

    @property
    def id(self) -> str:
        return self._job.id

    @property
    def state(self) -> State:
        return self._job.state

    @property
    def place(self) -> int:
        return self._job.place

    def cancel(self) -> bool:
        return self._job.cancel()

    def events(self) -> Iterator[RunEvent]:
        encoded: Encoded | None = None
        steps: list[list[Step]] = []
        with closing(self._job.events()) as events:  # type: ignore[type-var]
            for event in events:
                if isinstance(event, Decoding):
                    own_steps = tuple(steps[event.column]) if steps else ()
                    made = Made(frames=event.clip.frames, steps=own_steps, encoded=encoded)
                    self._made.keep(event.clip.request, made)
                yield event
                if isinstance(event, Encoded):
                    encoded = encoded or event
                elif isinstance(event, StepPreview) and _seen(event.previews):
                    steps = steps or [[] for _ in event.previews]
                    for own, guidance, picture in zip(steps, event.guidance, event.previews, strict=True):
                        own.append(Step(place=event.place, t=event.t, guidance=guidance, picture=picture))


def _seen(pictures: Sequence[Frames]) -> bool:
    """Whether there are any, and they have been made."""
    return bool(pictures) and (not isinstance(pictures, Lazy) or pictures.made)


@dataclass(slots=True)
class _Replayed:
    """A job that makes a part of the clips of a request, None of them where all are `found` (by their column). See
    `engine.Job`."""

    part: Job[RunEvent] | None
    request: GenerationRequest
    found: Mapping[int, Made]
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    _over: bool = False

    @property
    def state(self) -> State:
        return self.part.state if self.part is not None else "done" if self._over else "running"

    @property
    def place(self) -> int:
        return 0 if self.part is None else self.part.place

    def cancel(self) -> bool:
        return self.part is not None and self.part.cancel()

    def events(self) -> Iterator[RunEvent]:
        yield Started(request=self.request)
        clips = {
            column: Clip(frames=made.frames, request=self.request.column(column)) for column, made in self.found.items()
        }
        for done, (column, clip) in enumerate(clips.items(), start=1):
            yield Decoding(done=done, total=len(self.request.columns), clip=clip, column=column, again=True)
        if self.part is not None:
            yield from self._missing(self.part, clips)
            return
        yield from self._steps()
        read = next(iter(self.found.values())).encoded
        self._over = True
        yield Finished(
            clips=tuple(clips[column] for column in sorted(clips)),
            seconds={},
            unknown=() if read is None else read.unknown,
            refined=None if read is None else read.refined,
        )

    def _steps(self) -> Iterator[RunEvent]:
        """Every clip is found: what was seen on its way."""
        kept = [self.found[column] for column in sorted(self.found)]
        if kept[0].encoded is not None:
            yield kept[0].encoded
        for steps in zip(*(made.steps for made in kept), strict=False):
            yield StepPreview(
                index=steps[0].place % self.request.steps,
                total=self.request.steps,
                t=steps[0].t,
                previews=[step.picture for step in steps],
                guidance=tuple(step.guidance for step in steps),
                seconds=0.0,
                scene=steps[0].place // self.request.steps,
                scenes=self.request.scenes,
            )

    def _missing(self, part: Job[RunEvent], clips: dict[int, Clip]) -> Iterator[RunEvent]:
        """The events of the run of the other clips, as of a run of all of them."""
        columns = self.request.columns
        new = [column for column in range(len(columns)) if column not in self.found]
        steps = {column: {step.place: step for step in made.steps} for column, made in self.found.items()}
        with closing(part.events()) as events:  # type: ignore[type-var]
            for event in events:
                match event:
                    case Started():
                        pass  # said before
                    case StepPreview(guidance=guidance):
                        in_force = dict(zip(new, guidance, strict=False))  # another server says nothing of it
                        in_force |= {c: of[event.place].guidance for c, of in steps.items() if event.place in of}
                        yield replace(
                            event,
                            previews=_merged(event, new, steps) if event.previews else (),
                            guidance=tuple(in_force.get(column, columns[column][0]) for column in range(len(columns))),
                        )
                    case DecodedFrames(column=column):
                        yield replace(event, column=new[column])
                    case Decoding(clip=clip, column=column):
                        clips[new[column]] = clip
                        yield replace(event, done=len(clips), total=len(columns), column=new[column])
                    case Finished():
                        yield replace(event, clips=tuple(clips[column] for column in sorted(clips)))
                    case _:
                        yield event


def _merged(event: StepPreview, new: Sequence[int], steps: Mapping[int, Mapping[int, Step]]) -> Sequence[Frames]:
    """One picture for every column: those of the run that goes on, made when one is looked at, and those that are kept
    (the nearest before, where the very step is not among them)."""

    def picture(column: int) -> Frames:
        if column in new:
            return event.previews[new.index(column)]
        of = steps[column]
        before = [place for place in of if place <= event.place]
        return of[max(before) if before else min(of)].picture if of else np.zeros_like(event.previews[0])

    return Lazy(len(new) + len(steps), lambda: [picture(column) for column in range(len(new) + len(steps))])
