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
        self.head_width = head_width
        self.freqs = nn.Parameter(self.fixed_tables()["freqs"], requires_grad=False)

    def fixed_tables(self) -> dict[str, Tensor]:
        """The parameters that are computed and not learned: whatever a file has in their place."""
        exponent = torch.arange(0, self.head_width, 2)[: self.head_width // 2].float() / self.head_width
        return {"freqs": THETA**-exponent}

    def table(self, length: int) -> RotaryTable:
        positions = torch.arange(length, device=self.freqs.device, dtype=torch.float32)
        angle = torch.outer(positions, self.freqs.float()).repeat_interleave(2, dim=-1)  # (n, d)
        return RotaryTable(angle.cos(), angle.sin())

    def table_3d(self, positions: Tensor) -> RotaryTable:
        """Positions (n, k), one column for each of k equal parts of a head's channels."""
        angle = positions.to(self.freqs.device)[..., None] * self.freqs.float()  # (n, k, d / 2k)
        angle = angle.flatten(1).repeat_interleave(2, dim=-1)
        return RotaryTable(angle.cos(), angle.sin())


def rotate_pairs(x: Tensor, table: RotaryTable) -> Tensor:
    """Rotate each adjacent pair (x0, x1) of the last axis of (..., n, d) by its angle."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-odd, even], -1).flatten(-2)
    return (x.float() * table.cos + turned * table.sin).to(x.dtype)


def axial_table(positions: Tensor, axes: tuple[int, ...], theta: float = THETA, *, halves: bool = False) -> RotaryTable:
    """Table over several axes: positions (..., n, k), of which axis i turns axes[i] of the head's channels.

    A frequency's value stands twice: side by side for `rotate_pairs`, half the width apart for `rotate_halves`.
    Source: Open-Sora v2.0 opensora/models/mmdit/math.py (rope, liger_rope).
    """
    angles = []
    for i, width in enumerate(axes):
        freqs = theta ** -(torch.arange(0, width, 2, device=positions.device, dtype=torch.float64) / width)
        angles.append(positions[..., i, None].double() * freqs)
    angle = torch.cat(angles, dim=-1)  # (..., n, d / 2)
    angle = torch.cat([angle, angle], dim=-1) if halves else angle.repeat_interleave(2, dim=-1)
    return RotaryTable(angle.cos().float(), angle.sin().float())


def rotate_halves(x: Tensor, table: RotaryTable) -> Tensor:
    """Rotate channel i of (..., n, d) together with channel i + d / 2."""
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return (x.float() * table.cos + turned * table.sin).to(x.dtype)
