"""Latents as a picture: a linear map from channels to RGB, cheap enough for every step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from opensora_demo.sampling.step import Step
from opensora_demo.types import Frames, Look

LOSSLESS_PX = 256  # a latent of at most this many positions is shown as it is, one pixel for each
PICTURE_PX = 2048  # of a larger picture in a look
CHANNELS_PX = 8192  # of all channels of one latent frame together
FULL_CELLS = 1000  # steps times latent frames that may have pictures of full size; a longer run takes smaller ones


def latent_to_rgb(latent: Tensor, matrix: Tensor) -> Frames:
    """latent (c, t, h, w) of unit variance, matrix (c + 1, 3) whose last row is the bias -> (t, h, w, 3) uint8."""
    weight, bias = matrix[:-1].to(latent), matrix[-1].to(latent)
    rgb = torch.einsum("cthw,cr->thwr", latent, weight) + bias  # in [-1, 1]
    return ((rgb.clamp(-1, 1) + 1) * 127.5).round().to("cpu", torch.uint8).numpy()


_HEAT = np.array([(0, 0, 0), (58, 15, 110), (170, 42, 96), (242, 122, 44), (252, 240, 180)], np.float32)
_HEAT_TABLE = np.stack([np.interp(np.linspace(0, 4, 256), range(5), stops) for stops in _HEAT.T], 1).round()
_HEAT_TABLE = _HEAT_TABLE.astype(np.uint8)


def heat(values: Tensor, peak: float) -> Frames:
    """values (t, h, w) from 0 to `peak` -> (t, h, w, 3) from black over red to white at the peak."""
    level = (values * (255 / max(peak, 1e-12)) + 0.5).to("cpu", torch.uint8).numpy()
    return _HEAT_TABLE.take(level, axis=0)


def picture_size(height: int, width: int, area_px: int) -> tuple[int, int]:
    """(height, width) of a picture of a latent: its own where it is tiny, otherwise at most `area_px` with whole JPEG
    blocks as sides (one at least), so that pictures side by side in one file do not bleed into each other."""
    if height * width <= min(area_px, LOSSLESS_PX):
        return height, width
    scale = min(1.0, math.sqrt(area_px / (height * width)))
    return max(int(height * scale / 8), 1) * 8, max(int(width * scale / 8), 1) * 8


def look_sizes(shape: Sequence[int], steps: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) of the pictures and of a single channel's in looks at a latent of `shape` (c, t, h, w): so large
    that a step and latent frame takes at most 20 kB as `ui.scope` encodes it, and a whole run about 20 MB."""
    channels, frames, height, width = shape
    room = min(1.0, FULL_CELLS / (steps * frames))
    picture = picture_size(height, width, int(PICTURE_PX * room))
    return picture, picture_size(height, width, int(CHANNELS_PX * room / channels))


def _resized(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(..., t, h, w) averaged to another height and width."""
    if values.shape[-2:] == size:
        return values
    flat = values.reshape(-1, *values.shape[-3:])
    return torch.nn.functional.adaptive_avg_pool2d(flat, size).reshape(*values.shape[:-2], *size)


def look_into(step: Step, matrix: Tensor) -> Look:
    """What the first clip's step was made of, in a few small transfers from the device.

    Between two steps of a network little of this is in the processor's caches, so that on a small latent the number of
    operations counts and not their size; `benchmarks.scope` watches it.
    """
    a, b = step.to_x0
    start, x0 = step.start[0].float(), step.x0[0].float()  # (c, t, h, w)
    branches = [None if p is None else p[0].float() for p in step.prediction.branches[:2]]
    made = None if step.x_mask is None else step.x_mask[0]  # (t): frames that were not kept
    if made is not None and not made.all():  # of a kept frame a prediction says nothing: it is what it is
        branches = [p if p is None else torch.where(made[:, None, None], p, (x0 - a * start) / b) for p in branches]
    prompt, null = (*branches, None, None)[:2]
    known = [p for p in (prompt, null) if p is not None]
    scaled = start if a == 1 else a * start
    size, channel_size = look_sizes(start.shape, step.total)
    latents = _resized(torch.stack([start, x0, *(torch.add(scaled, p, alpha=b) for p in known)]), size)
    colours = matrix.to(latents) * 127.5
    rgb = torch.matmul(colours[:-1].T, latents.flatten(2)).add_(colours[-1, :, None] + 128).clamp_(0, 255)
    pictures = rgb.to("cpu", torch.uint8).numpy().reshape(len(rgb), 3, *latents.shape[2:]).transpose(0, 2, 3, 4, 1)
    channels = latents[1] if channel_size == size else _resized(x0, channel_size)

    rows, difference, peak = known, None, None
    if prompt is not None and null is not None:
        apart = prompt - null
        distance = apart.square().mean(0).sqrt()  # (t, h, w)
        largest = float(distance.max())
        difference, peak = heat(_resized(distance, size), largest), largest * abs(b)
        rows = [*known, apart, step.prediction.guided[0, : len(apart)] - null]
    vectors = torch.stack(rows) if rows else start.new_zeros(0, 1, 1)
    vectors = (vectors if made is None or not made.any() else vectors[:, :, made]).flatten(1)
    products = (vectors @ vectors.T).tolist()
    norms = [math.sqrt(line[i] / vectors.shape[1]) for i, line in enumerate(products)]
    both = len(rows) == 4
    return Look(
        noisy=pictures[0],
        estimate=pictures[1],
        prompt=None if prompt is None else pictures[2],
        null=None if null is None else pictures[-1],
        difference=difference,
        peak=peak,
        channels=(channels * (255 / 6)).add_(128).clamp_(0, 255).to("cpu", torch.uint8).numpy(),
        prompt_norm=None if prompt is None else norms[0],
        null_norm=None if null is None else norms[len(known) - 1],
        difference_norm=norms[2] if both else None,
        cosine=products[0][1] / max(math.sqrt(products[0][0] * products[1][1]), 1e-12) if both else None,
        applied=products[2][3] / products[2][2] if both and products[2][2] > 0 else None,
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
