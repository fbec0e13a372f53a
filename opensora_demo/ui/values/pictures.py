"""Pictures and arrays as JSON: bytes in base64, or a JPEG. Pure."""

from __future__ import annotations

import base64
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from opensora_demo.media import jpeg_strip
from opensora_demo.request.video import Frames

SMALL_PX = 24  # latents are sent with at most so many places a side
CLIP_PX = 64  # frames of the clip
MIX_UNIT = 4096  # of the estimates that guidance mixes: 1.0, white, in 16 bits


class PixelsValue(TypedDict):
    """A small picture of latents, place by place: `rgb` holds frames x height x width x 3 bytes in base64."""

    frames: int
    height: int
    width: int
    rgb: str


class StripValue(TypedDict):
    """Frames of the clip side by side: a JPEG as data URI."""

    frames: int
    height: int
    width: int
    uri: str


def b64(array: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def thin(frames: Any, side: int) -> Any:
    """(t, h, w, 3) -> the same with every k-th row and column, so that no side is longer than `side`."""
    step = -(-max(frames.shape[1:3]) // side)
    return frames[:, ::step, ::step]


def pixels(frames: Frames) -> PixelsValue:
    small = thin(frames, SMALL_PX)
    return {"frames": small.shape[0], "height": small.shape[1], "width": small.shape[2], "rgb": b64(small)}


def strip(frames: Frames) -> StripValue:
    small = thin(frames, CLIP_PX)
    uri = jpeg_strip(small, CLIP_PX)
    return {"frames": small.shape[0], "height": small.shape[1], "width": small.shape[2], "uri": uri}


def mixable(rgb: NDArray[np.float32]) -> str:
    """A picture (t, h, w, 3) in [-1, 1] and beyond: a mix of two of them is the picture of the mix."""
    return b64((thin(rgb, SMALL_PX) * MIX_UNIT).round().clip(-32768, 32767).astype("<i2"))
