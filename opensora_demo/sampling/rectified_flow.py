"""Sampling a rectified flow (Liu et al., "Flow straight and fast", 2022).

Convention of this package: x_t = (1 - t) x0 + t noise, t from 1 to 0, and the velocity is dx/dt = noise - x0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from opensora_demo.errors import NumericsError
from opensora_demo.messages import message
from opensora_demo.sampling.step import Prediction, Step, Turn

Velocity = Callable[[Tensor, float, int, Tensor | None], Prediction]
"""(x (rows, c, t, h, w), time, step index, x_mask (rows, t) or None) -> dx/dt of the same shape; x_mask is False for
frames that are given."""


def noised(x0: Tensor, noise: Tensor, t: float | Tensor) -> Tensor:
    """x_t = (1 - t) x0 + t noise."""
    return (1 - t) * x0 + t * noise


def velocity_to(x0: Tensor, x: Tensor, t: float | Tensor) -> Tensor:
    """dx/dt of the straight way from x at time t > 0 to x0 at time 0: (x - x0) / t."""
    return (x - x0) / t


def sample(
    velocity: Velocity,
    noise: Tensor,
    times: Sequence[float],
    *,
    order: int = 1,
    frame_mask: Tensor | None = None,
    given: tuple[Tensor, Tensor] | None = None,
    draw: Callable[[], Tensor] | None = None,
    turn: Turn | None = None,
) -> Iterator[Step]:
    """Integrate from noise (rows, c, t, h, w) to data, one Step at a time.

    `order` 1 takes Euler steps. 2 takes Adams-Bashforth steps of two points, v + (v - v_before) h / (2 h_before) in
    place of v (Hairer, Norsett & Wanner, "Solving ordinary differential equations I", III.5, for uneven steps), at the
    same one call of the network a step; the first step, the first of a frame that starts late, the first by another
    guidance and that of a `turn` are Euler's.

    `frame_mask` (rows or 1, t) in 0..1, as 1.1 and 1.2 have it: 1 generates a frame, 0 keeps what `noise` holds
    there, a value between noises it when that time has come and goes on from there.
    `given` is (latent, mask), both (c, t, h, w), the latent with rows in front where they differ: before every step
    the latent, noised to the step's time, replaces x where the mask is one (SDEdit, an option of 1.3).
    `draw` gives the normal noise that either needs, one row or all. Raises NumericsError when the velocity is not
    finite. Source: Open-Sora v1.2.0, v1.3 opensora/schedulers/rf/__init__.py.
    """
    x, total = noise, len(times) - 1
    renoised = None if frame_mask is None else frame_mask == 1  # frames that need no noise when they start
    before: Tensor | None = None
    x0 = noise
    for i in range(total):
        t, t_next = times[i], times[i + 1]
        if turn is not None and i == turn.index:
            before = None
            if turn.noise is not None:  # what is kept has not moved: it is its own estimate
                fresh = noised(x0, turn.noise, t)
                x = fresh if renoised is None else torch.where(renoised[:, None, :, None, None], fresh, x)
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
            raise NumericsError(message("run.not_finite", step=i + 1, total=total))
        x0, slope = x - t * v, v
        if order == 2:
            if before is not None:
                slope = v + (v - before) * ((t_next - t) / (2 * (t - times[i - 1])))
                slope = slope if starting is None else torch.where(starting, v, slope)
                if any(prediction.guidance_changed):
                    changed = torch.tensor(prediction.guidance_changed, device=v.device).view(-1, 1, 1, 1, 1)
                    slope = torch.where(changed, v, slope)
            before = v
        x = x + (t_next - t) * slope
        if x_mask is not None:
            given_frame = ~x_mask[:, None, :, None, None]
            x, x0 = torch.where(given_frame, kept, x), torch.where(given_frame, kept, x0)
        yield Step(
            index=i, total=total, t=t, x=x, x0=x0, start=start, prediction=prediction, to_x0=(1.0, -t), x_mask=x_mask
        )
