"""What a link carries, and what comes back from links and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from opensora_demo.catalog import MODELS, find_model
from opensora_demo.messages import render
from opensora_demo.request.parse import parse_request
from opensora_demo.service.forms import Comparison
from opensora_demo.service.links import checked_comparison, checked_settings, link_query, not_in_link
from opensora_demo.ui.controls import pick_updates
from opensora_demo.weights.lora import LoraFile
from opensora_demo.weights.options import WeightOptions


def settings_of(model: str, **raw: Any) -> dict[str, Any]:
    spec = find_model(model)
    return parse_request({"prompt": "a ball", "seed": 3} | raw, model_id=spec.id, limits=spec.limits).settings()


def opened(settings: dict[str, Any]) -> dict[str, Any]:
    """The values of the form that a clip's link opens."""
    query = {name: values[0] for name, values in parse_qs(link_query(settings)).items()}
    found, ignored = checked_settings(query)
    assert ignored == []
    return {name: update["value"] for name, update in pick_updates(found).items() if "value" in update}


@pytest.mark.parametrize("model", MODELS)
def test_a_link_opens_the_form_that_made_the_clip(model: str) -> None:
    limits = MODELS[model].limits
    usual = settings_of(model)
    last = {"resolution": limits.resolutions[-1], "aspect": limits.aspects[-1], "frames": limits.frames[0]}
    other = last | {
        "rule": [rule for rule in limits.rules if rule != "autoguidance"][-1],
        "steps": 7,
        "guidance": 2.5,
        "negative": "blur & noise",
    }
    for name, span in (("image_guidance", limits.image_guidance), ("motion_score", limits.motion_score)):
        other |= {} if span is None else {name: span.high}
    for settings in (usual, settings_of(model, **other), settings_of(model, rule="plain")):
        form, picked = opened(settings), {n: u for n, u in pick_updates(settings).items() if "value" in u}
        assert form == {name: update["value"] for name, update in picked.items() if name in form}
        assert all(not picked[name]["value"] for name in set(picked) - set(form))  # a file says what it has not


@pytest.mark.parametrize("seed", ["-1", -1, "-1.0", " -1 ", -1.0])
def test_a_seed_for_every_run_stays_one(seed: Any) -> None:
    found, ignored = checked_settings({"model": "nano", "seed": seed, "branch_seed": seed})
    assert (found, ignored) == ({"model": "nano", "seed": None}, [])
    assert pick_updates(found)["seed"]["value"] == ""
    assert checked_settings({"seed": seed}) == ({}, [])
    assert checked_settings({"seed": "0"})[0] == {"seed": 0}


def test_a_link_names_what_is_not_the_models_default() -> None:
    assert parse_qs(link_query(settings_of("nano"))) == {"prompt": ["a ball"], "seed": ["3"], "model": ["nano"]}
    tall = settings_of("opensora-1.2", resolution="720p", aspect="9:16", fps=12)
    assert parse_qs(link_query(tall)).items() >= {"resolution": ["720p"], "aspect": ["9:16"], "fps": ["12"]}.items()
    assert "rule=plain" in link_query(settings_of("debug-2.0", rule="plain"))
    assert "rule=oscillating" in link_query(settings_of("debug-2.0"))  # without it a link means plain


def test_a_link_of_before_opens_as_it_did() -> None:
    """It names every number, and no rule where that was plain."""
    query = {"model": "debug-2.0", "prompt": "a ball", "fps": "24", "frames": "9", "steps": "9", "guidance": "2"}
    found, ignored = checked_settings(query | {"seed": "3", "image_guidance": "5"})
    updates = pick_updates(found)
    assert ignored == []
    assert (updates["rule"]["value"], updates["image_guidance"]["value"]) == ("plain", 5)
    assert (updates["frames"]["value"], updates["seed"]["value"]) == (9, "3")
    assert updates["motion_score"]["value"] == 4  # none cannot be told to this model


def test_what_a_link_cannot_carry_is_said() -> None:
    settings = settings_of("debug-2.0")
    assert not_in_link(settings) is None
    said = not_in_link(settings | {"reference": True, "last_frame": True, "lora": ["ink"]})
    assert said is not None
    assert render(said) == "This link cannot carry: First frame, Last frame, LoRA."


def test_whoever_opens_a_link_is_told_what_it_lacks() -> None:
    settings = settings_of("debug-2.0") | {"reference": True, "last_frame": True, "lora": ["ink", "wash x 0.5"]}
    query = {name: values[0] for name, values in parse_qs(link_query(settings)).items()}
    told = ["the given frame, which is not among the settings", "the LoRA, which is not loaded here"]
    assert [*map(render, checked_settings(query)[1])] == told
    options = WeightOptions(loras=(LoraFile(Path("ink.safetensors")), LoraFile(Path("wash.safetensors"), 0.5)))
    assert "lora=ink%2C+wash+x+0.5" in link_query(settings | {"model": "opensora-2.0"})
    found, ignored = checked_settings({"model": "opensora-2.0", "lora": "ink, wash x 0.5"}, options=options)
    assert (found["model"], ignored) == ("opensora-2.0", [])


