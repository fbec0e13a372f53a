"""Convolution that is causal in time: all temporal padding stands in front, none behind."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class CausalConv3d(nn.Module):
    """Conv3d on (b, c, t, h, w) whose output at frame i depends on frames <= i only.

    Space is padded on both sides to keep the size at stride 1; time is padded in front with zeros
    (`pad_mode="constant"`) or with copies of the first frame ("replicate"). With a temporal stride s the front
    padding is (kernel - 1) + (1 - s), so that t frames (a multiple of s) become t / s.

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
        pad_mode: str = "constant",
    ) -> None:
        super().__init__()
        kt, kh, kw = (kernel_size,) * 3 if isinstance(kernel_size, int) else kernel_size
        front = dilation * (kt - 1) + (1 - stride[0])
        self.padding = (kw // 2, kw // 2, kh // 2, kh // 2, front, 0)
        self.pad_mode = pad_mode
        self.conv = nn.Conv3d(
            in_channels, out_channels, (kt, kh, kw), stride=stride, dilation=(dilation, 1, 1), bias=bias
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, self.padding, mode=self.pad_mode))  # (b, c_out, t / stride, h, w)
