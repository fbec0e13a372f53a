"""A causal convolution on a short strip: which input frames reach an output frame, with either padding in front.

The module is the codecs' own (`nn.causal_conv.CausalConv3d`), one channel wide, with three equal weights over time and
nothing over space, so that an output frame is the mean of the three frames it sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from opensora_demo.frames import to_frames
from opensora_demo.nn.causal_conv import CausalConv3d
from opensora_demo.request.video import Frames

STRIP = 6  # frames
KERNEL = 3  # frames that an output frame sees
SIDE_PX = 24

Padding = Literal["constant", "replicate"]


@dataclass(frozen=True, slots=True)
class Filtered:
    """A strip of `frames` frames through the module. `reach` (frames, frames): how much of output i is input j, read
    from impulses; a row sums to less than one where zeros were seen. `picture` (frames, h, w, 3): the outputs."""

    padding: Padding
    frames: int
    reach: tuple[tuple[float, ...], ...]
    picture: Frames


@dataclass(frozen=True, slots=True)
class Causal:
    """`strip` (t, h, w, 3): frames of the clip. `filtered`: each padding, on the first frame alone and on all.
    `paddings`: those of the loaded codec's own causal convolutions, by how many have them."""

    strip: Frames
    filtered: tuple[Filtered, ...]
    paddings: dict[str, int]


def averaging(padding: Padding) -> CausalConv3d:
    """The module with weights of one third over time."""
    module = CausalConv3d(1, 1, (KERNEL, 1, 1), bias=False, pad_mode=padding)
    nn.init.constant_(module.conv.weight, 1 / KERNEL)
    return module.eval()


def reach_of(module: CausalConv3d, frames: int) -> Tensor:
    """(frames out, frames in): how much of each output frame is each input frame, from one impulse after the other."""
    impulses = torch.eye(frames).view(frames, 1, frames, 1, 1)
    return module(impulses).view(frames, frames).T


def causal(video: Tensor, codec: nn.Module) -> Causal:
    """Filter a few frames of a clip (1, 3, t, h, w) in [-1, 1]; black is 0 to the module, as zeros in front are."""
    t = video.shape[2]
    at = [round(i * (t - 1) / (STRIP - 1)) for i in range(STRIP)] if t >= STRIP else list(range(t))
    small = nn.functional.adaptive_avg_pool2d(video[0, :, at].float().cpu(), SIDE_PX)  # (3, n, h, w)
    light = (small[:, None] + 1) / 2  # the colours as a batch, one channel: (3, 1, n, h, w)
    filtered = []
    for padding in get_args(Padding):
        module = averaging(padding)
        for frames in dict.fromkeys((1, len(at))):
            out = module(light[:, :, :frames])[:, 0]  # (3, n, h, w)
            reach = reach_of(module, frames)
            rows = tuple(tuple(round(x, 4) for x in row) for row in reach.tolist())
            filtered.append(Filtered(padding, frames, rows, to_frames(2 * out - 1)))
    modes = [module.pad_mode for module in codec.modules() if isinstance(module, CausalConv3d)]
    return Causal(to_frames(small), tuple(filtered), {mode: modes.count(mode) for mode in sorted(set(modes))})
