"""Guidance as a weight per branch.

A guided prediction is a weighted sum of the predictions of its branches (prompt, null or negative prompt, ...), with
weights that sum to one. Classifier-free guidance (Ho & Salimans, 2022) at scale s is u + s (c - u) = s c + (1 - s) u,
so the weights are (s, 1 - s); at scale 1 the null branch weighs nothing and is not computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

FULL_STEPS = 10  # an oscillating scale rests before this step (Open-Sora v2.0 opensora/utils/sampling.py:120)


class Guidance(Protocol):
    """A rule: how much each branch counts, for each clip compared, at each step."""

    def weights(self, step: int) -> Tensor:
        """(rows, branches), or (rows, branches, t') where latent frames differ; float32; branches sum to one."""
        ...

    def effective(self, step: int) -> tuple[float, ...]:
        """The text scale in force at a step, one for each row."""
        ...


@dataclass(frozen=True, slots=True)
class ClassifierFree:
    """Plain guidance; one row of weights (conditional, null) for each scale compared."""

    scales: tuple[float, ...]

    def weights(self, step: int) -> Tensor:
        """(rows, 2) in float32. Plain guidance is the same at every step."""
        s = torch.tensor(self.scales, dtype=torch.float32)
        return torch.stack([s, 1 - s], dim=1)

    def effective(self, step: int) -> tuple[float, ...]:
        return self.scales


@dataclass(frozen=True, slots=True)
class Unguided:
    """One branch only: a distilled network is told the scale and needs no null branch."""

    scales: tuple[float, ...]

    def weights(self, step: int) -> Tensor:
        return torch.ones(len(self.scales), 1)

    def effective(self, step: int) -> tuple[float, ...]:
        return self.scales


def oscillate(scale: float, step: int) -> float:
    """The scale itself for the first ten steps and every even one after them, 1 in between.

    Source: Open-Sora v2.0 opensora/utils/sampling.py (get_oscillation_gs).
    """
    return scale if step < FULL_STEPS or step % 2 == 0 else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TextImage:
    """Text and image guidance of Open-Sora 2.0 over the branches c (prompt, given frames), u (null prompt, given
    frames) and u2 (null prompt, no frames): u2 + i (u - u2) + s (c - u), weights (s, i - s, 1 - i).

    With `latent_frames` the image scale i falls over the steps from its value to 1 and rises over the latent frames
    from 1 to that value: frames far from the given one need the push. `given` False is text to video, where u and u2
    are the same network call: weights (s, 1 - s), the image scale drops out.
    Source: Open-Sora v2.0 opensora/utils/sampling.py (I2VDenoiser).
    """

    scales: tuple[float, ...]
    image_scale: float
    steps: int
    given: bool
    oscillating: bool = True
    latent_frames: int | None = None

    def effective(self, step: int) -> tuple[float, ...]:
        return tuple(oscillate(s, step) for s in self.scales) if self.oscillating else self.scales

    def image(self, step: int) -> Tensor:
        """The image scale of a step, one for each latent frame or one for all."""
        scale = oscillate(self.image_scale, step) if self.oscillating else self.image_scale
        if scale > 1 and self.latent_frames is not None:
            upper = torch.linspace(scale, 1.0, self.steps + 1)[step]
            return torch.linspace(1.0, float(upper), self.latent_frames)
        return torch.full((self.latent_frames or 1,), scale)

    def weights(self, step: int) -> Tensor:
        s = torch.tensor(self.effective(step), dtype=torch.float32)
        if not self.given:
            return torch.stack([s, 1 - s], dim=1)
        i = self.image(step)
        rows, frames = s[:, None].expand(-1, len(i)), i[None].expand(len(s), -1)
        weights = torch.stack([rows, frames - rows, 1 - frames], dim=1)  # (rows, 3, t' or 1)
        return weights.squeeze(2) if len(i) == 1 else weights


def needed(weights: Tensor) -> Tensor:
    """Which (row, branch) pairs have to be evaluated: those whose weight is not zero, at any frame."""
    return weights != 0 if weights.ndim == 2 else (weights != 0).any(2)


def combine(predictions: Sequence[Tensor | None], weights: Tensor) -> Tensor:
    """Weighted sum over branches, in float32: predictions[k] is (rows, c, t, h, w) or None where no row needs branch k.

    weights (rows, branches) or (rows, branches, t) -> (rows, c, t, h, w).
    """
    out: Tensor | None = None
    for k, prediction in enumerate(predictions):
        if prediction is None:
            continue
        w = weights[:, k].to(prediction.device)
        w = w.view(-1, *[1] * (prediction.ndim - 1)) if w.ndim == 1 else w[:, None, :, None, None]
        out = w * prediction.float() if out is None else torch.addcmul(out, w, prediction.float())
    if out is None:
        raise ValueError("no branch was evaluated")
    return out
