"""Samplers against closed forms, guidance against its definition."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from opensora_demo.errors import NumericsError
from opensora_demo.request.limits import ALL_RULES, Rule
from opensora_demo.sampling.bends import APG_LIMIT, cfg_zero, limited, orthogonal_part, rescaled
from opensora_demo.sampling.guidance import (
    ClassifierFree,
    ImageRule,
    TextImage,
    combine,
    flow_levels,
    guidance_changed,
    image_rules,
    needed,
    oscillate,
)
from opensora_demo.sampling.mask_strategy import apply_strategy, parse_strategy
from opensora_demo.sampling.rectified_flow import sample
from opensora_demo.sampling.schedule import flow_times
from opensora_demo.sampling.step import Prediction


@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 4, 30])
def test_euler_lands_on_the_target_of_a_straight_flow(steps: int, ratio: float) -> None:
    noise, target = torch.randn(2, 3, 2, 4, 4), torch.randn(1, 3, 2, 4, 4)
    done = list(sample(lambda x, t, i, _: Prediction(guided=(x - target) / t), noise, flow_times(steps, ratio)))
    assert len(done) == steps
    torch.testing.assert_close(done[-1].x, target.expand_as(noise), atol=1e-5, rtol=1e-4)
    for step in done:  # the estimate is right from the first step
        torch.testing.assert_close(step.x0, target.expand_as(noise), atol=1e-5, rtol=1e-4)


def curved(x: Tensor, t: float, index: int, mask: Tensor | None) -> Prediction:
    """dx/dt = x cos(3 t): from x(1) the solution ends at x(1) exp(-sin(3) / 3)."""
    return Prediction(guided=x * math.cos(3 * t))


@pytest.mark.parametrize("ratio", [1.0, 2.0])
def test_the_second_order_converges_twice_as_fast(ratio: float) -> None:
    start = torch.ones(1, 1, 1, 1, 1, dtype=torch.float64)

    def error(steps: int, order: int) -> float:
        end = list(sample(curved, start, flow_times(steps, ratio), order=order))[-1].x
        return abs(float(end) - math.exp(-math.sin(3) / 3))

    assert error(40, 1) / error(80, 1) == pytest.approx(2, rel=0.1)
    assert error(40, 2) / error(80, 2) == pytest.approx(4, rel=0.2)
    assert error(16, 2) < error(30, 1)


def test_a_step_by_another_guidance_is_eulers() -> None:
    """A line through velocities of two guidances is neither's."""
    drift = [1.0, 5.0, 2.0, 7.0]

    def velocity(x: Tensor, t: float, index: int, mask: Tensor | None) -> Prediction:
        return Prediction(
            guided=torch.full_like(x, drift[index]), guidance_changed=(index == 2, False) if index else ()
        )

    done = list(sample(velocity, torch.zeros(2, 1, 1, 1, 1), flow_times(4), order=2))
    moved = (done[2].x - done[1].x).flatten().tolist()
    assert moved == pytest.approx([-0.25 * drift[2], -0.25 * (1.5 * drift[2] - 0.5 * drift[1])])
    rule = ClassifierFree((4.0, 4.0), ("plain", "oscillating"))
    assert [guidance_changed(rule, i) for i in (0, 5, 11, 12)] == [(), (False, False), (False, True), (False, True)]


def test_a_frame_that_starts_late_starts_with_eulers_step() -> None:
    """Its velocity of the step before was that of a given frame."""
    noise = torch.zeros(1, 1, 2, 1, 1)
    mask, times = torch.tensor([[0.5, 1.0]]), flow_times(4)
    drift = [1.0, 5.0, 2.0, 7.0]
    done = list(
        sample(
            lambda x, t, i, m: Prediction(guided=torch.full_like(x, drift[i])),
            noise,
            times,
            order=2,
            frame_mask=mask,
            draw=lambda: torch.zeros(1, 1, 2, 1, 1),
        )
    )
    assert float(done[2].x[0, 0, 0] - done[1].x[0, 0, 0]) == pytest.approx(-0.25 * drift[2])
    assert float(done[2].x[0, 0, 1] - done[1].x[0, 0, 1]) == pytest.approx(-0.25 * (1.5 * drift[2] - 0.5 * drift[1]))


