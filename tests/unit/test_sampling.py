"""Samplers against closed forms, guidance against its definition."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from opensora_demo.errors import NumericsError
from opensora_demo.sampling.guidance import ClassifierFree, combine, needed
from opensora_demo.sampling.rectified_flow import sample
from opensora_demo.sampling.schedule import flow_times


@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 4, 30])
def test_euler_lands_on_the_target_of_a_straight_flow(steps: int, ratio: float) -> None:
    noise, target = torch.randn(2, 3, 2, 4, 4), torch.randn(1, 3, 2, 4, 4)
    done = list(sample(lambda x, t, i: (x - target) / t, noise, flow_times(steps, ratio)))
    assert len(done) == steps
    torch.testing.assert_close(done[-1].x, target.expand_as(noise), atol=1e-5, rtol=1e-4)
    for step in done:  # the estimate is right from the first step
        torch.testing.assert_close(step.x0, target.expand_as(noise), atol=1e-5, rtol=1e-4)


def test_times_fall_from_one_to_zero() -> None:
    times = flow_times(10, 3.0)
    assert times[0] == 1.0
    assert times[-1] == 0.0
    assert all(a > b for a, b in pairwise(times))
    assert times[5] > 0.5  # shifted towards the noise


def test_given_frames_stay_what_they_are() -> None:
    given = torch.randn(3, 1, 4, 4)
    mask = torch.tensor([False, True, True])
    seen: list[Tensor] = []

    def velocity(x: Tensor, t: float, index: int) -> Tensor:
        seen.append(x[:, :, 0].clone())
        return torch.randn_like(x)

    noise = torch.randn(1, 3, 3, 4, 4)
    last = list(sample(velocity, noise, flow_times(4), given=given, x_mask=mask))[-1]
    assert torch.equal(last.x[0, :, 0], given[:, 0])
    assert torch.equal(last.x0[0, :, 0], given[:, 0])
    assert all(torch.equal(x[0], given[:, 0]) for x in seen)
    assert not torch.equal(last.x[0, :, 1], noise[0, :, 1])


def test_numbers_that_are_not_finite_stop_the_run() -> None:
    with pytest.raises(NumericsError, match="step 2 of 4"):
        list(sample(lambda x, t, i: x * (float("nan") if i == 1 else 0.0), torch.ones(1, 1, 1, 1, 1), flow_times(4)))


def test_guidance_is_the_textbook_formula() -> None:
    c, u = torch.randn(3, 4), torch.randn(3, 4)
    scales = (0.0, 1.0, 7.5)
    weights = ClassifierFree(scales).weights(0)
    assert torch.allclose(weights.sum(1), torch.ones(3))
    expected = torch.stack([u[i] + s * (c[i] - u[i]) for i, s in enumerate(scales)])
    torch.testing.assert_close(combine([c, u], weights), expected)


def test_branches_of_weight_zero_are_not_needed() -> None:
    assert needed(ClassifierFree((1.0, 4.0, 0.0)).weights(0)).tolist() == [[True, False], [True, True], [False, True]]
    c = torch.randn(1, 2)
    assert torch.equal(combine([c, None], ClassifierFree((1.0,)).weights(0)), c)
