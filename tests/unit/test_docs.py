"""What the documents say about the repository is so."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from opensora_demo.cli import _parser
from tests.unit.test_imports import ROOT

TEXTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
SHOWN = ("shape", "colour", "motion", "background", "all_right")
MEASURED = {  # prompts of the README's table -> where study.json has their number and what they showed
    "new, one object": ("adherence", "prompts", "new_prompts"),
    "combinations never trained on": ("adherence", "unseen_prompts", "new_combinations"),
    "two objects": ("other_captions", "two_prompts", "two_objects"),
    "in Chinese": ("other_captions", "chinese_prompts", "chinese"),
}


def entries(folder: Path) -> set[str]:
    """Files and folders that belong to the repository, folders with a slash."""
    return {
        entry.name + "/" * entry.is_dir()
        for entry in folder.iterdir()
        if not entry.name.startswith((".", "__pycache__")) and not entry.name.endswith((".egg-info", ".pyc"))
    }


def test_the_tree_of_the_architecture_is_the_real_one() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    lines = re.findall(r"^    ( *)(\S+)", text[text.index("## The tree") : text.index("## Rows")], re.MULTILINE)
    package = {name for indent, name in lines if indent}
    assert package == entries(ROOT / "opensora_demo")
    top = {name for indent, name in lines if not indent}
    assert {"app.py", "opensora_demo/", "tests/"} <= top
    folders = {name for name in entries(ROOT) if name.endswith("/")} - {"weights/", "runs/", "dist/"}  # not committed
    assert top - {"app.py"} == folders


@pytest.mark.parametrize("file", TEXTS, ids=lambda file: file.name)
def test_links_lead_to_files(file: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", file.read_text("utf-8")):
        assert "://" in target or (file.parent / target).exists(), target


def test_commands_exist() -> None:
    (commands,) = (action.choices for action in _parser()._actions if action.dest == "command")
    targets = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for file in TEXTS:
        text = file.read_text("utf-8")
        said = set(re.findall(r"^    opensora-demo (\w+)|`opensora-demo (\w+)", text, re.MULTILINE))
        assert {a or b for a, b in said} <= {"serve", *commands}, file.name
        assert set(re.findall(r"`make (\w+)", text)) <= targets, file.name


def test_the_numbers_of_the_readme_are_those_of_the_studies() -> None:
    rows = re.findall(r"^\| (nano\S*) \| (.+?) \| (.+?) \|$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    assert {model for model, _, _ in rows} == {"nano", "nano-dit", "nano-mmdit"}
    for model, prompts, numbers in rows:
        study: dict[str, Any] = json.loads((ROOT / "assets" / model / "study.json").read_text())
        chapter, count, name = MEASURED[prompts]
        measured = study[chapter][name]
        shares = [f"{100 * measured[each]:.0f} %" for each in SHOWN]
        expected = [str(study[chapter][count]), *shares, study["dates"][chapter]]
        assert numbers.split(" | ") == expected, (model, prompts)
