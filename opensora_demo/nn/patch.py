"""Latents to tokens and back."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class PatchEmbed3D(nn.Module):
    """(b, c, t, h, w) -> (b, t', s, d), one token for each patch; each axis is padded at its end with zeros.

    `norm` makes a norm over the last axis (nn.LayerNorm), which the tokens go through. `flatten` True gives all tokens
    in one row (b, t' s, d), False the patches where they lie (b, d, t', h', w').

    The published weight is a Conv3d whose stride equals its kernel; applied as a matrix product it gives the same
    numbers and is twice as fast on a CPU. Source: Open-Sora v1.2.0 opensora/models/layers/blocks.py (PatchEmbed3D).
    """

    def __init__(
        self,
        patch: tuple[int, int, int] = (2, 4, 4),
        channels: int = 3,
        width: int = 96,
        *,
        norm: Callable[[int], nn.Module] | None = None,
        flatten: bool | None = None,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.flatten = flatten
        self.proj = nn.Conv3d(channels, width, patch, stride=patch)
        self.norm = None if norm is None else norm(width)

    def forward(self, x: Tensor) -> Tensor:
        pt, ph, pw = self.patch
        t, h, w = x.shape[2:]
        x = F.pad(x.to(self.proj.weight.dtype), (0, -w % pw, 0, -h % ph, 0, -t % pt))
        x = rearrange(x, "b c (t pt) (h ph) (w pw) -> b t (h w) (c pt ph pw)", pt=pt, ph=ph, pw=pw)
        x = F.linear(x, self.proj.weight.flatten(1), self.proj.bias)
        if self.norm is not None:
            x = self.norm(x)
        match self.flatten:
            case None:
                return x
            case True:
                return x.flatten(1, 2)
            case False:
                return rearrange(x, "b t (h w) d -> b d t h w", w=-(-w // pw))


def patch_grid(patch: tuple[int, int, int], size: tuple[int, int, int]) -> tuple[int, int, int]:
    """Number of patches along t, h, w."""
    t, h, w = (-(-n // p) for n, p in zip(size, patch, strict=True))
    return t, h, w


def unpatchify(x: Tensor, patch: tuple[int, int, int], size: tuple[int, int, int]) -> Tensor:
    """(b, t', s, pt * ph * pw * c) -> (b, c, t, h, w), without the padding."""
    pt, ph, pw = patch
    _, grid_h, grid_w = patch_grid(patch, size)
    x = rearrange(x, "b t (h w) (pt ph pw c) -> b c (t pt) (h ph) (w pw)", h=grid_h, w=grid_w, pt=pt, ph=ph, pw=pw)
    return x[:, :, : size[0], : size[1], : size[2]]
