"""Sentences from chips, and the folder that never grows."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path

import pytest

from opensora_demo.catalog.nano import FILES
from opensora_demo.ui.files import OutputFolder
from opensora_demo.ui.present import unknown_sentence
from opensora_demo.ui.words import CHIPS, compose, roll


def test_compose() -> None:
    assert compose({"shape": "ball", "colour": "red", "motion": "bouncing", "place": "over a meadow"}) == (
        "a red ball bouncing over a meadow"
    )
    assert compose({"colour": "orange"}) == "an orange shape"
    assert compose({"shape": "<img>", "motion": "rising"}) == "a shape rising"
    assert compose({"shape": ["ball"]}) == "a shape"
    chinese = {"shape": "球", "colour": "红", "motion": "弹跳", "place": "在草地上", "language": "zh"}
    assert compose(chinese, "zh") == "一个红色的球在草地上弹跳"
    assert compose({"shape": "ball", "colour": "红"}, "zh") == "一个红色的形体"


def test_the_model_knows_every_chip() -> None:
    root = Path(__file__).resolve().parents[2]
    file = root / "assets" / FILES.folder / FILES.tokenizer
    known = json.loads(file.read_text("utf-8"))["model"]["vocab"]
    words = {w for group in CHIPS["en"].values() for phrase in group for w in re.findall(r"[a-z]+", phrase)}
    assert words <= set(known)
    assert {w for i in range(50) for w in roll(random.Random(i)).split()} <= set(known)
    assert {c for i in range(50) for c in roll(random.Random(i), "zh")} <= set(known)
    assert set(compose({}, "zh")) <= set(known)


@pytest.mark.parametrize("prompt", ["../../x", "CON", "x" * 300, "", "ねこ", "a/b\\c\0d"])
def test_file_names_are_tame(prompt: str) -> None:
    folder = OutputFolder()
    file = folder.new_file("nano", prompt, 1)
    assert file.parent == folder.path
    assert re.fullmatch(r"nano-[a-z0-9-]{1,40}-1-[0-9a-f]{6}\.mp4", file.name)
    folder.close()


def test_only_the_newest_files_are_kept() -> None:
    folder = OutputFolder(keep=3)
    for i in range(8):
        folder.new_file("nano", "a ball", i).write_bytes(b"x")
    assert len(list(folder.path.iterdir())) == 3
    folder.close()
    assert not folder.path.exists()


def test_unknown_sentence() -> None:
    assert unknown_sentence("nano", ()) == ""
    assert unknown_sentence("nano", ("(", "!")) == ""
    assert "one coloured shape" in unknown_sentence("nano", ("dragon",))
    assert unknown_sentence("debug-2.0", ("dragon",)) == "debug-2.0 does not know: dragon."  # no toy worlds
    assert "3 words" in unknown_sentence("nano", (), 3)
    assert "and more" in unknown_sentence("nano", [f"w{i}" for i in range(20)])


def test_what_belongs_to_a_clip_goes_with_it() -> None:
    folder = OutputFolder(keep=3)
    made = [folder.new_file("nano", f"clip {i}", i) for i in range(5)]
    for i, file in enumerate(made):
        for suffix in (".mp4", ".jpg"):
            file.with_suffix(suffix).write_bytes(b"x")
            os.utime(file.with_suffix(suffix), (1000 + i, 1000 + i))
    folder.sweep()
    assert sorted(p.name for p in folder.path.iterdir()) == sorted(
        f.with_suffix(suffix).name for f in made[-2:] for suffix in (".mp4", ".jpg")
    )
    folder.close()
