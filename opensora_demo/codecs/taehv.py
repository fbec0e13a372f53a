"""TAEHV's decoder: latents as small pictures in a fraction of a VAE's time, for looking at a run while it goes on.

Ollin Boer Bohan's tiny autoencoder for Hunyuan Video and its kin. Only the decoder is built, and without its growth in
time: of what would become several frames the last is kept, as upstream's cheaper preview does. What follows then sees
the last frame of the latent before instead of the frame before, and is off by a little. Parameter names follow the
published files. Source: madebyollin/taehv, taehv.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AT_ONCE = 2  # latents, so that memory does not grow with the clip


@dataclass(frozen=True, slots=True, kw_only=True)
class TaehvConfig:
    """`file` is the name without ending, in the weights' folder. Latents are decoded `group` at a time, as the codec
    does (0: all of them in one)."""

    file: str
    group: int = 0
    latent_channels: int = 16
    widths: tuple[int, int, int, int] = (256, 128, 64, 64)

    def build(self) -> Taehv:
        return Taehv(self)


class MemBlock(nn.Module):
    """Frames (t, c, h, w) -> the same: three convolutions that see a frame and the one before it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )  # fmt: skip

        self.last: Tensor | None = None  # frame of the part before

    def forward(self, x: Tensor) -> Tensor:
        first = torch.zeros_like(x[:1]) if self.last is None else self.last
        before, self.last = torch.cat([first, x[:-1]]), x[-1:]
        return F.relu(self.conv(torch.cat([x, before], dim=1)) + x)


class TimeGrowth(nn.Module):
    """Every frame as `factor` frames in the published network; here the last of them."""

    def __init__(self, width: int, factor: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, factor * width, 1, bias=False)
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.conv.weight[-self.width :])


class Taehv(nn.Module):
    """Latents (b, c, t, h, w) as the diffusion model sees them -> pictures (b, t, 3, 8 h, 8 w) in [0, 1]."""

    def __init__(self, cfg: TaehvConfig) -> None:
        super().__init__()
        self.cfg = cfg
        first, *_ = cfg.widths
        layers: list[nn.Module] = [nn.Identity(), nn.Conv2d(cfg.latent_channels, first, 3, padding=1), nn.ReLU()]
        for width, after, factor in zip(cfg.widths, cfg.widths[1:], (1, 2, 2), strict=False):
            layers += [MemBlock(width), MemBlock(width), MemBlock(width), nn.Upsample(scale_factor=2)]
            layers += [TimeGrowth(width, factor), nn.Conv2d(width, after, 3, padding=1, bias=False)]
        layers += [nn.ReLU(), nn.Conv2d(cfg.widths[-1], 3, 3, padding=1)]
        self.decoder = nn.Sequential(*layers)

    @torch.inference_mode()
    def forward(self, latents: Tensor) -> Tensor:
        x = torch.tanh(latents.to(next(self.parameters())) / 3) * 3
        return torch.stack([self._decode(clip.movedim(1, 0)) for clip in x])

    def _decode(self, x: Tensor) -> Tensor:
        """One clip, (t, c, h, w)."""
        pictures: list[Tensor] = []
        for group in x.split(self.cfg.group or len(x)):
            self._forget()
            pictures += [self.decoder(part).clamp(0, 1) for part in group.split(AT_ONCE)]
        self._forget()
        return torch.cat(pictures)

    def _forget(self) -> None:
        for block in self.decoder:
            if isinstance(block, MemBlock):
                block.last = None

    @staticmethod
    def published_name(name: str) -> str | None:
        """A name in published files -> ours; None for the encoder's."""
        return name if name.startswith("decoder.") else None
