"""What happens where no object is: flicker, and how much of a given first frame stays."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from opensora_demo.metrics import psnr
from opensora_demo.request.video import Frames

REACH_PX = 10  # shadows reach 7 px beyond an object, masks are of half the resolution


def near_objects(clip: Frames, objects: NDArray[np.float32], reach_px: int) -> NDArray[np.bool_]:
    """Which pixels (t, h, h) of a clip are within reach of what may be an object."""
    near = F.max_pool2d(torch.from_numpy(objects)[None], 2 * reach_px + 1, 1, reach_px)[0].numpy() > 0.25
    factor = clip.shape[1] // near.shape[1]
    return near.repeat(factor, 1).repeat(factor, 2)


def flicker(clip: Frames, objects: NDArray[np.float32], reach_px: int = REACH_PX) -> float:
    """Mean absolute change from one frame to the next, 0..255, where no object is near in either; NaN without such
    pixels. `objects` (t, 64, 64) in 0..1, `reach_px` in 64ths of the side; the clip (t, h, h, 3) has its own size."""
    near = near_objects(clip, objects, reach_px)
    still = ~(near[1:] | near[:-1])
    change = np.abs(np.diff(clip.astype(np.int16), axis=0)).mean(-1)
    return float(change[still].mean()) if still.any() else math.nan


def background_psnr(clip: Frames, given: Frames, objects: NDArray[np.float32], reach_px: int = REACH_PX) -> float:
    """PSNR, dB, of all frames but the first against the given first frame (1, h, h, 3), where no object is near in
    either; NaN without such pixels. `objects` as for `flicker`."""
    near = near_objects(clip, objects, reach_px)
    still = ~(near[1:] | near[:1])
    return psnr(clip[1:][still], np.broadcast_to(given, clip[1:].shape)[still]) if still.any() else math.nan
