"""The one path from a request to clips: a generator of events.

Cancelling is the consumer closing the generator (between two steps or two decoded chunks) or setting `cancel`, which is
looked at before every block of a network (`nn.abort`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Event as Flag
from typing import assert_never

import numpy as np
import torch
from torch import Tensor

from opensora_demo.errors import Cancelled, NumericsError, OutOfMemory
from opensora_demo.families.base import Conditioning, ConditioningFrames
from opensora_demo.frames import to_frames, to_video
from opensora_demo.memory import PeakMemory, is_out_of_memory, let_go
from opensora_demo.messages import message
from opensora_demo.nn.abort import checking
from opensora_demo.nn.threads import side_by_side, use_all_threads
from opensora_demo.preview import Lazy, decode_step, inspect_step
from opensora_demo.request.events import Clip, DecodedFrames, Decoding, Encoded, Event, Finished, Started, StepPreview
from opensora_demo.request.request import GenerationRequest
from opensora_demo.request.video import Frames
from opensora_demo.runtime.bundle import ModelBundle
from opensora_demo.runtime.precision import precision_of
from opensora_demo.sampling.step import Turn
from opensora_demo.toy.place import with_place
from opensora_demo.toy.prompt_words import unknown_spans


def noise_of(bundle: ModelBundle, request: GenerationRequest) -> Callable[[], Tensor]:
    """Draws (1, c, t', h', w') of the request's seed, one after another: first the noise a run starts from, then what
    its sampler adds. Drawn on the CPU, so that they are the same on every device."""
    shape = request.shape
    size = bundle.codec.latent_size(shape.frames, shape.height_px, shape.width_px)
    generator = torch.Generator().manual_seed(request.seed)
    return lambda: torch.randn((1, bundle.codec.latent_channels, *size), generator=generator).to(bundle.device)


def _latent_of(bundle: ModelBundle, frames: Frames | None) -> Tensor | None:
    return None if frames is None else _encoded(bundle, frames)


def _encoded(bundle: ModelBundle, frames: Frames) -> Tensor:
    """Given frames (t, h, w, 3) as latents (c, t', h', w'): the posterior's mean, so that a run stays reproducible."""
    return bundle.codec.encode(to_video(frames[None]).to(bundle.device, bundle.codec_dtype))[0].float()


def given_latents(bundle: ModelBundle, request: GenerationRequest) -> ConditioningFrames:
    """What the clip begins and ends with, of the request's pictures or its video."""
    if request.video is None:
        return ConditioningFrames(
            first=_latent_of(bundle, request.reference), last=_latent_of(bundle, request.last_frame)
        )
    video, count = request.video, request.video_frames
    match request.video_use:
        case "extend":
            return ConditioningFrames(first=_latent_of(bundle, video[-count:]))
        case "head":
            return ConditioningFrames(first=_latent_of(bundle, video[:count]))
        case "tail":
            return ConditioningFrames(last=_tail(bundle, request, video))
        case other:
            assert_never(other)


def _tail(bundle: ModelBundle, request: GenerationRequest, video: Frames) -> Tensor:
    """The latents (c, n, h', w') that a clip ends with which ends as a video does. Where they do not stand for the same
    frames at the end of a clip as alone, since a codec gives the first frame a latent of its own, a longer part of the
    video is encoded if there is one, and the end of its latents taken."""
    shape, count, codec = request.shape, request.video_frames, bundle.codec
    alone = codec.frame_spans(count, shape.height_px, shape.width_px)
    in_clip = codec.frame_spans(shape.frames, shape.height_px, shape.width_px)[-len(alone) :]
    lengths = [end - first for first, end in alone] == [end - first for first, end in in_clip]
    part = video[-count:] if lengths or len(video) < shape.frames else video[-shape.frames :]
    latent = _latent_of(bundle, part)
    assert latent is not None
    return latent[:, -len(alone) :]


def kept_frames(request: GenerationRequest, copies: int, *, follows: bool = False) -> tuple[int, int]:
    """Which frames [first, end) of those that a run decodes become frames of the clip. A given frame is encoded alone,
    but its latent fills a whole group where the codec is not causal: of the group's equal frames one is kept, as in
    Open-Sora 2.0. Those with which a run goes on from a given video, or from the scene that it `follows`, are there
    already."""
    count = request.shape.frames
    copies = copies if count > 1 else 0
    first = copies if request.reference is not None else 0
    end = count - (copies if request.last_frame is not None else 0)
    return first + (request.video_frames if follows or request.extends else 0), end


class _Film:
    """The frames of one clip, (t, h, w, 3) in one array of their whole number, so that they are in memory once."""

    def __init__(self, request: GenerationRequest, copies: int) -> None:
        """`request` is that of the whole clip; `copies` are the codec's."""
        scenes = [request.scene(index) for index in range(request.scenes)]
        kept = [kept_frames(scene, copies, follows=index > 0) for index, scene in enumerate(scenes)]
        video = request.video if request.extends else None
        self.total = sum(end - first for first, end in kept) + (0 if video is None else len(video))
        self._array: Frames | None = None
        self._end = self._told = 0
        if video is not None:
            self.add(video)

    @property
    def frames(self) -> Frames:
        """Those that are there."""
        assert self._array is not None
        return self._array[: self._end]

    def add(self, frames: Frames) -> None:
        if self._array is None:
            self._array = np.empty((self.total, *frames.shape[1:]), np.uint8)
        self._array[self._end : self._end + len(frames)] = frames
        self._end += len(frames)

    def news(self, column: int, seconds: float) -> DecodedFrames | None:
        """The frames that were added since this was asked, of a clip that is not whole yet."""
        first = self._told
        if first == self._end or self._end == self.total:
            return None
        self._told = self._end
        return DecodedFrames(first=first, frames=self.frames[first:], total=self.total, seconds=seconds, column=column)


def refined(bundle: ModelBundle, request: GenerationRequest, *, follows: bool = False) -> GenerationRequest:
    """The request with a place drawn by the seed in prompts that name none, where that is asked for and no frame shows
    one: none is given, and the run `follows` no other scene."""
    if not bundle.spec.limits.refines or request.refine == "off" or request.given or follows:
        return request

    def placed(prompt: str) -> str:
        unknown = unknown_spans(bundle.spec, prompt)
        return with_place(prompt, request.seed, unknown=unknown, without=request.negative_prompt)

    branch = request.branch
    if branch is not None and branch.prompt is not None:
        branch = replace(branch, prompt=placed(branch.prompt))
    return replace(request, prompt=placed(request.prompt), branch=branch)


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Nothing may be yielded inside."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        let_go(error)
        raise OutOfMemory(message("device.out_of_memory")) from None


def _shown(bundle: ModelBundle, latents: Tensor) -> list[Frames]:
    with _memory_errors():
        return bundle.pictures(latents)


@dataclass(slots=True)
class _Scene:
    """The three parts of a run of the model, of which a clip of several scenes has as many. Each is a generator of
    events that answers what the next one needs. `seconds` are those of all scenes so far."""

    bundle: ModelBundle
    whole: GenerationRequest
    index: int
    cancel: Flag | None
    seconds: dict[str, float]
    unknown: tuple[str, ...] = ()
    reused: list[tuple[bool, ...]] = field(default_factory=list)  # of each step, as `StepPreview` has it
    request: GenerationRequest = field(init=False)  # of this scene alone
    refined: str | None = None

    def __post_init__(self) -> None:
        as_typed = self.whole.scene(self.index)
        self.request = refined(self.bundle, as_typed, follows=self.index > 0)
        if self.request.prompt != as_typed.prompt:
            self.refined = self.request.prompt

    def check(self) -> None:
        if self.cancel is not None and self.cancel.is_set():
            raise Cancelled(message("run.was_stopped"))

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Where the device works, and nothing may be yielded: memory that runs out is said, and a cancelled run ends at
        the next block."""
        with _memory_errors(), checking(self.check):
            yield

    def encode(self, size: tuple[int, int, int], before: _End | None) -> Generator[Event, None, Conditioning]:
        """What the network is told beside the noise, whose latent `size` is (t', h', w'): of the frames `before` it,
        too, which this scene goes on from."""
        bundle, request = self.bundle, self.request
        clock = time.perf_counter()
        with self.computing():
            if request.given or before is not None:
                bundle.prepare("decode")
            given = given_latents(bundle, request)
            if before is not None:
                given = replace(given, first=before.latents(bundle, request.video_frames))
            condition = self._condition(given, size)
        unknown, cut_tokens = condition.unknown, condition.cut_tokens
        if condition.after is not None:
            unknown = tuple(dict.fromkeys((*unknown, *condition.after.unknown)))
            cut_tokens = max(cut_tokens, condition.after.cut_tokens)
        # A family adds words of its own (scores, FPS); nobody typed those.
        both = (request.trunk, request.changed)
        typed = " ".join(f"{part.prompt} {part.negative_prompt}" for part in both).lower()
        self.unknown = tuple(word for word in unknown if word.lower() in typed)
        self.seconds["text"] += time.perf_counter() - clock
        yield Encoded(
            unknown=self.unknown,
            cut_tokens=cut_tokens,
            seconds=self.seconds["text"],
            scene=self.index,
            scenes=self.whole.scenes,
            refined=self.refined,
        )
        self.check()
        return condition

    def _condition(self, given: ConditioningFrames, size: tuple[int, int, int]) -> Conditioning:
        """What holds from the first step on, and from the branch on. A branch that changes nothing is none: what a
        sampler or a rule remembers goes on."""
        family, request = self.bundle.family, self.request
        trunk, branch = request.trunk, request.branch
        if branch is None or (request.changed == trunk and branch.seed is None):
            return family.condition(trunk, given, size)
        after = family.condition(request.changed, given, size)  # first: what the trunk needs is often encoded already
        noise = None if branch.seed is None else noise_of(self.bundle, replace(request, seed=branch.seed))()
        return replace(family.condition(trunk, given, size), turn=Turn(branch.step, noise), after=after)

    def denoise(
        self, x: Tensor, condition: Conditioning, draw: Callable[[], Tensor], look: bool
    ) -> Generator[Event, None, Tensor]:
        """From noise x (rows, c, t', h', w') to clean latents of the same shape; to the estimate of them where the run
        is to stop early."""
        bundle, stop = self.bundle, self.request.stop_step
        clock = time.perf_counter()
        with closing(bundle.family.steps(x, condition, self.request, draw)) as steps:  # type: ignore[type-var]
            while True:
                with self.computing():
                    step = next(steps, None)
                if step is None:
                    return x
                x = step.x
                self.seconds["denoise"] += time.perf_counter() - clock
                cache = condition.at(step.index).cache
                reused = () if cache is None else cache.reused
                self.reused.append(reused)
                yield StepPreview(
                    index=step.index,
                    total=step.total,
                    t=step.t,
                    previews=Lazy(len(step.x0), partial(_shown, bundle, step.x0)),
                    guidance=condition.at(step.index).guidance.effective(step.index),
                    seconds=self.seconds["denoise"],
                    look=partial(inspect_step, step, bundle.preview_matrix) if look else None,
                    noisy=Lazy(1, partial(_shown, bundle, step.start[:1])) if look else (),
                    latent=partial(bundle.mapped, step.x0[0]) if look and bundle.tiny else None,
                    decoded=partial(decode_step, step, bundle.pictures) if look and bundle.tiny else None,
                    scene=self.index,
                    scenes=self.whole.scenes,
                    reused=reused,
                )
                self.check()
                if step.index + 1 == stop:
                    return step.x0
                clock = time.perf_counter()

    def decode(self, x: Tensor, films: Sequence[_Film]) -> Generator[Event, None, None]:
        """The frames of each row of latents x (rows, c, t', h', w'), put behind what its film has. Only the last scene
        makes clips of them."""
        bundle, last = self.bundle, self.index + 1 == self.whole.scenes
        with self.computing():
            bundle.prepare("decode")
        together = 2 * bundle.threads if bundle.threads > 1 else 1
        for at in range(0, len(films), together):
            rows = range(at, min(at + together, len(films)))
            yield from self._decode_rows(x, films, rows)
            for row in rows if last else ():
                clip = Clip(frames=films[row].frames, request=self.whole.column(row))
                yield Decoding(done=row + 1, total=len(x), clip=clip, column=row)
                self.check()

    def _decode_rows(self, x: Tensor, films: Sequence[_Film], rows: range) -> Generator[Event, None, None]:
        """Each part that the codec decodes becomes pictures at once, and its floats are let go of before the next. Rows
        go through it in as many batches as there are threads, side by side."""
        codec, request = self.bundle.codec, self.request
        first, end = kept_frames(request, codec.copies, follows=self.index > 0)
        at, clock = 0, time.perf_counter()
        each = -(-len(rows) // self.bundle.threads)
        batches = [rows[k : k + each] for k in range(0, len(rows), each)]
        with self.computing():
            latents = [x[batch.start : batch.stop].to(self.bundle.codec_dtype) for batch in batches]
            parts = [iter(codec.decode_chunks(z, request.shape.frames)) for z in latents]

        def decode_next(k: int) -> list[Frames] | None:
            part = next(parts[k], None)
            if part is None:
                return None
            if not torch.isfinite(part).all():
                raise NumericsError(message("run.clip_not_finite"))
            return [to_frames(one) for one in part]

        while True:
            with self.computing():
                decoded = side_by_side(decode_next, range(len(batches)))
                of_rows = [frames for batch in decoded if batch is not None for frames in batch]
                if not of_rows:
                    break
                for row, frames in zip(rows, of_rows, strict=True):
                    films[row].add(frames[max(first - at, 0) : max(end - at, 0)])
                at += len(of_rows[0])
                del decoded, of_rows, frames
                self.check()
            self.seconds["decode"] += time.perf_counter() - clock
            for row in rows:
                if (news := films[row].news(row, self.seconds["decode"])) is not None:
                    yield news
                    self.check()
            clock = time.perf_counter()
        self.seconds["decode"] += time.perf_counter() - clock


@dataclass(frozen=True, slots=True)
class _End:
    """What a scene leaves for the next: the frames of each clip so far, and its own latents (rows, c, t', h', w')."""

    frames: tuple[Frames, ...]
    x: Tensor

    def latents(self, bundle: ModelBundle, count: int) -> Tensor:
        """Of the last `count` frames of each clip, (rows, c, n, h', w'), or (c, n, h', w') of a single one."""
        if bundle.family.carries_latents:
            height_px, width_px = self.frames[0].shape[1:3]
            rows = self.x[:, :, -bundle.codec.latent_size(count, height_px, width_px)[0] :]
        else:
            rows = torch.stack([_encoded(bundle, frames[-count:]) for frames in self.frames])
        return rows[0] if len(rows) == 1 else rows


@torch.inference_mode()
def generate(
    bundle: ModelBundle, request: GenerationRequest, cancel: Flag | None = None, *, look: bool = False
) -> Iterator[Event]:
    """Run a request: Started; of each scene Encoded and a StepPreview for each step; of each clip DecodedFrames while
    it is not whole yet, and Decoding; Finished.

    A scene after the first begins with the end of the one before: with what its last `video_frames` frames are encoded
    to, or in 1.3 with its last latent frames themselves. Noise is drawn from one generator, scene after scene, as
    upstream does. With `look` each StepPreview can say what the step was made of. Raises Cancelled at the next block of
    a network after `cancel` is set, NumericsError when the output is not finite.
    """
    yield Started(request=request)
    use_all_threads()
    memory, seconds = PeakMemory(bundle.device), {"text": 0.0, "denoise": 0.0, "decode": 0.0}
    draw, unknown = noise_of(bundle, request), dict[str, None]()
    reused: list[tuple[bool, ...]] = []
    films = [_Film(request, bundle.codec.copies) for _ in request.columns]
    before: _End | None = None
    read: str | None = None
    for index in range(request.scenes):
        scene = _Scene(bundle, request, index, cancel, seconds)
        scene.check()
        noise = draw()
        condition = yield from scene.encode((noise.shape[2], noise.shape[3], noise.shape[4]), before)
        unknown |= dict.fromkeys(scene.unknown)
        read = read or scene.refined
        x = yield from scene.denoise(noise.expand(len(request.columns), -1, -1, -1, -1), condition, draw, look)
        reused += scene.reused
        yield from scene.decode(x, films)
        before = _End(tuple(film.frames for film in films), x)
    clips = tuple(Clip(frames=film.frames, request=request.column(row)) for row, film in enumerate(films))
    yield Finished(
        clips=clips,
        seconds=seconds,
        unknown=tuple(unknown),
        peak_bytes=memory.read(),
        refined=read,
        precision=precision_of(bundle),
        reused=tuple(map(sum, zip(*filter(None, reused), strict=True))),
    )


def run(bundle: ModelBundle, request: GenerationRequest) -> Finished:
    """The same, for callers that only want the end."""
    for event in generate(bundle, request):
        if isinstance(event, Finished):
            return event
    raise RuntimeError("the pipeline ended without a result")
