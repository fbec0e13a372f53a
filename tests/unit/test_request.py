"""One schema for page, API and command line: what it takes, what it refuses, in which words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from opensora_demo import __version__
from opensora_demo.catalog import MODELS, NANO, ModelSpec, find_model
from opensora_demo.errors import RequestError
from opensora_demo.messages import render
from opensora_demo.request.limits import Limits
from opensora_demo.request.parse import clean_text, parse_guidance_list, parse_request
from opensora_demo.request.request import GenerationRequest


def parse(**raw: Any) -> GenerationRequest:
    return parse_request({"prompt": "a red ball", **raw}, model_id="nano", limits=NANO.limits)


def test_defaults_come_from_the_model() -> None:
    request = parse()
    assert (request.steps, request.guidance, request.fps, request.shape.frames) == (16, (4.0,), 8, 17)
    assert (request.shape.height_px, request.shape.width_px) == (128, 128)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("steps", -1),
        ("steps", 10**6),
        ("steps", 2.5),
        ("steps", True),
        ("steps", "many"),
        ("steps", math.nan),
        ("steps", math.inf),
        ("steps", [1]),
        ("steps", 10**400),
        ("steps", {"a": 1}),
        ("guidance", 10**400),
        ("guidance", math.nan),
        ("guidance", -math.inf),
        ("guidance", -0.1),
        ("guidance", 1e9),
        ("guidance", "a"),
        ("guidance", []),
        ("guidance", [1, 1]),
        ("guidance", [1, 2, 3, 4, 5, 6, 7]),
        ("guidance", [1, math.nan]),
        ("fps", 3),
        ("fps", 25),
        ("fps", 8.5),
        ("fps", 0),
        ("fps", "x"),
        ("frames", 16),
        ("frames", 0),
        ("frames", 1e9),
        ("frames", 4.2),
        ("seed", -2),
        ("seed", 2**64),
        ("seed", 1.7),
        ("seed", math.nan),
        ("seed", True),
        ("prompt", ""),
        ("prompt", "  \t\n"),
        ("prompt", "\u200b\u200e"),
        ("prompt", None),
        ("prompt", 7),
        ("prompt", {"a": 1}),
        ("prompt", "x" * 1_000_000),
        ("negative", 3),
        ("negative", "y" * 4001),
        ("colour", "red"),
    ],
)
def test_refusals_name_the_field(field: str, value: Any) -> None:
    with pytest.raises(RequestError) as caught:
        parse(**{field: value})
    assert caught.value.field == field
    assert str(caught.value).startswith(field + ": ")
    assert len(str(caught.value)) < 200


def test_refusals_name_the_limit() -> None:
    with pytest.raises(RequestError, match="between 1 and 100, not 1000"):
        parse(steps=1000)
    with pytest.raises(RequestError, match=r"whole number, not 2\.5"):
        parse(steps="2.5")
    with pytest.raises(RequestError, match="one of 1, 5, 9, 13, 17"):
        parse(frames=16)


@pytest.mark.parametrize("value", [12, 12.0, "12", " 12 "])
def test_numbers_may_come_as_text(value: Any) -> None:
    assert parse(steps=value).steps == 12


def test_seeds() -> None:
    assert parse(seed=0).seed == 0
    assert parse(seed=2**32 - 1).seed == 2**32 - 1
    assert len({parse(seed=s).seed for s in (None, -1, "", "-1", " ", -1.0)}) > 1


def test_negative_zero_guidance_is_zero() -> None:
    assert math.copysign(1, parse(guidance=-0.0).guidance[0]) == 1


@pytest.mark.parametrize(
    "text", ["${alert(1)} {{x}} <img src=x onerror=alert(1)>", '{"reference_path": "/etc/passwd"}', "|0|a|1|b"]
)
def test_prompts_are_plain_text(text: str) -> None:
    assert parse(prompt=text).prompt == text


def test_text_is_cleaned() -> None:
    assert clean_text("a\x00 red\u202e\n ball\ud800 ") == "a red ball"
    assert clean_text("cafe\u0301") == "caf\u00e9"
    for kept in (
        "\U0001f468\u200d\U0001f469",
        "می\u200cخواهم",  # another word without the joiner
        "a \U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f ball",  # the flag of England
        "\u0601\u0661",
    ):
        assert clean_text(kept) == kept
    assert clean_text("a\U000e0067\U000e007f b\u200b\ufeff\u2066c") == "a bc"
    for nothing in ("\u200c", " \u200d\u200c ", "\U000e0067"):
        with pytest.raises(RequestError, match="must say what to draw"):
            parse(prompt=nothing)


@pytest.mark.parametrize("text", ["\u3164", "\u2800 \u115f", "\ufe0f", "\u0301", "\u200d\U000e0100", "\uffa0"])
def test_what_cannot_be_seen_is_no_prompt(text: str) -> None:
    with pytest.raises(RequestError, match="must say what to draw"):
        parse_for(NANO.limits, prompt=text)
    assert parse_for(NANO.limits, prompt=f"{text} a ball").prompt.endswith("a ball")


@pytest.mark.parametrize("text", ["\U0001d160" * 1333, "a" * 3900 + " " * 4000, "e\u200b\u0301" * 900])
def test_what_is_kept_of_a_prompt_is_accepted_again(text: str) -> None:
    """A character may become three; a mark that is left without what stood between joins its letter."""
    kept = parse_for(NANO.limits, prompt=text).prompt
    assert parse_for(NANO.limits, prompt=kept).prompt == kept
    with pytest.raises(RequestError, match="prompt: must have at most 4000 characters, not 4002"):
        parse_for(NANO.limits, prompt="\U0001d160" * 1334)


def test_a_prompt_is_as_long_as_the_longest_encoder_reads() -> None:
    long = "waves break on the shore of an island at dawn while gulls circle above, " * 40
    for spec in MODELS.values():
        assert parse_for(spec.limits, prompt=long[:2880]).prompt == clean_text(long[:2880])
    with pytest.raises(RequestError, match="prompt: must have at most 4000 characters, not 4001"):
        parse(prompt="x" * 4001)


def test_guidance_lists() -> None:
    assert parse_guidance_list("1, 2, 4, 7") == [1, 2, 4, 7]
    assert parse_guidance_list("1 2.5") == [1, 2.5]
    assert parse_guidance_list("1, 2, .., 5") == [1, 2, 3, 4, 5]
    for typed in ("1，2，4", "1、2、4", "1；2；4", "１，２，４", "1; 2; 4", "1､2､4", "1，2, 4"):
        assert parse_guidance_list(typed) == [1, 2, 4], typed
    for typed in ("1, 2, …, 5", "1、2、……、5", "1 2 ... 5", "1，2，…，5", "1, 2, ⋯, 5"):
        assert parse_guidance_list(typed) == [1, 2, 3, 4, 5], typed
    for typed in ("1,5; 2,5", "1，5；2，5", "1.5;2,5", "１，５；２，５"):
        assert parse_guidance_list(typed) == [1.5, 2.5], typed
    for wrong in ("", "a", "1, .., 3", "1, 2, ..", "2, 1, .., 5", "1,2,..,nan"):
        with pytest.raises(RequestError, match="guidance"):
            parse_guidance_list(wrong)
    assert len(parse_guidance_list("0, 0.001, .., 1e9")) < 10  # bounded, then refused by the schema


@pytest.mark.parametrize("model", ["nope", 3, ["nano"], "x" * 500])
def test_unknown_models(model: Any) -> None:
    with pytest.raises(RequestError, match="model: must be one of nano"):
        find_model(model)


def test_settings_rebuild_the_request() -> None:
    request = parse(steps=7, guidance=[1, 4], seed=5, negative="blur", fps=12)
    raw = request.settings()
    assert raw.pop("model") == "nano"
    assert raw.pop("reference") is False
    assert raw.pop("version") == __version__
    assert parse_request(raw, model_id="nano", limits=NANO.limits) == request


V20 = MODELS["debug-2.0"].limits
V11 = MODELS["debug-1.1"].limits


def parse_for(limits: Limits, **raw: Any) -> GenerationRequest:
    return parse_request({"prompt": "a ball", **raw}, model_id="any", limits=limits)


def test_settings_that_only_some_models_have_take_their_defaults() -> None:
    request = parse_for(V20)
    assert (request.rules, request.image_guidance, request.motion_score, request.edit) == (("oscillating",), 3, 4, 0)
    request = parse_for(NANO.limits)
    assert (request.rules, request.image_guidance, request.motion_score, request.edit) == (("plain",), 1, None, 0)


def test_a_motion_score_of_zero_is_left_out() -> None:
    assert parse_for(MODELS["debug-1.2"].limits, motion_score=0).motion_score is None
    assert parse_for(MODELS["debug-1.2"].limits, motion_score="6").motion_score == 6


@pytest.mark.parametrize(
    ("limits", "field", "value", "sentence"),
    [
        (NANO.limits, "rule", "perp-neg", "must be one of plain, interval"),
        (V11, "rule", "cfg-zero", "must be one of plain, interval"),
        (V11, "rule", ["plain", "plain"], "several different ones"),
        (V11, "rule", [], "must name one rule"),
        (V20, "rule", 7, "must be one of oscillating, plain"),
        (NANO.limits, "image_guidance", 3, "is not a setting of this model"),
        (V20, "image_guidance", "nan", "must be a number"),
        (V20, "image_guidance", 11, "must lie between 0 and 10"),
        (V20, "motion_score", 0, "must lie between 1 and 10"),
        (V20, "edit", 0.5, "is not a setting of this model"),
        (V11, "edit", 1.5, "must lie between 0 and 1"),
        (V11, "edit", [1], "must be a number"),
    ],
)
def test_what_a_model_does_not_have_is_refused(limits: Limits, field: str, value: Any, sentence: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_for(limits, **{field: value})
    assert caught.value.field == field
    assert sentence in str(caught.value)


def test_a_size_is_named_by_resolution_and_aspect() -> None:
    assert parse_for(NANO.limits).size is None
    assert parse_for(NANO.limits, resolution="128px", aspect="1:1").size is None
    for raw, shape in (
        ({}, (240, 424)),
        ({"resolution": "480p"}, (480, 848)),
        ({"aspect": "9:16"}, (424, 240)),
        ({"resolution": "720p", "aspect": "1:1"}, (960, 960)),
    ):
        request = parse_for(MODELS["opensora-1.2"].limits, **raw)
        assert (request.shape.height_px, request.shape.width_px) == shape
        assert request.size is not None
        named = {"resolution": request.size.resolution, "aspect": request.size.aspect}
        assert named.items() <= request.settings().items()
        assert parse_for(MODELS["opensora-1.2"].limits, **named).shape == request.shape
    for field, value in (("resolution", "1080p"), ("aspect", "16:10"), ("aspect", 1.5), ("resolution", ["480p"])):
        with pytest.raises(RequestError, match=f"{field}: must be one of "):
            parse_for(MODELS["opensora-1.2"].limits, **{field: value})


@pytest.mark.parametrize("spec", MODELS.values(), ids=list(MODELS))
def test_every_resolution_is_there_in_every_aspect(spec: ModelSpec) -> None:
    limits = spec.limits
    assert len(limits.sizes) == len(limits.resolutions) * len(limits.aspects)
    for resolution in limits.resolutions:
        for aspect in limits.aspects:
            size = limits.size(resolution, aspect)
            assert (size.resolution, size.aspect) == (resolution, aspect)
    areas = [limits.size(name).height_px * limits.size(name).width_px for name in limits.resolutions]
    assert areas == sorted(areas)
    assert limits.size_px == (limits.size().height_px, limits.size().width_px)


def test_a_last_frame_needs_a_model_that_takes_one() -> None:
    picture = np.zeros((1, 128, 128, 3), np.uint8)
    with pytest.raises(RequestError, match="last_frame"):
        parse_request({"prompt": "a ball"}, model_id="nano", limits=NANO.limits, last_frame=picture)
    limits = MODELS["debug-1.0"].limits
    with pytest.raises(RequestError, match="reference"):
        parse_request({"prompt": "a ball"}, model_id="any", limits=limits, reference=picture)


def test_settings_name_only_what_was_used() -> None:
    assert not {"rule", "image_guidance", "motion_score", "edit", "last_frame"} & set(parse_for(NANO.limits).settings())
    settings = parse_for(V20).settings()
    assert settings["rule"] == "oscillating"
    assert settings["motion_score"] == 4


def in_english(request: GenerationRequest) -> tuple[str, ...]:
    return tuple(render(label) for label in request.labels)


def test_columns_are_scales_by_rules() -> None:
    request = parse_for(NANO.limits, guidance=[2, 7], rule=["plain", "apg"])
    assert request.columns == ((2, "plain"), (7, "plain"), (2, "apg"), (7, "apg"))
    assert in_english(request) == ("guidance 2, plain", "guidance 7, plain", "guidance 2, APG", "guidance 7, APG")
    assert request.column(3).columns == ((7, "apg"),)
    settings = request.settings()
    assert (settings["guidance"], settings["rule"]) == ([2, 7], ["plain", "apg"])
    assert in_english(parse_for(NANO.limits, guidance=[4], rule=["plain", "apg"])) == ("plain", "APG")
    assert in_english(parse_for(NANO.limits, guidance=[1, 4])) == ("guidance 1", "guidance 4")
    with pytest.raises(RequestError, match="4 scales by 2 rules are 8 clips; at most 6 fit"):
        parse_for(NANO.limits, guidance=[1, 2, 3, 4], rule=["plain", "apg"])
