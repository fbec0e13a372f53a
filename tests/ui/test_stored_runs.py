"""What the page shows before the first run: whole, and of the weights that are here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from opensora_demo.catalog import find_model
from opensora_demo.evaluation.study import fingerprint
from opensora_demo.runtime.bundle import Bundles
from opensora_demo.service.local import LocalEngine
from opensora_demo.ui import stored_runs
from opensora_demo.ui.actions.all import actions_of
from opensora_demo.ui.context import PageContext
from opensora_demo.ui.scripts import stored
from opensora_demo.ui.values.compare import CompareValue
from opensora_demo.ui.values.explain import ExplainValue, FiguresValue
from opensora_demo.ui.values.scope import ScopeValue

VALUES: dict[str, Any] = {"figures": ExplainValue, "comparison": CompareValue, "scope": ScopeValue}


def files_of(value: Any) -> list[str]:
    """Every address in a value."""
    if isinstance(value, dict):
        own = [value["url"]] if "url" in value else []
        return own + [name for part in value.values() for name in files_of(part)]
    return [name for part in value for name in files_of(part)] if isinstance(value, list) else []


@pytest.mark.parametrize("model", stored_runs.MODELS)
def test_stored_runs_are_whole_and_of_these_weights(model: str) -> None:
    """If not: `python -m opensora_demo.ui.make_examples`."""
    index = json.loads((stored_runs.FOLDER / "index.json").read_text())[model]
    assert index["weights"] == fingerprint(find_model(model))
    assert set(index["runs"]) == {"figures", "comparison"} | ({"scope"} if model == "nano" else set())
    folder = stored_runs.FOLDER / model
    found = {name: json.loads((folder / f"{name}.json").read_text()) for name in index["runs"]}
    for name, value in found.items():
        assert set(value) >= VALUES[name].__required_keys__
        assert value["stored"]
        assert str(folder) not in json.dumps(value)
    assert set(found["figures"]["figures"]) == set(FiguresValue.__optional_keys__)
    assert all(cell["state"] == "done" for row in found["comparison"]["cells"] for cell in row)
    addresses = files_of(found["comparison"])
    assert len(addresses) == len(set(addresses)) == 12
    assert {Path("stored") / model / name for name in addresses} <= set(stored())


@pytest.mark.thorough
def test_they_are_made_by_the_code_of_the_page(tmp_path: Path) -> None:
    actions = actions_of(PageContext(LocalEngine(Bundles())))
    made = stored_runs.make(tmp_path / "debug-1.2", actions, "debug-1.2")
    actions.context.files.close()
    stored_runs.write_index(tmp_path)
    assert list(made) == ["figures", "comparison"]
    assert json.loads((tmp_path / "index.json").read_text())["debug-1.2"]["runs"] == ["comparison", "figures"]
    assert all((tmp_path / "debug-1.2" / name).stat().st_size for name in files_of(made["comparison"]))
