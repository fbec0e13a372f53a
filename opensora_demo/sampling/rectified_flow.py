"""Sampling a rectified flow (Liu et al., "Flow straight and fast", 2022) with Euler steps.

Convention of this package: x_t = (1 - t) x0 + t noise, t from 1 to 0, and the velocity is dx/dt = noise - x0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from opensora_demo.errors import NumericsError
from opensora_demo.sampling.step import Step

Velocity = Callable[[Tensor, float, int], Tensor]
"""(x (rows, c, t, h, w), time, step index) -> dx/dt of the same shape."""


def sample(
    velocity: Velocity,
    noise: Tensor,
    times: Sequence[float],
    *,
    given: Tensor | None = None,
    x_mask: Tensor | None = None,
) -> Iterator[Step]:
    """Integrate from noise (rows, c, t, h, w) to data, one Step at a time.

    Where x_mask (t) is False the latent frame stays `given` (c, t, h, w) throughout: a reference image.
    Raises NumericsError when the velocity is not finite.
    """
    x = noise
    keep: Tensor | None = None
    if given is not None and x_mask is not None:
        keep = x_mask[None, None, :, None, None]
        x = torch.where(keep, x, given)
    total = len(times) - 1
    for i in range(total):
        t, t_next = times[i], times[i + 1]
        v = velocity(x, t, i)
        if not torch.isfinite(v).all():
            raise NumericsError(
                f"the model's output is not finite at step {i + 1} of {total}; try another guidance scale"
            )
        x0 = x - t * v
        x = x + (t_next - t) * v
        if keep is not None:
            x, x0 = torch.where(keep, x, given), torch.where(keep, x0, given)  # type: ignore[arg-type]
        yield Step(index=i, total=total, t=t, x=x, x0=x0)
