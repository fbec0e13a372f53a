"""Pictures as files and eyes have them, and as networks have them: the one conversion between the two."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from opensora_demo.request.video import Frames


def to_video(clips: NDArray[np.uint8]) -> Tensor:
    """uint8 (b, t, h, w, 3) -> float (b, 3, t, h, w) in [-1, 1]."""
    return torch.from_numpy(np.array(clips)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def to_frames(video: Tensor) -> Frames:
    """(3, t, h, w) in [-1, 1] -> uint8 (t, h, w, 3), rounded as Open-Sora's save_sample does."""
    return (
        ((video.float().clamp(-1, 1) + 1) * 127.5 + 0.5)
        .clamp(0, 255)
        .permute(1, 2, 3, 0)
        .to("cpu", torch.uint8)
        .numpy()
    )