def test_what_is_not_known_is_named() -> None:
    told = {"prompt": "a ball", "sampler": "euler", "__theme": "dark", "seconds": {}, "version": "9", "peak_gb": 1}
    found, ignored = checked_settings(told)
    assert [*map(render, ignored)] == ["sampler: is not a setting of this demo"]
    assert found == {"prompt": "a ball", "seed": None}
    assert [render(m) for m in checked_settings({"x" * 500: 1})[1]] == [f"{'x' * 20}: is not a setting of this demo"]
    _, ignored = checked_settings(settings_of("nano") | {"reference": True})
    assert [*map(render, ignored)] == ["the given frame, which is not among the settings"]


# --- comparisons


def comparison_of(axis: str, rows: list[dict[str, Any]], model: str = "nano", seeds: int = 1, **raw: Any) -> Comparison:
    requests = [
        parse_request(
            {"prompt": "a ball & <b>", "seed": 3} | raw | row, model_id=model, limits=find_model(model).limits
        )
        for row in rows
    ]
    return Comparison(axis=axis, labels=(None,) * len(rows), requests=tuple(requests), seeds=seeds)  # type: ignore[arg-type]


COMPARISONS: list[tuple[Comparison, dict[str, Any]]] = [
    (comparison_of("none", [{}], guidance=[1, 2.5]), {"scales": "1, 2.5"}),
    (
        comparison_of("steps", [{"steps": 4}, {"steps": 8}], guidance=[1, 4], rule=["plain", "apg"], seeds=8),
        {"scales": "1, 4", "rules": ["plain", "apg"], "axis": "steps", "rows": "4, 8", "seeds": 8},
    ),
    (
        comparison_of("negative", [{"negative": "red"}, {"negative": ""}], guidance=[4]),
        {"scales": "4", "axis": "negative", "rows": "red; "},
    ),
    (comparison_of("seed", [{"seed": 5}, {"seed": 9}], guidance=[1]), {"scales": "1", "axis": "seed", "rows": "5, 9"}),
]


@pytest.mark.parametrize(("comparison", "fields"), COMPARISONS)
def test_a_comparison_comes_back_whole_from_its_file_and_its_link(
    comparison: Comparison, fields: dict[str, Any]
) -> None:
    limits = find_model("nano").limits
    usual = {"rules": ["plain"], "axis": "none", "rows": "", "seeds": 1}
    settings = comparison.settings()
    found, ignored = checked_comparison(settings, limits)
    assert usual | found == usual | fields
    assert ignored == []
    query = {name: values[0] for name, values in parse_qs(link_query(settings)).items()}
    found, ignored = checked_comparison(query, limits)
    assert usual | found == usual | fields
    assert ignored == []
    form, ignored = checked_settings(query)
    assert ignored == []
    assert (form["prompt"], form["model"]) == ("a ball & <b>", "nano")
    assert not {"guidance", "rule", comparison.axis} - {"seed"} & set(form)  # those are the comparison's


def test_models_as_rows_come_back() -> None:
    rows = [find_model(name) for name in ("nano", "nano-dit")]
    requests = [parse_request({"prompt": "a ball", "seed": 3}, model_id=m.id, limits=m.limits) for m in rows]
    settings = Comparison(axis="model", labels=(None, None), requests=tuple(requests)).settings()
    query = {name: values[0] for name, values in parse_qs(link_query(settings)).items()}
    for source in (settings, query):
        found, _ = checked_comparison(source, rows[0].limits)
        assert (found["axis"], found["rows"]) == ("model", "nano; nano-dit")


def test_a_link_whose_guidance_is_a_list_means_a_comparison() -> None:
    query = {"prompt": "a ball", "guidance": "1,4,7"}
    assert checked_comparison(query, find_model("nano").limits) == ({"scales": "1,4,7"}, [])
    assert checked_settings(query) == ({"prompt": "a ball", "seed": None}, [])


def test_what_a_comparisons_form_cannot_hold_is_said() -> None:
    query = {"axis": "moon", "seeds": "99", "rules": "plain, perp", "scales": "1" * 4600, "rows": "<img>"}
    found, ignored = checked_comparison(query, find_model("nano").limits)
    assert found == {"rows": "<img>"}  # the plan says what is wrong with it
    assert len(ignored) == 4
    nonsense = {"rows": [7, {"steps": []}], "guidance": [{}], "rule": [[]], "seeds": {}}
    assert checked_comparison(nonsense, find_model("nano").limits)[1]
