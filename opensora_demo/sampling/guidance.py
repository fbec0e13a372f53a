"""Guidance as a weight per branch.

A guided prediction is a weighted sum of the predictions of its branches (prompt, null or negative prompt, ...), with
weights that sum to one. Classifier-free guidance (Ho & Salimans, 2022) at scale s is u + s (c - u) = s c + (1 - s) u,
so the weights are (s, 1 - s); at scale 1 the null branch weighs nothing and is not computed. Some rules bend the sum
afterwards (`sampling.bends`); `Rule` names them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, assert_never

import torch
from torch import Tensor

from opensora_demo.request.limits import LINEAR_RULES, Rule
from opensora_demo.sampling.bends import (
    APG_LIMIT,
    APG_MOMENTUM,
    FDG_LOW,
    RESCALE,
    cfg_zero,
    coarse,
    limited,
    mambo_g,
    orthogonal_part,
    rescaled,
    tangential,
)

INTERVAL = (0.28, 5.42)  # noise levels sigma / alpha that are guided (Kynkäänniemi et al., 2024, for SDXL)
FULL_STEPS = 10  # an oscillating scale rests before this step (Open-Sora v2.0 opensora/utils/sampling.py:120)
JUMP = 0.25
SKIP_SHARE = 1 / 3  # of the pull, once more away from a left-out layer: 1 at scale 4, as in Hyung et al., 2024

PROMPT, NULL, BLIND, SKIP, WEAK = range(5)
"""The branches: the prompt; the null or negative prompt; that one without the given frames; the prompt with a layer
left out; the prompt, read by a weaker model. A guidance has as many as its rules need, the first ones always."""


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
    `rescaled` that belongs to the oscillating rule (0.7 in 1.3). `shares` of the pull are in force at the steps, all of
    it without them: a curve drawn by hand, 1 + share (s - 1). `full_steps` is where an oscillating scale begins to.
    """

    scales: tuple[float, ...]
    rules: tuple[Rule, ...] = ()
    levels: tuple[float, ...] = ()
    rescale: float = 0.0
    shares: tuple[float, ...] = ()
    full_steps: int = FULL_STEPS
    momentum: dict[int, Tensor] = field(default_factory=dict)  # of APG, by row; begins anew with step 0

    def rule(self, row: int) -> Rule:
        return self.rules[row] if self.rules else "plain"

    def effective(self, step: int) -> tuple[float, ...]:
        scales = (scale_at(s, self.rule(row), step, self.levels, self.full_steps) for row, s in enumerate(self.scales))
        return tuple(drawn(s, self.shares, step) for s in scales)

    def weights(self, step: int) -> Tensor:
        s = torch.tensor(self.effective(step), dtype=torch.float32)
        return _with_more_branches(torch.stack([s, 1 - s], dim=1), s, self.rules)

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
            else:
                guided[at] = self._bent(row, guided[at], c[at].float(), u[at].float(), scale, step, x[at], to_x0)
        return guided

    def _bent(
        self,
        row: int,
        guided: Tensor,
        c: Tensor,
        u: Tensor,
        scale: float,
        step: int,
        x: Tensor,
        to_x0: tuple[float, float],
    ) -> Tensor:
        """The weighted sum `guided` of one row as its rule bends it; all (1, c, t, h, w)."""
        match self.rule(row):
            case "cfg-zero":
                return cfg_zero(c, u, scale)
            case "mambo-g":
                return mambo_g(c, u, scale)
            case "tcfg":
                return tangential(c, u, scale)
            case "fdg":
                return guided - coarse_pull(c, u, scale)
            case "apg":
                a, b = to_x0
                clean, pull = a * x + b * c, b * (c - u)
                if step > 0 and row in self.momentum:
                    pull = pull + APG_MOMENTUM * self.momentum[row]
                self.momentum[row] = pull
                return (clean + (scale - 1) * orthogonal_part(limited(pull, APG_LIMIT), clean) - a * x) / b
            case _:
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


