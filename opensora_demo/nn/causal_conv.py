"""Convolutions that are causal in time: all temporal padding stands in front, none behind."""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn


class CausalConv3d(nn.Module):
    """Conv3d on (b, c, t, h, w) whose output at frame i depends on frames <= i only.

    Space is padded on both sides to keep the size at stride 1, time in front alone. `pad_mode` "constant" pads with
    zeros, "replicate" with copies of the nearest value: of the first frame in time, and of the border in space too.
    With a temporal stride s the front padding is (kernel - 1) + (1 - s), so that t frames (a multiple of s) become
    t / s.

    Raises ValueError for a kernel that is even in space: it has no middle.
    Source: Open-Sora v1.2.0 opensora/models/vae/vae_temporal.py (CausalConv3d).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int, int],
        *,
        stride: tuple[int, int, int] = (1, 1, 1),
        dilation: int = 1,
        bias: bool = True,
        pad_mode: Literal["constant", "replicate"] = "constant",
    ) -> None:
        super().__init__()
        kt, kh, kw = (kernel_size,) * 3 if isinstance(kernel_size, int) else kernel_size
        if kh % 2 == 0 or kw % 2 == 0:
            raise ValueError(f"a kernel must be odd in space, not {kh} x {kw}")
        front = dilation * (kt - 1) + (1 - stride[0])
        self.padding = (kw // 2, kw // 2, kh // 2, kh // 2, front, 0)
        self.pad_mode = pad_mode
        self.conv = nn.Conv3d(
            in_channels, out_channels, (kt, kh, kw), stride=stride, dilation=(dilation, 1, 1), bias=bias
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, self.padding, mode=self.pad_mode))  # (b, c_out, t / stride, h, w)


FIRST_FRAME, ONE_FRAME, MORE_FRAMES = 0, 1, 2  # what `padding_flag` may be
Triple = int | tuple[int, int, int]


class ReplicateConv3d(nn.Conv3d):
    """Conv3d on (b, c, t, h, w) with copies of the first frame in front in time, and zeros around in space.

    `padding` (pixels on each side of height and width) None keeps the size at stride 1 (h / s at stride s). Stride and
    dilation are of all three axes. Time becomes (t - 1) // stride + 1. It is causal while `padding_flag` is
    FIRST_FRAME; at ONE_FRAME and MORE_FRAMES, which `set_padding_one_frame` and `set_padding_more_frame` set over a
    whole module, zeros stand on both sides in time instead, as many as keep the length at stride 1.

    Both of these flags do the same, and the zeros in time are counted with the width's stride and dilation: so it is in
    the source. Source: EasyAnimate (CausalConv3d), as the third article prints it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Triple = 3,
        *,
        stride: Triple = 1,
        padding: int | None = 1,
        dilation: Triple = 1,
        bias: bool = True,
    ) -> None:
        kernel, steps, spread = (
            (value,) * 3 if isinstance(value, int) else value for value in (kernel_size, stride, dilation)
        )
        around = [math.ceil(((k - 1) * d + 1 - s) / 2) for k, s, d in zip(kernel, steps, spread, strict=True)]
        pad_h, pad_w = around[1:] if padding is None else (padding, padding)
        super().__init__(
            in_channels, out_channels, kernel, stride=steps, dilation=spread, padding=(0, pad_h, pad_w), bias=bias
        )
        self.in_front = (kernel[0] - 1) * spread[0]
        self.on_both_sides = math.ceil(((kernel[0] - 1) * spread[2] + 1 - steps[2]) / 2)
        self.padding_flag = FIRST_FRAME

    def forward(self, x: Tensor) -> Tensor:
        if self.padding_flag == FIRST_FRAME:
            x = F.pad(x, (0, 0, 0, 0, self.in_front, 0), mode="replicate")
        else:
            x = F.pad(x, (0, 0, 0, 0, self.on_both_sides, self.on_both_sides))
        return super().forward(x)  # (b, c_out, (t - 1) // stride + 1, h, w)


def set_padding_one_frame(module: nn.Module) -> None:
    """Zeros on both sides in time in every ReplicateConv3d of `module`, itself included: a lone frame comes."""
    _set_padding(module, ONE_FRAME)


def set_padding_more_frame(module: nn.Module) -> None:
    """Zeros on both sides in time in every ReplicateConv3d of `module`, itself included: several frames come."""
    _set_padding(module, MORE_FRAMES)


def _set_padding(module: nn.Module, flag: int) -> None:
    for part in module.modules():
        if isinstance(part, ReplicateConv3d):
            part.padding_flag = flag
