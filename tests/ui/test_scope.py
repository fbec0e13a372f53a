"""Folding a run into the value of the latent scope."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from opensora_demo.catalog import NANO
from opensora_demo.request.events import Clip, Encoded, Finished, Shown, Started, StepInspection, StepPreview
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.request.video import Frames
from opensora_demo.service.engine import Loading
from opensora_demo.ui.values.scope import ScopeView, fold_step

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
        look = StepInspection(
            size=(8, 8),
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
    assert [s["index"] for s in value["steps"]] == [1, 2, 3, 4]
    assert [s["milliseconds"] for s in value["steps"]] == pytest.approx([100, 300, 500, 700])
    assert value["steps"][0] | {"pictures": "", "channels": ""} == {
        "index": 1,
        "noise_level": 1.0,
        "milliseconds": 100.0,
        "guidance_asked": 4.0,
        "guidance_measured": 4.0,
        "sizes": {"prompt": 1.0, "null": 0.9, "difference": 0.1},
        "cosine": 0.98,
        "peak": 0.25,
        "quantities": ["noisy", "estimate", "prompt", "null", "difference"],
        "pictures": "",
        "channels": "",
    }
    json.dumps(value, allow_nan=False)


def test_a_quick_run_is_decoded_at_its_end_and_the_clip_stands_beside_it(
    request_: GenerationRequest, step: Make
) -> None:
    made: list[int] = []

    def decoded(index: int) -> dict[Shown, Frames]:
        made.append(index)
        return dict.fromkeys(("noisy", "estimate", "prompt"), np.full((3, 32, 32, 3), index, np.uint8))

    scope = ScopeView(1, request_)
    for index in range(4):
        scope.add(replace(step(index), decoded=partial(decoded, index), seconds=1e-5 * (index + 1)))
    assert scope.value(done=False)["decoded"] == []  # nothing has been folded yet
    frames = np.arange(9, dtype=np.uint8)[:, None, None, None] * np.full((64, 64, 3), 20, np.uint8)
    scope.add(Finished(clips=(Clip(frames=frames, request=request_),), seconds={}, unknown=()))
    assert made == [0]  # the first at once, the others would have been late
    value = scope.value(done=True)
    assert made == [0, 1, 2, 3]
    assert [d["index"] for d in value["decoded"]] == [1, 2, 3, 4]
    assert value["decoded"][0]["quantities"] == ["noisy", "estimate", "prompt"]
    with Image.open(BytesIO(base64.b64decode(value["decoded"][2]["pictures"].split(",")[1]))) as picture:
        assert picture.size == (3 * 32, 3 * 32)
        assert np.asarray(picture).mean() == pytest.approx(2, abs=1)
    assert value["clip"] is not None
    with Image.open(BytesIO(base64.b64decode(value["clip"].split(",")[1]))) as strip:
        shown = np.asarray(strip)
    width = shown.shape[1] // 3
    assert [shown[:, i * width + 8].mean() for i in range(3)] == pytest.approx([0, 80, 160], abs=3)  # frames 1, 5, 9


def test_a_slow_run_is_decoded_as_it_goes(request_: GenerationRequest, step: Make) -> None:
    picture = np.zeros((3, 8, 8, 3), np.uint8)
    scope = ScopeView(1, request_)
    for index in range(3):
        scope.add(replace(step(index), decoded=lambda: {"noisy": picture}, seconds=100.0 * (index + 1)))
    assert [d["index"] for d in scope.value(done=False)["decoded"]] == [1, 2, 3]


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
    assert entry["quantities"] == ["noisy", "estimate", "prompt"]
    assert entry["sizes"] == {"prompt": 1.0, "null": None, "difference": None}
    assert (entry["guidance_measured"], entry["cosine"], entry["peak"]) == (None, None, None)


def test_quick_steps_are_folded_together_and_none_is_lost(request_: GenerationRequest, step: Make) -> None:
    scope, seen = ScopeView(1, request_), []
    for index in range(10):
        scope.add(replace(step(0), index=index, seconds=0.01 * (index + 1)))
        seen.append(len(scope.value(done=False)["steps"]))
    assert seen == [0] * 7 + [8] * 3
    value = scope.value(done=True)
    assert [s["index"] for s in value["steps"]] == list(range(1, 11))
    assert [s["milliseconds"] for s in value["steps"]] == pytest.approx([10] * 10)


def test_a_step_without_a_look_says_nothing(request_: GenerationRequest, step: Make) -> None:
    scope = ScopeView(1, request_)
    scope.add(replace(step(0), look=None))
    assert scope.value(done=False)["steps"] == []