def oscillate(scale: float, step: int, full_steps: int = FULL_STEPS) -> float:
    """The scale itself for the first `full_steps` and every even step after them, 1 in between.

    Source: Open-Sora v1.3 opensora/schedulers/rf/__init__.py, v2.0 opensora/utils/sampling.py (get_oscillation_gs).
    """
    return scale if step < full_steps or step % 2 == 0 else 1.0


def scale_at(scale: float, rule: Rule, step: int, levels: Sequence[float] = (), full_steps: int = FULL_STEPS) -> float:
    """The text scale at a step; `levels` are the steps' noise levels, which the interval needs."""
    match rule:
        case "oscillating":
            return oscillate(scale, step, full_steps)
        case "interval":
            return scale if INTERVAL[0] < levels[step] <= INTERVAL[1] else 1.0
        case "plain" | "rescale" | "apg" | "cfg-zero" | "mambo-g" | "tcfg" | "fdg" | "skip-layer" | "autoguidance":
            return scale
        case unknown:
            assert_never(unknown)


def drawn(scale: float, shares: Sequence[float], step: int) -> float:
    """A scale of which a share of the pull is in force."""
    return 1 + shares[step] * (scale - 1) if shares else scale


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRule:
    """How an image scale changes, in two ways that need nothing of each other: `oscillating` over the steps, as
    `oscillate` says; `spread` over the latent frames, where it is above its low value (`TextImage`). Neither asks how
    the text scale changes. The published settings of 2.0 switch all three on."""

    oscillating: bool = False
    spread: bool = False


