"""The lesson without a browser: it fills the form, runs on the real tabs, and has the reader look at the clips."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest

from opensora_demo.media import read_mp4, write_mp4
from opensora_demo.ui.actions.all import Actions
from opensora_demo.ui.controls import restored_names
from opensora_demo.ui.values.lesson import lesson_value
from tests.ui.conftest import FakePipeline, read

VISITOR: Any = SimpleNamespace(session_hash="a", query_params={}, headers={})
STEP = {"model": "nano", "prompt": "a blue star at night", "seed": 7, "steps": 2, "guidance": 4, "fps": 8, "frames": 17}


def sent(**data: Any) -> Any:
    return SimpleNamespace(_data=data)


def test_a_step_fills_both_forms(actions: Actions) -> None:
    filled = actions.lesson.fill(VISITOR, sent(**STEP, scales="1, 7", axis="seed", rows="1, 2", odd="x"))
    updates = dict(zip(restored_names(), filled, strict=True))
    assert updates["prompt"]["value"] == "a blue star at night"
    assert (updates["steps"]["value"], updates["seed"]["value"], updates["model"]["value"]) == (2, "7", "nano")
    assert (updates["scales"]["value"], updates["axis"]["value"], updates["rows"]["value"]) == ("1, 7", "seed", "1, 2")


def test_a_step_runs_and_its_own_clip_solves_nothing(actions: Actions, pipeline: FakePipeline) -> None:
    stage, _ = list(actions.lesson.clip(VISITOR, sent(**STEP, reference=__file__)))[-1]  # no file by its path
    assert (stage["phase"], stage["prompt"], stage["clip"]["settings"]["seed"]) == ("done", STEP["prompt"], 7)
    table = list(actions.lesson.compare_step(VISITOR, sent(**STEP, scales="1, 7", axis="seed", rows="1, 2")))[-1]
    assert (table["phase"], len(table["cells"]), len(table["cells"][0])) == ("done", 2, 2)
    jobs = [table["job"], stage["job"]]
    value = actions.lesson.check(VISITOR, sent(exercise="guess", jobs=jobs, prompt=STEP["prompt"]))
    assert (value["solved"], value["clips"]) == (False, [])
    assert read(value["text"]).startswith("The reader has no clip of yours")
    # Of another prompt they count: one clip, and four of the comparison, the newest first.
    value = actions.lesson.check(VISITOR, sent(exercise="failure", jobs=jobs, prompt="a red ball"))
    assert value["exercise"] == "failure"
    assert read(value["text"]).startswith("Not yet: none of the 5") or value["solved"]
    assert [mark["kind"] for mark in value["clips"][0]["marks"]] == ["colour", "shape", "motion", "place"]
    assert actions.lesson.check(VISITOR, sent(exercise="no such", jobs=["x"]))["exercise"] == "noise"


def test_bad_settings_are_refused_as_anywhere(actions: Actions) -> None:
    with pytest.raises(gr.Error, match="steps: must lie between"):
        next(actions.lesson.clip(VISITOR, sent(**STEP | {"steps": 1000})))


def test_the_clips_that_solve_an_exercise_come_first() -> None:
    def seen(seed: int, *, right: bool) -> Any:
        word = [{"en": "blue", "zh": "蓝色"}]
        mark = {"kind": "colour", "asked": word, "seen": word, "right": right, "confidence": 0.9}
        return {"prompt": "a", "seed": seed, "steps": 3, "guidance": 4.0, "model": "nano"}, [mark]

    clips = [seen(seed, right=seed == 5) for seed in range(1, 7)]
    value = lesson_value(1, "guess", clips)
    assert value["solved"]
    assert [(clip["seed"], clip["counts"]) for clip in value["clips"]] == [
        (5, True),
        (1, False),
        (2, False),
        (3, False),
    ]


def test_a_clips_file_is_read_back(tmp_path: Any) -> None:
    frames = np.zeros((9, 64, 64, 3), np.uint8)
    frames[:, 16:48, 16:48] = (200, 40, 40)
    write_mp4(tmp_path / "clip.mp4", frames, 8, {})
    again, _ = read_mp4(tmp_path / "clip.mp4")
    assert again.shape == (9, 256, 256, 3)
    assert np.abs(again[:, ::4, ::4].astype(int) - frames).mean() < 8
