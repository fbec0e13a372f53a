"""Both causal convolutions, Open-Sora's and EasyAnimate's with its flag, beside the articles' code, retyped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opensora_demo.nn.causal_conv import (
    FIRST_FRAME,
    CausalConv3d,
    ReplicateConv3d,
    set_padding_more_frame,
    set_padding_one_frame,
)


@pytest.mark.parametrize("pad_mode", ["constant", "replicate"])
def test_a_later_frame_changes_nothing_before_it(pad_mode: str) -> None:
    conv = CausalConv3d(2, 3, 3, pad_mode=pad_mode)
    x = torch.randn(1, 2, 6, 5, 5)
    changed = x.clone()
    changed[:, :, 4] += 1
    with torch.no_grad():
        a, b = conv(x), conv(changed)
    assert torch.equal(a[:, :, :4], b[:, :, :4])
    assert not torch.equal(a[:, :, 4], b[:, :, 4])


@pytest.mark.parametrize("pad_mode", ["constant", "replicate"])
def test_one_frame_alone_is_the_first_frame_of_a_clip(pad_mode: str) -> None:
    conv = CausalConv3d(2, 3, 3, pad_mode=pad_mode)
    x = torch.randn(1, 2, 4, 5, 5)
    with torch.no_grad():
        torch.testing.assert_close(conv(x[:, :, :1]), conv(x)[:, :, :1])


def test_replicated_one_frame_looks_like_a_clip_that_stands_still() -> None:
    conv = CausalConv3d(2, 3, 3, pad_mode="replicate")
    still = torch.randn(1, 2, 1, 5, 5).expand(-1, -1, 5, -1, -1)
    with torch.no_grad():
        out = conv(still)
    torch.testing.assert_close(out, out[:, :, :1].expand_as(out))
    zeros = CausalConv3d(2, 3, 3)
    zeros.load_state_dict(conv.state_dict())
    with torch.no_grad():
        assert not torch.allclose(zeros(still)[:, :, 0], out[:, :, 0])  # zeros in front are seen


def test_a_stride_in_time_divides_the_length() -> None:
    conv = CausalConv3d(1, 1, 3, stride=(2, 1, 1))
    assert conv(torch.zeros(1, 1, 8, 4, 4)).shape == (1, 1, 4, 4, 4)


def test_a_kernel_that_is_even_in_space_is_refused() -> None:
    for kernel in ((3, 2, 3), (3, 3, 2)):
        with pytest.raises(ValueError, match="odd"):
            CausalConv3d(1, 1, kernel)
    assert CausalConv3d(1, 1, (2, 3, 3))(torch.zeros(1, 1, 4, 5, 5)).shape == (1, 1, 4, 5, 5)


# --- the articles' code, retyped -----------------------------------------------------------------------------------


class Article002(nn.Module):
    """CausalConv3d of "Open-Sora code in detail (2): spatio-temporal 3D VAE"."""

    def __init__(self, chan_in: int, chan_out: int, kernel_size: Any, pad_mode: str = "constant", strides: Any = None,
                 **kwargs: Any) -> None:  # fmt: skip
        super().__init__()
        kernel_size = kernel_size if isinstance(kernel_size, tuple) else (kernel_size,) * 3
        time_kernel_size, height_kernel_size, width_kernel_size = kernel_size
        assert height_kernel_size % 2
        assert width_kernel_size % 2
        dilation = kwargs.pop("dilation", 1)
        stride = strides[0] if strides is not None else kwargs.pop("stride", 1)
        self.pad_mode = pad_mode
        time_pad = dilation * (time_kernel_size - 1) + (1 - stride)
        height_pad, width_pad = height_kernel_size // 2, width_kernel_size // 2
        self.time_causal_padding = (width_pad, width_pad, height_pad, height_pad, time_pad, 0)
        stride = strides if strides is not None else (stride, 1, 1)
        self.conv = nn.Conv3d(chan_in, chan_out, kernel_size, stride=stride, dilation=(dilation, 1, 1), **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, self.time_causal_padding, mode=self.pad_mode))


class Article003(nn.Conv3d):
    """CausalConv3d of "Open-Sora code in detail (1): the structure of the DiT", which is EasyAnimate's."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any = 3, stride: Any = 1, padding: Any = 1,
                 dilation: Any = 1, **kwargs: Any) -> None:  # fmt: skip
        kernel_size = kernel_size if isinstance(kernel_size, tuple) else (kernel_size,) * 3
        stride = stride if isinstance(stride, tuple) else (stride,) * 3
        dilation = dilation if isinstance(dilation, tuple) else (dilation,) * 3
        t_ks, h_ks, w_ks = kernel_size
        _, h_stride, w_stride = stride
        t_dilation, h_dilation, w_dilation = dilation
        t_pad = (t_ks - 1) * t_dilation
        if padding is None:
            h_pad = math.ceil(((h_ks - 1) * h_dilation + (1 - h_stride)) / 2)
            w_pad = math.ceil(((w_ks - 1) * w_dilation + (1 - w_stride)) / 2)
        elif isinstance(padding, int):
            h_pad = w_pad = padding
        else:
            assert NotImplementedError
        self.temporal_padding = t_pad
        self.temporal_padding_origin = math.ceil(((t_ks - 1) * w_dilation + (1 - w_stride)) / 2)
        self.padding_flag = 0
        super().__init__(
            in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size, stride=stride,
            dilation=dilation, padding=(0, h_pad, w_pad), **kwargs,
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        if self.padding_flag == 0:
            x = F.pad(x, pad=(0, 0, 0, 0, self.temporal_padding, 0), mode="replicate")
        else:
            x = F.pad(x, pad=(0, 0, 0, 0, self.temporal_padding_origin, self.temporal_padding_origin))
        return super().forward(x)


def same_weights(ours: nn.Module, theirs: nn.Module) -> None:
    theirs.load_state_dict(ours.state_dict())  # which also says that the names are the same


@pytest.mark.parametrize("pad_mode", ["constant", "replicate"])
@pytest.mark.parametrize("kernel", [3, 1, (5, 3, 5), (2, 1, 3)])
@pytest.mark.parametrize(("stride", "dilation"), [((1, 1, 1), 1), ((2, 1, 1), 1), ((1, 2, 2), 1), ((1, 1, 1), 2)])
def test_open_soras_is_the_articles_bit_for_bit(pad_mode: Any, kernel: Any, stride: Any, dilation: int) -> None:
    if kernel == 1 and stride[0] > 1:
        pytest.skip("the article's padding would be negative")
    ours = CausalConv3d(2, 3, kernel, stride=stride, dilation=dilation, pad_mode=pad_mode)
    theirs = Article002(2, 3, kernel, pad_mode, stride, dilation=dilation)
    same_weights(ours, theirs)
    x = torch.randn(1, 2, 6, 7, 8)
    assert torch.equal(ours(x), theirs(x))


SETTINGS: Sequence[dict[str, Any]] = (
    {},
    {"kernel_size": 1, "padding": 0},
    {"kernel_size": 1, "padding": None},
    {"padding": None},
    {"kernel_size": (5, 3, 1), "padding": None, "bias": False},
    {"stride": (2, 1, 1)},
    {"stride": (1, 2, 2), "padding": None},
    {"stride": 2, "padding": None},
    {"stride": (2, 2, 2), "padding": 1},
    {"dilation": 2, "padding": None},
    {"dilation": (3, 1, 2), "padding": None},
    {"dilation": (1, 2, 1), "stride": (2, 1, 2), "padding": 2},
)


@pytest.mark.parametrize("flag", [0, 1, 2])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_easyanimates_is_the_articles_bit_for_bit(settings: dict[str, Any], flag: int) -> None:
    ours, theirs = ReplicateConv3d(2, 3, **settings), Article003(2, 3, **settings)
    same_weights(ours, theirs)
    theirs.padding_flag = flag
    if flag:
        (set_padding_one_frame, set_padding_more_frame)[flag - 1](ours)
    assert ours.padding_flag == flag
    for frames in (1, 2, 7):
        x = torch.randn(2, 2, frames, 9, 8)
        if frames + 2 * theirs.temporal_padding_origin < 1 + (theirs.kernel_size[0] - 1) * theirs.dilation[0] and flag:
            continue  # no place for the kernel in either
        assert torch.equal(ours(x), theirs(x))


def test_the_flag_reaches_every_convolution_of_a_module() -> None:
    module = nn.Sequential(ReplicateConv3d(1, 1), nn.ModuleList([nn.Sequential(CausalConv3d(1, 1, 3))]))
    module.append(nn.Sequential(nn.Sequential(ReplicateConv3d(1, 1))))
    own = [part for part in module.modules() if isinstance(part, ReplicateConv3d)]
    assert [part.padding_flag for part in own] == [FIRST_FRAME] * 2 == [0, 0]
    set_padding_one_frame(module)
    assert [part.padding_flag for part in own] == [1, 1]
    set_padding_more_frame(module)
    assert [part.padding_flag for part in own] == [2, 2]


def test_space_is_padded_with_zeros_while_time_is_repeated() -> None:
    """The two classes differ at the border of the picture, and nowhere else."""
    ours, other = ReplicateConv3d(1, 1), CausalConv3d(1, 1, 3, pad_mode="replicate")
    other.conv.load_state_dict(ours.state_dict())
    x = torch.rand(1, 1, 4, 6, 6) + 1
    a, b = ours(x), other(x)
    torch.testing.assert_close(a[..., 1:-1, 1:-1], b[..., 1:-1, 1:-1])
    assert not torch.isclose(a[..., 0, :], b[..., 0, :]).any()


@pytest.mark.parametrize("flag", [0, 1])
def test_only_the_first_flag_is_causal(flag: int) -> None:
    conv = ReplicateConv3d(2, 3)
    conv.padding_flag = flag
    x = torch.randn(1, 2, 6, 5, 5)
    changed = x.clone()
    changed[:, :, 4] += 1
    a, b = conv(x), conv(changed)
    assert a.shape[2] == 6
    assert torch.equal(a[:, :, 3], b[:, :, 3]) == (flag == 0)
    assert torch.equal(a[:, :, :3], b[:, :, :3])
