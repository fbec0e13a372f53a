"""Events of a run -> the JSON the latent scope draws. Pure: no Gradio, no clock, no files.

A step that is in the list never changes again, for Gradio sends only the difference between two values. Each step
carries two images, with a column for each latent frame: `pictures` has a row for each of `quantities`, `channels` one
for each latent channel. The browser cuts them.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

import numpy as np

from opensora_demo.media import jpeg_strip, sheet
from opensora_demo.preview import LOSSLESS_PX, Budget, shown_frames
from opensora_demo.request.events import Finished, StepInspection, StepPreview
from opensora_demo.request.request import GenerationRequest
from opensora_demo.request.video import Frames
from opensora_demo.service.engine import RunEvent

WAITING = 8  # steps that are folded together, at most
CLIP_PX = 96  # high is a frame of the finished clip
WAIT_S = 0.15  # of denoising that the scope may be behind
Quantity = Literal["noisy", "estimate", "prompt", "null", "difference"]


class BranchSizes(TypedDict):
    """RMS of the predictions of both branches and of their difference; None where one was not evaluated."""

    prompt: float | None
    null: float | None
    difference: float | None


class ScopeStep(TypedDict):
    """One step of a run.

    index: from 1; noise_level: 1..0; milliseconds: of denoising; guidance_asked: the scale in force; guidance_measured:
    what the result comes to; cosine: between the branches; peak: of the difference's picture, in units of the latent;
    quantities: what `pictures` shows, row by row, its latent frames side by side; channels: the same of every channel
    of the guided estimate. Pictures are data URIs. reused: the prediction is that of the step before.
    """

    index: int
    noise_level: float
    milliseconds: float
    guidance_asked: float
    guidance_measured: float | None
    sizes: BranchSizes
    cosine: float | None
    peak: float | None
    quantities: list[Quantity]
    pictures: str
    channels: str
    reused: NotRequired[bool]


class _Reused(TypedDict, total=False):
    reused: bool


class DecodedValue(TypedDict):
    """A step (`index` from 1) once more, decoded: a JPEG as data URI with a row for each of `quantities`, its latent
    frames side by side."""

    index: int
    quantities: list[Quantity]
    pictures: str


class ScopeValue(TypedDict):
    """latent and channels are counts and 0 before the first step; aspect is width over height of a picture; seconds is
    how long the clip lasts, which is what playing its latent frames takes; done: the run is over.

    decoded: of a model with a small decoder, in the order in which they were made; a quick run has most of them at its
    end. clip: a JPEG as data URI, a frame of the finished clip for each latent frame. stored: it was made with the
    demo, and not for this visitor.
    """

    run: int
    prompt: str
    total: int
    latent: int
    channels: int
    aspect: float
    seconds: float
    done: bool
    steps: list[ScopeStep]
    decoded: list[DecodedValue]
    clip: str | None
    stored: NotRequired[bool]


def clip_strip(frames: Frames, latent: int) -> str:
    """Of a finished clip the frame that each latent frame ends with, side by side as a JPEG: a data URI."""
    return jpeg_strip(frames[shown_frames(len(frames), latent)], CLIP_PX)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def fold_step(event: StepPreview, look: StepInspection, before_s: float = 0.0) -> ScopeStep:
    """One step of a run, `before_s` seconds of denoising after its start, and the look of its event."""
    of_all: dict[Quantity, Frames | None] = {
        "noisy": look.noisy,
        "estimate": look.estimate,
        "prompt": look.prompt,
        "null": look.null,
        "difference": look.difference,
    }
    shown = {name: frames for name, frames in of_all.items() if frames is not None}

    def lossless(size: tuple[int, ...]) -> bool:
        return size == look.size and size[0] * size[1] <= LOSSLESS_PX  # reduced pictures need not be exact

    return {
        "index": event.place + 1,
        "noise_level": round(event.t, 4),
        "milliseconds": round((event.seconds - before_s) * 1000, 1),
        "guidance_asked": round(event.guidance[0], 3),
        "guidance_measured": _rounded(look.applied, 3),
        "sizes": {
            "prompt": _rounded(look.prompt_norm, 4),
            "null": _rounded(look.null_norm, 4),
            "difference": _rounded(look.difference_norm, 4),
        },
        "cosine": _rounded(look.cosine, 5),
        "peak": _rounded(look.peak, 3),
        "quantities": list(shown),
        "pictures": sheet(np.stack(list(shown.values())), lossless=lossless(look.noisy.shape[1:3])),
        "channels": sheet(look.channels, lossless=lossless(look.channels.shape[2:])),
        **_reused(event),
    }


def _reused(event: StepPreview) -> _Reused:
    return {"reused": True} if event.reused[:1] == (True,) else {}


class ScopeView:
    """Folds the events of one run into the value of the scope, quick steps several at a time: that costs less."""

    def __init__(self, run: int, request: GenerationRequest) -> None:
        shape = request.shape
        self._waiting: list[StepPreview] = []
        self._before_s = 0.0  # when the last folded step ended
        self._value: ScopeValue = {
            "run": run,
            "prompt": request.prompt,
            "total": request.steps * request.scenes,
            "latent": 0,
            "channels": 0,
            "aspect": round(shape.width_px / shape.height_px, 4),
            "seconds": round(shape.frames / request.fps, 3),
            "done": False,
            "steps": [],
            "decoded": [],
            "clip": None,
        }
        self._budget = Budget()
        self._undecoded: list[StepPreview] = []

    def add(self, event: RunEvent) -> None:
        """Take in one event; steps without a look say nothing here."""
        if isinstance(event, Finished):
            self._fold()
        if isinstance(event, Finished) and self._value["steps"]:
            self._value["clip"] = clip_strip(event.clips[0].own_frames, self._value["latent"])
        if not isinstance(event, StepPreview) or event.look is None:
            return
        self._waiting.append(event)
        if len(self._waiting) == WAITING or event.seconds - self._before_s >= WAIT_S:
            self._fold()

    def _fold(self) -> None:
        value = self._value
        for event in self._waiting:
            assert event.look is not None
            look = event.look()
            value["steps"].append(fold_step(event, look, self._before_s))
            self._before_s = event.seconds
            value["channels"], value["latent"] = look.channels.shape[:2]
            value["total"] = event.of_all
            if event.decoded is not None:
                self._undecoded.append(event)
                if self._budget.allows(event.seconds):
                    self._budget.take(self._decode)
        self._waiting.clear()

    def _decode(self) -> None:
        """The oldest step that was left."""
        event = self._undecoded.pop(0)
        assert event.decoded is not None
        shown = event.decoded()
        pictures = sheet(np.stack(list(shown.values())), lossless=False)
        self._value["decoded"].append({"index": event.place + 1, "quantities": list(shown), "pictures": pictures})

    def value(self, *, done: bool) -> ScopeValue:
        """What the scope draws now; `done` once the run is over, whichever way: with every step."""
        if done:
            self._fold()
            while self._undecoded:
                self._decode()
        value = self._value
        return {**value, "done": done, "steps": list(value["steps"]), "decoded": list(value["decoded"])}
