"""Events of a run -> the JSON the latent scope draws. Pure: no Gradio, no clock, no files.

A step that is in the list never changes again, for Gradio sends only the difference between two values. Each step
carries two images: `p` has a row for each quantity named in `q` and a column for each latent frame, `k` a row for each
latent channel. The browser cuts them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from opensora_demo.media import sheet
from opensora_demo.preview import LOSSLESS_PX
from opensora_demo.types import GenerationRequest, Look, StepPreview
from opensora_demo.ui.runs import RunEvent

View = dict[str, Any]
WAITING = 8  # steps that are folded together, at most
WAIT_S = 0.15  # of denoising that the scope may be behind


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def fold_step(event: StepPreview, look: Look, before_s: float = 0.0) -> View:
    """One step of a run, `before_s` seconds of denoising after its start, and the look of its event.

    i: from 1; t: noise level; ms: of denoising; g: the guidance scale in force and a: the one that was measured; n: RMS
    of prompt branch, null branch and their difference; cos: between the branches; peak: of the difference's picture;
    q: which pictures there are, of x (noisy), e (estimate), c (prompt), u (null), d (difference); p, k: data URIs.
    """
    named = {"x": look.noisy, "e": look.estimate, "c": look.prompt, "u": look.null, "d": look.difference}
    own = event.previews[0].shape[1:3]  # reduced pictures need not be exact

    def lossless(size: tuple[int, ...]) -> bool:
        return size == own and size[0] * size[1] <= LOSSLESS_PX

    shown = {letter: frames for letter, frames in named.items() if frames is not None}
    return {
        "i": event.index + 1,
        "t": round(event.t, 4),
        "ms": round((event.seconds - before_s) * 1000, 1),
        "g": round(event.guidance[0], 3),
        "a": _rounded(look.applied, 3),
        "n": [_rounded(n, 4) for n in (look.prompt_norm, look.null_norm, look.difference_norm)],
        "cos": _rounded(look.cosine, 5),
        "peak": _rounded(look.peak, 3),
        "q": "".join(shown),
        "p": sheet(np.stack(list(shown.values())), lossless=lossless(look.noisy.shape[1:3])),
        "k": sheet(look.channels, lossless=lossless(look.channels.shape[2:])),
    }


class ScopeView:
    """Folds the events of one run into the value of the scope, quick steps several at a time: in a row they cost less.

    latent and channels are counts and 0 before the first step; aspect is width over height of a picture; seconds is how
    long the clip lasts, which is what playing its latent frames takes.
    """

    def __init__(self, run: int, request: GenerationRequest) -> None:
        shape = request.shape
        self._steps: list[View] = []
        self._waiting: list[StepPreview] = []
        self._before_s = 0.0  # when the last folded step ended
        self._view: View = {
            "run": run,
            "prompt": request.prompt,
            "total": request.steps,
            "latent": 0,
            "channels": 0,
            "aspect": round(shape.width_px / shape.height_px, 4),
            "seconds": round(shape.frames / request.fps, 3),
        }

    def add(self, event: RunEvent) -> None:
        """Take in one event; those without a look say nothing here."""
        if not isinstance(event, StepPreview) or event.look is None:
            return
        self._waiting.append(event)
        if len(self._waiting) == WAITING or event.seconds - self._before_s >= WAIT_S:
            self._fold()

    def _fold(self) -> None:
        for event in self._waiting:
            assert event.look is not None
            look = event.look()
            self._steps.append(fold_step(event, look, self._before_s))
            self._before_s = event.seconds
            channels, latent = look.channels.shape[:2]
            self._view |= {"total": event.total, "latent": latent, "channels": channels}
        self._waiting.clear()

    def value(self, *, done: bool) -> View:
        """What the scope draws now; `done` once the run is over, whichever way: with every step."""
        if done:
            self._fold()
        return {**self._view, "done": done, "steps": list(self._steps)}