def test_times_fall_from_one_to_zero() -> None:
    times = flow_times(10, 3.0)
    assert times[0] == 1.0
    assert times[-1] == 0.0
    assert all(a > b for a, b in pairwise(times))
    assert times[5] > 0.5  # shifted towards the noise


def test_given_frames_stay_what_they_are() -> None:
    seen: list[Tensor] = []

    def velocity(x: Tensor, t: float, index: int, x_mask: Tensor | None) -> Prediction:
        assert x_mask is not None
        assert x_mask.tolist() == [[False, True, True]]
        seen.append(x[:, :, 0].clone())
        return Prediction(guided=torch.randn_like(x))

    start = torch.randn(1, 3, 3, 4, 4)  # frame 0 holds what is given
    mask = torch.tensor([[0.0, 1.0, 1.0]])
    last = list(sample(velocity, start, flow_times(4), frame_mask=mask, draw=lambda: torch.randn(start.shape)))[-1]
    assert torch.equal(last.x[:, :, 0], start[:, :, 0])
    assert torch.equal(last.x0[:, :, 0], start[:, :, 0])
    assert all(torch.equal(x, start[:, :, 0]) for x in seen)
    assert not torch.equal(last.x[:, :, 1], start[:, :, 1])


def test_a_frame_kept_in_part_starts_when_its_time_has_come() -> None:
    active: list[bool] = []

    def velocity(x: Tensor, t: float, index: int, x_mask: Tensor | None) -> Prediction:
        assert x_mask is not None
        active.append(bool(x_mask[0, 0]))
        return Prediction(guided=torch.zeros_like(x))

    start, noise = torch.zeros(1, 1, 2, 1, 1), torch.ones(1, 1, 2, 1, 1)
    steps = list(sample(velocity, start, flow_times(4), frame_mask=torch.tensor([[0.5, 1.0]]), draw=lambda: noise))
    assert active == [False, False, True, True]
    assert [float(s.x[0, 0, 0]) for s in steps] == [0.0, 0.0, 0.5, 0.5]  # noised to t = 0.5 once
    assert [float(s.x[0, 0, 1]) for s in steps] == [0.0] * 4  # generated from the start: never noised again


def test_numbers_that_are_not_finite_stop_the_run() -> None:
    with pytest.raises(NumericsError, match="step 2 of 4"):
        list(
            sample(
                lambda x, t, i, _: Prediction(guided=x * (float("nan") if i == 1 else 0.0)),
                torch.ones(1, 1, 1, 1, 1),
                flow_times(4),
            )
        )


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


def reference_scales(
    step: int, steps: int, frames: int, *, text: bool, image: bool, spread: bool
) -> tuple[float, list[float]]:
    """Text scale 7.5 and image scale 3 of each latent frame at a step, as Open-Sora v2.0 opensora/utils/sampling.py
    (I2VDenoiser.denoise) has them: three switches, none of which looks at another."""
    rests = step >= 10 and step % 2 == 1
    text_scale = 1.0 if text and rests else 7.5
    image_scale = 1.0 if image and rests else 3.0
    if not spread or image_scale <= 1:
        return text_scale, [image_scale] * frames
    upper = image_scale + (1 - image_scale) * step / steps
    return text_scale, [1 + (upper - 1) * frame / (frames - 1) for frame in range(frames)]


@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("text", [False, True])
def test_text_and_image_guidance_is_the_formula_of_the_reference(text: bool, image: bool, spread: bool) -> None:
    """Each of the eight ways in which 2.0's three switches can stand."""
    steps, frames = 14, 3
    c, u, u2 = (torch.randn(1, 2, frames, 1, 1) for _ in range(3))
    rule = TextImage(
        scales=(7.5,),
        rules=("oscillating" if text else "plain",),
        image_rules=(ImageRule(oscillating=image, spread=spread),),
        image_scale=3.0,
        points=steps + 1,
        latent_frames=frames,
    )
    for step in range(steps):
        s, i = reference_scales(step, steps, frames, text=text, image=image, spread=spread)
        expected = u2 + torch.tensor(i).view(1, 1, frames, 1, 1) * (u - u2) + s * (c - u)
        torch.testing.assert_close(combine([c, u, u2], rule.weights(step)), expected)
        assert rule.effective(step) == (s,)


