"""Rotary position embedding over one axis, adjacent pairs, theta 10000 (Su et al., RoFormer, 2021, eq. 34)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

THETA = 10000.0


@dataclass(frozen=True, slots=True)
class RotaryTable:
    """cos and sin of position times frequency, each (n, d), every value standing twice for its pair."""

    cos: Tensor
    sin: Tensor


class RotaryFrequencies(nn.Module):
    """Holds `freqs` (d / 2) under the name that published checkpoints use (rotary_embedding_torch 0.5.3)."""

    def __init__(self, head_width: int) -> None:
        super().__init__()
        exponent = torch.arange(0, head_width, 2)[: head_width // 2].float() / head_width
        self.freqs = nn.Parameter(THETA**-exponent, requires_grad=False)

    def table(self, length: int) -> RotaryTable:
        positions = torch.arange(length, device=self.freqs.device, dtype=torch.float32)
        angle = torch.outer(positions, self.freqs.float()).repeat_interleave(2, dim=-1)  # (n, d)
        return RotaryTable(angle.cos(), angle.sin())


def rotate_pairs(x: Tensor, table: RotaryTable) -> Tensor:
    """Rotate each adjacent pair (x0, x1) of the last axis of (..., n, d) by its angle."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-odd, even], -1).flatten(-2)
    return (x.float() * table.cos + turned * table.sin).to(x.dtype)
