"""A place for prompts that name none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from opensora_demo.catalog import MODELS, find_model
from opensora_demo.pipeline import generate, refined, run
from opensora_demo.request.events import Encoded
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.bundle import ModelBundle
from opensora_demo.toy.captions import caption
from opensora_demo.toy.chips import VALUES
from opensora_demo.toy.place import with_place
from opensora_demo.toy.prompt_intent import prompt_intent
from opensora_demo.toy.worlds import sample_scene


def request(model: str = "nano", **raw: object) -> GenerationRequest:
    limits = find_model(model).limits
    return parse_request({"prompt": "a red ball", "seed": 3, "steps": 2, **raw}, model_id=model, limits=limits)


def test_a_place_joins_and_nothing_else_changes() -> None:
    rng = np.random.default_rng(4)
    added = 0
    for seed in range(300):
        prompt = caption(sample_scene(rng, pairs=0.4), rng, omit=0.4, chinese=0.3)
        whole = with_place(prompt, seed)
        before, after = prompt_intent(prompt), prompt_intent(whole)
        if before.background is None and prompt.isascii():
            added += 1
            assert after.background is not None, (prompt, whole)
            assert after == replace(before, background=after.background), (prompt, whole)
        else:
            assert whole == prompt
    assert added > 50


def test_the_place_is_the_seeds() -> None:
    places = [prompt_intent(with_place("a red ball", seed)).background for seed in range(200)]
    assert set(places) == set(VALUES["place"])
    assert places == [prompt_intent(with_place("a red ball", seed)).background for seed in range(200)]
    seen = {
        prompt_intent(with_place("a white ball", seed, without="at night, on black")).background for seed in range(99)
    }
    assert seen == set(VALUES["place"]) - {"white", "night", "black"}


@pytest.mark.parametrize("prompt", ["", "dragons", "a ball over a meadow", "一个红球"])
def test_what_names_a_place_or_nothing_that_is_known_stays(prompt: str) -> None:
    assert with_place(prompt, 1, unknown=[(0, len(prompt))] if prompt == "dragons" else []) == prompt


def test_a_place_that_is_not_known_is_none() -> None:
    whole = with_place("a red ball in the qwrld", 1, unknown=[(18, 23)])
    assert prompt_intent(whole).background is not None


@pytest.mark.slow
def test_nano_reads_a_place_and_the_clip_is_recorded_as_typed(nano: ModelBundle) -> None:
    whole = request()
    assert whole.refine == "seed"
    events = list(generate(nano, whole))
    (read,) = [event.refined for event in events if isinstance(event, Encoded)]
    assert read == with_place("a red ball", 3)
    assert read != "a red ball"
    done = run(nano, whole)
    assert done.refined == read
    clip = done.clips[0]
    assert clip.request.settings()["prompt"] == "a red ball"
    assert np.array_equal(clip.frames, run(nano, request(prompt=read)).clips[0].frames)
    plain = run(nano, request(refine="off")).clips[0]
    assert not np.array_equal(plain.frames, clip.frames)
    assert plain.request.settings()["refine"] == "off"


def test_where_a_frame_shows_the_place_none_is_added(nano: ModelBundle) -> None:
    picture = np.zeros((1, 128, 128, 3), np.uint8)
    shown = replace(request(), reference=picture)
    assert refined(nano, shown) is shown
    assert refined(nano, request(), follows=True).prompt == "a red ball"


def test_a_branch_keeps_the_place() -> None:
    bundle = type("Bundle", (), {"spec": MODELS["nano"]})()
    branched = refined(bundle, request(branch_step=1, branch_prompt="a blue ball"))  # type: ignore[arg-type]
    assert branched.branch is not None
    assert branched.branch.prompt is not None
    places = {prompt_intent(prompt).background for prompt in (branched.prompt, branched.branch.prompt)}
    assert len(places) == 1
    assert None not in places


def test_other_models_read_what_is_typed() -> None:
    assert not MODELS["debug-1.2"].limits.refines
    bundle = type("Bundle", (), {"spec": MODELS["debug-1.2"]})()
    whole = request("debug-1.2")
    assert refined(bundle, whole) is whole  # type: ignore[arg-type]
