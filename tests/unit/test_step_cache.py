"""Steps that are not computed: which they are, what is taken, and that clips do not depend on their neighbours."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from opensora_demo.catalog import MODELS, NANO
from opensora_demo.errors import RequestError
from opensora_demo.evaluation.step_caching import step_caching
from opensora_demo.evaluation.studies.base import Counts, Setup
from opensora_demo.media import read_settings
from opensora_demo.pipeline import generate, run
from opensora_demo.request.events import StepPreview
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.bundle import ModelBundle, build_bundle
from opensora_demo.sampling.config import RectifiedFlowConfig
from opensora_demo.sampling.step_cache import StepCache
from opensora_demo.service.outputs import write_run
from opensora_demo.toy.reader import load_reader

ONE = torch.ones(1, 2, dtype=torch.bool)


def asked(guidance: Any = 4.0, **raw: Any) -> GenerationRequest:
    form = {"prompt": "a red ball bouncing on the sea", "steps": 16, "seed": 3, "guidance": guidance, **raw}
    return parse_request(form, model_id="nano", limits=NANO.limits)


def computed(cache: StepCache, predict: Any, xs: list[Tensor], wanted: Tensor = ONE) -> list[int]:
    """The steps at which something was computed."""
    steps: list[int] = []
    for index, x in enumerate(xs):

        def compute(asked: Tensor, index: int = index, x: Tensor = x) -> list[Tensor | None]:
            steps.append(index)
            return [predict(x) if some else None for some in asked.any(0).tolist()]

        cache.predict(x, index, wanted, compute)
    return steps


def line(steps: int, pace: float = 0.1) -> list[Tensor]:
    return [torch.full((1, 4), 1 + pace * i) for i in range(steps)]


def test_what_does_not_change_is_computed_at_the_start_and_at_the_end() -> None:
    cache = StepCache(0.1, 10)
    assert computed(cache, lambda x: torch.full_like(x, 2), line(10)) == [0, 1, 2, 9]
    assert cache.reused == (False,)


def test_what_changes_is_computed_the_more_often_the_faster_it_changes() -> None:
    counts = [len(computed(StepCache(0.1, 20), lambda x, p=power: x**p, line(20))) for power in (0.1, 1, 4)]
    assert counts == sorted(counts)
    assert counts[0] < 10
    assert counts[2] == 20


def test_the_changes_that_are_let_pass_add_up_to_the_threshold() -> None:
    """v = x from 1 in steps of 0.01: a relative change of at most 1 % a step, and less of what has grown."""
    steps = computed(StepCache(0.045, 20), lambda x: x, line(20, pace=0.01))
    assert steps == [0, 1, 2, 7, 12, 18, 19]


def test_each_row_by_itself() -> None:
    cache, calls = StepCache(0.1, 8), []
    wanted = torch.ones(2, 1, dtype=torch.bool)
    for index in range(8):
        x = torch.tensor([[1.0 + 0.1 * index], [1.0 + 0.1 * index]])

        def compute(asked: Tensor, x: Tensor = x) -> list[Tensor | None]:
            calls.append(asked[:, 0].tolist())
            return [torch.where(asked, torch.stack([torch.ones(1), x[1] ** 9]), 0.0)]

        (out,) = cache.predict(x, index, wanted, compute)
        assert out is not None
        assert out[0].item() == 1
        assert out[1].item() == pytest.approx(x[1].item() ** 9)
    assert calls == [[True, True]] * 3 + [[False, True]] * 4 + [[True, True]]


def test_a_branch_that_was_not_computed_is_not_taken() -> None:
    cache, calls = StepCache(0.5, 9), []

    def compute(asked: Tensor) -> list[Tensor | None]:
        calls.append(asked[0].tolist())
        return [torch.ones(1, 1) if some else None for some in asked[0].tolist()]

    for index in range(9):
        wanted = torch.tensor([[True, index >= 5]])
        out = cache.predict(torch.ones(1, 1) * index, index, wanted, compute)
        assert [o is not None for o in out] == wanted[0].tolist()
    assert calls == [[True, False]] * 3 + [[True, True]] * 2  # at the start, once with the other branch, and at the end


@pytest.fixture(scope="module")
def full(nano: ModelBundle) -> np.ndarray[Any, Any]:
    return run(nano, asked()).clips[0].frames


@pytest.mark.slow
@pytest.mark.parametrize(("how", "least_db"), [pytest.param("mild", 38, marks=pytest.mark.thorough), ("strong", 30)])
def test_nano_skips_steps_and_makes_nearly_the_same_clip(
    nano: ModelBundle, full: np.ndarray[Any, Any], how: str, least_db: float, tmp_path: Path
) -> None:
    request = asked(step_cache=how)
    *events, done = generate(nano, request)
    reused = [event.reused for event in events if isinstance(event, StepPreview)]
    assert reused[:3] == [(False,)] * 3
    assert reused[-1] == (False,)
    count = reused.count((True,))
    assert count >= 2
    assert done.reused == (count,)
    error = np.square(done.clips[0].frames.astype(float) - full).mean()
    assert 10 * np.log10(255**2 / error) > least_db
    settings = write_run(tmp_path / "clip.mp4", request, done)
    assert read_settings(tmp_path / "clip.mp4") == settings
    assert (settings["step_cache"], settings["reused_steps"]) == (how, count)
    assert run(nano, asked()).reused == ()


@pytest.mark.thorough
def test_a_clip_of_a_comparison_is_that_of_a_run_of_its_own(nano: ModelBundle) -> None:
    together = run(nano, asked([1.0, 7.0], step_cache="strong"))
    for k, scale in enumerate((1.0, 7.0)):
        alone = run(nano, asked(scale, step_cache="strong"))
        assert alone.reused == together.reused[k : k + 1]
        assert np.abs(alone.clips[0].frames.astype(int) - together.clips[k].frames).max() <= 1


def test_flows_alone_take_it() -> None:
    """Diffusion draws new noise at every step, which moves the latent further than any threshold lets pass."""
    takes = {name: spec.limits.caches_steps for name, spec in MODELS.items()}
    assert takes == {name: isinstance(spec.sampler, RectifiedFlowConfig) for name, spec in MODELS.items()}
    with pytest.raises(RequestError, match="step_cache"):
        parse_request({"prompt": "a ball", "step_cache": "mild"}, model_id="nano-dit", limits=MODELS["nano-dit"].limits)


@pytest.mark.parametrize("model", ["debug-1.2", "debug-1.3", "debug-2.0"])
@pytest.mark.parametrize("rule", ["plain", "oscillating"])
def test_every_family(model: str, rule: str) -> None:
    limits = MODELS[model].limits
    if rule not in limits.rules:
        pytest.skip("a rule that it does not take")
    form = {"prompt": "a ball", "steps": 6, "seed": 1, "rule": [rule], "step_cache": "strong"}
    done = run(build_bundle(MODELS[model], torch.device("cpu")), parse_request(form, model_id=model, limits=limits))
    assert len(done.reused) == 1


@pytest.mark.thorough
def test_what_it_saves_and_costs_is_measured(nano: ModelBundle) -> None:
    rows = step_caching(Setup(bundle=nano, reader=load_reader(), counts=Counts()), 2)
    assert [row.name for row in rows[:3]] == ["off", "mild", "strong"]
    off, mild, strong, *fewer = rows
    assert (off.computed, off.psnr_db, off.denoise) == (16, math.inf, 1)
    assert 16 > mild.computed > strong.computed > 4
    assert mild.psnr_db > strong.psnr_db > 25
    assert strong.denoise < 1
    assert [row.name for row in fewer] == [f"{round(row.computed)} steps" for row in (mild, strong)]
    assert all(row.psnr_db < 60 and row.computed == int(row.name.split()[0]) for row in fewer)
    assert all(0 <= row.right <= 1 for row in rows)


def test_another_word_is_refused() -> None:
    with pytest.raises(RequestError) as refused:
        asked(step_cache="brisk")
    assert refused.value.field == "step_cache"
