"""Sampling a diffusion of 1000 timesteps: IDDPM, DDIM and DPM-Solver++, as Open-Sora 1.0 and 1.1 use them.

The network predicts the noise eps and, where it has learned it, how far the variance lies between its two bounds.
Sources: Nichol & Dhariwal, "Improved denoising diffusion probabilistic models", 2021; Song et al., "DDIM", 2021; Lu et
al., "DPM-Solver++", 2022; Open-Sora v1.0.0 opensora/schedulers/iddpm, opensora/schedulers/dpms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from opensora_demo.errors import NumericsError
from opensora_demo.messages import message
from opensora_demo.sampling.config import IddpmConfig
from opensora_demo.sampling.step import Prediction, Step, Turn

TIMESTEPS = 1000
BETA_FIRST, BETA_LAST = 1e-4, 2e-2
FEW_STEPS = 10

Predict = Callable[[Tensor, float, int, Tensor | None], Prediction]
"""(x (rows, c, t, h, w), timestep 0..999, step index, x_mask (rows, t) or None) -> eps, or eps and variance values on
twice the channels; x_mask is False for frames that are given."""


def space_timesteps(sections: str, timesteps: int = TIMESTEPS) -> list[int]:
    """Which timesteps to keep, rising: "30" spreads that many from first to last, "10,15,20" so in equal sections,
    "ddim25" takes a fixed stride. Raises ValueError where that is impossible.

    Source: Open-Sora v1.0.0 opensora/schedulers/iddpm/respace.py (space_timesteps).
    """
    if sections.startswith("ddim"):
        wanted = int(sections.removeprefix("ddim"))
        for stride in range(1, timesteps):
            if len(range(0, timesteps, stride)) == wanted:
                return list(range(0, timesteps, stride))
        raise ValueError(f"no whole stride takes {wanted} of {timesteps} timesteps")
    counts = [int(count) for count in sections.split(",")]
    size, extra = divmod(timesteps, len(counts))
    kept: set[int] = set()
    start = 0
    for i, count in enumerate(counts):
        length = size + (1 if i < extra else 0)
        if not 1 <= count <= length:
            raise ValueError(f"a section of {length} timesteps cannot give {count}")
        apart = 1.0 if count == 1 else (length - 1) / (count - 1)
        position = 0.0
        for _ in range(count):  # summed rather than multiplied: the reference rounds the running sum
            kept.add(start + round(position))
            position += apart
        start += length
    return sorted(kept)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Diffusion:
    """The process that only visits `timestep_map`: tables (steps) over its own index, which runs backwards."""

    timestep_map: list[int]
    betas: Tensor
    alphas_cumprod: Tensor
    alphas_cumprod_prev: Tensor
    posterior_variance: Tensor
    posterior_log_variance_clipped: Tensor
    posterior_mean_coef1: Tensor
    posterior_mean_coef2: Tensor

    @classmethod
    def respaced(cls, sections: str, *, float32_betas: bool = False) -> Diffusion:
        """Open-Sora 1.0 keeps the tables in float64, 1.1 (`float32_betas`) rounds the betas and works in float32."""
        kept = space_timesteps(sections)
        full = (1 - linear_betas()).cumprod(0)[kept]
        before = torch.cat([full.new_ones(1), full[:-1]])
        betas = 1 - full / before
        if float32_betas:
            betas = betas.float()
        alphas_cumprod = (1 - betas).cumprod(0)
        previous = torch.cat([alphas_cumprod.new_ones(1), alphas_cumprod[:-1]])
        variance = betas * (1 - previous) / (1 - alphas_cumprod)
        clipped = torch.cat([variance[1:2], variance[1:]]) if len(variance) > 1 else variance
        return cls(
            timestep_map=kept,
            betas=betas,
            alphas_cumprod=alphas_cumprod,
            alphas_cumprod_prev=previous,
            posterior_variance=variance,
            posterior_log_variance_clipped=clipped.clamp(min=1e-20).log(),
            posterior_mean_coef1=betas * previous.sqrt() / (1 - alphas_cumprod),
            posterior_mean_coef2=(1 - previous) * (1 - betas).sqrt() / (1 - alphas_cumprod),
        )

    def noised(self, x: Tensor, index: int, noise: Tensor) -> Tensor:
        """x as it would be at `index`: sqrt(a) x + sqrt(1 - a) noise."""
        a = self.alphas_cumprod[index]
        return float(a.sqrt()) * x + float((1 - a).sqrt()) * noise

    def to_x0(self, index: int) -> tuple[float, float]:
        """(a, b) of the x0 = a x + b eps that x and eps speak of: 1 / sqrt(alpha) and -sqrt(1 / alpha - 1)."""
        a = self.alphas_cumprod[index]
        return float(a.rsqrt()), -float((1 / a - 1).sqrt())

    def ddpm(self, x: Tensor, index: int, x0: Tensor, fraction: Tensor | None, noise: Tensor) -> Tensor:
        """One ancestral step. `fraction` in -1..1 places the log variance between its bounds, the posterior's (-1)
        and beta's (1); without it beta's is taken ("fixed large")."""
        mean = float(self.posterior_mean_coef1[index]) * x0 + float(self.posterior_mean_coef2[index]) * x
        if index == 0:
            return mean
        low = float(self.posterior_log_variance_clipped[index])
        if fraction is None:
            return mean + math.sqrt(float(self.betas[index])) * noise
        share = (fraction + 1) / 2
        return mean + torch.exp(0.5 * (share * float(self.betas[index].log()) + (1 - share) * low)) * noise

    def ddim(self, x: Tensor, index: int, x0: Tensor, eta: float, noise: Tensor) -> Tensor:
        """One step of Song et al., eq. 12; eta 0 is deterministic, 1 about as noisy as DDPM."""
        a, before = float(self.alphas_cumprod[index]), float(self.alphas_cumprod_prev[index])
        eps = (x / math.sqrt(a) - x0) / math.sqrt(1 / a - 1)
        sigma = eta * math.sqrt((1 - before) / (1 - a)) * math.sqrt(1 - a / before)
        mean = math.sqrt(before) * x0 + math.sqrt(1 - before - sigma**2) * eps
        return mean + sigma * noise if index > 0 else mean


@cache
def _log_alphas() -> Tensor:
    """log sqrt(alphas_cumprod) of the whole timesteps, (1000)."""
    return 0.5 * (1 - linear_betas()).log().cumsum(0)


def _log_alpha(timestep: float) -> float:
    """The same at any timestep 0..999, interpolated between two whole ones."""
    log_alphas = _log_alphas()
    at = min(max(timestep, 0.0), TIMESTEPS - 1.0)
    low = min(int(at), TIMESTEPS - 2)
    return float(torch.lerp(log_alphas[low], log_alphas[low + 1], at - low))


def to_x0(timestep: float) -> tuple[float, float]:
    """(a, b) of the x0 = a x + b eps that x and eps speak of at a timestep: 1 / alpha and -sigma / alpha."""
    alpha = math.exp(_log_alpha(timestep))
    return 1 / alpha, -math.sqrt(1 - alpha**2) / alpha


def noise_levels(steps: int, config: IddpmConfig) -> tuple[float, ...]:
    """sigma / alpha of each step that `sample` takes, falling."""
    if config.method == "dpm-solver++":
        visited = [TIMESTEPS * float(t) - 1 for t in _dpm_times(steps)[:-1]]
    else:
        visited = [float(t) for t in reversed(space_timesteps(str(steps)))]
    return tuple(-to_x0(t)[1] for t in visited)


def _dpm_times(steps: int) -> Tensor:
    return torch.linspace(1.0, 1 / TIMESTEPS, steps + 1, dtype=torch.float64)


def linear_betas() -> Tensor:
    """(1000) in float64, from 1e-4 to 2e-2."""
    return torch.linspace(BETA_FIRST, BETA_LAST, TIMESTEPS, dtype=torch.float64)


def sample(
    predict: Predict,
    noise: Tensor,
    steps: int,
    config: IddpmConfig,
    draw: Callable[[], Tensor],
    *,
    frame_mask: Tensor | None = None,
    turn: Turn | None = None,
) -> Iterator[Step]:
    """From noise (rows, c, t, h, w), one Step at a time; `draw` gives the next standard normal tensor of that shape,
    or of one row for all.

    `frame_mask` (rows or 1, t) in 0..1, 1.1 only: 1 generates a frame, 0 keeps what `noise` holds there, a value
    between starts changing it at that share of the steps. As in the reference, a kept frame too goes through the
    network at the last step, noised at the lowest level. Raises NumericsError when the output is not finite.
    """
    if config.method == "dpm-solver++":
        if frame_mask is not None:
            raise ValueError("DPM-Solver++ takes no frame mask")
        yield from _dpm_solver(predict, noise, steps, turn)
        return
    process = Diffusion.respaced(str(steps), float32_betas=config.float32_betas)
    total = len(process.timestep_map)
    starts = (
        None if frame_mask is None else (frame_mask * total).int()
    )  # (rows or 1, t): the index at which each starts
    x, x0, channels = noise, noise, noise.shape[1]
    for i in range(total):
        index = total - 1 - i
        if turn is not None and i == turn.index and turn.noise is not None:
            again = process.noised(x0, index, turn.noise)
            x = again if starts is None else torch.where((starts > index)[:, None, :, None, None], again, x)
        x_mask, kept = None, x
        if starts is not None:
            fresh = process.noised(x, index, draw())
            x = torch.where((starts == index)[:, None, :, None, None], fresh, x)
            x_mask = (starts > index).expand(len(x), -1)
        timestep = process.timestep_map[index]
        start, prediction = x, predict(x, float(timestep), i, x_mask)
        out = prediction.guided
        _check(out, i, total)
        eps, fraction = out[:, :channels], out[:, channels:] if out.shape[1] > channels else None
        to_x0 = process.to_x0(index)
        x0 = to_x0[0] * x + to_x0[1] * eps
        if config.method == "ddim":
            x = process.ddim(x, index, x0, config.eta, draw())
        else:
            x = process.ddpm(x, index, x0, fraction, draw())
        if starts is not None:
            x = torch.where((starts < index)[:, None, :, None, None], kept, x)
        yield Step(
            index=i,
            total=total,
            t=timestep / TIMESTEPS,
            x=x,
            x0=x0,
            start=start,
            prediction=prediction,
            to_x0=to_x0,
            x_mask=x_mask,
        )


def _check(out: Tensor, i: int, total: int) -> None:
    if not torch.isfinite(out).all():
        raise NumericsError(message("run.not_finite", step=i + 1, total=total))


def _dpm_solver(predict: Predict, noise: Tensor, steps: int, turn: Turn | None = None) -> Iterator[Step]:
    """DPM-Solver++(2M), algorithm 2 of Lu et al., at `steps` uniform times from 1 to 1/1000.

    Below ten steps the last is of order 1, which keeps it stable; so is the one of a `turn`.

    Times are continuous: between two timesteps log alpha is interpolated, and the network is told 1000 t - 1, which
    is no whole number. Source: Open-Sora v1.0.0 opensora/schedulers/dpms/dpm_solver.py.
    """
    times = _dpm_times(steps)
    log_alpha = [_log_alpha(TIMESTEPS * float(t) - 1) for t in times]
    sigma = [math.sqrt(1 - math.exp(2 * a)) for a in log_alpha]
    half_log_snr = [a - math.log(s) for a, s in zip(log_alpha, sigma, strict=True)]  # lambda

    x, channels = noise, noise.shape[1]
    before: Tensor | None = None  # the x0 estimate of the step before
    for i in range(steps):
        t = float(times[i])
        if turn is not None and i == turn.index:
            if turn.noise is not None and before is not None:
                x = math.exp(log_alpha[i]) * before + sigma[i] * turn.noise
            before = None
        start, prediction = x, predict(x, TIMESTEPS * t - 1, i, None)
        out = prediction.guided
        _check(out, i, steps)
        x0 = (x - sigma[i] * out[:, :channels]) / math.exp(log_alpha[i])
        h = half_log_snr[i + 1] - half_log_snr[i]
        direction = x0
        if before is not None and not (steps < FEW_STEPS and i + 1 == steps):
            r = (half_log_snr[i] - half_log_snr[i - 1]) / h
            direction = x0 + (x0 - before) / (2 * r)
        x = sigma[i + 1] / sigma[i] * x - math.exp(log_alpha[i + 1]) * math.expm1(-h) * direction
        before = x0
        alpha = math.exp(log_alpha[i])
        yield Step(
            index=i,
            total=steps,
            t=t,
            x=x,
            x0=x0,
            start=start,
            prediction=prediction,
            to_x0=(1 / alpha, -sigma[i] / alpha),
        )
