"""What a run says while it works. Events are frozen and carry CPU numpy, so that none keeps a device's memory.

The exceptions are the pictures of `StepPreview`, which are made when somebody looks at them: they hold the step's
tensors on the device until then, or until they are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from opensora_demo.request.request import GenerationRequest
from opensora_demo.request.video import Frames

Shown = Literal["noisy", "estimate", "prompt", "null"]
"""Latents inside a step: what it began with, and the clean ones that guidance and each branch speak of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The run has begun; nothing has been computed yet."""

    request: GenerationRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """The prompt of a scene has been read. `unknown` words are not in the model's vocabulary; `refined` is what was
    read in place of a prompt that names no place."""

    unknown: tuple[str, ...]
    cut_tokens: int
    seconds: float
    scene: int = 0  # which of how many
    scenes: int = 1
    refined: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInspection:
    """Inside one step, for the first clip. Pictures are (t', h', w', 3), in the colours of the preview; those of large
    latents are reduced (`preview.look_sizes`). `size` is the latent's own (h', w').

    noisy: the latent before the step; estimate: the x0 that guidance arrived at; prompt and null: the x0 that each
    branch speaks of, None where it was not evaluated; difference: how far these two are apart (RMS over channels),
    black to white at `peak`, which is the largest at any latent position; channels (c, t', h', w'): each channel of the
    estimate in grey, from -3 to 3 standard deviations. The norms are RMS of what the network predicted, `cosine` is
    between its two branches, and `applied` is the scale s at which u + s (c - u) comes nearest to the guided
    prediction; they are None without the branches they speak of.
    """

    size: tuple[int, int]
    noisy: Frames
    estimate: Frames
    prompt: Frames | None
    null: Frames | None
    difference: Frames | None
    peak: float | None
    channels: NDArray[np.uint8]
    prompt_norm: float | None
    null_norm: float | None
    difference_norm: float | None
    cosine: float | None
    applied: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPreview:
    """One denoising step is done, `index` of the `total` of its scene. `previews` holds one (t', h', w', 3) picture of
    the x0 estimate for each clip, made when one of them is first looked at.

    Where `look` was asked for it computes what the step was made of when it is called; `noisy` shows the first clip
    before the step, as `previews` show the estimate; and of a model with a small decoder `latent` is the estimate, a
    square for each position, and `decoded` shows all that the look is about. They hold the step's tensors.
    """

    index: int
    total: int
    t: float
    previews: Sequence[Frames]
    guidance: tuple[float, ...]  # effective at this step, one for each clip
    seconds: float  # of denoising so far
    look: Callable[[], StepInspection] | None = None
    noisy: Sequence[Frames] = ()
    latent: Callable[[], Frames] | None = None
    decoded: Callable[[], Mapping[Shown, Frames]] | None = None
    scene: int = 0
    scenes: int = 1
    reused: tuple[bool, ...] = ()  # of each clip, whether the prediction is that of the step before; empty: none is

    @property
    def place(self) -> int:
        """Which of all steps of the run it is, from 0."""
        return self.scene * self.total + self.index

    @property
    def of_all(self) -> int:
        """Steps of all scenes."""
        return self.scenes * self.total


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One finished clip and the request that makes exactly it."""

    frames: Frames
    request: GenerationRequest

    @property
    def own_frames(self) -> Frames:
        """Those that the model was at work on last: of a clip that extends a video, or has scenes, what was kept for
        it and the new ones."""
        return self.frames[-self.request.shape.frames :]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedFrames:
    """The frames [first, first + len(frames)) of a clip that is not whole yet, uint8 (n, h, w, 3), of the one in this
    `column` of a comparison; `total` are the frames that it will have. Those of a video that a clip extends are the
    first. Parts come in order and without a gap; the frames that make the clip whole come with its `Decoding` alone, so
    that a clip which is decoded in one part has no such event."""

    first: int
    frames: Frames
    total: int
    seconds: float  # of decoding so far
    column: int = 0

    @property
    def end(self) -> int:
        """How many frames of the clip are there now."""
        return self.first + len(self.frames)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """`done` of `total` clips are there, last this one, which stands in this `column` of a comparison; `again` says
    that it was made before (`service.made`)."""

    done: int
    total: int
    clip: Clip
    column: int = 0
    again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    clips: tuple[Clip, ...]
    seconds: Mapping[str, float]  # per stage: text, denoise, decode
    unknown: tuple[str, ...]
    peak_bytes: int | None = None  # the most memory that was in use meanwhile (`memory.PeakMemory`)
    refined: str | None = None  # as `Encoded` has it; only a first scene's can be
    precision: Mapping[str, str] | None = None  # the numbers that network and codec computed in, as torch names them
    reused: tuple[int, ...] = ()  # of each clip, how many steps took the prediction of the step before; empty: none did


Stage = Literal["text", "denoise", "decode"]


"""What a run does, one after the other."""


Event = Started | Encoded | StepPreview | DecodedFrames | Decoding | Finished
