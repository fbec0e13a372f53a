"""What a network says at a point of the way, and what every sampler yields."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The guided prediction (rows, c, t, h, w) and each branch's, in the network's own terms: a velocity, or a noise
    estimate. A branch is None where no row weighs it; of a learned variance only `guided` has the channels."""

    guided: Tensor
    branches: tuple[Tensor | None, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """After step `index` of `total`, taken at time t: the latent x and the estimate x0 of where it goes.

    t runs from 1 (noise) to 0 (data); a diffusion's timestep n of 1000 is t = n / 1000. `start` is the latent before
    the step, and a prediction p there speaks of x0 = a start + b p, where (a, b) is `to_x0`.
    """

    index: int
    total: int
    t: float
    x: Tensor
    x0: Tensor
    start: Tensor
    prediction: Prediction
    to_x0: tuple[float, float]

    def estimate(self, branch: int) -> Tensor | None:
        """The x0 that one branch speaks of, (rows, c, t, h, w)."""
        found = self.prediction.branches[branch] if branch < len(self.prediction.branches) else None
        return None if found is None else self.to_x0[0] * self.start + self.to_x0[1] * found
