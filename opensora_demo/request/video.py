"""The shape of a clip and its pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]  # (t, h, w, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoShape:
    frames: int
    height_px: int
    width_px: int
