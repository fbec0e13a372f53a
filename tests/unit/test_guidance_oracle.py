"""Our guidance rules against diffusers' guiders, on the same predictions; where they differ, by how much is said.

diffusers marks its guiders as experimental: what it changes shows here. docs/guidance.md has the list.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import guiders
from diffusers.guiders import frequency_decoupled_guidance as fdg_module
from torch import Tensor

from opensora_demo.request.limits import ALL_RULES, Rule
from opensora_demo.sampling.bends import APG_LIMIT, APG_MOMENTUM, FDG_LOW, MAMBO_DAMPING, RESCALE, coarse
from opensora_demo.sampling.guidance import SKIP, SKIP_SHARE, WEAK, ClassifierFree, flow_levels

STEPS, SCALE = 12, 4.5
TIMES = [1 - i / STEPS for i in range(STEPS)]
SHAPE = (1, 4, 3, 6, 8)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(1)


def predictions() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, and velocities as alike as those of two branches: of the prompt, of the null prompt, and of a worse model."""
    x, shared = torch.randn(SHAPE), torch.randn(SHAPE)
    return x, *(shared + 0.2 * torch.randn(SHAPE) for _ in range(3))


def ours(rule: Rule, x: Tensor, c: Tensor, u: Tensor, worse: Tensor, guidance: ClassifierFree, step: int) -> Tensor:
    branches: list[Tensor | None] = [None] * guidance.weights(step).shape[1]
    branches[:2] = [c, u]
    for branch in (SKIP, WEAK):
        if branch < len(branches):
            branches[branch] = worse
    return guidance.guide(branches, step, x, (1.0, -TIMES[step]))


def steps_of(rule: Rule) -> Iterator[tuple[int, float, tuple[Tensor, Tensor, Tensor, Tensor], Tensor]]:
    """(step, t, (x, c, u, worse), our guided prediction) of a run; momentum goes on from step to step."""
    guidance = ClassifierFree((SCALE,), (rule,), flow_levels(TIMES))
    for step in range(STEPS):
        x, c, u, worse = predictions()
        yield step, TIMES[step], (x, c, u, worse), ours(rule, x, c, u, worse, guidance, step)


def at(guider: Any, step: int) -> Any:
    """The guider at a step, as a pipeline sets it."""
    guider.set_state(step=step, num_inference_steps=STEPS, timestep=torch.tensor(0))
    return guider


