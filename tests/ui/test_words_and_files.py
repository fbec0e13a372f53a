"""Sentences from chips, and the folder that never grows."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opensora_demo.catalog import MODELS
from opensora_demo.catalog.nano import FILES
from opensora_demo.errors import WeightsError
from opensora_demo.messages import Language, plain, render
from opensora_demo.request.events import Clip
from opensora_demo.request.parse import parse_request
from opensora_demo.service import outputs
from opensora_demo.service.outputs import OutputFolder
from opensora_demo.toy.chips import CHIPS, VALUES, compose, phrases, roll
from opensora_demo.ui.values.common import chips_value
from opensora_demo.ui.values.stage import reading_note


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


@pytest.mark.parametrize("language", ["en", "zh"])
def test_chips_are_phrases_of_the_captions(language: Language) -> None:
    chips = CHIPS[language]
    assert list(chips) == ["colour", "shape", "motion", "place"]  # the order of the page's rows
    for kind, values in VALUES.items():
        assert len(set(chips[kind])) == len(values)
        for value, chip in zip(values, chips[kind], strict=True):
            assert chip in phrases(kind, value, language)


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
    assert re.fullmatch(r"nano-[a-z0-9-]{1,40}-1-[0-9a-f]{16}\.mp4", file.name)
    folder.close()


def test_only_the_newest_files_are_kept() -> None:
    folder = OutputFolder(keep=3)
    for i in range(8):
        folder.new_file("nano", "a ball", i).write_bytes(b"x")
    assert len(list(folder.path.iterdir())) == 3
    folder.close()
    assert not folder.path.exists()


def test_what_a_model_could_not_read() -> None:
    def said(model: str, unknown: Sequence[str], cut: int = 0) -> str:
        note = reading_note(model, unknown, cut)
        return "" if note is None else render(note)

    assert said("nano", ()) == ""
    assert said("nano", ("(", "!")) == ""
    assert "one coloured shape" in said("nano", ("dragon",))
    assert said("debug-2.0", ("dragon",)) == "debug-2.0 does not know: dragon."  # no toy worlds
    assert "3 tokens" in said("nano", (), 3)
    assert "and more" in said("nano", [f"w{i}" for i in range(20)])


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


def test_a_clip_is_worth_showing_without_its_marks(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    def missing() -> Any:
        raise WeightsError(plain("reader.safetensors is not here"))

    monkeypatch.setattr(outputs, "reader", missing)
    request = parse_request({"prompt": "a red ball", "seed": 1}, model_id="nano", limits=MODELS["nano"].limits)
    frames = np.zeros((17, 64, 64, 3), np.uint8)
    assert outputs.marks_of(Clip(frames=frames, request=request)) is None
    assert "reader.safetensors is not here" in caplog.text


def test_a_model_of_labels_is_offered_its_labels() -> None:
    value = chips_value()
    assert value["fewer"] == {"nano-class": ["shape"], "debug-1.0-class": ["shape"]}
    known = {f"{article} {shape}" for article in ("a", "an") for shape in CHIPS["en"]["shape"]}
    assert {roll(random.Random(i), kinds=("shape",)) for i in range(50)} <= known
