"""The scaling factor turned by hand: latents too small, right and too large, and what the decoder makes of them.

A factor that does not fit shows as such latents: DC-AE divides by the latents' standard deviation where DiT multiplies
by its inverse, and who takes the one for the other is off by the square of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from opensora_demo.codecs.base import Codec
from opensora_demo.explain.coding import psnr
from opensora_demo.frames import to_frames
from opensora_demo.request.video import Frames

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True, slots=True)
class Scaled:
    """The first latent frame times each of `factors`: its standard deviation, and the picture (h, w, 3) decoded from
    it, with its PSNR in dB against the one of the right latents (99 there)."""

    factors: tuple[float, ...]
    deviations: tuple[float, ...]
    pictures: Frames
    psnr: tuple[float, ...]


def scale(codec: Codec, latent: Tensor, frames: int) -> Scaled:
    """Decode the latent frame (1, c, 1, h, w) that stands for `frames` frames, times each factor."""
    decoded = [codec.decode(factor * latent, frames)[:, :, -1:].float().clamp(-1, 1) for factor in FACTORS]
    right = decoded[FACTORS.index(1.0)]
    deviation = float(latent.float().std())
    return Scaled(
        FACTORS,
        tuple(factor * deviation for factor in FACTORS),
        to_frames(torch.cat(decoded, dim=2)[0]),
        tuple(psnr(picture, right) for picture in decoded),
    )
