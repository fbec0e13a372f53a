"""Folding a run into the value of the latent scope."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from opensora_demo.catalog import NANO
from opensora_demo.types import Encoded, GenerationRequest, Look, Started, StepPreview, parse_request
from opensora_demo.ui.runs import Loading
from opensora_demo.ui.scope import ScopeView, fold_step

PROMPT = "a ball ${alert(1)} <img src=x onerror=alert(1)>"
Make = Callable[[int], StepPreview]


@pytest.fixture
def request_() -> GenerationRequest:
    raw = {"prompt": PROMPT, "steps": 4, "frames": 9, "fps": 12, "guidance": 4, "seed": 1}
    return parse_request(raw, model_id="nano", limits=NANO.limits)


@pytest.fixture
def step() -> Make:
    def make(index: int) -> StepPreview:
        picture = np.full((3, 8, 8, 3), index, np.uint8)
        look = Look(
            noisy=picture,
            estimate=picture,
            prompt=picture,
            null=picture,
            difference=picture,
            peak=0.25,
            channels=np.full((16, 3, 8, 8), index, np.uint8),
            prompt_norm=1.0,
            null_norm=0.9,
            difference_norm=0.1,
            cosine=0.98,
            applied=3.9999,
        )
        return StepPreview(
            index=index,
            total=4,
            t=1 - index / 4,
            previews=(picture,),
            guidance=(4.0,),
            seconds=0.1 * (index + 1) ** 2,
            look=lambda: look,
        )

    return make


def test_a_run_becomes_a_value(request_: GenerationRequest, step: Make) -> None:
    scope = ScopeView(7, request_)
    for event in (Loading(), Started(request=request_), Encoded(unknown=(), cut_tokens=0, seconds=0.0)):
        scope.add(event)
    empty = scope.value(done=False)
    assert (empty["run"], empty["total"], empty["latent"], empty["steps"]) == (7, 4, 0, [])
    assert empty["prompt"] == PROMPT
    for index in range(4):
        scope.add(step(index))
    value = scope.value(done=True)
    assert (value["total"], value["latent"], value["channels"], value["done"]) == (4, 3, 16, True)
    assert value["aspect"] == 1
    assert value["seconds"] == 0.75
    assert [s["i"] for s in value["steps"]] == [1, 2, 3, 4]
    assert [s["ms"] for s in value["steps"]] == pytest.approx([100, 300, 500, 700])
    assert value["steps"][0] | {"p": "", "k": ""} == {
        "i": 1, "t": 1.0, "ms": 100.0, "g": 4.0, "a": 4.0, "n": [1.0, 0.9, 0.1], "cos": 0.98, "peak": 0.25,
        "q": "xecud", "p": "", "k": "",
    }  # fmt: skip
    json.dumps(value, allow_nan=False)


def test_earlier_values_and_steps_never_change(request_: GenerationRequest, step: Make) -> None:
    scope = ScopeView(1, request_)
    scope.add(replace(step(0), seconds=0.2))
    before = scope.value(done=False)
    assert len(before["steps"]) == 1
    copy = json.dumps(before)
    scope.add(replace(step(1), seconds=0.4))
    after = scope.value(done=False)
    assert json.dumps(before) == copy
    assert after["steps"][0] is before["steps"][0]


def test_what_was_not_evaluated_is_left_out(step: Make) -> None:
    event = step(0)
    assert event.look is not None
    bare = replace(
        event.look(),
        null=None,
        difference=None,
        peak=None,
        null_norm=None,
        difference_norm=None,
        cosine=None,
        applied=None,
    )
    entry = fold_step(event, bare)
    assert entry["q"] == "xec"
    assert (entry["n"], entry["a"], entry["cos"], entry["peak"]) == ([1.0, None, None], None, None, None)


def test_quick_steps_are_folded_together_and_none_is_lost(request_: GenerationRequest, step: Make) -> None:
    scope, seen = ScopeView(1, request_), []
    for index in range(10):
        scope.add(replace(step(0), index=index, seconds=0.01 * (index + 1)))
        seen.append(len(scope.value(done=False)["steps"]))
    assert seen == [0] * 7 + [8] * 3
    value = scope.value(done=True)
    assert [s["i"] for s in value["steps"]] == list(range(1, 11))
    assert [s["ms"] for s in value["steps"]] == pytest.approx([10] * 10)


def test_a_step_without_a_look_says_nothing(request_: GenerationRequest, step: Make) -> None:
    scope = ScopeView(1, request_)
    scope.add(replace(step(0), look=None))
    assert scope.value(done=False)["steps"] == []
