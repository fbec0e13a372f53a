"""A small decoder for previews: each latent frame as one picture, in a few milliseconds on a CPU.

A linear map of channels to colours shows a mist where the decoder would show a disc. This one is a handful of 2-D
convolutions per latent frame, taught by the codec's own decoder on clean latents and on estimates of every noise level
(`training.train_preview`). The idea is TAESD's (Ollin Boer Bohan); the layers are our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PREFIX = "decoder."
"""Of the weights' names in a preview's file, beside the linear map's `matrix`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewConfig:
    """Pictures are `factor` times as large as latents; `width` counts channels at the latent's size, `fine` at twice
    that."""

    latent_channels: int
    width: int = 96
    blocks: int = 2
    fine: int = 48
    factor: int = 8
    file: ClassVar[str] = ""  # none of its own: it lies in the model's preview file

    def build(self) -> PreviewDecoder:
        return PreviewDecoder(self)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class PreviewDecoder(nn.Module):
    """Latents (b, c, t, h, w) as the diffusion model sees them -> pictures (b, t, 3, 8 h, 8 w) in [0, 1], each frame by
    itself."""

    def __init__(self, cfg: PreviewConfig) -> None:
        super().__init__()
        self.cfg = cfg
        fold = cfg.factor // 2
        self.layers = nn.Sequential(
            nn.Conv2d(cfg.latent_channels, cfg.width, 3, padding=1),
            *(_Residual(cfg.width) for _ in range(cfg.blocks)),
            nn.ReLU(),
            nn.Conv2d(cfg.width, 4 * cfg.fine, 1),
            nn.PixelShuffle(2),
            _Residual(cfg.fine),
            nn.ReLU(),
            nn.Conv2d(cfg.fine, 3 * fold**2, 3, padding=1),
            nn.PixelShuffle(fold),
        )

    def colours(self, latents: Tensor) -> Tensor:
        """(b, c, t, h, w) -> (b, t, 3, 8 h, 8 w) before clamping, in [-1, 1] as the codec's own: what training
        compares. Latents far outside of what clips have are drawn in, as TAESD does."""
        frames = torch.tanh(latents.movedim(2, 1) / 4) * 4
        return self.layers(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    @torch.inference_mode()
    def forward(self, latents: Tensor) -> Tensor:
        return (self.colours(latents.to(next(self.parameters()))).clamp(-1, 1) + 1) / 2

    @staticmethod
    def published_name(name: str) -> str | None:
        """A name in a preview's file -> ours; None for what is not the decoder's."""
        return name.removeprefix(PREFIX) if name.startswith(PREFIX) else None
