"""What a network says at a point of the way, and what every sampler yields."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The guided prediction (rows, c, t, h, w) and each branch's, in the network's own terms: a velocity, or a noise
    estimate. A branch is None where no row weighs it; of a learned variance only `guided` has the channels.
    `guidance_changed` says of each row whether its guidance is another than at the step before: no line joins the two.
    """

    guided: Tensor
    branches: tuple[Tensor | None, ...] = ()
    guidance_changed: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """From step `index` > 0 on a run goes another way: nothing before it is a history of what follows. With `noise`
    (1, c, t, h, w) the estimate of the step before is noised anew there, to that step's own time."""

    index: int
    noise: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """After step `index` of `total`, taken at time t: the latent x and the estimate x0 of where it goes.

    t runs from 1 (noise) to 0 (data); a diffusion's timestep n of 1000 is t = n / 1000. `start` is the latent before
    the step, and a prediction p there speaks of x0 = a start + b p, where (a, b) is `to_x0`. `x_mask` (rows, t) is
    False for frames that were kept, of which a prediction says nothing.
    """

    index: int
    total: int
    t: float
    x: Tensor
    x0: Tensor
    start: Tensor
    prediction: Prediction
    to_x0: tuple[float, float]
    x_mask: Tensor | None = None
