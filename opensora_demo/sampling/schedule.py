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
    return tuple(shift_time(1 - i / steps, ratio) for i in range(steps + 1))


def shift_v20(spatial_tokens: int, latent_frames: int) -> float:
    """Ratio of Open-Sora 2.0: 1 at 256 tokens a frame, 3 at 4096, on a line, times the root of the latent frames.

    Source: Open-Sora v2.0 opensora/utils/sampling.py (get_schedule).
    """
    return (1 + (spatial_tokens - 256) * (3 - 1) / (4096 - 256)) * latent_frames**0.5
