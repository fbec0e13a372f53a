"""A curve of guidance over the steps: read, written, and what it does to scales and calls."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from opensora_demo.catalog import MODELS, NANO
from opensora_demo.errors import RequestError
from opensora_demo.request.curve import curve_text, parse_curve, share_at, shares
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.cost.work import WorkCounter
from opensora_demo.sampling.guidance import ClassifierFree, TextImage, flow_levels, guidance_changed, image_rules
from opensora_demo.service.links import checked_settings, link_query


def request_of(model: str = "nano", **raw: Any) -> GenerationRequest:
    return parse_request({"prompt": "a ball", "seed": 3} | raw, model_id=model, limits=MODELS[model].limits)


@pytest.mark.parametrize("value", ["0:0, 0.5:1.5 1:0.25", [[0, 0], [0.5, 1.5], (1, "0.25")], "0:0;.5:1.5,1:.25"])
def test_points_are_text_or_pairs(value: Any) -> None:
    curve = parse_curve("curve", value)
    assert curve == ((0, 0), (0.5, 1.5), (1, 0.25))
    assert parse_curve("curve", curve_text(curve)) == curve
    assert curve_text(curve) == "0:0, 0.5:1.5, 1:0.25"


@pytest.mark.parametrize("nothing", [None, "", "  ", [], ","])
def test_nothing_is_no_curve(nothing: Any) -> None:
    assert parse_curve("curve", nothing) == ()
    assert shares((), 16) == ()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("0:0 0.5", "must be points such as 0:0, 0.5:1, not '0.5'"),
        ("a:b", "not 'a:b'"),
        (7, "must be points"),
        ({"a": 1}, "must be points"),
        ("0:3", "shares between 0 and 2, not 0:3"),
        ("0:nan", "not 0:nan"),
        ("1.5:1", "between 0 and 1"),
        ("0.5:1, 0.5:0", "must rise"),
        (", ".join(f"{i / 20}:1" for i in range(13)), "at most 12 points, not 13"),
    ],
)
def test_bad_points_are_refused_by_name(value: Any, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        request_of(curve=value)
    assert caught.value.field == "curve"
    assert said in str(caught.value)


def test_lines_between_points_and_level_ends() -> None:
    curve = parse_curve("curve", "0.25:0, 0.75:2")
    assert [share_at(curve, at) for at in (0, 0.25, 0.5, 0.75, 1)] == [0, 0, 1, 2, 2]
    assert shares(curve, 5) == (0, 0, 1, 2, 2)
    assert shares(curve, 1) == (0,)


def test_the_curve_is_a_share_of_every_rules_pull() -> None:
    levels = flow_levels([0.9, 0.5, 0.4, 0.1])
    plain = ClassifierFree((5.0, 5.0), ("plain", "interval"), levels, shares=(0, 0.5, 1, 2))
    assert [plain.effective(step) for step in range(4)] == [(1, 1), (3, 3), (5, 5), (9, 1)]
    assert plain.needed(0).tolist() == [[True, False]] * 2  # no pull, no null branch
    assert torch.allclose(plain.weights(1), torch.tensor([3.0, -2.0]))
    three = TextImage(
        scales=(5.0,), rules=("plain",), image_rules=image_rules(("plain",)), image_scale=2.0, points=5, shares=(0.5,)
    )
    assert three.weights(0).tolist() == [[3, -1, -1]]  # the text scale alone


def test_a_slow_curve_is_no_jump() -> None:
    """A jump costs the sampler its second order for a step."""
    rising = ClassifierFree((5.0,), shares=(0, 0.9, 1, 0.9, 0.2))
    assert [guidance_changed(rising, step) for step in range(1, 5)] == [(True,), (False,), (False,), (True,)]


def test_files_links_and_costs_have_it() -> None:
    request = request_of(curve="0:0,0.49:0,0.5:1")
    settings = request.settings()
    assert settings["curve"] == "0:0, 0.49:0, 0.5:1"
    assert "curve" not in request_of().settings()
    assert "curve=0%3A0" in link_query(settings)
    assert checked_settings({"curve": settings["curve"]})[0]["curve"] == settings["curve"]
    calls = WorkCounter().calls(NANO, request)
    assert calls == (1,) * 8 + (2,) * 8
