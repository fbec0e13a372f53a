"""The causal convolution in both forms: zeros in front, or copies of the first frame; one frame and more."""

from __future__ import annotations

import pytest
import torch

from opensora_demo.nn.causal_conv import CausalConv3d


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
