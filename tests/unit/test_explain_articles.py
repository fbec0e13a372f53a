"""Figures of what the articles describe: they are read from the call, the modules and the codec themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from opensora_demo.catalog import find_model
from opensora_demo.explain.beginning import Beginning, started_anew
from opensora_demo.explain.call import SHOWN_TIME, Channels, Halves, Masking, use_of
from opensora_demo.explain.causal import KERNEL, Causal, averaging, causal, reach_of
from opensora_demo.explain.coding import Coding
from opensora_demo.explain.run import Flow, Progress, explain
from opensora_demo.explain.scaling import FACTORS, Scaled
from opensora_demo.nn.causal_conv import CausalConv3d
from opensora_demo.request.parse import parse_request
from opensora_demo.runtime.bundle import ModelBundle, build_bundle
from opensora_demo.sampling.config import IddpmConfig, RectifiedFlowConfig
from tests.unit.hooks import added_hooks

CPU = torch.device("cpu")


def parts_of(bundle: ModelBundle, **changes: Any) -> dict[type, Any]:
    raw = {"prompt": "a red ball bouncing over a meadow", "seed": 7, "steps": 4} | changes
    request = parse_request(raw, model_id=bundle.spec.id, limits=bundle.spec.limits)
    return {type(part): part for part in explain(bundle, request) if not isinstance(part, Progress)}


@pytest.fixture(scope="module")
def of_nano(nano: ModelBundle) -> dict[type, Any]:
    return parts_of(nano, frames=9)


@pytest.fixture(scope="module")
def of_dit() -> dict[type, Any]:
    return parts_of(build_bundle(find_model("nano-dit"), CPU))


def test_the_halves_are_one_latent_twice(of_nano: dict[type, Any]) -> None:
    halves: Halves = of_nano[Halves]
    assert halves.calls == 1
    assert halves.given == halves.answered == (2, 16, 3, 8, 8)
    assert halves.apart == 0
    assert halves.t <= SHOWN_TIME
    assert halves.peak > 0.01  # prompt and empty prompt are answered otherwise
    assert set(halves.pictures) == {"latent", "prompt", "null", "gap", "mix"}
    assert all(picture.shape == (1, 8, 8, 3) for picture in halves.pictures.values())
    assert halves.pictures["gap"].max() == 252  # the largest gap is white
    # The picture of the input is of the latent that the step began with.
    flow: Flow = of_nano[Flow]
    assert np.array_equal(halves.pictures["latent"][0], flow.noisy[halves.index][1])


@pytest.mark.slow
def test_a_mix_that_is_shown_is_the_formula(of_dit: dict[type, Any]) -> None:
    """u + s (c - u) of the pictures' own values, where none of them is clipped."""
    halves: Halves = of_dit[Halves]
    u, c, mix = (halves.pictures[name].astype(float) for name in ("null", "prompt", "mix"))
    wanted = u + halves.scale * (c - u)
    inside = (wanted > 8) & (wanted < 247) & (u > 0) & (u < 255) & (c > 0) & (c < 255)
    assert inside.mean() > 0.5
    assert np.abs(wanted - mix)[inside].max() <= 0.5 * (1 + 2 * halves.scale)  # of rounded bytes


def test_one_branch_has_no_halves(nano: ModelBundle) -> None:
    assert parts_of(nano, frames=1, guidance=1)[Halves].pictures == {}


def test_channels_and_what_becomes_of_them(of_nano: dict[type, Any], of_dit: dict[type, Any]) -> None:
    flow: Channels = of_nano[Channels]
    assert (flow.latent, flow.use, flow.noise) == (16, "none", None)
    assert flow.values.shape == (16, 8, 8)
    diffusion: Channels = of_dit[Channels]
    assert (diffusion.latent, diffusion.use) == (16, "variance")
    assert diffusion.values.shape == (32, 8, 8)
    assert diffusion.noise is not None
    low, mean, high = diffusion.noise
    assert 0 < low < mean < high < 1
    cut: Channels = parts_of(build_bundle(find_model("debug-1.2"), CPU))[Channels]
    assert (cut.latent, len(cut.values), cut.use) == (4, 8, "cut")


def test_who_uses_the_second_half() -> None:
    assert use_of(False, IddpmConfig()) == "none"
    assert use_of(True, RectifiedFlowConfig()) == "cut"
    assert use_of(True, IddpmConfig()) == "variance"
    assert use_of(True, IddpmConfig(method="ddim")) == use_of(True, IddpmConfig(method="dpm-solver++")) == "ignored"


