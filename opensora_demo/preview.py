"""Latents as a picture: a linear map from channels to RGB, cheap enough for every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from opensora_demo.sampling.step import Step
from opensora_demo.types import Frames, Look

LOSSLESS_PX = 256  # a latent of at most this many positions is shown as it is, one pixel for each
PICTURE_PX = 2048  # of a larger picture in a look
TINY_PX = 16384  # of a small decoder's picture: several are sent at every step
CHANNELS_PX = 8192  # of all channels of one latent frame together
FULL_CELLS = 1000  # steps times latent frames that may have pictures of full size; a longer run takes smaller ones


def latent_to_rgb(latent: Tensor, matrix: Tensor) -> Frames:
    """latent (c, t, h, w) of unit variance, matrix (c + 1, 3) whose last row is the bias -> (t, h, w, 3) uint8."""
    weight, bias = matrix[:-1].to(latent), matrix[-1].to(latent)
    rgb = torch.einsum("cthw,cr->thwr", latent, weight) + bias  # in [-1, 1]
    return ((rgb.clamp(-1, 1) + 1) * 127.5).round().to("cpu", torch.uint8).numpy()


def tiny_pictures(latent: Tensor, decoder: Callable[[Tensor], Tensor]) -> Frames:
    """latent (c, t, h, w), a small decoder of (t, c, h, w) -> (t, h', w', 3) uint8 of at most TINY_PX each."""
    pictures = decoder(latent.movedim(1, 0))
    height, width = pictures.shape[-2:]
    scale = min(1.0, math.sqrt(TINY_PX / (height * width)))
    small = torch.nn.functional.interpolate(
        pictures.float(), size=(round(height * scale), round(width * scale)), mode="area"
    )
    return (small * 255).round().movedim(1, -1).to("cpu", torch.uint8).numpy()


_HEAT = np.array([(0, 0, 0), (58, 15, 110), (170, 42, 96), (242, 122, 44), (252, 240, 180)], np.float32)
_HEAT_TABLE = np.stack([np.interp(np.linspace(0, 4, 256), range(5), stops) for stops in _HEAT.T], 1).round()
_HEAT_TABLE = _HEAT_TABLE.astype(np.uint8)


def heat(values: NDArray[np.float32], peak: float) -> Frames:
    """values (t, h, w) from 0 to `peak` -> (t, h, w, 3) from black over red to white at the peak."""
    return _HEAT_TABLE.take(_levels(values * (255 / max(peak, 1e-12)) + 0.5), axis=0)


def _levels(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(values, 0, 255).astype(np.uint8)


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


def _dots(*pairs: tuple[Tensor, Tensor]) -> list[float]:
    """Of vectors, in one transfer."""
    if not pairs:
        return []
    return [float(d) for d in torch.stack([torch.dot(a, b) for a, b in pairs]).tolist()]


@torch.inference_mode()
@np.errstate(invalid="ignore")  # a run that diverges
def look_into(step: Step, matrix: Tensor) -> Look:
    """What the first clip's step was made of, in a few small transfers from the device.

    Between two steps of a network little of this is in the processor's caches, so that on a small latent the number of
    operations counts and not their size; several looks in a row cost less than one after each step, and NumPy less
    than torch, whose products and sums wake a second thread. `benchmarks.scope` watches it.
    """
    a, b = step.to_x0
    start, x0 = step.start[0].float(), step.x0[0].float()  # (c, t, h, w)
    branches = [None if p is None else p[0].float() for p in step.prediction.branches[:2]]
    made = None if step.x_mask is None else step.x_mask[0]  # (t): frames that were not kept
    if made is not None and not made.all():  # of a kept frame a prediction says nothing: it is what it is
        branches = [p if p is None else torch.where(made[:, None, None], p, (x0 - a * start) / b) for p in branches]
    prompt, null = (*branches, None, None)[:2]
    known = [p for p in (prompt, null) if p is not None]

    size, channel_size = look_sizes(start.shape, step.total)
    scaled = start if a == 1 else a * start
    shown = [start, x0, *(torch.add(scaled, p, alpha=b) for p in known)]
    latents = torch.stack([_resized(x, size) for x in shown]).cpu().numpy()
    colours = matrix.cpu().numpy() * np.float32(127.5)
    rgb = np.matmul(colours[:-1].T, latents.reshape(*latents.shape[:2], -1)) + (colours[-1, :, None] + 128)
    pictures = _levels(rgb).reshape(len(rgb), 3, *latents.shape[2:]).transpose(0, 2, 3, 4, 1)
    channels = latents[1] if channel_size == size else _resized(x0, channel_size).cpu().numpy()

    def vector(p: Tensor) -> Tensor:
        return (p if made is None or not made.any() else p[:, made]).reshape(-1)

    vectors = [vector(p) for p in known]
    norms = [math.sqrt(d / len(v)) for d, v in zip(_dots(*((v, v) for v in vectors)), vectors, strict=True)]
    difference, peak, difference_norm, cosine, applied = None, None, None, None, None
    if prompt is not None and null is not None:
        apart = prompt - null
        squares = (apart * apart).mean(0)  # (t, h, w)
        largest = math.sqrt(float(squares.max()))
        difference, peak = heat(np.sqrt(_resized(squares, size).cpu().numpy()), largest), largest * abs(b)
        c, u = vectors
        d, moved = c - u, vector(step.prediction.guided[0, : len(apart)]) - u
        squared, pulled, between = _dots((d, d), (d, moved), (c, u))
        difference_norm = math.sqrt(squared / len(d))
        cosine = between / max(norms[0] * norms[1] * len(d), 1e-12)
        applied = pulled / squared if squared > 0 else None
    return Look(
        noisy=pictures[0],
        estimate=pictures[1],
        prompt=None if prompt is None else pictures[2],
        null=None if null is None else pictures[-1],
        difference=difference,
        peak=peak,
        channels=_levels(channels * np.float32(255 / 6) + 128),
        prompt_norm=None if prompt is None else norms[0],
        null_norm=None if null is None else norms[-1],
        difference_norm=difference_norm,
        cosine=cosine,
        applied=applied,
    )


def first_channels(channels: int) -> Tensor:
    """The matrix of a model that has none fitted: its first three channels as red, green and blue."""
    matrix = torch.zeros(channels + 1, 3)
    matrix[:3] = 0.5 * torch.eye(3)
    return matrix


def as_latents(video: Tensor, size: Sequence[int]) -> Tensor:
    """video (b, 3, t, h, w) shrunk to the `size` (t', h', w') of its latents.

    Latent frame 0 stands for the first frame, latent frame i for the frames up to 4 i (a causal codec padded in front).
    """
    at = np.linspace(0, video.shape[2] - 1, size[0]).round().astype(int)
    return torch.nn.functional.adaptive_avg_pool3d(video[:, :, at], (size[0], size[1], size[2]))


def fit_matrix(latents: Tensor, video: Tensor) -> Tensor:
    """Least squares (c + 1, 3) from latents (b, c, t', h', w') to video (b, 3, t, h, w) shrunk to their size."""
    x = latents.movedim(1, -1).reshape(-1, latents.shape[1])
    x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    return torch.linalg.lstsq(x, as_latents(video, latents.shape[2:]).movedim(1, -1).reshape(-1, 3)).solution
