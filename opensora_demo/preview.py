"""Latents as a picture: a linear map from channels to RGB, cheap enough for every step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from opensora_demo.sampling.step import Step
from opensora_demo.types import Frames, Look


def latent_to_rgb(latent: Tensor, matrix: Tensor) -> Frames:
    """latent (c, t, h, w) of unit variance, matrix (c + 1, 3) whose last row is the bias -> (t, h, w, 3) uint8."""
    weight, bias = matrix[:-1].to(latent), matrix[-1].to(latent)
    rgb = torch.einsum("cthw,cr->thwr", latent, weight) + bias  # in [-1, 1]
    return ((rgb.clamp(-1, 1) + 1) * 127.5).round().to("cpu", torch.uint8).numpy()


_HEAT = np.array([(0, 0, 0), (58, 15, 110), (170, 42, 96), (242, 122, 44), (252, 240, 180)], np.float32)


def heat(values: Tensor) -> tuple[Frames, float]:
    """values (t, h, w), not negative -> (t, h, w, 3) from black over red to white at the largest, and that value."""
    grid = values.float().cpu().numpy()
    peak = float(grid.max())
    at = grid / max(peak, 1e-12) * (len(_HEAT) - 1)
    low = np.minimum(at.astype(np.int64), len(_HEAT) - 2)
    part = (at - low)[..., None]
    return (_HEAT[low] * (1 - part) + _HEAT[low + 1] * part).round().astype(np.uint8), peak


def look_into(step: Step, matrix: Tensor) -> Look:
    """What the first clip's step was made of. One device synchronisation; well under a hundredth of a step."""
    branches = [None if b is None else b[:1] for b in step.prediction.branches[:2]] + [None, None]
    prompt, null = branches[0], branches[1]
    estimates = [None if b is None else (step.to_x0[0] * step.start[:1] + step.to_x0[1] * b)[0] for b in (prompt, null)]
    difference, peak = None, 0.0
    if estimates[0] is not None and estimates[1] is not None:
        difference, peak = heat((estimates[0] - estimates[1]).square().mean(0).sqrt())
    guided = step.prediction.guided[:1, : step.start.shape[1]]
    numbers: list[float | None] = [None, None, None, None, None]
    for at, branch in enumerate((prompt, null)):
        if branch is not None:
            numbers[at] = float(branch.square().mean().sqrt())
    if prompt is not None and null is not None:
        apart = prompt - null
        numbers[2] = float(apart.square().mean().sqrt())
        numbers[3] = float((prompt * null).mean()) / max(float(numbers[0] or 0) * float(numbers[1] or 0), 1e-12)
        numbers[4] = float(((guided - null) * apart).sum()) / max(float(apart.square().sum()), 1e-12)
    return Look(
        noisy=latent_to_rgb(step.start[0], matrix),
        prompt=None if estimates[0] is None else latent_to_rgb(estimates[0], matrix),
        null=None if estimates[1] is None else latent_to_rgb(estimates[1], matrix),
        difference=difference,
        peak=peak,
        channels=((step.x0[0].float() / 6 + 0.5).clamp(0, 1) * 255).round().to("cpu", torch.uint8).numpy(),
        prompt_norm=numbers[0],
        null_norm=numbers[1],
        difference_norm=numbers[2],
        cosine=numbers[3],
        applied=numbers[4],
    )


def first_channels(channels: int) -> Tensor:
    """The matrix of a model that has none fitted: its first three channels as red, green and blue."""
    matrix = torch.zeros(channels + 1, 3)
    matrix[:3] = 0.5 * torch.eye(3)
    return matrix


def fit_matrix(latents: Tensor, video: Tensor) -> Tensor:
    """Least squares (c + 1, 3) from latents (b, c, t', h', w') to video (b, 3, t, h, w) shrunk to their size.

    Latent frame 0 stands for the first frame, latent frame i for the frames up to 4 i (a causal codec padded in front).
    """
    _, c, t, h, w = latents.shape
    at = np.linspace(0, video.shape[2] - 1, t).round().astype(int)
    small = torch.nn.functional.adaptive_avg_pool3d(video[:, :, at], (t, h, w))
    x = latents.movedim(1, -1).reshape(-1, c)
    x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    return torch.linalg.lstsq(x, small.movedim(1, -1).reshape(-1, 3)).solution
