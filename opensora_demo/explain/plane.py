"""Runs and predictions drawn on a plane: the way from noise to data, and the two directions that guidance mixes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from opensora_demo.sampling.step import Step


@dataclass(frozen=True, slots=True)
class Path:
    """A run on the plane through its noise (0, 0) and its result (1, 0): first coordinate along the straight line
    between them, second across it, in the direction in which the run strays most; both in lengths of that line.

    points (steps + 1, 2): x before each step and at the end; estimates (steps, 2): the x0 each step speaks of.
    captured: the share of the squared distance from the line that lies in the plane; length: of the way, 1 if straight.
    """

    points: Tensor
    estimates: Tensor
    captured: float
    length: float


def path_of(xs: Sequence[Tensor], estimates: Sequence[Tensor]) -> Path:
    """xs: the latent before every step, and the result last; estimates: one x0 a step. All of one shape."""
    points = torch.stack([x.flatten().double() for x in xs])
    guesses = torch.stack([x.flatten().double() for x in estimates])
    noise, line = points[0], points[-1] - points[0]
    length = line.norm().clamp(min=1e-12)
    along = line / length
    rest = points - noise
    rest = rest - (rest @ along)[:, None] * along
    strayed = rest.square().sum()
    across = (
        torch.linalg.svd(rest, full_matrices=False).Vh[0] if strayed > 1e-12 * length**2 else torch.zeros_like(line)
    )
    if (rest @ across).sum() < 0:
        across = -across
    axes = torch.stack([along, across], dim=1)
    steps = (points[1:] - points[:-1]).norm(dim=1).sum()
    return Path(
        points=((points - noise) @ axes / length).float(),
        estimates=((guesses - noise) @ axes / length).float(),
        captured=float((rest @ across).square().sum() / strayed) if strayed > 0 else 1.0,
        length=float(steps / length),
    )


@dataclass(frozen=True, slots=True)
class Pull:
    """What guidance mixes at one step: prediction u for the null prompt, c for the prompt.

    Their plane holds every mix u + s (c - u); in it u is (null_norm, 0) and c is `prompt`, in root mean squares of a
    value. null_x0 and prompt_x0 (c, t, h, w) are the x0 they speak of; the mix speaks of the same mix of both.
    """

    t: float
    null_norm: float
    prompt_norm: float
    prompt: tuple[float, float]
    cosine: float
    null_x0: Tensor
    prompt_x0: Tensor


def pull_of(step: Step, guided_channels: int | None = None) -> Pull | None:
    """The first clip's pull, or None where a branch was not evaluated. Channels that are not guided (past
    `guided_channels`) are the prompt's in every mix and count for no number."""
    branches = step.prediction.branches
    if len(branches) < 2 or branches[0] is None or branches[1] is None:
        return None
    c, u = (branch[0].float().cpu() for branch in branches[:2] if branch is not None)
    count = guided_channels or len(c)
    a, b = step.to_x0
    start = step.start[0].float().cpu()
    mixed = torch.cat([u[:count], c[count:]])
    c_part, u_part = c[:count].double(), u[:count].double()
    null_norm, prompt_norm = (float(p.square().mean().sqrt()) for p in (u_part, c_part))
    product = float((c_part * u_part).mean())
    along = product / max(null_norm, 1e-12)
    return Pull(
        t=step.t,
        null_norm=null_norm,
        prompt_norm=prompt_norm,
        prompt=(along, max(prompt_norm**2 - along**2, 0.0) ** 0.5),
        cosine=product / max(null_norm * prompt_norm, 1e-12),
        null_x0=a * start + b * mixed,
        prompt_x0=a * start + b * c,
    )
