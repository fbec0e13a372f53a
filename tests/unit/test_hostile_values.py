"""Whatever is sent as a request, in a file or in an address: it can be run, or is refused in one sentence."""

from __future__ import annotations

import json
import math
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opensora_demo.catalog import MODELS
from opensora_demo.errors import RequestError
from opensora_demo.messages import LANGUAGES, render
from opensora_demo.request import settings as table
from opensora_demo.request.parse import parse_request
from opensora_demo.service.forms import COMPARISON
from opensora_demo.service.links import checked_comparison, checked_settings, link_query

settings.register_profile(
    "demo", max_examples=30, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
settings.load_profile("demo")

TEXTS = st.text(st.characters(exclude_categories=()), max_size=40)  # lone surrogates, controls and all
NUMBERS = st.one_of(
    st.integers(), st.floats(), st.sampled_from([10**400, -1, 0, 2**32 - 1, 2**32, 1e308, -0.0, math.nan])
)
WORDS = st.sampled_from(
    [
        "1_0",
        "１０",
        " 7 ",
        "1e400",
        "nan",
        "-inf",
        "0x10",
        "../../x",
        "{",
        "|0|",
        "<img onerror=alert(1)>",
        "a\0b",
        "1,2",
    ]
)
ATOMS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS, WORDS)
VALUES = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)
NAMES = st.sampled_from([*table.names(), *COMPARISON, "rows", "version", "seconds", "__proto__", "prompt"])
SPECS = st.sampled_from([spec for spec in MODELS.values() if not spec.published])


def in_words(error: RequestError) -> None:
    for language in LANGUAGES:
        said = render(error.message, language)
        assert said
        assert len(said) < 2000
        assert "object at 0x" not in said


def as_parsed(raw: dict[str, Any], spec: Any) -> None:
    files = {setting.name for setting in table.SETTINGS if isinstance(setting.kind, table.Given)}
    raw = {name: value for name, value in raw.items() if name in table.names() and name not in files | {"model"}}
    try:
        request = parse_request(raw, model_id=spec.id, limits=spec.limits)
    except RequestError as error:
        in_words(error)
        return
    assert all(math.isfinite(scale) for scale, _ in request.columns)
    assert request.steps == int(request.steps)
    assert 0 <= request.seed < 2**32
    text = json.dumps(request.settings(), allow_nan=False)  # as it is written into files
    text.encode()
    again, _ = checked_settings(json.loads(text))
    assert again["prompt"] == request.prompt


def without_empty(kept: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kept.items() if name != "seed" and value != ""}


@given(SPECS, st.dictionaries(NAMES, VALUES, max_size=6), TEXTS)
def test_a_request_runs_or_is_refused_in_a_sentence(spec: Any, raw: dict[str, Any], prompt: str) -> None:
    as_parsed({"prompt": prompt, **raw}, spec)


@given(st.dictionaries(NAMES | TEXTS, VALUES, max_size=6))
def test_settings_of_a_file_are_taken_or_named(found: dict[str, Any]) -> None:
    kept, ignored = checked_settings(found)
    spec = MODELS[kept.get("model", "nano")]
    fields, refused = checked_comparison(found, spec.limits)
    for said in (*ignored, *refused):
        assert render(said)
    assert set(fields) <= set(COMPARISON)
    assert "model" not in kept or not spec.hidden
    twice, none = checked_settings(kept)
    assert none == []  # what is taken is taken again
    assert without_empty(twice) == without_empty(kept)


@given(st.lists(st.tuples(NAMES | TEXTS, TEXTS | WORDS), max_size=6))
def test_an_address_fills_the_form_or_says_why_not(pairs: list[tuple[str, str]]) -> None:
    query = urlencode(pairs, errors="replace")
    kept, ignored = checked_settings(dict(parse_qsl(query, keep_blank_values=True)))
    for said in ignored:
        assert render(said)
    if kept:
        linked = dict(parse_qsl(link_query({"model": "nano", **kept}).lstrip("?"), keep_blank_values=True))
        again, none = checked_settings(linked)
        assert none == []
        assert again["prompt"] == kept["prompt"] if "prompt" in kept else True


@pytest.mark.parametrize("raw", [{"steps": 10**400}, {"seed": "9" * 4000}, {"guidance": "1e400"}])
def test_numbers_beyond_all_bounds_are_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        parse_request({"prompt": "a ball", **raw}, model_id="nano", limits=MODELS["nano"].limits)
    in_words(caught.value)