def test_an_oscillating_row_of_the_demo_has_all_three_switches_on() -> None:
    assert image_rules(("oscillating", "plain")) == (ImageRule(oscillating=True, spread=True), ImageRule())


def test_an_image_scale_is_spread_down_to_its_low_value_only() -> None:
    """1.3's `initial_image_scale`: at or below it the scale is the same for all latent frames."""
    rule = TextImage(
        scales=(7.0,),
        rules=("plain",),
        image_rules=(ImageRule(spread=True),),
        image_scale=4.0,
        points=5,
        latent_frames=3,
        image_low=2.0,
    )
    assert rule.image(0, 0).tolist() == [2, 3, 4]
    assert rule.image(0, 4).tolist() == [2, 2, 2]
    assert replace(rule, image_low=4.0).image(0, 0).tolist() == [4, 4, 4]


def test_without_given_frames_two_branches_are_enough() -> None:
    c, u = torch.randn(1, 2, 3, 1, 1), torch.randn(1, 2, 3, 1, 1)
    two = ClassifierFree((4.0,), ("oscillating",))
    rules: tuple[Rule, ...] = ("oscillating",)
    three = TextImage(scales=(4.0,), rules=rules, image_rules=image_rules(rules), image_scale=3.0, points=5)
    torch.testing.assert_close(combine([c, u], two.weights(0)), combine([c, u, u], three.weights(0)))


def test_oscillation_rests_at_every_other_step_after_the_tenth() -> None:
    assert [oscillate(7, i) for i in range(8, 14)] == [7, 7, 7, 1, 7, 1]
    assert [oscillate(7, i, 3) for i in range(6)] == [7, 7, 7, 1, 7, 1]
    early = ClassifierFree((7.0,), ("oscillating",), full_steps=3)
    assert [early.effective(i) for i in (2, 3, 4)] == [(7,), (1,), (7,)]


def guided(rule: Rule, scale: float, c: Tensor, u: Tensor, step: int = 0, t: float = 0.5) -> Tensor:
    """With u for every other branch."""
    guidance = ClassifierFree((scale,), (rule,), flow_levels([t] * 20))
    branches = (c, *[u] * (guidance.weights(step).shape[1] - 1))
    return guidance.guide(branches, step, torch.randn_like(c), (1.0, -t))


@pytest.mark.parametrize("rule", ALL_RULES)
def test_at_scale_one_every_rule_is_the_prompt_alone(rule: Rule) -> None:
    c, u = torch.randn(1, 2, 3, 4, 4), torch.randn(1, 2, 3, 4, 4)
    torch.testing.assert_close(guided(rule, 1.0, c, u), c)


@pytest.mark.parametrize("rule", ALL_RULES)
def test_where_both_branches_agree_every_rule_is_their_prediction(rule: Rule) -> None:
    c = torch.randn(1, 2, 3, 4, 4)
    torch.testing.assert_close(guided(rule, 5.0, c, c), c)


def test_the_interval_leaves_much_and_little_noise_alone() -> None:
    """sigma / alpha = t / (1 - t) must lie in (0.28, 5.42]."""
    rule = ClassifierFree((4.0,), ("interval",), flow_levels([1.0, 0.9, 0.84, 0.5, 0.23, 0.2]))
    assert [rule.effective(i)[0] for i in range(6)] == [1, 1, 4, 4, 4, 1]
    assert rule.needed(0).tolist() == [[True, False]]
    assert rule.needed(3).tolist() == [[True, True]]


