"""The pieces of which the reference-like networks are made, each written as its formula says, and nothing fused.

Norms and softmax compute in float32 and return what they were given. Layers are given as modules, of which the weights
alone are read: what a module's own `forward` does plays no part here.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-6  # of all norms but the temporal VAE's
THETA = 10000.0  # the longest period of sinusoids and of rotary positions, over 2 pi
FREQUENCIES = 256  # of a number's sinusoid


def linear(layer: Any, x: Tensor) -> Tensor:
    """x W^T + b of a `nn.Linear`, in its dtype."""
    return F.linear(x.to(layer.weight.dtype), layer.weight, layer.bias)


def silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh form of GELU (Hendrycks & Gimpel, "Gaussian error linear units", 2016)."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def layer_norm(x: Tensor) -> Tensor:
    """(x - mean) / sqrt(var + eps) over the last axis, without weights."""
    y = x.float()
    mean = y.mean(-1, keepdim=True)
    variance = (y - mean).pow(2).mean(-1, keepdim=True)
    return ((y - mean) * torch.rsqrt(variance + EPS)).to(x.dtype)


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """x / rms(x) * weight over the last axis (Zhang & Sennrich, 2019)."""
    y = x.float()
    return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + EPS) * weight.float()).to(x.dtype)


def group_norm(norm: Any, x: Tensor) -> Tensor:
    """Of a `nn.GroupNorm`: x (b, c, ...), mean and variance of each group of channels over all places (Wu & He,
    2018)."""
    y = x.float().reshape(x.shape[0], norm.num_groups, -1)
    mean = y.mean(-1, keepdim=True)
    variance = (y - mean).pow(2).mean(-1, keepdim=True)
    y = ((y - mean) * torch.rsqrt(variance + norm.eps)).reshape(x.shape)
    shape = (1, -1, *[1] * (x.ndim - 2))
    return (y * norm.weight.float().view(shape) + norm.bias.float().view(shape)).to(x.dtype)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Adaptive layer norm: x (1 + scale) + shift (Peebles & Xie, 2023)."""
    return x * (1 + scale) + shift


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v for q (b, heads, n, d), k and v (b, heads, m, d). The scores (b, heads, n, m)
    are written out in float32, and so is the bias: 0 where the boolean mask (b, 1, n, m) is true, minus infinity
    elsewhere. Without a mask it is true everywhere, and added all the same."""
    if mask is None:
        mask = torch.ones(q.shape[0], 1, q.shape[2], k.shape[2], dtype=torch.bool, device=q.device)
    bias = torch.zeros(mask.shape, device=q.device).masked_fill(~mask, float("-inf"))
    scores = (q * q.shape[-1] ** -0.5).float() @ k.float().transpose(-1, -2) + bias
    top = scores.max(-1, keepdim=True).values
    shares = torch.exp(scores - top)
    shares = shares / shares.sum(-1, keepdim=True)
    return (shares.to(v.dtype) @ v).to(v.dtype)


def heads(x: Tensor, count: int) -> Tensor:
    """(b, n, heads * d) -> (b, heads, n, d)."""
    b, n, _ = x.shape
    return x.reshape(b, n, count, -1).permute(0, 2, 1, 3)


def joined(x: Tensor) -> Tensor:
    """The inverse of `heads`."""
    b, count, n, d = x.shape
    return x.permute(0, 2, 1, 3).reshape(b, n, count * d)


def sinusoid(value: Tensor, width: int = FREQUENCIES) -> Tensor:
    """(n) -> (n, width): cosines, then sines, at frequencies THETA^(-i / half) (DiT)."""
    half = width // 2
    frequencies = torch.exp(-math.log(THETA) * torch.arange(half, dtype=torch.float32, device=value.device) / half)
    angle = value.float()[:, None] * frequencies[None]
    return torch.cat([torch.cos(angle), torch.sin(angle)], dim=-1)


def number(embedder: Any, value: Tensor) -> Tensor:
    """A number (n) as a vector (n, d): the sinusoid through two layers with SiLU between."""
    return linear(embedder.mlp[2], silu(linear(embedder.mlp[0], sinusoid(value))))


def mlp(module: Any, x: Tensor) -> Tensor:
    """Two layers, `fc1` and `fc2`, with GELU between."""
    return linear(module.fc2, gelu_tanh(linear(module.fc1, x)))


def rotated_pairs(x: Tensor, angle: Tensor) -> Tensor:
    """Each adjacent pair of x (..., n, d) turned by its angle (n, d / 2) (Su et al., RoFormer, 2021, eq. 34)."""
    even, odd = x.float()[..., 0::2], x.float()[..., 1::2]
    cos, sin = torch.cos(angle), torch.sin(angle)
    turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1)
    return turned.flatten(-2).to(x.dtype)


def rotated_halves(x: Tensor, angle: Tensor) -> Tensor:
    """The same of channel i with channel i + d / 2."""
    first, second = x.float().chunk(2, dim=-1)
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)