def assert_alike(mine: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(mine, theirs, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("rule", "guider"),
    [
        ("plain", guiders.ClassifierFreeGuidance(guidance_scale=SCALE)),
        ("rescale", guiders.ClassifierFreeGuidance(guidance_scale=SCALE, guidance_rescale=RESCALE)),
        ("cfg-zero", guiders.ClassifierFreeZeroStarGuidance(guidance_scale=SCALE, zero_init_steps=0)),
        ("tcfg", guiders.TangentialClassifierFreeGuidance(guidance_scale=SCALE)),
    ],
)
def test_rules_of_two_branches(rule: Rule, guider: Any) -> None:
    for step, _, (_, c, u, _), mine in steps_of(rule):
        assert_alike(mine, at(guider, step).forward(c, u).pred)


def test_mambo_g_on_sequences() -> None:
    """Theirs takes a norm over two axes at most, so that it cannot be given a video's latents as they are."""
    guider = guiders.MagnitudeAwareGuidance(guidance_scale=SCALE, alpha=MAMBO_DAMPING)
    for step, _, (_, c, u, _), mine in steps_of("mambo-g"):
        with pytest.raises(RuntimeError, match="2-tuple"):
            at(guider, step).forward(c, u)
        assert_alike(mine.flatten(1, 3), at(guider, step).forward(c.flatten(1, 3), u.flatten(1, 3)).pred)


def test_the_interval_in_steps() -> None:
    """Ours is in noise levels, as in the paper; theirs is in shares of the steps. The same where they mean the same."""
    done = list(steps_of("interval"))
    inside = [step for step, _, (_, c, _, _), mine in done if not torch.equal(mine, c)]
    assert 0 < inside[0] < inside[-1] < STEPS - 1
    guider = guiders.ClassifierFreeGuidance(
        guidance_scale=SCALE, start=(inside[0] + 0.5) / STEPS, stop=(inside[-1] + 1.5) / STEPS
    )
    for step, _, (_, c, u, _), mine in done:
        assert_alike(mine, at(guider, step).forward(c, u).pred)


def test_apg_on_clean_estimates() -> None:
    """Ours works on x0, as the paper does, and adds s - 1 times its pull to the prompt's estimate: theirs, given
    estimates, in the "original formulation" with s - 1. Their norm is our RMS times the root of how many values there
    are."""
    guider = guiders.AdaptiveProjectedGuidance(
        guidance_scale=SCALE - 1,
        adaptive_projected_guidance_momentum=APG_MOMENTUM,
        adaptive_projected_guidance_rescale=APG_LIMIT * torch.Size(SHAPE).numel() ** 0.5,
        eta=0.0,
        use_original_formulation=True,
    )
    guider.momentum_buffer = guiders.adaptive_projected_guidance.MomentumBuffer(APG_MOMENTUM)
    for step, t, (x, c, u, _), mine in steps_of("apg"):
        assert_alike(x - t * mine, at(guider, step).forward(x - t * c, x - t * u).pred)


def test_apg_on_velocities_is_another_rule() -> None:
    """What their pipelines for flows do: they project velocities, which is at right angles to something else."""
    guider = guiders.AdaptiveProjectedGuidance(guidance_scale=SCALE, adaptive_projected_guidance_rescale=0.0, eta=0.0)
    apart = [
        float((mine - at(guider, step).forward(c, u).pred).abs().max())
        for step, _, (_, c, u, _), mine in steps_of("apg")
    ]
    assert min(apart) > 0.1


def test_fdg_with_two_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their guider with our pyramid: kornia, whose pyramid it takes, is not among our requirements. That the pyramid is
    one is the test below."""

    def levels(frames: Tensor, count: int) -> list[Tensor]:
        assert count == 2
        low = coarse(frames[:, :, None])[:, :, 0]
        return [frames - low, low]

    monkeypatch.setattr(fdg_module, "_CAN_USE_KORNIA", True)
    monkeypatch.setattr(fdg_module, "build_laplacian_pyramid_func", levels)
    monkeypatch.setattr(fdg_module, "upsample_and_blur_func", lambda low: low)
    guider = guiders.FrequencyDecoupledGuidance(guidance_scales=[SCALE, 1 + FDG_LOW * (SCALE - 1)])
    for step, _, (_, c, u, _), mine in steps_of("fdg"):
        frames = [at(guider, step).forward(c[:, :, i], u[:, :, i]).pred for i in range(SHAPE[2])]
        assert_alike(mine, torch.stack(frames, 2))


def test_the_coarse_part_of_a_picture_is_its_low_frequencies() -> None:
    rows = torch.arange(32.0)
    flat, slow, fast = torch.ones(32), torch.cos(2 * torch.pi * rows / 32), torch.cos(torch.pi * rows)

    def left(wave: Tensor) -> float:
        picture = wave[:, None].expand(1, 1, 1, 32, 32)
        inner = (slice(None), slice(None), slice(None), slice(6, -6), slice(6, -6))
        return float(coarse(picture)[inner].square().mean().sqrt() / picture[inner].square().mean().sqrt())

    assert left(flat) == pytest.approx(1)
    assert left(slow) > 0.9
    assert left(fast) < 0.01
    video = torch.randn(1, 2, 3, 5, 7)  # odd sides, and every frame by itself
    alone = torch.stack([coarse(video[:, :, i : i + 1])[:, :, 0] for i in range(3)], 2)
    torch.testing.assert_close(coarse(video), alone)
    assert F.mse_loss(coarse(video), video) > 0


@pytest.mark.parametrize("kind", ["skip", "perturbed"])
def test_a_left_out_layer(kind: str) -> None:
    """Theirs has a scale of its own, and by default rests outside of 1 to 20 % of the steps, as SD 3.5 does; STG pulls
    at every step. PAG mixes its branches the same way: which branch is worse, and how, is the network's part."""
    own = SKIP_SHARE * (SCALE - 1)
    if kind == "skip":
        guider: Any = guiders.SkipLayerGuidance(
            guidance_scale=SCALE,
            skip_layer_guidance_scale=own,
            skip_layer_guidance_layers=[0],
            skip_layer_guidance_stop=1.0,
        )
    else:
        guider = guiders.PerturbedAttentionGuidance(
            guidance_scale=SCALE,
            perturbed_guidance_scale=own,
            perturbed_guidance_layers=[0],
            perturbed_guidance_stop=1.0,
        )
    for step, _, (_, c, u, worse), mine in steps_of("skip-layer"):
        if step > 0:  # theirs begins after its first step
            assert_alike(mine, at(guider, step).forward(c, u, worse).pred)


def test_autoguidance() -> None:
    """The same mix. Theirs has no second model: it makes the same one worse by dropping its layers' parts."""
    guider = guiders.AutoGuidance(guidance_scale=SCALE, auto_guidance_layers=[0], dropout=0.1)
    for step, _, (_, c, _, worse), mine in steps_of("autoguidance"):
        assert_alike(mine, at(guider, step).forward(c, worse).pred)


def test_every_guider_of_diffusers_is_looked_at() -> None:
    """A new one should be a decision: what it does, and whether we have it."""
    here = {name for name in dir(guiders) if name.endswith("Guidance") and name != "BaseGuidance"}
    compared = {
        "ClassifierFreeGuidance", "ClassifierFreeZeroStarGuidance", "MagnitudeAwareGuidance",
        "TangentialClassifierFreeGuidance", "AdaptiveProjectedGuidance", "FrequencyDecoupledGuidance",
        "SkipLayerGuidance", "PerturbedAttentionGuidance", "AutoGuidance",
    }  # fmt: skip
    left_out = {"AdaptiveProjectedMixGuidance", "SmoothedEnergyGuidance", "LTX2Guidance"}  # docs/guidance.md says why
    assert here <= compared | left_out
    assert compared <= here
    assert len(ALL_RULES) == 11
