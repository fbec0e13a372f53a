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


def oscillate(scale: float, step: int, full_steps: int = FULL_STEPS) -> float:
    """The scale itself for the first `full_steps` and every even step after them, 1 in between.

    Source: Open-Sora v1.3 opensora/schedulers/rf/__init__.py, v2.0 opensora/utils/sampling.py (get_oscillation_gs).
    """
    return scale if step < full_steps or step % 2 == 0 else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TextImage:
    """Text and image guidance of Open-Sora 1.3 and 2.0 over the branches c (prompt, given frames), u (null prompt,
    given frames) and u2 (null prompt, no frames): u2 + i (u - u2) + s (c - u), weights (s, i - s, 1 - i).

    With `latent_frames` the image scale i falls over `points` from its value to `image_low` and rises over the latent
    frames from `image_low` to that value: frames far from the given one need the push. `given` False is text to
    video, where u and u2 are the same network call: weights (s, 1 - s), the image scale drops out.
    Source: Open-Sora v1.3 opensora/schedulers/rf/__init__.py, v2.0 opensora/utils/sampling.py (I2VDenoiser).
    """

    scales: tuple[float, ...]
    image_scale: float
    points: int  # steps + 1 in 2.0, steps in 1.3
    given: bool
    oscillating: bool = True
    oscillating_image: bool = True
    latent_frames: int | None = None
    image_low: float = 1.0
    full_steps: int = FULL_STEPS
    rescale: float = 0.0  # share of `rescaled`, in text to video

    def effective(self, step: int) -> tuple[float, ...]:
        return tuple(oscillate(s, step, self.full_steps) for s in self.scales) if self.oscillating else self.scales

    def image(self, step: int) -> Tensor:
        """The image scale of a step, one for each latent frame or one for all."""
        scale = oscillate(self.image_scale, step, self.full_steps) if self.oscillating_image else self.image_scale
        if scale > self.image_low and self.latent_frames is not None:
            upper = torch.linspace(scale, self.image_low, self.points)[step]
            return torch.linspace(self.image_low, float(upper), self.latent_frames)
        return torch.full((self.latent_frames or 1,), scale)

    def weights(self, step: int) -> Tensor:
        s = torch.tensor(self.effective(step), dtype=torch.float32)
        if not self.given:
            return torch.stack([s, 1 - s], dim=1)
        i = self.image(step)
        rows, frames = s[:, None].expand(-1, len(i)), i[None].expand(len(s), -1)
        weights = torch.stack([rows, frames - rows, 1 - frames], dim=1)  # (rows, 3, t' or 1)
        return weights.squeeze(2) if len(i) == 1 else weights


def rescaled(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """Draw the spread of a guided prediction back to that of its conditional branch: guidance widens it, which burns
    colours. guided (share std(c) / std(guided) + 1 - share), spreads over all but the rows.

    Source: Lin et al., "Common diffusion noise schedules and sample steps are flawed", 2023, eq. 14-16; Open-Sora 1.3
    with share 0.7 (opensora/schedulers/rf/__init__.py, fix_guidance_flaw).
    """
    axes = list(range(1, guided.ndim))
    ratio = conditional.std(dim=axes, keepdim=True) / guided.std(dim=axes, keepdim=True)
    return guided * (share * ratio + 1 - share)


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
