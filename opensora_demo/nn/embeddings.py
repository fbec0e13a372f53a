"""What a DiT is told beside the latent: time, frame rate, text, and where a token stands."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FREQUENCIES = 256


def sinusoid(t: Tensor, width: int = FREQUENCIES) -> Tensor:
    """(b) -> (b, width): cosines, then sines, at frequencies 10000^(-i / half). Source: facebookresearch/DiT."""
    half = width // 2
    freqs = torch.exp(-math.log(10000.0) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
    args = t.float()[:, None] * freqs
    return torch.cat([args.cos(), args.sin()], dim=-1)


class ScalarEmbedder(nn.Module):
    """A number (timestep, FPS) as a vector: sinusoid, then a two-layer MLP (TimestepEmbedder, SizeEmbedder)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, value: Tensor) -> Tensor:
        return self.mlp(sinusoid(value).to(next(self.mlp.parameters()).dtype))  # (b, width)


class Mlp(nn.Module):
    """Linear, GELU (tanh form), Linear, with timm's names."""

    def __init__(self, width: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, out or width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class CaptionEmbedder(nn.Module):
    """Projects text features; keeps the learned features of the null prompt in the buffer `y_embedding` (n, c)."""

    y_embedding: Tensor

    def __init__(self, channels: int, width: int, max_tokens: int) -> None:
        super().__init__()
        self.y_proj = Mlp(channels, width, width)
        self.register_buffer("y_embedding", torch.randn(max_tokens, channels) / channels**0.5)

    def forward(self, y: Tensor) -> Tensor:
        return self.y_proj(y.to(self.y_proj.fc1.weight.dtype))  # (b, n, width)


def sincos_position_2d(width: int, h: int, w: int, scale: float, base_size: int, device: torch.device) -> Tensor:
    """Fixed table (h * w, width): the column's code in the first half, the row's in the second; sines, then cosines.

    Positions are stretched to `base_size` and divided by `scale`, so that every resolution covers the same range.
    Source: Open-Sora v1.2.0 opensora/models/layers/blocks.py (PositionEmbedding2D).
    """
    half = width // 2
    freqs = 1.0 / 10000 ** (torch.arange(0, half, 2, device=device).float() / half)

    def code(count: int) -> Tensor:
        angle = torch.outer(torch.arange(count, device=device) / scale * base_size / count, freqs)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)  # (count, half)

    rows, columns = code(h)[:, None].expand(h, w, half), code(w)[None].expand(h, w, half)
    return torch.cat([columns, rows], dim=-1).flatten(0, 1)


def sincos_code(positions: Tensor, width: int) -> Tensor:
    """(n) -> (n, width) in float64: sines, then cosines, at frequencies 10000^(-i / (width / 2)). Source: DiT."""
    freqs = 10000.0 ** -(torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angle = torch.outer(positions.double(), freqs)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def fixed_positions(width: int, h: int, w: int, scale: float = 1.0, base_size: int | None = None) -> Tensor:
    """Table (1, h * w, width) of Open-Sora 1.0: the column's code first, then the row's; base_size spreads positions
    over that many places. Source: Open-Sora v1.0.0 opensora/models/layers/blocks.py (get_2d_sincos_pos_embed)."""
    rows, columns = (
        sincos_code(torch.arange(n) / scale * (1 if base_size is None else base_size / n), width // 2) for n in (h, w)
    )
    table = torch.cat([columns[None].expand(h, w, -1), rows[:, None].expand(h, w, -1)], dim=-1)
    return table.flatten(0, 1).float()[None]


def fixed_times(width: int, frames: int, scale: float = 1.0) -> Tensor:
    """Table (1, frames, width) of Open-Sora 1.0."""
    return sincos_code(torch.arange(frames) / scale, width).float()[None]