def image_rules(rules: Sequence[Rule]) -> tuple[ImageRule, ...]:
    """The demo's choice: where the text scale of a row oscillates, its image scale oscillates and is spread too."""
    return tuple(ImageRule(oscillating=rule == "oscillating", spread=rule == "oscillating") for rule in rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextImage:
    """Text and image guidance of Open-Sora 1.3 and 2.0 with given frames, over the branches c (prompt, frames), u
    (null prompt, frames) and u2 (null prompt, no frames): u2 + i (u - u2) + s (c - u), weights (s, i - s, 1 - i).

    `rules` say how each row's text scale s changes, `image_rules` its image scale i. One that is spread falls over
    `points` from its value to `image_low`, and rises over the latent frames from `image_low` to what it has fallen to:
    frames far from the given one need the push. (Without given frames u and u2 are one call: `ClassifierFree`.)
    Source: Open-Sora v1.3 opensora/schedulers/rf/__init__.py, v2.0 opensora/utils/sampling.py (I2VDenoiser).
    """

    scales: tuple[float, ...]
    image_scale: float
    points: int  # steps + 1 in 2.0, steps in 1.3
    rules: tuple[Rule, ...]
    image_rules: tuple[ImageRule, ...]
    latent_frames: int = 1
    levels: tuple[float, ...] = ()
    image_low: float = 1.0
    shares: tuple[float, ...] = ()
    full_steps: int = FULL_STEPS

    def effective(self, step: int) -> tuple[float, ...]:
        pairs = zip(self.scales, self.rules, strict=True)
        scales = (scale_at(s, rule, step, self.levels, self.full_steps) for s, rule in pairs)
        return tuple(drawn(s, self.shares, step) for s in scales)

    def image(self, row: int, step: int) -> Tensor:
        """The image scale of a row and step, (t') for each latent frame."""
        rule, scale = self.image_rules[row], self.image_scale
        if rule.oscillating:
            scale = oscillate(scale, step, self.full_steps)
        if rule.spread and scale > self.image_low:
            upper = torch.linspace(scale, self.image_low, self.points)[step]
            return torch.linspace(self.image_low, float(upper), self.latent_frames)
        return torch.full((self.latent_frames,), scale)

    def weights(self, step: int) -> Tensor:
        i = torch.stack([self.image(row, step) for row in range(len(self.scales))])  # (rows, t' or 1)
        s = torch.tensor(self.effective(step), dtype=torch.float32)[:, None].expand_as(i)
        weights = _with_more_branches(torch.stack([s, i - s, 1 - i], dim=1), s, self.rules)
        return weights.squeeze(2) if i.shape[1] == 1 else weights

    def needed(self, step: int) -> Tensor:
        wanted = needed(self.weights(step))
        for row, scale in enumerate(self.effective(step)):
            if self.rules[row] == "fdg" and scale != 1:
                wanted[row, : NULL + 1] = True
        return wanted

    def guide(self, predictions: Sequence[Tensor | None], step: int, x: Tensor, to_x0: tuple[float, float]) -> Tensor:
        guided = combine(predictions, self.weights(step))
        c, u = predictions[PROMPT], predictions[NULL]
        for row, scale in enumerate(self.effective(step)):
            if self.rules[row] == "fdg" and scale != 1 and c is not None and u is not None:
                at = slice(row, row + 1)
                guided[at] -= coarse_pull(c[at].float(), u[at].float(), scale)
        return guided


def coarse_pull(c: Tensor, u: Tensor, scale: float) -> Tensor:
    """What frequency-decoupled guidance takes from a weighted sum: of the pull (s - 1) (c - u) on coarse structure all
    but `FDG_LOW`. A pyramid is linear, so that this is guidance of each of its levels at a scale of its own, and the
    same for velocities, noises and clean estimates.

    Source: Sadat et al., "Guidance in the frequency domain enables high-fidelity sampling at low CFG scales" (FDG),
    arXiv 2506.19713, algorithm 2, with two levels and without its projection.
    """
    return (scale - 1) * (1 - FDG_LOW) * coarse(c - u)


def _with_more_branches(weights: Tensor, scale: Tensor, rules: Sequence[Rule]) -> Tensor:
    """Weights (rows, branches, ...) with those of the branches that some rules have besides; `scale` (rows, ...) is the
    text scale. A left-out layer adds share (s - 1) (c - skip) to the guided prediction (Hyung et al., "Spatiotemporal
    skip guidance for enhanced video diffusion sampling", 2024; Stability AI's skip-layer guidance of SD 3.5). A weaker
    model stands in the null branch's place, w + s (c - w) (Karras et al., "Guiding a diffusion model with a bad version
    of itself", 2024)."""
    last = WEAK if "autoguidance" in rules else SKIP if "skip-layer" in rules else weights.shape[1] - 1
    if last < weights.shape[1]:
        return weights
    more = weights.new_zeros(weights.shape[0], last + 1 - weights.shape[1], *weights.shape[2:])
    weights = torch.cat([weights, more], 1)
    for row, rule in enumerate(rules):
        if rule == "skip-layer":
            weights[row, SKIP] = -SKIP_SHARE * (scale[row] - 1)
            weights[row, PROMPT] += SKIP_SHARE * (scale[row] - 1)
        elif rule == "autoguidance":
            weights[row, WEAK], weights[row, NULL] = weights[row, NULL].clone(), 0
    return weights


def guidance_changed(guidance: Guidance, step: int) -> tuple[bool, ...]:
    """Of each row, whether its pull has jumped since the step before: by more than `JUMP` of the stronger of the two.
    (A drawn curve is smooth where it is not steep: a line may join two of its points.)"""
    if step == 0:
        return ()
    pairs = zip(guidance.effective(step), guidance.effective(step - 1), strict=True)
    changed = [abs(now - before) > JUMP * max(abs(now - 1), abs(before - 1)) for now, before in pairs]
    if isinstance(guidance, ClassifierFree):  # the momentum of APG is no function of x and time
        changed = [jump or guidance.rule(row) == "apg" for row, jump in enumerate(changed)]
    return tuple(changed)


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
