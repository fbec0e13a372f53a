"""Guidance as a weight per branch.

A guided prediction is a weighted sum of the predictions of its branches (prompt, null or negative prompt, ...), with
weights that sum to one. Classifier-free guidance (Ho & Salimans, 2022) at scale s is u + s (c - u) = s c + (1 - s) u,
so the weights are (s, 1 - s); at scale 1 the null branch weighs nothing and is not computed. Some rules bend the sum
afterwards; `Rule` names them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, assert_never

import torch
from torch import Tensor

from opensora_demo.types import LINEAR_RULES, Rule

INTERVAL = (0.28, 5.42)  # noise levels sigma / alpha that are guided (Kynkäänniemi et al., 2024, for SDXL)
RESCALE = 0.7  # Lin et al., 2023
APG_MOMENTUM = -0.5  # Sadat et al., 2024, for SDXL
FULL_STEPS = 10  # an oscillating scale rests before this step (Open-Sora v2.0 opensora/utils/sampling.py:120)


class Guidance(Protocol):
    """A rule: how much each branch counts, for each clip compared, at each step."""

    def weights(self, step: int) -> Tensor:
        """(rows, branches), or (rows, branches, t') where latent frames differ; float32; branches sum to one."""
        ...

    def needed(self, step: int) -> Tensor:
        """Boolean (rows, branches): which branches have to be evaluated for which clips."""
        ...

    def guide(self, predictions: Sequence[Tensor | None], step: int, x: Tensor, to_x0: tuple[float, float]) -> Tensor:
        """The guided prediction (rows, c, t, h, w) of the branches' predictions at x, in float32; a prediction p speaks
        of the clean latent a x + b p, where (a, b) is `to_x0`."""
        ...

    def effective(self, step: int) -> tuple[float, ...]:
        """The text scale in force at a step, one for each row."""
        ...


@dataclass(frozen=True, slots=True)
class ClassifierFree:
    """Guidance by the branches (conditional, null): one row for each scale compared, each with its rule.

    `levels` are the noise levels sigma / alpha of the steps, which the interval needs. `rescale` is the share of
    `rescaled` that belongs to the oscillating rule (0.7 in 1.3).
    """

    scales: tuple[float, ...]
    rules: tuple[Rule, ...] = ()
    levels: tuple[float, ...] = ()
    rescale: float = 0.0
    momentum: dict[int, Tensor] = field(default_factory=dict)  # of APG, by row; begins anew with step 0

    def rule(self, row: int) -> Rule:
        return self.rules[row] if self.rules else "plain"

    def effective(self, step: int) -> tuple[float, ...]:
        return tuple(in_force(s, self.rule(row), step, self.levels) for row, s in enumerate(self.scales))

    def weights(self, step: int) -> Tensor:
        s = torch.tensor(self.effective(step), dtype=torch.float32)
        return torch.stack([s, 1 - s], dim=1)

    def needed(self, step: int) -> Tensor:
        wanted = needed(self.weights(step))
        for row, scale in enumerate(self.effective(step)):
            if self._share(row) or (scale != 1 and self.rule(row) not in LINEAR_RULES):
                wanted[row, 0] = True  # also at scale 0: the bend looks at what the prompt says
        return wanted

    def _share(self, row: int) -> float:
        rule = self.rule(row)
        return self.rescale if rule == "oscillating" else RESCALE if rule == "rescale" else 0.0

    def guide(self, predictions: Sequence[Tensor | None], step: int, x: Tensor, to_x0: tuple[float, float]) -> Tensor:
        guided = combine(predictions, self.weights(step))
        c, u = predictions[0], predictions[1] if len(predictions) > 1 else None
        for row, scale in enumerate(self.effective(step)):
            if c is None or u is None:
                continue
            at = slice(row, row + 1)
            if share := self._share(row):
                guided[at] = rescaled(guided[at], c[at].float(), share)
            elif scale == 1:
                continue  # the conditional prediction alone, by any rule
            elif self.rule(row) == "cfg-zero":
                guided[at] = cfg_zero(c[at].float(), u[at].float(), scale)
            elif self.rule(row) == "apg":
                a, b = to_x0
                clean, pull = a * x[at] + b * c[at].float(), b * (c[at].float() - u[at].float())
                if step > 0 and row in self.momentum:
                    pull = pull + APG_MOMENTUM * self.momentum[row]
                self.momentum[row] = pull
                guided[at] = (clean + (scale - 1) * across(pull, clean) - a * x[at]) / b
        return guided


@dataclass(frozen=True, slots=True)
class Unguided:
    """One branch only: a distilled network is told the scale and needs no null branch."""

    scales: tuple[float, ...]

    def weights(self, step: int) -> Tensor:
        return torch.ones(len(self.scales), 1)

    def needed(self, step: int) -> Tensor:
        return torch.ones(len(self.scales), 1, dtype=torch.bool)

    def guide(self, predictions: Sequence[Tensor | None], step: int, x: Tensor, to_x0: tuple[float, float]) -> Tensor:
        return combine(predictions, self.weights(step))

    def effective(self, step: int) -> tuple[float, ...]:
        return self.scales


def oscillate(scale: float, step: int) -> float:
    """The scale itself for the first ten and every even step after them, 1 in between.

    Source: Open-Sora v1.3 opensora/schedulers/rf/__init__.py, v2.0 opensora/utils/sampling.py (get_oscillation_gs).
    """
    return scale if step < FULL_STEPS or step % 2 == 0 else 1.0


def in_force(scale: float, rule: Rule, step: int, levels: Sequence[float] = ()) -> float:
    """The text scale at a step; `levels` are the steps' noise levels, which the interval needs."""
    match rule:
        case "oscillating":
            return oscillate(scale, step)
        case "interval":
            return scale if INTERVAL[0] < levels[step] <= INTERVAL[1] else 1.0
        case "plain" | "rescale" | "apg" | "cfg-zero":
            return scale
        case unknown:
            assert_never(unknown)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextImage:
    """Text and image guidance of Open-Sora 1.3 and 2.0 with given frames, over the branches c (prompt, frames), u
    (null prompt, frames) and u2 (null prompt, no frames): u2 + i (u - u2) + s (c - u), weights (s, i - s, 1 - i).

    Where a row oscillates, so does its image scale, unless `image_rules` say otherwise. With `latent_frames` its image
    scale i besides falls over `points` from its value to `image_low` and rises over the latent frames from `image_low`
    to that value: frames far from the given one need the push. (Without given frames u and u2 are one call:
    `ClassifierFree`.)
    Source: Open-Sora v1.3 opensora/schedulers/rf/__init__.py, v2.0 opensora/utils/sampling.py (I2VDenoiser).
    """

    scales: tuple[float, ...]
    image_scale: float
    points: int  # steps + 1 in 2.0, steps in 1.3
    rules: tuple[Rule, ...]
    image_rules: tuple[Rule, ...] | None = None
    levels: tuple[float, ...] = ()
    latent_frames: int | None = None
    image_low: float = 1.0

    def effective(self, step: int) -> tuple[float, ...]:
        return tuple(in_force(s, rule, step, self.levels) for s, rule in zip(self.scales, self.rules, strict=True))

    def image(self, row: int, step: int) -> Tensor:
        """The image scale of a row and step, (t') for each latent frame."""
        scale, frames = self.image_scale, self.latent_frames or 1
        if (self.image_rules or self.rules)[row] != "oscillating":
            return torch.full((frames,), scale)
        scale = oscillate(scale, step)
        if scale > self.image_low and self.latent_frames is not None:
            upper = torch.linspace(scale, self.image_low, self.points)[step]
            return torch.linspace(self.image_low, float(upper), frames)
        return torch.full((frames,), scale)

    def weights(self, step: int) -> Tensor:
        i = torch.stack([self.image(row, step) for row in range(len(self.scales))])  # (rows, t' or 1)
        s = torch.tensor(self.effective(step), dtype=torch.float32)[:, None].expand_as(i)
        weights = torch.stack([s, i - s, 1 - i], dim=1)
        return weights.squeeze(2) if i.shape[1] == 1 else weights

    def needed(self, step: int) -> Tensor:
        return needed(self.weights(step))

    def guide(self, predictions: Sequence[Tensor | None], step: int, x: Tensor, to_x0: tuple[float, float]) -> Tensor:
        return combine(predictions, self.weights(step))


def jumps(guidance: Guidance, step: int) -> tuple[bool, ...]:
    """Of each row, whether its scale is another than at the step before."""
    if step == 0:
        return ()
    pairs = zip(guidance.effective(step), guidance.effective(step - 1), strict=True)
    return tuple(now != before for now, before in pairs)


def rescaled(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """Draw the spread of a guided prediction back to that of its conditional branch: guidance widens it, which burns
    colours. guided (share std(c) / std(guided) + 1 - share), spreads over all but the rows.

    Source: Lin et al., "Common diffusion noise schedules and sample steps are flawed", 2023, eq. 14-16; Open-Sora 1.3
    with share 0.7 (opensora/schedulers/rf/__init__.py, fix_guidance_flaw).
    """
    axes = list(range(1, guided.ndim))
    ratio = conditional.std(dim=axes, keepdim=True) / guided.std(dim=axes, keepdim=True)
    return guided * (share * ratio + 1 - share)


def cfg_zero(conditional: Tensor, null: Tensor, scale: float) -> Tensor:
    """Guidance from the null branch at its best length: z u + s (c - z u), where z = <c, u> / |u|^2 of each row.

    Source: Fan et al., "CFG-Zero*: improved classifier-free guidance for flow matching models", 2025, without
    its zero first step, which a run of few steps cannot spare.
    """
    axes = tuple(range(1, null.ndim))
    best = (conditional * null).sum(axes, keepdim=True) / null.square().sum(axes, keepdim=True)
    return best * null + scale * (conditional - best * null)


def across(pull: Tensor, clean: Tensor) -> Tensor:
    """The part of a pull that is at right angles to the clean estimate; the part along it only raises contrast.

    Source: Sadat et al., "Eliminating oversaturation and artifacts of high guidance scales in diffusion models" (APG),
    2024, with eta 0; without its limit on the norm, which is a number for one size of latents.
    """
    axes = tuple(range(1, clean.ndim))
    along = (pull * clean).sum(axes, keepdim=True) / clean.square().sum(axes, keepdim=True)
    return pull - along * clean


def flow_levels(times: Sequence[float]) -> tuple[float, ...]:
    """Noise levels sigma / alpha = t / (1 - t) of a flow's times."""
    return tuple(t / (1 - t) if t < 1 else float("inf") for t in times)


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
