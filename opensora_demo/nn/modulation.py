"""Adaptive layer norm: x * (1 + scale) + shift, with scale, shift and gate from the condition (Peebles & Xie, 2023)."""

from __future__ import annotations

import torch
from torch import Tensor


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, x, 1 + scale)