def test_projected_guidance_does_not_change_the_length_along_the_estimate() -> None:
    x, c, u = (torch.randn(2, 2, 3, 4, 4) for _ in range(3))
    t = 0.6
    rule = ClassifierFree((5.0, 9.0), ("apg", "apg"))
    out = rule.guide((c, u), 0, x, (1.0, -t))
    clean, moved = x - t * c, x - t * out
    dot = ((moved - clean) * clean).sum((1, 2, 3, 4))
    torch.testing.assert_close(dot, torch.zeros(2), atol=1e-3, rtol=0)
    pull = -t * (c - u)
    torch.testing.assert_close(
        moved[0] - clean[0], 4 * orthogonal_part(limited(pull, APG_LIMIT), clean)[0], atol=1e-4, rtol=1e-4
    )


def test_the_limit_of_projected_guidance_is_the_same_for_every_size() -> None:
    """The root mean square of a pull, however many values it has; a weaker one stays as it is."""
    for size in ((2, 3, 4, 4), (4, 1, 128, 128)):
        pull = torch.randn(1, *size)
        assert float(limited(pull, 0.06).square().mean().sqrt()) == pytest.approx(0.06)
        torch.testing.assert_close(limited(0.01 * pull, 0.06), 0.01 * pull)


def test_the_momentum_of_projected_guidance_belongs_to_one_run() -> None:
    x, c, u = (torch.randn(1, 2, 3, 4, 4) for _ in range(3))
    rule = ClassifierFree((5.0,), ("apg",))
    first, second, again = (rule.guide((c, other), step, x, (1.0, -0.5)) for step, other in ((0, u), (1, x), (0, u)))
    assert torch.equal(first, again)
    fresh = ClassifierFree((5.0,), ("apg",)).guide((c, x), 0, x, (1.0, -0.5))
    assert not torch.allclose(second, fresh)


def test_cfg_zero_takes_what_the_branches_share_from_the_null_branch() -> None:
    u = torch.randn(2, 2, 3, 4, 4)
    torch.testing.assert_close(cfg_zero(3 * u, u, 7.0), 3 * u)  # nothing is left to guide
    c = torch.randn(2, 2, 3, 4, 4)
    rest = cfg_zero(c, u, 2.0) - c  # (s - 1)(c - z u) is at right angles to u
    torch.testing.assert_close((rest * u).sum((1, 2, 3, 4)), torch.zeros(2), atol=1e-3, rtol=0)


@pytest.mark.parametrize("rule", ALL_RULES)
def test_columns_with_different_rules_do_not_touch_each_other(rule: Rule) -> None:
    x, c, u = (torch.randn(3, 2, 3, 4, 4) for _ in range(3))
    levels = flow_levels([0.5, 0.5])
    together = ClassifierFree((4.0, 2.0, 4.0), ("plain", rule, "apg"), levels)
    alone = ClassifierFree((2.0,), (rule,), levels)
    for step in (0, 1):
        branches = (c, *[u] * (together.weights(step).shape[1] - 1))
        both = together.guide(branches, step, x, (1.0, -0.5))
        own = alone.guide([branch[1:2] for branch in branches], step, x[1:2], (1.0, -0.5))
        torch.testing.assert_close(both[1:2], own)


def test_rescaling_restores_the_spread() -> None:
    conditional = torch.randn(2, 3, 4, 4, 4)
    full = rescaled(5 * conditional, conditional, 1.0)
    torch.testing.assert_close(full.std(dim=(1, 2, 3, 4)), conditional.std(dim=(1, 2, 3, 4)))
    assert torch.equal(rescaled(5 * conditional, conditional, 0.0), 5 * conditional)


def test_a_strategy_with_too_many_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 6"):
        parse_strategy("0,0,0,0,1,0.5,9")


def test_a_strategy_leaves_the_latent_it_was_given_alone() -> None:
    z, reference = torch.zeros(2, 5, 1, 1), torch.ones(2, 3, 1, 1)
    new, mask = apply_strategy(z, [reference], "0,0,-1,-2,9,0.25")
    assert z.sum() == 0
    assert new[:, 3].sum() == 2
    assert mask.tolist() == [1, 1, 1, 0.25, 1]
