"""What every sampler yields."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """After step `index` of `total`, taken at time t: the latent x and the estimate x0 of where it goes.

    t runs from 1 (noise) to 0 (data); a diffusion's timestep n of 1000 is t = n / 1000.
    """

    index: int
    total: int
    t: float
    x: Tensor
    x0: Tensor
