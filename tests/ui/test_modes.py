"""The three ways for text to come in: what the page and the docs say of them is what was measured, of these weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opensora_demo.catalog import MODELS, find_model
from opensora_demo.evaluation.study import fingerprint, read_study
from opensora_demo.evaluation.text_modes import THREE, measure_costs
from opensora_demo.ui import make_modes
from opensora_demo.ui.scripts import stored
from opensora_demo.ui.values.modes import ModesValue
from opensora_demo.weights.store import ASSETS


@pytest.fixture(scope="module")
def value() -> ModesValue:
    found: ModesValue = json.loads((make_modes.FOLDER / "modes.json").read_text("utf-8"))
    return found


def test_the_figure_is_of_these_weights_and_studies(value: ModesValue) -> None:
    """If not: `python -m opensora_demo.ui.make_modes`."""
    assert [mode["mode"] for mode in value["modes"]] == ["cross-attention", "concatenation", "replacement"]
    for mode in value["modes"]:
        if mode["model"] not in MODELS:  # it has no weights yet, so nothing is said of its clips
            assert (mode["weights"], mode["right"], mode["two"], mode["clips"]) == (None, None, None, [])
            continue
        assert mode["weights"] == fingerprint(find_model(mode["model"]))
        study = read_study(ASSETS / mode["model"] / "study.json")
        assert study.weights == mode["weights"]
        assert study.adherence is not None
        assert study.other_captions is not None
        assert (study.adherence.prompts, study.other_captions.two_prompts) == (value["prompts"], value["two_prompts"])
        assert mode["right"] == study.adherence.new_prompts.all_right
        assert mode["two"] == study.other_captions.two_objects.all_right
        assert len(mode["clips"]) == len(value["shown"])
        assert {Path("modes") / clip["url"] for clip in mode["clips"]} <= set(stored())
    assert make_modes.table_of(value) in make_modes.DOCS.read_text("utf-8")


@pytest.mark.thorough
def test_costs_are_measured() -> None:
    costs = measure_costs(THREE, rounds=1, batch=1)
    cross, sequence, replaced = (costs[spec.id] for spec in THREE)
    # Words beside the patches go through every layer, in every frame; without attention among patches there is less.
    assert replaced.gflop < cross.gflop < sequence.gflop
    assert replaced.mb < cross.mb < sequence.mb
    assert all(cost.ms > 0 for cost in costs.values())


def test_the_docs_get_the_table(value: ModesValue, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{make_modes.BEGIN}\nold\n{make_modes.END}\nafter\n")
    make_modes.write_docs(value, page)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert make_modes.table_of(value) in text


@pytest.mark.parametrize(("options", "minutes"), [(" --cpu-minutes 16 --lr 0.002", 16.0), (" --steps 100", 31.0)])
def test_minutes_are_those_of_the_processor_where_they_were_the_budget(options: str, minutes: float) -> None:
    header = {"command": f"python -m opensora_demo.training nano-cross{options}", "seconds": "1860"}
    assert make_modes.cpu_minutes(header) == minutes
