"""What a catalog entry says about its sampler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class RectifiedFlowConfig:
    """Steps along a flow. `shift` names the timestep transform of an Open-Sora version; "none" takes `ratio`
    (1: even times, more: more steps near the noise).

    `order` 1 is Euler, as published; 2 the two-step Adams-Bashforth rule, which needs about half as many steps.
    `rescale` draws the spread of the guided velocity back (0.7 in 1.3, for text to video). `timesteps` is what a
    network of 1.x is told time 1 as."""

    shift: Literal["none", "1.2", "1.3", "2.0"] = "none"
    ratio: float = 1.0
    order: Literal[1, 2] = 1
    rescale: float = 0.0
    timesteps: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class IddpmConfig:
    """Diffusion over 1000 timesteps with a linear schedule and a learned-range variance (Nichol & Dhariwal, 2021).

    `eta` is DDIM's share of fresh noise. Guidance touches the first `guided_channels` channels of the noise estimate
    only (3 of 4 in the published settings of 1.0 and 1.1, as in DiT); None guides all. `float32_betas` is 1.1's
    rounding of the schedule.
    """

    method: Literal["ddpm", "ddim", "dpm-solver++"] = "ddpm"
    eta: float = 0.0
    guided_channels: int | None = 3
    float32_betas: bool = False


SamplerConfig = RectifiedFlowConfig | IddpmConfig
