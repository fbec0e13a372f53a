"""The one path from a request to clips: a generator of events.

Cancelling is the consumer closing the generator (between two steps or two decoded chunks) or setting `cancel`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from threading import Event as Flag

import numpy as np
import torch
from torch import Tensor

from opensora_demo.bundle import ModelBundle
from opensora_demo.errors import Cancelled, DeviceError, NumericsError
from opensora_demo.families.base import Given
from opensora_demo.memory import PeakMemory
from opensora_demo.preview import look_into
from opensora_demo.types import (
    Clip,
    Decoding,
    Encoded,
    Event,
    Finished,
    Frames,
    GenerationRequest,
    Started,
    StepPreview,
)


def noise_of(bundle: ModelBundle, request: GenerationRequest) -> Callable[[], Tensor]:
    """Draws (1, c, t', h', w') of the request's seed, one after another: first the noise a run starts from, then what
    its sampler adds. Drawn on the CPU, so that they are the same on every device."""
    shape = request.shape
    size = bundle.codec.latent_size(shape.frames, shape.height_px, shape.width_px)
    generator = torch.Generator().manual_seed(request.seed)
    return lambda: torch.randn((1, bundle.codec.latent_channels, *size), generator=generator).to(bundle.device)


def to_video(frames: Frames) -> Tensor:
    """(t, h, w, 3) uint8 -> (1, 3, t, h, w) in [-1, 1]."""
    return torch.from_numpy(np.array(frames)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def _encode(bundle: ModelBundle, picture: Frames | None) -> Tensor | None:
    """A given frame (1, h, w, 3) as a latent (c, 1, h', w'): the posterior's mean, so that a run stays reproducible."""
    if picture is None:
        return None
    return bundle.codec.encode(to_video(picture).to(bundle.device, bundle.codec_dtype))[0].float()


def to_frames(video: Tensor) -> Frames:
    """(3, t, h, w) in [-1, 1] -> (t, h, w, 3) uint8, rounded as Open-Sora's save_sample does."""
    return (
        ((video.float().clamp(-1, 1) + 1) * 127.5 + 0.5)
        .clamp(0, 255)
        .permute(1, 2, 3, 0)
        .to("cpu", torch.uint8)
        .numpy()
    )


def without_copies(frames: Frames, request: GenerationRequest, copies: int) -> Frames:
    """A given frame is encoded alone, but its latent fills a whole group where the codec is not causal: of the group's
    equal frames one is kept, as in Open-Sora 2.0."""
    if len(frames) == 1:
        return frames
    first = copies if request.reference is not None else 0
    last = copies if request.last_frame is not None else 0
    return frames[first : len(frames) - last]


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Nothing may be yielded inside."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        raise DeviceError("the device ran out of memory; try fewer frames or fewer clips at once") from None


@torch.inference_mode()
def generate(
    bundle: ModelBundle, request: GenerationRequest, cancel: Flag | None = None, *, look: bool = False
) -> Iterator[Event]:
    """Run a request: Started, Encoded, a StepPreview for each step, Decoding for each clip, Finished.

    With `look` each StepPreview can say what the step was made of. Raises Cancelled at the next step or chunk after
    `cancel` is set, NumericsError when the output is not finite.
    """

    def check() -> None:
        if cancel is not None and cancel.is_set():
            raise Cancelled("the run was stopped")

    yield Started(request=request)
    check()
    memory = PeakMemory(bundle.device)
    shape, rows = request.shape, len(request.columns)
    seconds = {"text": 0.0, "denoise": 0.0, "decode": 0.0}

    clock = time.perf_counter()
    draw = noise_of(bundle, request)
    noise = draw()
    with _memory_errors():
        if request.reference is not None or request.last_frame is not None:
            bundle.use("decode")
        given = Given(first=_encode(bundle, request.reference), last=_encode(bundle, request.last_frame))
        condition = bundle.family.condition(request, given, (noise.shape[2], noise.shape[3], noise.shape[4]))
    # A family adds words of its own (scores, FPS); nobody typed those.
    typed = f"{request.prompt} {request.negative_prompt}".lower()
    unknown = tuple(word for word in condition.unknown if word.lower() in typed)
    seconds["text"] = time.perf_counter() - clock
    yield Encoded(unknown=unknown, cut_tokens=condition.cut_tokens, seconds=seconds["text"])
    check()

    x = noise.expand(rows, -1, -1, -1, -1)
    clock = time.perf_counter()
    with closing(bundle.family.steps(x, condition, request, draw)) as steps:  # type: ignore[type-var]
        while True:
            with _memory_errors():
                step = next(steps, None)
                previews = () if step is None else tuple(map(bundle.preview, step.x0))
            if step is None:
                break
            x = step.x
            seconds["denoise"] += time.perf_counter() - clock
            yield StepPreview(
                index=step.index,
                total=step.total,
                t=step.t,
                previews=previews,
                guidance=condition.guidance.effective(step.index),
                seconds=seconds["denoise"],
                look=partial(look_into, step, bundle.preview_matrix) if look else None,
            )
            check()
            clock = time.perf_counter()

    clips: list[Clip] = []
    with _memory_errors():
        bundle.use("decode")
    for row in range(rows):
        clock = time.perf_counter()
        chunks: list[Frames] = []
        with _memory_errors():
            for part in bundle.codec.decode_chunks(x[row : row + 1].to(bundle.codec_dtype), shape.frames):
                if not torch.isfinite(part).all():
                    raise NumericsError("the decoded clip is not finite; try another guidance scale or more steps")
                chunks.append(to_frames(part[0]))
                check()
        frames = without_copies(np.concatenate(chunks), request, bundle.codec.copies)
        seconds["decode"] += time.perf_counter() - clock
        clips.append(Clip(frames=frames, request=request.column(row)))
        yield Decoding(done=row + 1, total=rows, clip=clips[-1])
        check()
    yield Finished(clips=tuple(clips), seconds=seconds, unknown=unknown, peak_bytes=memory.read())


def run(bundle: ModelBundle, request: GenerationRequest) -> Finished:
    """The same, for callers that only want the end."""
    for event in generate(bundle, request):
        if isinstance(event, Finished):
            return event
    raise RuntimeError("the pipeline ended without a result")
