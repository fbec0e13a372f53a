"""A run that goes on otherwise from a step, and one that stops to say what it expects."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest
import torch
from torch import Tensor

from opensora_demo.catalog import MODELS
from opensora_demo.errors import RequestError
from opensora_demo.families.base import ConditioningFrames
from opensora_demo.frames import to_frames
from opensora_demo.messages import message
from opensora_demo.pipeline import generate, noise_of, run
from opensora_demo.request import settings as table
from opensora_demo.request.events import Finished, StepPreview
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.request.video import Frames
from opensora_demo.runtime.bundle import ModelBundle, build_bundle
from opensora_demo.sampling import iddpm
from opensora_demo.sampling.config import IddpmConfig
from opensora_demo.sampling.rectified_flow import noised, sample
from opensora_demo.sampling.step import Prediction, Step, Turn
from opensora_demo.service.links import checked_settings, link_query
from opensora_demo.ui.controls import pick_updates
from opensora_demo.ui.values.stage import chips
from tests.models import sampled

CPU = torch.device("cpu")
NO_FRAMES = ConditioningFrames()
BRANCH = [setting.name for setting in table.SETTINGS if setting.section == "branch"]
CHANGES: list[dict[str, Any]] = [
    {"branch_guidance": 9},
    {"branch_guidance": 0},
    {"branch_prompt": "a blue star"},
    {"branch_negative": "red"},
    {"branch_rule": "apg"},
    {"branch_seed": 11},
]


def ask(model: str = "nano", **raw: Any) -> GenerationRequest:
    limits = MODELS[model].limits
    short = next(frames for frames in limits.frames if frames > 1)
    raw = {"prompt": "a red ball bouncing over a meadow", "steps": 5, "seed": 3, "frames": short} | raw
    return parse_request(raw, model_id=model, limits=limits)


def clip(bundle: ModelBundle, request: GenerationRequest) -> Frames:
    return run(bundle, request).clips[0].frames


def estimates(bundle: ModelBundle, request: GenerationRequest) -> list[Frames]:
    return [event.previews[0] for event in generate(bundle, request) if isinstance(event, StepPreview)]


# An Adams-Bashforth flow, the same by a rule with a memory, Euler, and noise that is drawn at every step; DPM-Solver++.
@pytest.mark.parametrize(
    ("model", "rule"),
    [
        ("nano", "plain"),
        pytest.param("nano", "apg", marks=pytest.mark.thorough),
        ("debug-2.0", "plain"),
        pytest.param("nano-dit", "plain", marks=pytest.mark.thorough),
        ("debug-1.0-latte", "plain"),
    ],
)
@pytest.mark.slow
def test_a_branch_that_changes_nothing_is_the_clip_itself(model: str, rule: str) -> None:
    bundle = build_bundle(MODELS[model], CPU)
    plain = ask(model, rule=rule)
    told = {"branch_prompt": plain.prompt, "branch_guidance": plain.guidance[0], "branch_rule": rule}
    before = clip(bundle, plain)
    for request in (ask(model, rule=rule, branch_step=2), ask(model, rule=rule, branch_step=2, **told)):
        assert request.branch is not None
        assert np.array_equal(clip(bundle, request), before)


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_what_comes_before_a_branch_is_shared_and_what_comes_after_is_not(
    nano: ModelBundle, change: dict[str, Any]
) -> None:
    trunk, branch = estimates(nano, ask()), estimates(nano, ask(branch_step=3, **change))
    same = [np.array_equal(a, b) for a, b in zip(trunk, branch, strict=True)]
    assert same[:3] == [True] * 3
    assert not any(same[3:])


SAMPLERS = ["nano-dit", "debug-1.0-latte", "debug-1.1", "debug-1.3", "debug-2.0"]


@pytest.mark.parametrize("model", sampled(SAMPLERS, "debug-1.0-latte", "debug-1.1", "debug-2.0"))
def test_every_sampler_can_go_on_otherwise(model: str) -> None:
    bundle = build_bundle(MODELS[model], CPU)
    plain = clip(bundle, ask(model))
    for change in ({"branch_guidance": 9}, {"branch_seed": 5}):
        other = ask(model, branch_step=2, **change)
        made = clip(bundle, other)
        assert not np.array_equal(made, plain), change
        assert np.array_equal(made, clip(bundle, other)), change


def test_a_flow_that_turns_takes_an_euler_step_from_new_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    noise, other = (torch.randn((1, 2, 1, 3, 3), generator=generator) for _ in range(2))
    times = (1.0, 0.75, 0.5, 0.25, 0.0)

    def velocity(x: Tensor, t: float, index: int, x_mask: Tensor | None) -> Prediction:
        return Prediction(guided=torch.sin(3 * x) + t)

    def steps(turn: Turn | None) -> list[Step]:
        return list(sample(velocity, noise, times, order=2, turn=turn))

    plain, turned, fresh = steps(None), steps(Turn(2)), steps(Turn(2, other))
    for a, b, c in zip(plain[:2], turned, fresh, strict=False):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.x, c.x)
    assert torch.equal(turned[2].x, turned[2].start - 0.25 * turned[2].prediction.guided)
    assert not torch.equal(plain[2].x, turned[2].x)
    assert torch.equal(fresh[2].start, noised(plain[1].x0, other, 0.5))


@pytest.mark.parametrize("method", ["ddpm", "dpm-solver++"])
def test_a_diffusion_that_turns_draws_noise_around_its_estimate(method: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    noise, other = (torch.randn((1, 2, 1, 3, 3), generator=generator) for _ in range(2))

    def predict(x: Tensor, t: float, index: int, x_mask: Tensor | None) -> Prediction:
        return Prediction(guided=torch.sin(3 * x))

    config = IddpmConfig(method=method)
    steps = list(iddpm.sample(predict, noise, 12, config, lambda: torch.zeros(1), turn=Turn(2, other)))
    alpha = 1 / steps[2].to_x0[0]
    expected = alpha * steps[1].x0 + (1 - alpha**2) ** 0.5 * other
    torch.testing.assert_close(steps[2].start, expected)


def test_a_given_frame_is_kept_when_the_noise_is_drawn_anew(nano: ModelBundle) -> None:
    picture = np.zeros((1, 128, 128, 3), np.uint8)
    picture[:, 32:96, 32:96] = (220, 30, 30)
    request = replace(ask(branch_step=2, branch_seed=8, frames=5), reference=picture)
    before = clip(nano, replace(request, branch=None))
    after = clip(nano, request)
    assert np.abs(after[0].astype(int) - before[0]).mean() < 2
    assert np.abs(after[-1].astype(int) - before[-1]).mean() > 2


def test_a_run_may_stop_and_decode_what_it_expects(nano: ModelBundle) -> None:
    request = ask(stop_step=2)
    events = list(generate(nano, request))
    steps = [event for event in events if isinstance(event, StepPreview)]
    assert [(step.index, step.total) for step in steps] == [(0, 5), (1, 5)]
    done = events[-1]
    assert isinstance(done, Finished)
    whole = clip(nano, ask())
    assert not np.array_equal(done.clips[0].frames, whole)
    with torch.inference_mode():
        size = nano.codec.latent_size(17, 128, 128)
        condition = nano.family.condition(ask(), NO_FRAMES, size)
        draw = noise_of(nano, ask())
        second = list(nano.family.steps(draw(), condition, ask(), draw))[1]
        expected = nano.codec.decode(second.x0, 17)[0]
    assert np.array_equal(done.clips[0].frames, to_frames(expected))


def test_a_branch_is_made_again_from_its_file_and_from_its_link(nano: ModelBundle) -> None:
    request = ask(branch_step=2, branch_guidance=0, branch_negative="blue", branch_seed=0, branch_rule="rescale")
    settings = request.settings()
    assert {name: value for name, value in settings.items() if name.startswith("branch")} == {
        "branch_step": 2, "branch_guidance": 0.0, "branch_negative": "blue", "branch_seed": 0, "branch_rule": "rescale",
    }  # fmt: skip
    found, ignored = checked_settings(settings)
    assert not ignored
    model = found.pop("model")
    assert parse_request(found, model_id=model, limits=nano.spec.limits) == request
    linked, _ = checked_settings({name: value for name, (value,) in parse_qs(link_query(settings)).items()})
    assert (
        parse_request({k: v for k, v in linked.items() if k != "model"}, model_id=model, limits=nano.spec.limits)
        == request
    )
    text = message("label.chip.branch.from", step=2, changes=["x"])
    (shown,) = [chip["value"] for chip in chips(settings) if chip["name"]["code"] == "label.chip.branch"]
    assert shown["code"] == text.code
    updates = pick_updates(settings)
    assert updates["branch_guidance"]["value"] == "0.0"
    assert updates["branch"]["open"]
    plain = pick_updates(ask().settings())
    assert [plain[name]["value"] for name in BRANCH] == [""] * len(BRANCH)
    assert not plain["branch"]["open"]


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ({"branch_step": 5}, "branch_step: must be fewer than the 5 steps of the run, not 5"),
        ({"branch_step": 0}, "branch_step: must lie between 1 and 99, not 0"),
        ({"branch_guidance": 3}, "branch_guidance: needs the step after which it holds"),
        ({"branch_negative": "x"}, "branch_negative: needs the step"),
        ({"branch_step": 2, "branch_guidance": 99}, "branch_guidance: must lie between 0 and 15"),
        ({"branch_step": 2, "branch_rule": "x"}, "branch_rule: must be one of"),
        ({"branch_step": 2, "guidance": [1, 4]}, "branch_step: only a single clip"),
        ({"branch_step": 2, "stop_step": 2}, "stop_step: must come after the branch at step 2"),
        ({"stop_step": 9}, "stop_step: must be fewer than the 5 steps"),
    ],
)
def test_what_cannot_be_is_refused_by_name(raw: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError) as caught:
        ask(**raw)
    assert str(caught.value).startswith(sentence)
