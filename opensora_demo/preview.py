"""Latents as a picture: a linear map from channels to RGB, cheap enough for every step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from opensora_demo.types import Frames


def latent_to_rgb(latent: Tensor, matrix: Tensor) -> Frames:
    """latent (c, t, h, w) of unit variance, matrix (c + 1, 3) whose last row is the bias -> (t, h, w, 3) uint8."""
    weight, bias = matrix[:-1].to(latent), matrix[-1].to(latent)
    rgb = torch.einsum("cthw,cr->thwr", latent, weight) + bias  # in [-1, 1]
    return ((rgb.clamp(-1, 1) + 1) * 127.5).round().to("cpu", torch.uint8).numpy()


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
