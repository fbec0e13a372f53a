"""When a sampler looks: the times of a rectified flow, from 1 (noise) to 0 (data)."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor

T = TypeVar("T", float, Tensor)


def shift_time(t: T, ratio: float) -> T:
    """t' = r t / (1 + (r - 1) t): more steps near the noise for r > 1 (Esser et al., 2024, eq. 23)."""
    return ratio * t / (1 + (ratio - 1) * t)


def flow_times(steps: int, ratio: float = 1.0) -> tuple[float, ...]:
    """steps + 1 falling times, 1.0 first and 0.0 last."""
    return tuple(min(shift_time(1 - i / steps, ratio), 1.0) for i in range(steps + 1))  # rounding must not pass 1


def shift_v12(height_px: float, width_px: float, frames: int) -> float:
    """Ratio of Open-Sora 1.2: root of the area over 512 x 512, times the root of frames // 17 * 5 (one frame counts 1).

    2 to 16 frames give 0, with which the first time is not a number: 1.2 was not made for them.
    Source: Open-Sora v1.2.0 opensora/schedulers/rf/rectified_flow.py (timestep_transform).
    """
    return (height_px * width_px / 512**2) ** 0.5 * (1 if frames == 1 else frames // 17 * 5) ** 0.5


def shift_v13(height_px: float, width_px: float, frames: int, scale: float = 1.0) -> float:
    """Ratio of Open-Sora 1.3: as 1.2 with (frames - 1) // 4 for the length, times `scale` unless it is an image.

    Source: Open-Sora v1.3 opensora/schedulers/rf/time_sampler.py (timestep_transform).
    """
    space = (height_px * width_px / 512**2) ** 0.5
    return space if frames == 1 else space * ((frames - 1) // 4) ** 0.5 * scale


def shift_v20(spatial_tokens: int, latent_frames: int) -> float:
    """Ratio of Open-Sora 2.0: 1 at 256 tokens a frame, 3 at 4096, on a line, times the root of the latent frames.

    Source: Open-Sora v2.0 opensora/utils/sampling.py (get_schedule).
    """
    return (1 + (spatial_tokens - 256) * (3 - 1) / (4096 - 256)) * latent_frames**0.5