def test_a_network_begins_by_passing_its_input_on(of_dit: dict[type, Any]) -> None:
    beginning: Beginning = of_dit[Beginning]
    assert len(beginning.gates) == 2 * len(beginning.added) == 12
    assert all(gate.start == 0 and gate.now > 0 for gate in beginning.gates)
    assert all(added.start == 0 and added.now > 0 for added in beginning.added)


def test_a_layout_without_a_zero_start_is_measured_so(nano: ModelBundle, of_nano: dict[type, Any]) -> None:
    beginning: Beginning = of_nano[Beginning]
    assert len(beginning.added) == 8
    assert all(gate.start > 0 for gate in beginning.gates)
    anew = started_anew(nano.family)
    assert anew is not None
    assert type(anew.network) is type(nano.family.network)
    assert anew.network is not nano.family.network
    assert not added_hooks(nano.family.network)


def test_a_network_that_nobody_trains_here_has_no_beginning() -> None:
    beginning: Beginning = parts_of(build_bundle(find_model("debug-1.1"), CPU))[Beginning]
    assert (beginning.gates, beginning.added, beginning.too_large) == ((), (), False)


def test_a_mask_is_what_the_network_was_given(of_nano: dict[type, Any], nano: ModelBundle) -> None:
    masking: Masking = of_nano[Masking]
    assert (masking.batch, masking.heads, masking.patches, masking.words, masking.used) == (2, 4, 48, 8, ())
    longer = parts_of(nano, frames=1, negative="dark")[Masking]
    assert longer.used == ((2, 1, 1, 8),)  # two prompts of other lengths
    padded = build_bundle(find_model("debug-2.0"), CPU)
    assert padded.t5 is not None
    assert parts_of(padded)[Masking].words == padded.t5.cfg.max_tokens


@pytest.mark.parametrize(("padding", "first"), [("constant", 1 / KERNEL), ("replicate", 1.0)])
def test_what_reaches_an_output_frame(padding: Any, first: float) -> None:
    module = averaging(padding)
    with torch.no_grad():
        reach = reach_of(module, 6)
    assert reach.triu(1).abs().max() == 0  # nothing looks ahead
    assert reach.tril(-KERNEL).abs().max() == 0
    assert reach[0].sum() == pytest.approx(first)
    assert torch.allclose(reach[KERNEL:].sum(1), torch.ones(6 - KERNEL))
    # The derivative of a picture's frame by another says the same.
    video = torch.rand(1, 1, 6, 4, 4, requires_grad=True)
    slope = torch.autograd.grad(module(video)[0, 0, 1, 2, 2], video)[0][0, 0, :, 2, 2]
    assert torch.allclose(slope, reach[1], atol=1e-6)


def test_zeros_darken_a_lone_frame_and_copies_do_not(of_nano: dict[type, Any]) -> None:
    figure: Causal = of_nano[Causal]
    assert [(f.padding, f.frames) for f in figure.filtered] == [
        ("constant", 1),
        ("constant", 6),
        ("replicate", 1),
        ("replicate", 6),
    ]
    zeros, _, copies, _ = figure.filtered
    first = figure.strip[:1].astype(float)
    assert np.abs(copies.picture - first).max() <= 1
    assert np.abs(zeros.picture - first / KERNEL).max() <= 1
    assert figure.paddings.keys() == {"constant"}
    one = causal(torch.zeros(1, 3, 1, 8, 8), torch.nn.Sequential(CausalConv3d(1, 1, 3, pad_mode="replicate")))
    assert len(one.filtered) == 2
    assert one.paddings == {"replicate": 1}


def test_a_factor_that_does_not_fit(of_nano: dict[type, Any]) -> None:
    scaled: Scaled = of_nano[Scaled]
    coding: Coding = of_nano[Coding]
    right = FACTORS.index(1.0)
    # The right one is the clip's own first frame: nothing in it knows of later ones.
    assert np.abs(scaled.pictures[right].astype(int) - coding.stages[0].picture[0]).max() <= 1
    assert scaled.psnr[right] == 99
    assert list(scaled.psnr[: right + 1]) == sorted(scaled.psnr[: right + 1])
    assert list(scaled.psnr[right:]) == sorted(scaled.psnr[right:], reverse=True)
    assert scaled.deviations[0] == pytest.approx(scaled.deviations[right] / 4)
