"""The dialect of /v1/videos: fields to a form and back, and limits as they travel."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from opensora_demo.catalog import MODELS, NANO
from opensora_demo.errors import RequestError
from opensora_demo.messages import render
from opensora_demo.request import settings as table
from opensora_demo.request.parse import parse_request
from opensora_demo.service.dialect import (
    DIALECT_LIMITS,
    file_names,
    in_dialect,
    known_names,
    model_object,
    read_fields,
    read_limits,
    seconds_of,
    write_fields,
)
from opensora_demo.service.engine import ModelOffer
from opensora_demo.service.forms import read_request
from opensora_demo.weights.options import WeightOptions

OPTIONS = WeightOptions()
V12 = (
    "opensora-1.2" if "opensora-1.2" in MODELS else next(m for m, spec in MODELS.items() if len(spec.limits.sizes) > 1)
)


def form(**fields: Any) -> dict[str, Any]:
    return read_fields({"prompt": "a ball", **fields}, OPTIONS)


def refusal(**fields: Any) -> tuple[str, str]:
    try:
        found = form(**fields)
        with pytest.raises(RequestError) as refused:
            read_request(found, OPTIONS)
        error = in_dialect(refused.value)
    except RequestError as refused_before:
        error = refused_before
    return error.field, render(error.problem)


def test_every_setting_has_a_name_and_no_name_stands_for_two() -> None:
    names = known_names()
    assert len(set(names)) == len(names)
    assert len(names) == len(table.SETTINGS) + 3  # size, width, height for two; seconds and n beside
    assert file_names() == ("input_reference", "last_frame", "video")


def test_fields_mean_settings() -> None:
    asked = form(
        model="nano", negative_prompt="a star", num_frames=9, fps=12, num_inference_steps=7, guidance_scale=2.5, seed=3,
        size="128x128", rule="apg", curve="0:0, 1:1", n=1,
    )  # fmt: skip
    _, request = read_request(asked, OPTIONS)
    assert (request.shape.frames, request.fps, request.steps, request.seed) == (9, 12, 7, 3)
    assert (request.guidance, request.rules, request.negative_prompt) == ((2.5,), ("apg",), "a star")
    assert request.curve == ((0, 0), (1, 1))


def test_lists_come_as_json_or_as_text() -> None:
    for scales, rules in (([1, 4], ["plain", "apg"]), ("1, 4", "plain, apg")):
        _, request = read_request(form(guidance_scale=scales, rule=rules), OPTIONS)
        assert (request.guidance, request.rules) == ((1, 4), ("plain", "apg"))


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"stepz": 3}, "stepz", "there is no such field; there are model, prompt"),
        ({"steps": 3}, "steps", "num_inference_steps"),
        ({"flow_shift": 3}, "flow_shift", "no such field"),
        ({"num_inference_steps": 999}, "num_inference_steps", "between 1 and 100, not 999"),
        ({"guidance_scale": "much"}, "guidance_scale", "must be a number"),
        ({"guidance_scale": -1}, "guidance_scale", "must lie between"),
        ({"num_frames": 16}, "num_frames", "one of 1, 5, 9, 13, 17, not 16"),
        ({"size": "640x480"}, "size", "must be one of 128x128, not '640x480'"),
        ({"size": "large"}, "size", "width and height in pixels"),
        ({"width": 640}, "width", "must be one of 128, not '640'"),
        ({"width": 128, "height": 64}, "height", "must be one of 128, not '64'"),
        ({"width": "wide"}, "width", "must be a whole number"),
        ({"seconds": "12"}, "seconds", "not '12'"),
        ({"seconds": 2, "num_frames": 6}, "num_frames", "one of 1, 5, 9, 13, 17, not 6"),
        ({"seconds": 2, "num_frames": 5}, "seconds", "must be one of 1, not '2'"),
        ({"n": 2}, "n", "must be one of 1, not '2'"),
        ({"model": "sora-2"}, "model", "must be one of nano"),
        ({"prompt": ""}, "prompt", "must say what to draw"),
        ({"prompt": None}, "prompt", "must say what to draw"),
        ({"resolution": "480p"}, "resolution", "no such field"),
        ({"motion_score": 3}, "motion_score", "not a setting of this model"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(fields: dict[str, Any], field: str, words: str) -> None:
    found = refusal(**fields)
    assert found[0] == field
    assert words in found[1]


def test_a_missing_prompt_is_said_to_be_missing() -> None:
    with pytest.raises(RequestError) as refused:
        read_request(read_fields({}, OPTIONS), OPTIONS)
    assert (refused.value.field, render(refused.value.problem)) == ("prompt", "is missing")


def test_seconds_choose_the_nearest_length() -> None:
    assert form(seconds="2", fps=8)["frames"] == 17
    assert form(seconds=1, fps=8)["frames"] == 9
    assert form(seconds=2, num_frames=17, fps=8)["frames"] == 17
    assert (seconds_of(17, 8), seconds_of(1, 24), seconds_of(81, 16)) == ("2", "1", "5")


def test_a_size_is_a_resolution_and_an_aspect() -> None:
    for size in MODELS[V12].limits.sizes[:4]:
        for fields in (
            {"size": f"{size.width_px}x{size.height_px}"},
            {"width": size.width_px, "height": str(size.height_px)},
            {"height": size.height_px, "size": f"{size.width_px}x{size.height_px}"},
        ):
            found = form(model=V12, **fields)
            assert (found["resolution"], found["aspect"]) == (size.resolution, size.aspect)


def test_a_request_comes_back_as_it_was_written() -> None:
    raw = {
        "prompt": "a ball", "negative": "a star", "steps": 5, "fps": 10, "frames": 9, "guidance": 3, "seed": 11,
        "rule": "apg", "curve": "0:1, 1:0.5", "branch_step": 2, "branch_prompt": "a cube", "stop_step": 4,
    }  # fmt: skip
    request = parse_request(raw, model_id="nano", limits=NANO.limits)
    fields = json.loads(json.dumps(write_fields(request, extended=True)))
    assert read_request(read_fields(fields, OPTIONS), OPTIONS)[1] == request


def test_ours_is_not_sent_to_who_does_not_know_it() -> None:
    plain_one = parse_request({"prompt": "a ball", "seed": 1}, model_id="nano", limits=NANO.limits)
    fields = write_fields(plain_one, extended=False)
    assert set(fields) == {
        "model", "prompt", "size", "num_frames", "fps", "num_inference_steps", "guidance_scale", "seed"
    }  # fmt: skip
    with pytest.raises(RequestError) as refused:
        write_fields(replace(plain_one, stop_step=3), extended=False)
    assert refused.value.field == "stop_step"


def test_limits_travel() -> None:
    for spec in MODELS.values():
        told = json.loads(json.dumps(model_object(ModelOffer(spec, None))))
        assert (told["id"], told["title"], told["object"]) == (spec.id, spec.title, "model")
        assert read_limits(told["limits"]) == spec.limits, spec.id
    assert (
        read_limits(json.loads(json.dumps(model_object(ModelOffer(NANO, None))["limits"])) | {"new": 1}) == NANO.limits
    )


@pytest.mark.parametrize(
    "change",
    [{"sizes": []}, {"steps": None}, {"steps": {"low": 5, "high": 4, "default": 1, "step": 1}}, {"default_frames": 3},
     {"frames": "many"}, {"sizes": [{}]}],
)  # fmt: skip
def test_limits_that_are_none_are_refused(change: dict[str, Any]) -> None:
    told = json.loads(json.dumps(model_object(ModelOffer(NANO, None))["limits"]))
    with pytest.raises((LookupError, TypeError, ValueError)):
        read_limits(told | change)


def test_the_limits_of_a_server_that_says_none_hold_together() -> None:
    limits = DIALECT_LIMITS
    request = parse_request({"prompt": "a cat"}, model_id="wan", limits=limits)
    assert request.shape.frames in limits.frames
    assert all(f % 4 == 1 for f in limits.frames)
    assert len(limits.sizes) == len(limits.resolutions) * len(limits.aspects)
