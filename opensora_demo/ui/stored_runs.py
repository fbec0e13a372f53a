"""Runs that come with the demo, so that no tab is empty before the first one of a visitor.

`make` writes what the page would have shown, from the same code: for each embedded model a folder of `assets/ui/stored`
with figures.json and comparison.json (and scope.json of the default model), the values of their components, and the
files of the comparison's clips, whose addresses are relative to its JSON. index.json says what there is. The browser
fetches a value when its tab is opened; the server only sends files.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from opensora_demo.catalog import DEFAULT_MODEL, ModelSpec, find_model
from opensora_demo.catalog.nano import NANO, NANO_DIT, NANO_MMDIT
from opensora_demo.evaluation.study import fingerprint
from opensora_demo.messages import render
from opensora_demo.request.request import GenerationRequest
from opensora_demo.service.forms import DEFAULT_SCALES, open_request, parse_comparison
from opensora_demo.service.runs import Run
from opensora_demo.ui.actions.all import Actions
from opensora_demo.ui.scripts import UI_ASSETS

V = TypeVar("V")
NOBODY: Any = SimpleNamespace(session_hash=None, headers={}, client=None)  # who starts these runs
FOLDER = UI_ASSETS / "stored"
MODELS = (NANO.id, NANO_DIT.id, NANO_MMDIT.id)  # the figure of the three ways shows their runs of its own
ONE = ("a red ball bouncing over a meadow", 7)  # prompt and seed of what is looked into
TWO = ("a yellow star spins on the left, a blue ball bounces on the right, in the desert", 18)  # here guidance decides
SEEDS = 8  # clips a cell: enough for means with their errors


def make(folder: Path, actions: Actions, model_id: str) -> dict[str, dict[str, Any]]:
    """Write the stored runs of one model into `folder`, and answer them by name. The scope's is the default model's,
    whichever is chosen. Raises ShownError where a run does not come to its end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    spec, request = _one(actions, model_id)
    comparison = _comparison(folder, actions, model_id, spec.limits.rules[0])  # first: it numbers its files
    _write(folder, "comparison", comparison)
    made = {"figures": make_figures(folder, actions, model_id), "comparison": comparison}
    if model_id == DEFAULT_MODEL:
        _, scope = _last(actions.clips.start(spec, request, NOBODY))
        assert scope is not None
        made["scope"] = {**_stored(scope), "prompt": f"{spec.title} · {scope['prompt']}"}
        _write(folder, "scope", made["scope"])
    return made


def make_figures(folder: Path, actions: Actions, model_id: str) -> dict[str, Any]:
    """Write the figures of one model into `folder`, and answer them; the other runs there stay as they are."""
    spec, request = _one(actions, model_id)
    value = _last(actions.figures.start(spec, request, None))
    figures = _stored(value)
    _write(folder, "figures", figures)
    return figures


def _one(actions: Actions, model_id: str) -> tuple[ModelSpec, GenerationRequest]:
    """What is looked into."""
    return open_request({"model": model_id, "prompt": ONE[0], "seed": ONE[1]}, actions.context.estimator)


def _write(folder: Path, name: str, value: dict[str, Any]) -> None:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    (folder / f"{name}.json").write_text(text + "\n", "utf-8")


def _comparison(folder: Path, actions: Actions, model_id: str, rule: str) -> dict[str, Any]:
    """One at the usual scales, with its clips' files in `folder`."""
    form = {"model": model_id, "prompt": TWO[0], "seed": TWO[1]}
    columns = {"scales": DEFAULT_SCALES, "rules": [rule], "axis": "none", "rows": "", "seeds": SEEDS}
    wanted = parse_comparison(form | columns, actions.context.estimator)
    comparison, outputs = _last(actions.comparison.start(wanted, NOBODY)), actions.context.files.path
    for cell in (cell for row in comparison["cells"] for cell in row):
        assert cell["state"] == "done"
        _move(cell["file"], outputs, folder)
        _move(cell["sheet"]["file"], outputs, folder)
        if cell["mosaic"] is not None:
            _move(cell["mosaic"]["file"], outputs, folder)
    return {**_stored(comparison), "job": "", "grid": None, "numbers": None}


def write_index(folder: Path = FOLDER) -> None:
    """Which runs of which model `folder` has, and the weights that made them: those that are here."""
    found = {
        of.name: {"weights": fingerprint(find_model(of.name)), "runs": sorted(file.stem for file in of.glob("*.json"))}
        for of in sorted(folder.iterdir())
        if of.is_dir()
    }
    (folder / "index.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def _last(run: Run[V]) -> V:
    *_, last = run.watch(1.0)
    if run.failure:
        raise RuntimeError(render(run.failure))
    return last


def _stored(value: Mapping[str, Any]) -> dict[str, Any]:
    return {**value, "run": 0, "stored": True}  # any run of a visitor is newer


def _move(file: Any, outputs: Path, folder: Path) -> None:
    """A file of a run into the folder: its address becomes its name."""
    name = f"{len(list(folder.iterdir())):02}{Path(file['orig_name']).suffix}"
    shutil.copyfile(outputs / file["orig_name"], folder / name)
    file |= {"orig_name": name, "url": name}
