"""Diffusion samplers against closed forms: with the noise of a known x0 they land on it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from opensora_demo.errors import NumericsError
from opensora_demo.sampling.config import IddpmConfig
from opensora_demo.sampling.iddpm import TIMESTEPS, linear_betas, sample, space_timesteps
from opensora_demo.sampling.step import Prediction

ALPHAS = (1 - linear_betas()).cumprod(0)


def alpha_at(timestep: float) -> float:
    """Between whole timesteps log alpha is interpolated."""
    low = min(int(timestep), TIMESTEPS - 2)
    return float(torch.lerp(ALPHAS[low].log(), ALPHAS[low + 1].log(), timestep - low).exp())


def exact(target: Tensor, seen: list[float]):  # type: ignore[no-untyped-def]
    """A network that knows the answer: the noise that separates x from the target."""

    def predict(x: Tensor, timestep: float, index: int, x_mask: Tensor | None) -> Prediction:
        seen.append(timestep)
        a = alpha_at(timestep)
        eps = (x.double() - a**0.5 * target.double()) / (1 - a) ** 0.5
        return Prediction(guided=torch.cat([eps, torch.zeros_like(eps)], dim=1).float())

    return predict


@pytest.mark.parametrize("method", ["ddpm", "ddim", "dpm-solver++"])
@pytest.mark.parametrize("steps", [2, 9, 25])
def test_every_sampler_lands_on_a_target_that_the_network_knows(method: str, steps: int) -> None:
    target, noise, seen = torch.randn(1, 2, 3, 4, 4), torch.randn(2, 2, 3, 4, 4), []
    done = list(
        sample(exact(target, seen), noise, steps, IddpmConfig(method=method), lambda: torch.randn(1, 2, 3, 4, 4))  # type: ignore[arg-type]
    )
    assert len(done) == steps
    assert seen[0] == pytest.approx(999)
    assert seen == sorted(seen, reverse=True)
    assert done[0].t == pytest.approx(1.0, abs=2e-3)
    torch.testing.assert_close(done[-1].x0, target.expand_as(noise), atol=2e-2, rtol=1e-2)
    torch.testing.assert_close(done[-1].x, target.expand_as(noise), atol=5e-2, rtol=5e-2)


def test_ddim_without_eta_needs_no_noise() -> None:
    target, noise = torch.randn(1, 1, 1, 2, 2), torch.randn(1, 1, 1, 2, 2)
    runs = [
        list(sample(exact(target, []), noise, 5, IddpmConfig(method="ddim"), lambda s=s: s * torch.ones_like(noise)))
        for s in (0.0, 9.0)
    ]
    assert torch.equal(runs[0][-1].x, runs[1][-1].x)


def test_kept_frames_are_flagged_and_put_back() -> None:
    flags: list[list[bool]] = []

    def predict(x: Tensor, timestep: float, index: int, x_mask: Tensor | None) -> Prediction:
        assert x_mask is not None
        flags.append(x_mask[0].tolist())
        return Prediction(guided=torch.zeros(1, 2, *x.shape[2:]))

    start = torch.randn(1, 1, 3, 1, 1)
    mask = torch.tensor([[0.0, 0.5, 1.0]])
    steps = list(sample(predict, start, 4, IddpmConfig(), lambda: torch.randn(start.shape), frame_mask=mask))
    assert flags == [[False, False, True], [False, False, True], [False, True, True], [False, True, True]]
    assert all(torch.equal(s.x[:, :, 0], start[:, :, 0]) for s in steps[:-1])  # the last step touches it, as upstream
    assert not torch.equal(steps[0].x[:, :, 2], start[:, :, 2])


def test_dpm_solver_takes_no_frame_mask() -> None:
    config, _x = IddpmConfig(method="dpm-solver++"), torch.zeros(1, 1, 1, 1, 1)
    with pytest.raises(ValueError, match="frame mask"):
        list(
            sample(
                exact(torch.zeros(1), []),
                torch.zeros(1, 1, 1, 1, 1),
                3,
                config,
                torch.zeros,
                frame_mask=torch.ones(1, 1),
            )
        )  # type: ignore[arg-type]


def test_spacing() -> None:
    assert space_timesteps("1") == [0]
    assert space_timesteps("2") == [0, 999]
    assert len(space_timesteps("ddim50")) == 50
    with pytest.raises(ValueError, match="cannot give"):
        space_timesteps("1001")
    with pytest.raises(ValueError, match="no whole stride"):
        space_timesteps("ddim999")


def test_numbers_that_are_not_finite_stop_the_run() -> None:
    def predict(x: Tensor, timestep: float, index: int, x_mask: Tensor | None) -> Prediction:
        return Prediction(guided=torch.full_like(x, float("inf") if index else 0.0))

    with pytest.raises(NumericsError, match="step 2 of 3"):
        list(sample(predict, torch.ones(1, 1, 1, 1, 1), 3, IddpmConfig(), lambda: torch.ones(1)))
