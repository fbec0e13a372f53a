"""Sampling a rectified flow (Liu et al., "Flow straight and fast", 2022).

Convention of this package: x_t = (1 - t) x0 + t noise, t from 1 to 0, and the velocity is dx/dt = noise - x0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from opensora_demo.errors import NumericsError
from opensora_demo.sampling.step import Prediction, Step

Velocity = Callable[[Tensor, float, int, Tensor | None], Prediction]
"""(x (rows, c, t, h, w), time, step index, x_mask (rows, t) or None) -> dx/dt of the same shape; x_mask is False for
frames that are given."""


def noised(x0: Tensor, noise: Tensor, t: float | Tensor) -> Tensor:
    """x_t = (1 - t) x0 + t noise."""
    return (1 - t) * x0 + t * noise


def sample(
    velocity: Velocity,
    noise: Tensor,
    times: Sequence[float],
    *,
    order: int = 1,
    frame_mask: Tensor | None = None,
    given: tuple[Tensor, Tensor] | None = None,
    draw: Callable[[], Tensor] | None = None,
) -> Iterator[Step]:
    """Integrate from noise (rows, c, t, h, w) to data, one Step at a time.

    `order` 1 takes Euler steps. 2 takes Adams-Bashforth steps of two points, v + (v - v_before) h / (2 h_before) in
    place of v (Hairer, Norsett & Wanner, "Solving ordinary differential equations I", III.5, for uneven steps), at the
    same one call of the network a step; the first step, the first of a frame that starts late and the first by another
    guidance are Euler's.

    `frame_mask` (rows or 1, t) in 0..1, as 1.1 and 1.2 have it: 1 generates a frame, 0 keeps what `noise` holds
    there, a value between noises it when that time has come and goes on from there.
    `given` is (latent, mask), both (c, t, h, w): before every step the latent, noised to the step's time, replaces x
    where the mask is one (SDEdit, an option of 1.3).
    `draw` gives the normal noise that either needs, one row or all. Raises NumericsError when the velocity is not
    finite. Source: Open-Sora v1.2.0, v1.3 opensora/schedulers/rf/__init__.py.
    """
    x, total = noise, len(times) - 1
    renoised = None if frame_mask is None else frame_mask == 1  # frames that need no noise when they start
    before: Tensor | None = None
    for i in range(total):
        t, t_next = times[i], times[i + 1]
        x_mask, kept, starting = None, x, None
        if frame_mask is not None and renoised is not None and draw is not None:
            active = frame_mask >= t  # (rows or 1, t)
            starting = (active & ~renoised)[:, None, :, None, None]
            x = torch.where(starting, noised(x, draw(), t), x)
            x_mask, renoised = active.expand(len(x), -1), active
        if given is not None and draw is not None:
            x = torch.where(given[1] == 1, noised(given[0], draw(), t), x)
        start, prediction = x, velocity(x, t, i, x_mask)
        v = prediction.guided
        if not torch.isfinite(v).all():
            raise NumericsError(
                f"the model's output is not finite at step {i + 1} of {total}; try another guidance scale"
            )
        x0, slope = x - t * v, v
        if order == 2:
            if before is not None:
                slope = v + (v - before) * ((t_next - t) / (2 * (t - times[i - 1])))
                slope = slope if starting is None else torch.where(starting, v, slope)
                if any(prediction.jumps):
                    jumps = torch.tensor(prediction.jumps, device=v.device).view(-1, 1, 1, 1, 1)
                    slope = torch.where(jumps, v, slope)
            before = v
        x = x + (t_next - t) * slope
        if x_mask is not None:
            still = ~x_mask[:, None, :, None, None]
            x, x0 = torch.where(still, kept, x), torch.where(still, kept, x0)
        yield Step(
            index=i, total=total, t=t, x=x, x0=x0, start=start, prediction=prediction, to_x0=(1.0, -t), x_mask=x_mask
        )
