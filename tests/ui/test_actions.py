"""The functions behind the page, called as plain functions."""

from __future__ import annotations

import csv
import re
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from opensora_demo.catalog import NANO
from opensora_demo.errors import NumericsError
from opensora_demo.media import read_mp4, read_settings, write_animation
from opensora_demo.messages import message, plain, render, to_json
from opensora_demo.request import settings as table
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.cost.estimator import Estimator, Machine, Rates
from opensora_demo.service.engine import Loading, Waiting
from opensora_demo.service.forms import compare_names, cost_names, seen_names
from opensora_demo.service.options import ServerOptions
from opensora_demo.service.runs import MAX_GOING_EACH
from opensora_demo.toy.chips import CHIPS
from opensora_demo.ui.actions.all import Actions
from opensora_demo.ui.components import GivenVideo
from opensora_demo.ui.controls import restored_names, updated_names
from opensora_demo.ui.form_memory import restored
from opensora_demo.ui.language import spoken_answer
from opensora_demo.ui.scripts import served_at, served_folder
from opensora_demo.ui.tabs.generate import load_examples
from opensora_demo.ui.values.common import FileValue
from opensora_demo.ui.values.compare import mark_value
from opensora_demo.ui.values.stage import chip_value
from opensora_demo.ui.values.verdict import verdict
from opensora_demo.weights.options import WeightOptions
from opensora_demo.weights.store import Fetching
from tests.ui.conftest import read

GOOD: dict[str, Any] = {
    "prompt": "a red ball",
    "negative": "",
    "fps": 8,
    "frames": 17,
    "steps": 4,
    "guidance": 4.0,
    "rule": "plain",
    "seed": 3,
    "model": "nano",
}
Values = list[dict[str, Any]]


def visitor(session: str = "a") -> Any:
    return SimpleNamespace(session_hash=session, query_params={}, headers={})


def click(actions: Actions, session: str = "a", **changes: Any) -> Iterator[dict[str, Any]]:
    form = dict.fromkeys(table.names()) | GOOD | changes
    by = visitor(session)
    return (
        stage for part in (actions.clips.make_clip(by, *form.values()), actions.clips.complete(by)) for stage, _ in part
    )


def made_file(actions: Actions, value: FileValue) -> Path:
    """Where a file of a value lies."""
    assert value["url"] == f"clips/{value['orig_name']}"
    return actions.context.files.path / value["orig_name"]


def asked() -> GenerationRequest:
    return parse_request({"prompt": "a ball"}, model_id=NANO.id, limits=NANO.limits)


def run(actions: Actions, session: str = "a", **changes: Any) -> Values:
    return list(click(actions, session, **changes))


def test_a_run_from_click_to_clip(actions: Actions, published: Values) -> None:
    assert run(actions)[-1] == published[-1][0]
    values = [stage for stage, _ in published]
    texts = [read(v["text"]) for v in values]
    assert texts[0] == "Loading the model"
    assert "Reading the prompt" in texts
    assert "Denoising 1 of 4" in texts
    assert texts[-1] == "Done"
    first = next(v for v in values if v["steps"])
    assert len(first["steps"]) == 1
    assert first["steps"][0]["guess"].startswith("data:image/jpeg;base64,")
    assert first["left"] == pytest.approx(0.3)
    last = values[-1]
    assert last["phase"] == "done"
    assert len(last["steps"]) == 4
    assert all(step["guess"] for step in last["steps"])
    assert chip_value(message("label.chip.seed"), "3") in last["chips"]
    assert chip_value(message("label.chip.length"), message("note.time.s", n="2.1")) in last["chips"]
    file = made_file(actions, last["clip"]["file"])
    assert file.name.startswith("nano-a-red-ball-3-")
    assert read_settings(file) == last["clip"]["settings"]


def test_frames_that_are_decoded_are_told_before_the_clip_is_whole(
    actions: Actions, published: Values, pipeline: Any
) -> None:
    pipeline.parts, pipeline.clip_grey = (5, 9), 200
    assert run(actions)[-1] == published[-1][0]
    values = [stage for stage, _ in published]
    assert all(value["start"] == 0 for value in values)
    told = [value for value in values if value["decoded"]]
    assert [read(value["text"]) for value in told[:2]] == ["Decoding: 5 of 17 frames", "Decoding: 9 of 17 frames"]
    assert [[(part["first"], part["sheet"]["count"]) for part in value["decoded"]] for value in told[:2]] == [
        [(0, 5)],
        [(0, 5), (5, 4)],
    ]
    with Image.open(made_file(actions, told[1]["decoded"][1]["sheet"]["file"])) as sheet:
        assert sheet.size == (4 * 128, 128)
        assert sheet.getpixel((500, 100)) == (200, 200, 200)
    assert all(value["phase"] == "decoding" and not value["clip"] for value in told)
    last = values[-1]
    assert last["decoded"] == []  # the clip has them
    frames, _ = read_mp4(made_file(actions, last["clip"]["file"]))
    assert len(frames) == 17
    assert abs(frames.astype(int) - 200).max() < 4


def test_the_next_run_may_begin_once_the_clip_is_there(actions: Actions) -> None:
    """The click's own event ends with the clip; the pictures that are still missing come by the next."""
    form = dict.fromkeys(table.names()) | GOOD | {"steps": 60}
    made = [stage for stage, _ in actions.clips.make_clip(visitor(), *form.values())]
    assert [stage["phase"] for stage in made].count("done") == 1
    (complete, scope), *more = actions.clips.complete(visitor())
    assert more == []
    assert complete["run"] == made[-1]["run"]
    assert all(step["guess"] for step in complete["steps"])
    assert scope["done"]
    assert list(actions.clips.complete(visitor("somebody else"))) == []
    next(click(actions))
    assert list(actions.clips.complete(visitor())) == []  # another has begun


def test_updates_are_thinned_but_the_first_and_the_last_are_always_told(actions: Actions) -> None:
    """Who comes back late is given what is newest, not all that was missed."""
    values = click(actions, steps=60)
    told = [next(values)]
    for thread in threading.enumerate():
        if thread.name.startswith("run-"):
            thread.join(60)
    told += values
    assert len(told) <= 3
    assert len(told[-1]["steps"]) == 60


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"prompt": ""}, "prompt: must say what to draw"),
        ({"prompt": None}, "prompt: must say what to draw"),
        ({"prompt": "\u200b \u200d"}, "prompt: must say what to draw"),
        ({"prompt": {"a": 1}}, "prompt: must be text"),
        ({"prompt": "x" * 1_000_000}, "prompt: must have at most 4000 characters"),
        ({"guidance": float("nan")}, "guidance: must be a number, not nan"),
        ({"guidance": float("inf")}, "guidance: must be a number, not inf"),
        ({"guidance": -1}, "guidance: must lie between 0 and 15"),
        ({"steps": 2.5}, "steps: must be a whole number, not 2.5"),
        ({"steps": True}, "steps: must be a whole number"),
        ({"steps": 10**6}, "steps: must lie between 1 and 100"),
        ({"fps": 0}, "fps: must lie between 4 and 24"),
        ({"frames": 2}, "frames: must be one of 1, 5, 9, 13, 17"),
        ({"seed": 2**64}, "seed: must lie between 0 and 4294967295"),
        ({"seed": "abc"}, "seed: must be a whole number"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_is_shown(
    actions: Actions, pipeline: Any, changes: dict[str, Any], sentence: str
) -> None:
    values = click(actions, **changes)
    with pytest.raises(gr.Error) as caught:
        next(values)
    assert str(caught.value.message).startswith(sentence)
    assert pipeline.closed == 0
    assert run(actions)[-1]["phase"] == "done"


def test_unknown_model(actions: Actions) -> None:
    with pytest.raises(gr.Error, match="model: must be one of"):
        next(click(actions, model="sora-9"))


def test_reference_images(actions: Actions, tmp_path: Path) -> None:
    good, corrupt, huge = tmp_path / "good.png", tmp_path / "corrupt.png", tmp_path / "huge.png"
    Image.fromarray(np.zeros((40, 90, 3), np.uint8)).save(good)
    corrupt.write_bytes(b"\x89PNG\r\n\x1a\n nothing of the kind")
    Image.new("1", (10100, 10100)).save(huge)
    assert run(actions, reference=str(good))[-1]["clip"]["settings"]["reference"] is True
    with pytest.raises(gr.Error, match="reference: this is not a readable PNG, JPEG, WebP, AVIF or GIF image"):
        run(actions, reference=str(corrupt))
    with pytest.raises(gr.Error, match="reference: the image has 10100 x 10100 pixels; at most 100 megapixels"):
        run(actions, reference=str(huge))


def test_an_error_midway_is_told_and_releases_the_device(actions: Actions, pipeline: Any) -> None:
    pipeline.error = NumericsError(plain("the clip is not finite"))
    values: list[dict[str, Any]] = []
    with pytest.raises(gr.Error, match="the clip is not finite"):
        values.extend(click(actions))
    pipeline.error = None
    assert run(actions)[-1]["phase"] == "done"


def test_the_unforeseen_goes_to_the_log_only(actions: Actions, pipeline: Any, caplog: pytest.LogCaptureFixture) -> None:
    pipeline.error = ZeroDivisionError("/secret/path")
    got: list[dict[str, Any]] = []
    with pytest.raises(gr.Error) as caught:
        got.extend(item for item in click(actions))
    assert caught.value.message == render(message("run.sorry"))
    assert got[-1]["phase"] == "failed"
    assert got[-1]["text"] == to_json(message("run.sorry"))
    assert "/secret/path" in caplog.text


def test_stop_ends_the_run_of_its_own_session(actions: Actions, pipeline: Any) -> None:
    pipeline.gate = threading.Semaphore(2)
    got: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: got.extend(click(actions)))
    thread.start()
    assert pipeline.started.wait(5)
    assert actions.context.runs.stop("b") == 0
    assert actions.context.runs.stop(None) == 0
    assert actions.context.runs.stop("a") == 1
    thread.join(5)
    assert not thread.is_alive()
    assert got[-1]["phase"] == "stopped"
    assert pipeline.running == 0
    pipeline.gate = None
    assert run(actions)[-1]["phase"] == "done"


def test_two_people_take_turns_and_the_second_is_told(actions: Actions, pipeline: Any) -> None:
    pipeline.gate = threading.Semaphore(0)
    results: dict[str, list[dict[str, Any]]] = {"a": [], "b": []}
    waiting = threading.Event()

    def visit(name: str) -> None:
        for value in click(actions, name, prompt=f"a ball {name}"):
            results[name].append(value)
            if value["phase"] == "waiting":
                waiting.set()

    threads = [threading.Thread(target=visit, args=(name,)) for name in "ab"]
    threads[0].start()
    assert pipeline.started.wait(5)
    threads[1].start()
    assert waiting.wait(5)
    pipeline.gate.release(100)
    for thread in threads:
        thread.join(5)
    assert pipeline.most_running == 1
    for name in "ab":
        assert results[name][-1]["phase"] == "done"
        assert {v["prompt"] for v in results[name]} == {f"a ball {name}"}


def test_who_waits_is_told_how_many_come_before(actions: Actions, published: Values) -> None:
    with closing(actions.context.engine.submit(asked()).events()) as first:  # type: ignore[type-var]
        assert isinstance(next(first), Loading)
        with closing(actions.context.engine.submit(asked()).events()) as second:  # type: ignore[type-var]
            assert next(second) == Waiting(1)
            values = click(actions)
            waiting = next(v for v in values if v["phase"] == "waiting")
            assert read(waiting["text"]) == "Waiting: 2 runs come before this one"
        assert next(v for v in values if read(v["text"]) == "Waiting for another run to finish")["phase"] == "waiting"
    assert [v["phase"] for v in values][-1] == "done"


def test_a_waiting_run_can_be_stopped(actions: Actions, pipeline: Any) -> None:
    with closing(actions.context.engine.submit(asked()).events()) as other:
        assert isinstance(next(other), Loading)
        values = click(actions)
        assert next(value for value in values if value["phase"] == "waiting")
        actions.context.runs.stop("a")
        assert [v["phase"] for v in values][-1] == "stopped"
    assert pipeline.closed == 0


def test_a_page_loaded_anew_finds_its_run_and_what_came_before(actions: Actions, pipeline: Any) -> None:
    first = run(actions, prompt="a blue star")[-1]
    pipeline.gate = threading.Semaphore(2)
    values = click(actions, "old page")
    while not (shown := next(values))["steps"]:
        pass
    values.close()  # type: ignore[attr-defined]
    event = gr.EventData(None, {"jobs": [shown["job"], first["job"], "unknown", 7]})
    again = actions.clips.restore(visitor("new page"), event)
    value, _ = next(again)
    assert value["run"] == shown["run"]
    assert [old["prompt"] for old in value["history"]] == ["a blue star"]
    pipeline.gate.release(100)
    assert list(again)[-1][0]["phase"] == "done"
    ((value, scope),) = actions.clips.restore(visitor("third"), gr.EventData(None, {"jobs": [shown["job"]]}))
    assert value["phase"] == "done"
    assert value["history"] == []
    assert scope["done"]
    for nonsense in (None, {"jobs": "x"}, {"jobs": ["x"]}, {}):
        assert list(actions.clips.restore(visitor(), gr.EventData(None, nonsense))) == []


def test_unknown_words_are_said(actions: Actions, pipeline: Any) -> None:
    pipeline.unknown = ("dragon", "!")
    last = run(actions)[-1]
    assert read(last["note"]).startswith("nano does not know: dragon. It was trained on ")
    assert last["clip"]["settings"]["unknown"] == ["dragon", "!"]


def test_picking_a_clip_fills_the_form(actions: Actions) -> None:
    event = gr.EventData(None, {"prompt": "a star", "seed": 5, "fps": 8, "steps": {"x": 1}})
    picked = dict(zip(updated_names(), actions.form.pick(event), strict=True))
    assert picked["prompt"]["value"] == "a star"
    assert picked["fps"]["value"] == 8
    assert picked["seed"]["value"] == "5"
    assert picked["steps"] == picked["model"] == gr.skip()
    picked = dict(zip(updated_names(), actions.form.pick(gr.EventData(None, "nonsense")), strict=True))
    assert picked.pop("seed")["value"] == ""
    assert all(update == gr.skip() for update in picked.values())


def test_hidden_controls_say_nothing(actions: Actions) -> None:
    """They keep what was set for another model."""
    left = {"edit": 0.4, "image_guidance": 3, "motion_score": 7, "last_frame": "of another model.png"}
    settings = run(actions, **left)[-1]["clip"]["settings"]
    assert settings.keys().isdisjoint({"edit", "image_guidance", "motion_score", "last_frame"})
    left |= {"reference": "of another model.png", "rule": "plain", "frames": 8, "model": "debug-1.0"}
    value = run(actions, **left)[-1]
    assert value["cell"] == (384, 256)
    assert value["clip"]["settings"]["reference"] is False


def test_a_varied_clip_has_its_own_settings_and_another_seed(actions: Actions, tmp_path: Path) -> None:
    picture = tmp_path / "frame.png"
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(picture)
    made = {
        "model": "debug-2.0",
        "prompt": "a star",
        "negative": "",
        "fps": 24,
        "frames": 9,
        "steps": 3,
        "guidance": 2.0,
    }
    made |= {"seed": 5, "reference": True, "image_guidance": 4.0, "motion_score": 7.0}
    event = gr.EventData(None, made | {"seed": None})
    settings = list(actions.clips.again(visitor(), event, str(picture), str(picture), None))[-1][0]["clip"]["settings"]
    assert {key for key in made if settings[key] != made[key]} == {"seed"}
    assert "rule" not in settings  # plain, though the model's default is another
    assert "last_frame" not in settings  # the clip had none
    with pytest.raises(gr.Error, match="prompt: must say what to draw"):
        list(actions.clips.again(visitor(), gr.EventData(None, "nonsense"), None, None, None))


def test_a_model_without_weights_is_explained_before_anything_is_shown(actions: Actions, pipeline: Any) -> None:
    values = click(actions, fps=24, frames=51, model="opensora-1.2")
    with pytest.raises(gr.Error) as caught:
        next(values)
    assert str(caught.value.message).startswith(
        "Open-Sora 1.2 · STDiT3 cannot run here: opensora-1.2 lacks its transformer"
    )
    assert pipeline.closed == 0


# --- comparisons


def comparison(actions: Actions, **changes: Any) -> Values:
    form = dict.fromkeys(compare_names()) | GOOD | {"scales": "1, 4", "axis": "none", "rows": ""} | changes
    return list(actions.comparison.make_comparison(visitor(), *form.values()))


def test_a_comparison_from_click_to_table(actions: Actions, published: Values) -> None:
    last = comparison(actions, rules=["plain", "apg"])[-1]
    values = published
    assert [read(column["label"]) for column in last["columns"]] == [
        "guidance 1, plain", "guidance 4, plain", "guidance 1, APG", "guidance 4, APG",
    ]  # fmt: skip
    states = [[cell["state"] for cell in value["cells"][0]] for value in values]
    assert states[0] == ["waiting"] * 4
    assert ["denoising"] * 4 in states
    assert ["done", "denoising", "denoising", "denoising"] in states
    assert states[-1] == ["done"] * 4
    for cell, (scale, rule) in zip(last["cells"][0], [(1, "plain"), (4, "plain"), (1, "apg"), (4, "apg")], strict=True):
        settings = cell["settings"]
        assert (settings["guidance"], settings.get("rule", "plain"), settings["seed"]) == (scale, rule, 3)
        assert read_settings(made_file(actions, cell["file"])) == settings
        made = cell["sheet"]
        with Image.open(made_file(actions, made["file"])) as sheet:
            lines = -(-made["count"] // made["across"])
            assert sheet.size == (made["across"] * made["size"][1], lines * made["size"][0])
    (row,) = last["rows"]
    assert [step["index"] for step in row["steps"]] == [1, 2, 3, 4]  # the way there, to be looked at again
    assert all(len(step["pictures"]) == 4 for step in row["steps"])
    grid = read_settings(made_file(actions, last["grid"]))
    assert grid is not None
    assert grid["rows"][0]["guidance"] == [1, 4]


@pytest.mark.parametrize(
    ("axis", "text", "field", "expected"),
    [
        ("seed", "", "seed", [3, 4, 5]),
        ("seed", "9, 1", "seed", [9, 1]),
        ("steps", "2, 4, .., 6", "steps", [2, 4, 6]),
        pytest.param("fps", "8 12 24", "fps", [8, 12, 24], marks=pytest.mark.thorough),
        ("negative", "red; ", "negative", ["red", ""]),
        ("model", "nano, debug-1.2", "model", ["nano", "debug-1.2"]),
    ],
)
def test_rows_differ_in_one_setting(actions: Actions, axis: str, text: str, field: str, expected: list[Any]) -> None:
    last = comparison(actions, axis=axis, rows=text)[-1]
    assert last["phase"] == "done"
    settings = [[cell["settings"] for cell in row] for row in last["cells"]]
    assert [row[0][field] for row in settings] == expected
    assert all(row[0][field] == row[1][field] for row in settings)
    if axis != "seed":
        assert {cell["seed"] for row in settings for cell in row} == {3}
    lines = last["chart"]["lines"]
    assert len(lines) == (1 if axis == "seed" else len(expected))  # only seeds are averaged
    assert [len(point["each"]) for point in lines[0]["sure"]] == [len(expected) if axis == "seed" else 1] * 2
    assert (lines[0]["variety"][0] is not None) == (axis == "seed")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"axis": "moon"}, "rows: must be one of none, seed"),
        ({"axis": "steps"}, "rows: must name the values of steps"),
        ({"axis": "seed", "rows": "1 2 3 4 5"}, "rows: must be at most 4, not 5"),
        ({"axis": "seed", "rows": "1, 1"}, "rows: must not name a value twice"),
        ({"axis": "seed", "rows": "1, x"}, "rows: must be whole numbers"),
        ({"axis": "steps", "rows": "4, .., 9"}, "rows: '..' needs two rising numbers"),
        ({"axis": "steps", "rows": "4, 1000"}, "steps: must lie between 1 and 100"),
        ({"axis": "model", "rows": "nano, sora"}, "model: must be one of"),
        ({"axis": "model", "rows": "opensora-1.2"}, "Open-Sora 1.2 · STDiT3 cannot run here"),
        ({"scales": "1, 2, x"}, "guidance: must be numbers"),
        ({"scales": "1 2 3 4", "rules": ["plain", "apg"]}, "guidance: 4 scales by 2 rules are 8 clips; at most 6"),
        ({"rules": ["perp"]}, "rule: must be one of"),
    ],
)
def test_a_comparison_that_cannot_be_is_one_sentence(
    actions: Actions, pipeline: Any, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(gr.Error) as caught:
        comparison(actions, **changes)
    assert str(caught.value.message).startswith(sentence)
    assert pipeline.closed == 0
    form = dict.fromkeys(compare_names()) | GOOD | {"scales": "1, 4", "axis": "none", "rows": ""} | changes
    plan = render(actions.comparison.plan(*form.values()))  # which calls the field as the form does
    assert plan.startswith("**Not yet:** ")
    assert (sentence.partition(": ")[2] or sentence) in plan


def test_the_plan_claims_one_noise_only_where_it_is_one(actions: Actions) -> None:
    form = dict.fromkeys(compare_names()) | GOOD | {"scales": "1, 4, 7", "axis": "model", "rows": "nano, nano-dit"}
    assert "from one noise" not in render(actions.comparison.plan(*form.values()))
    form |= {"axis": "steps", "rows": "4, 8", "seeds": 8}
    plan = render(actions.comparison.plan(*form.values()))
    assert plan.startswith("3 by 2: 6 clips from one noise, 12 steps")
    assert plan.endswith("With 8 seeds a cell: 48 clips in all.")


def test_the_plan_is_told_before_the_run(actions: Actions) -> None:
    form = dict.fromkeys(compare_names()) | GOOD | {"scales": "1, 4, 7", "axis": "seed", "rows": "", "prompt": ""}
    assert render(actions.comparison.plan(*form.values())) == (
        "3 by 3: 9 clips from one noise for each row, 12 steps of up to 3 clips at once."
    )


def test_a_stopped_comparison_keeps_what_it_has(actions: Actions, pipeline: Any) -> None:
    def stop_in_the_second_row(index: int) -> None:
        if pipeline.closed == 1 and index == 2:
            actions.context.runs.stop("a")

    pipeline.at_step = stop_in_the_second_row
    last = comparison(actions, axis="seed")[-1]
    assert last["phase"] == "stopped"
    assert [[cell["state"] for cell in row] for row in last["cells"]] == [
        ["done"] * 2,
        ["missing"] * 2,
        ["missing"] * 2,
    ]
    grid = read_settings(made_file(actions, last["grid"]))  # what there is can be taken along
    assert grid is not None
    assert made_file(actions, last["numbers"]).read_text("utf-8-sig").count("\n") == 3


def test_a_stopped_comparison_goes_on_with_what_is_missing(actions: Actions, pipeline: Any) -> None:
    def stop_in_the_second_row(index: int) -> None:
        if pipeline.closed == 1 and index == 2:
            actions.context.runs.stop("a")

    pipeline.at_step = stop_in_the_second_row
    stopped = comparison(actions, axis="seed")[-1]
    assert (stopped["phase"], pipeline.closed) == ("stopped", 2)
    event = gr.EventData(None, {"job": stopped["job"]})
    last = list(actions.comparison.resume(visitor(), event))[-1]
    assert (last["phase"], pipeline.closed) == ("done", 4)  # the second row anew, and the third
    assert [cell["state"] for row in last["cells"] for cell in row] == ["done"] * 6
    assert last["cells"][0][0]["file"] == stopped["cells"][0][0]["file"]
    assert last["run"] > stopped["run"]
    assert [len(row["steps"]) for row in last["rows"]] == [4, 4, 4]
    assert len(last["chart"]["lines"][0]["sure"][0]["each"]) == 3
    for gone in (event, gr.EventData(None, "nonsense")):
        with pytest.raises(gr.Error, match="no longer here"):
            next(actions.comparison.resume(visitor(), gone))


def test_several_seeds_a_cell(actions: Actions, pipeline: Any) -> None:
    last = comparison(actions, axis="steps", rows="2, 3", seeds=4, seed=2**32 - 2)[-1]
    assert (last["total"], last["done"]) == (20, 20)
    assert pipeline.closed == 8
    line = last["chart"]["lines"][1]
    assert [len(point["each"]) for point in line["variety"]] == [4, 4]
    with made_file(actions, last["numbers"]).open(encoding="utf-8-sig", newline="") as file:
        numbers = list(csv.DictReader(file))
    assert [line["seed"] for line in numbers[:4]] == ["4294967294", "4294967295", "0", "1"]
    assert [line["steps"] for line in numbers] == ["2"] * 8 + ["3"] * 8
    mosaic = last["cells"][0][0]["mosaic"]
    assert (mosaic["size"], mosaic["count"]) == ((128, 128), 17)  # two by two
    assert list(actions.context.files.path.glob("*.0.0.jpg"))
    for wrong in ("x", 0, 17, "000199"):
        with pytest.raises(gr.Error, match="seeds: must lie between 1 and 16"):
            comparison(actions, axis="steps", rows="2", seeds=wrong)


def test_models_are_compared_at_their_own_defaults(actions: Actions) -> None:
    """What was set by hand is kept, where the model takes it."""
    rows = {"axis": "model", "rows": "nano; nano-dit"}
    cells = comparison(actions, **rows, steps=16)[-1]["cells"]
    assert [row[0]["settings"]["steps"] for row in cells] == [16, 50]
    cells = comparison(actions, **rows, steps=12)[-1]["cells"]
    assert [row[0]["settings"]["steps"] for row in cells] == [12, 12]


def test_marks_have_the_words_of_the_chips_in_both_languages(actions: Actions) -> None:
    last = comparison(actions, prompt="a red ball falling")[-1]
    for cell in last["cells"][0]:
        colour, shape, motion, place = cell["marks"]
        assert [mark["kind"] for mark in cell["marks"]] == ["colour", "shape", "motion", "place"]
        assert (colour["asked"], shape["asked"]) == ([{"en": "red", "zh": "红"}], [{"en": "ball", "zh": "球"}])
        assert motion["asked"] == [{"en": "falling", "zh": "下降"}]
        assert (place["asked"], place["right"], place["confidence"]) == ([], None, None)
        for mark in cell["marks"]:
            assert mark["seen"]
            for word in mark["seen"]:
                kind = mark["kind"]
                assert CHIPS["en"][kind].index(word["en"]) == CHIPS["zh"][kind].index(word["zh"])
                assert (mark["right"] is True) == (word in mark["asked"])


def test_marks_of_two_objects_have_two_words() -> None:
    mark = {"asked": ("red", None), "seen": ("red", "blue"), "right": False, "confidence": 0.2, "certainty": 0.4}
    value = mark_value("colour", mark)  # type: ignore[arg-type]
    assert value["unsure"]
    assert value["asked"] == [{"en": "red", "zh": "红"}]
    assert [word["en"] for word in value["seen"]] == ["red", "blue"]


def test_short_clips_are_compared_without_marks(actions: Actions) -> None:
    last = comparison(actions, frames=5)[-1]
    assert last["phase"] == "done"
    assert [cell["marks"] for cell in last["cells"][0]] == [None, None]


def test_a_table_restores_the_whole_comparison(actions: Actions, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda text, **_: told.append(text))
    last = comparison(actions, axis="steps", rows="6, 9", rules=["plain", "apg"])[-1]
    query = {name: values[0] for name, values in parse_qs(last["link"]["query"]).items()}
    from_file = actions.form.open(visitor(), str(made_file(actions, last["grid"])))
    for updates, where in ((from_file, "From a file"), (opened(actions, query), "From a link")):
        found = dict(zip(restored_names(), updates, strict=True))
        assert (found["prompt"]["value"], found["seed"]["value"]) == ("a red ball", "3")
        assert {name: found[name]["value"] for name in ("scales", "axis", "rows", "rules")} == {
            "scales": "1, 4", "axis": "steps", "rows": "6, 9", "rules": ["plain", "apg"],
        }  # fmt: skip
        assert found["tabs"]["selected"] == "compare"
        assert read(found["grid"]["value"]["text"]).startswith(where)
    assert told == []


def test_a_photo_or_film_without_settings_is_given_to_the_model(
    actions: Actions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[str] = []
    monkeypatch.setattr(gr, "Info", lambda text, **_: told.append(text))
    Image.new("RGB", (80, 80), "red").save(tmp_path / "IMG_0001.JPG")
    Image.new("RGB", (80, 80), "red").save(tmp_path / "photo.png")
    for name in ("IMG_0001.JPG", "photo.png"):
        file = str(tmp_path / name)
        found = dict(zip(restored_names(), actions.form.open(visitor(), file, "nano"), strict=True))
        assert found["reference"]["value"] == file
        assert found["extras"]["open"] is True
        assert found["prompt"] == gr.skip()
    assert told == ["This file holds no settings; it was taken as: First frame."] * 2
    (tmp_path / "text.png").write_text("no picture")
    for name, model in (("text.png", "nano"), ("photo.png", "nano-dit")):
        with pytest.raises(gr.Error, match="this file holds no settings of this demo"):
            actions.form.open(visitor(), str(tmp_path / name), model)


def test_another_program_s_file_is_named(actions: Actions, tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a cat\nSteps: 20, Seed: 5")
    Image.new("RGB", (80, 80)).save(tmp_path / "a1111.png", pnginfo=info)
    with pytest.raises(gr.Error, match="this file holds settings of Stable Diffusion web UI, not of this demo"):
        actions.form.open(visitor(), str(tmp_path / "a1111.png"), "nano")


def test_too_many_runs_of_one_visitor_are_refused(actions: Actions, pipeline: Any) -> None:
    pipeline.gate = threading.Semaphore(0)
    going = [click(actions) for _ in range(MAX_GOING_EACH)]
    for values in going:
        next(values)
    with pytest.raises(gr.Error, match="too many runs are going on"):
        next(click(actions))
    assert next(click(actions, "b"))  # others are served
    pipeline.gate = None
    actions.context.runs.stop("a")
    actions.context.runs.stop("b")


# --- settings from outside


def opened(actions: Actions, query: dict[str, str], held: Any = None) -> list[Any]:
    """The page as it is opened with a query, by a tab that holds a form."""
    address: Any = SimpleNamespace(session_hash="a", query_params=query, headers={})
    return restored(actions, address, held)


def test_a_link_fills_the_form_and_says_what_it_ignored(actions: Actions, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda text, **_: told.append(text))
    query = {"prompt": "a red ball", "seed": "7", "steps": "1000", "guidance": "2.5", "evil": "<script>", "fps": "x"}
    updates = opened(actions, query)
    found = dict(zip(restored_names(), updates, strict=True))
    assert found["prompt"]["value"] == "a red ball"
    assert found["seed"]["value"] == "7"
    assert found["guidance"]["value"] == 2.5
    assert found["steps"] == found["model"] == gr.skip()  # what was out of range changes nothing
    assert len(told) == 1
    assert "Steps: must lie between 1 and 100" in told[0]
    assert "FPS: must be a whole number" in told[0]
    assert "evil: is not a setting of this demo" in told[0]
    hostile = {"model": "<a href=//x>y</a>", "prompt": "a ball"}
    opened(actions, hostile)
    assert "<" not in told[1]
    actions.context.engine.bundles.options = WeightOptions(models=ServerOptions().offered)
    opened(actions, {"model": "debug-1.0"})
    assert "debug-1.0 is not offered here" in told[2]
    assert all(update == gr.skip() for update in opened(actions, {}))


def test_a_page_loaded_anew_has_what_its_form_held(actions: Actions, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda text, **_: told.append(text))
    held = dict.fromkeys(compare_names()) | GOOD | {"negative": "red", "seed": "", "image_guidance": 0, "edit": 0.3}
    held |= {"scales": "2, 5", "axis": "steps", "rows": "4, 8", "rules": ["apg"], "reference": False}
    found = dict(zip(restored_names(), opened(actions, {"prompt": "of the link"}, held), strict=True))
    wanted = GOOD | {"negative": "red", "seed": "", "scales": "2, 5", "axis": "steps", "rows": "4, 8", "rules": ["apg"]}
    assert {name: found[name]["value"] for name in wanted} == wanted
    assert found["model_before"] == found["stage"] == gr.skip()  # the page is built for nano
    assert told == []
    opened(actions, {}, held | {"reference": True, "steps": 1000})
    assert told.pop() == (
        "Not kept by the page that was loaded anew: Steps: must lie between 1 and 100, not 1000; "
        "First frame, which has to be given again."
    )
    for nonsense in ({}, {"model": 7, "scales": 3, "axis": [], "rules": ["x"], "prompt": {}}):
        opened(actions, {}, nonsense)


def test_given_files_come_back_with_the_form(actions: Actions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda text, **_: told.append(text))
    picture = tmp_path / "my photo.png"
    Image.new("RGB", (64, 64)).save(picture)
    held = dict.fromkeys(compare_names()) | GOOD
    upload = {"path": str(picture), "orig_name": picture.name, "meta": {"_type": "gradio.FileData"}}
    found = dict(zip(restored_names(), opened(actions, {}, held | {"reference": upload}), strict=True))
    assert found["reference"]["value"] == str(picture)
    assert found["extras"]["open"]
    assert told == []
    for unchecked in (str(picture), upload | {"meta": {}}):  # no upload: a page names no files of the server
        found = dict(zip(restored_names(), opened(actions, {}, held | {"reference": unchecked}), strict=True))
        assert "value" not in found["reference"]
    assert "First frame (my photo.png), which has to be given again" in told[-1]
    picture.unlink()
    opened(actions, {}, held | {"reference": upload})
    assert told[-1] == told[-2]


def test_the_form_comes_back_with_a_run_that_goes_on_by_itself(
    actions: Actions, pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a new tab, which holds nothing of the form."""
    told: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda text, **_: told.append(text))
    picture = tmp_path / "photo.png"
    Image.new("RGB", (64, 64)).save(picture)
    pipeline.gate = threading.Semaphore(0)
    first = next(click(actions, prompt="a green star", seed="", reference=str(picture)))
    names = {"jobs": ["of another server", first["job"]]}
    found = dict(zip(restored_names(), opened(actions, {}, names), strict=True))
    wanted = {"prompt": "a green star", "steps": GOOD["steps"], "seed": "", "reference": str(picture)}
    assert {name: found[name]["value"] for name in wanted} == wanted
    assert found["tabs"] == gr.skip()
    form = dict.fromkeys(compare_names()) | GOOD | {"scales": "2, 5", "axis": "none", "rows": ""}
    compared = next(iter(actions.comparison.make_comparison(visitor("b"), *form.values())))
    picture.unlink()
    found = dict(zip(restored_names(), opened(actions, {}, {"jobs": [compared["job"]]}), strict=True))
    assert (found["scales"]["value"], found["tabs"]["selected"]) == ("2, 5", "compare")
    assert told == []
    opened(actions, {}, names)
    assert "First frame (photo.png), which has to be given again" in told[-1]
    assert all(update == gr.skip() for update in opened(actions, {}, {"jobs": ["unknown", 7]}))
    pipeline.gate.release(100)


def test_a_file_restores_its_settings(actions: Actions, tmp_path: Path) -> None:
    clip = str(made_file(actions, run(actions, prompt="a blue star", steps=7, rule="apg")[-1]["clip"]["file"]))
    found = dict(zip(restored_names(), actions.form.open(visitor(), clip), strict=True))
    assert found["tabs"] == found["axis"] == gr.skip()  # one clip says nothing of the comparison
    assert (found["prompt"]["value"], found["steps"]["value"], found["rule"]["value"]) == ("a blue star", 7, "apg")
    assert found["seed"]["value"] == "3"
    other = tmp_path / "other.mp4"
    other.write_bytes(b"no film")
    for file in (str(other), None, 7):
        with pytest.raises(gr.Error, match="holds no settings of this demo"):
            actions.form.open(visitor(), file)


def test_presets_are_factors_of_the_models_defaults(actions: Actions) -> None:
    assert [update["value"] for update in actions.form.preset("quick", "nano")] == [8, 4]
    assert [update["value"] for update in actions.form.preset("fine", "nano")] == [32, 4]
    assert [update["value"] for update in actions.form.preset("strong", "nano")] == [16, 7]
    assert [update["value"] for update in actions.form.preset("?", "nano")] == [16, 4]


def test_a_given_frame_is_shown_as_the_model_sees_it(actions: Actions, tmp_path: Path) -> None:
    picture = tmp_path / "wide.png"
    Image.fromarray(np.zeros((40, 90, 3), np.uint8)).save(picture)
    video = tmp_path / "film.gif"
    write_animation(video, np.zeros((9, 40, 90, 3), np.uint8), 8, {})

    def crop(model: str, first: Any, last: Any, film: Any, *size: Any, **changes: Any) -> Any:
        chosen = dict(zip(seen_names(), (first, last, film, *size), strict=False)) | changes
        return actions.form.crop(model, *(chosen.get(name) for name in seen_names()))

    update = crop("nano", str(picture), None, None, "64px", "1:1")
    with Image.open(update["value"]) as seen:
        assert seen.size[0] == seen.size[1]
    assert crop("nano", None, str(picture), None) == gr.update(value=None, visible=False)
    update = crop("debug-2.0", str(picture), str(picture), None, "64px", "1:1")  # an aspect of another model
    with Image.open(update["value"]) as seen:
        assert seen.size[0] == 2 * 1.5 * seen.size[1]  # both, side by side
    update = crop("debug-2.0", str(picture), None, None, "64px", "2:3")
    with Image.open(update["value"]) as seen:
        assert seen.size[1] == 1.5 * seen.size[0]
    update = crop("nano", None, None, str(video), video_use="head", video_frames=9, fps=8)
    with Image.open(update["value"]) as seen:
        assert seen.size[0] == 5 * seen.size[1]  # some of the frames that are kept
    with pytest.raises(gr.Error, match="video: the video must have at least 9 frames at 4 FPS, not"):
        crop("nano", None, None, str(video), video_frames=9, fps=4)
    none = tmp_path / "none.png"
    none.write_bytes(b"no picture")
    with pytest.raises(gr.Error, match="reference: this is not a readable"):
        crop("nano", str(none), None, None, "", "")
    skip, taken_out, film = actions.form.without_unreadable(str(picture), str(none), str(video))
    assert (skip, taken_out["value"], film) == (gr.skip(), None, gr.skip())
    assert actions.form.without_unreadable(None, None, str(none))[2]["value"] is None


def test_an_uploaded_video_is_a_path_whether_the_page_or_a_program_sends_it() -> None:
    control = GivenVideo(file_types=[".mp4"], render=False)
    assert control.get_config()["file_types"] == [".mp4"]  # the page is told
    uploaded = {"path": "/tmp/gradio/film.mp4", "meta": {"_type": "gradio.FileData"}}
    assert control.preprocess(uploaded) == control.preprocess([uploaded]) == uploaded["path"]
    assert control.preprocess(None) is None
    for other in ([uploaded, uploaded], [], {"path": "/etc/passwd"}, "film.mp4", [{"path": "/etc/passwd"}]):
        with pytest.raises(gr.Error, match="video: must be an uploaded mp4, MOV, WebM, GIF or WebP video"):
            control.preprocess(other)


def extended(actions: Actions, asked: Any, **changes: Any) -> Values:
    form = dict.fromkeys(table.names()) | GOOD | changes
    return [stage for stage, _ in actions.clips.extend(visitor(), gr.EventData(None, asked), *form.values())]


def test_a_clip_on_the_stage_is_extended_by_the_form(actions: Actions) -> None:
    """By its file's name, with what the form says now; what the form gives else is left out."""
    made = run(actions)[-1]["clip"]
    name = made["file"]["orig_name"]
    again = {"reference": "of another clip.png", "branch_step": "2", "stop_step": "3", "prompt": "a blue ball"}
    last = extended(actions, {"name": name, "settings": None}, **again)[-1]
    settings = last["clip"]["settings"]
    assert (settings["video"], settings["prompt"], settings["total_frames"]) == (True, "a blue ball", 25)
    assert not settings["reference"]
    assert {"branch_step", "stop_step"}.isdisjoint(settings)
    words = {read(chip["name"]): read(chip["value"]) for chip in last["chips"]}
    assert (words["given"], words["length"]) == ("goes on from a video", "3.1 s")
    assert "Video" in read(last["link"]["note"])


def test_an_example_is_extended_by_its_own_settings(actions: Actions) -> None:
    (example, *_) = [e for e in load_examples() if e["settings"]["model"] == "nano"]
    settings = example["settings"] | {"prompt": example["prompt"], "seed": example["seed"]}
    asked = {"name": example["file"]["orig_name"], "settings": settings}
    made = extended(actions, asked, prompt="of the form", model="nano-dit")[-1]["clip"]["settings"]
    assert (made["prompt"], made["model"], made["video"]) == (example["prompt"], "nano", True)


@pytest.mark.parametrize(
    ("asked", "changes", "sentence"),
    [
        ({"name": "../../etc/passwd.mp4"}, {}, "video: this clip is no longer here"),
        ({"name": "none.mp4"}, {}, "video: this clip is no longer here"),
        ("nonsense", {}, "video: this clip is no longer here"),
        ({"name": "../01.mp4", "settings": {"model": "nano"}}, {}, "video: this clip is no longer here"),
        ({"name": "01.mp4", "settings": {"model": "../nano"}}, {}, "model: must be one of"),
        (None, {"model": "nano-dit", "frames": 17}, "video: this model takes no video"),
        (None, {"frames": 5}, "video_frames: must be fewer than the 5 frames"),
    ],
)
def test_what_cannot_be_extended_is_said(actions: Actions, asked: Any, changes: dict[str, Any], sentence: str) -> None:
    name = run(actions)[-1]["clip"]["file"]["orig_name"]
    with pytest.raises(gr.Error, match=sentence):
        extended(actions, {"name": name} if asked is None else asked, **changes)


def estimator_of(name: str, gigabytes: int) -> Estimator:
    return Estimator(machine=Machine(name, gigabytes * 10**9, torch.device("cpu")))


def test_the_cost_of_a_run_is_told_before_it(actions: Actions) -> None:
    actions.context.engine.estimator = estimator_of("this machine", 20)

    def cost(*values: Any) -> str:
        form = dict(zip(("model", "steps", "frames", "resolution", "aspect", "guidance"), values, strict=True))
        *before, told = actions.weights.cost(*(form.get(name) for name in cost_names()))
        assert before == ([message("note.counting")] if form["model"] == "opensora-1.2" else [])
        return spoken_answer(told, "en")

    nano = cost("nano", 16, 17, "64px", "1:1", 4)
    assert re.fullmatch(r"About [\d.]+ (s|min) and 0\.\d+ GB of 20 GB here\.", nano)
    published = cost("opensora-1.2", 30, 17, "144p", "16:9", 7)
    assert re.fullmatch(r"About \d+ (min|h) and 10 GB of 20 GB here\. To download: 15\.9 GB\.", published)
    assert cost("nano", 16, 51, "480p", "16:9", 4) == nano  # left from another model
    assert cost("nano", None, 17, "", "", "much") == ""
    assert cost("nemo", 16, 17, "64px", "1:1", 4) == ""


@pytest.mark.thorough
def test_the_cost_of_a_run_that_cannot_fit(actions: Actions, monkeypatch: pytest.MonkeyPatch) -> None:
    actions.context.engine.estimator = estimator_of("this machine", 1)
    monkeypatch.setattr("opensora_demo.ui.actions.weights.unavailable_reason", lambda *_: "")
    form = {"model": "opensora-1.2", "steps": 30, "frames": 17, "resolution": "144p", "aspect": "16:9", "guidance": 7}
    *_, told = actions.weights.cost(*(form.get(name) for name in cost_names()))
    sentence = "**Does not fit here:** this needs about 5.88 GB, and this machine has 1; no clip"
    assert spoken_answer(told, "en").startswith(sentence)


def test_the_cost_counts_given_frames_and_the_rule(actions: Actions, tmp_path: Path) -> None:
    """nano-mmdit has three branches with a given frame: half as much again; an oscillating scale rests now and then."""
    rates = Rates(lambda kind, dtype: 1e6)  # so slow that the seconds are minutes
    actions.context.engine.estimator = Estimator(
        machine=Machine("this machine", 10**10, torch.device("cpu")), rates=rates
    )
    picture = tmp_path / "picture.png"
    Image.new("RGB", (128, 128), "red").save(picture)

    def hours(**form: Any) -> float:
        form = {"model": "nano-mmdit", "steps": 50, "guidance": 4, "image_guidance": 3, "rule": "plain"} | form
        *_, told = actions.weights.cost(*(form.get(name) for name in cost_names()))
        found = re.match(r"About (\d+) h", spoken_answer(told, "en"))
        assert found, told
        return float(found.group(1))

    plain = hours()
    assert hours(reference=str(picture)) == pytest.approx(1.5 * plain, rel=0.1)
    assert hours(rule="oscillating") == pytest.approx(0.8 * plain, rel=0.1)


def test_scenes_are_told_while_they_are_typed(actions: Actions) -> None:
    def line(prompt: str, **changes: Any) -> str:
        form = {"model": "nano", "prompt": prompt, "frames": 17, "video_frames": 9} | changes
        said = actions.form.scenes(8, *(form.get(name) for name in cost_names()))
        return said if isinstance(said, str) else render(said)

    assert line("|0|a ball|2|a star") == "3 scenes, 33 frames, 4.1 s; they begin at 0.0, 2.1, 3.1 s."
    assert line("", scenes="2", video_frames=1).startswith("2 scenes, 33 frames, 4.1 s;")
    assert line("|0|a ball|0|a star") == "**Not yet:** Prompt: the numbers of the scenes must rise."
    assert line("|0|a ball|1|a star", frames=9).startswith("**Not yet:** Frames: must be more than the 9")
    assert line("|0|a ball|1|a star", model="nano-dit").startswith("**Not yet:** Prompt: this model makes clips of one")
    assert line("") == line("", frames=9) == line("", model="nano-dit", scenes="3") == ""


@pytest.mark.thorough
def test_a_run_that_cannot_fit_is_not_started(actions: Actions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opensora_demo.service.forms.unavailable_reason", lambda *_: "")
    actions.context.engine.estimator = estimator_of("the GPU", 12)
    with pytest.raises(gr.Error, match=r"this needs about .* GB, and the GPU has 12; .* frames of .* would fit"):
        run(actions, model="opensora-1.2", frames=102, resolution="720p", aspect="1:1", guidance=7, fps=24)


def test_weights_are_fetched_from_the_page_where_that_is_allowed(
    actions: Actions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    actions.context.engine.bundles.options = replace(actions.context.options, weights_dir=tmp_path)  # type: ignore[misc]
    news = [Fetching("a/model.safetensors", done, 4 * 10**9) for done in (10**9, 4 * 10**9)]
    monkeypatch.setattr("opensora_demo.ui.actions.weights.download", lambda spec, options: (n for n in news))
    assert actions.weights.fetchable(visitor(), "opensora-1.2")[0] == gr.update(visible=False)
    with pytest.raises(gr.Error, match="weights are not downloaded from this page"):
        list(actions.weights.download(visitor(), "opensora-1.2"))
    actions.context.downloads = "alone"
    proxied: Any = SimpleNamespace(session_hash="a", headers={"x-forwarded-for": "192.0.2.1"})
    assert actions.weights.fetchable(proxied, "opensora-1.2")[0] == gr.update(visible=False)
    assert actions.weights.fetchable(visitor(), "opensora-1.2")[0] == gr.update(visible=True)
    assert actions.weights.fetchable(visitor(), "nano")[0] == gr.update(visible=False)
    monkeypatch.setattr("opensora_demo.ui.actions.weights.download_bytes", lambda *_: 25 * 10**9)
    monkeypatch.setattr("opensora_demo.ui.actions.weights.free_bytes", lambda _: 80 * 10**9)
    hidden, surely = spoken_answer(actions.weights.ask(visitor(), "opensora-1.2"), "en")  # gigabytes at a second click
    assert (hidden["visible"], surely["visible"], surely["interactive"]) == (False, True, True)
    assert surely["value"] == f"Fetch 25.0 GB into {tmp_path.name} (80 GB free)"
    monkeypatch.setattr("opensora_demo.ui.actions.weights.free_bytes", lambda _: 10**9)
    assert actions.weights.ask(visitor(), "opensora-1.2")[1]["interactive"] is False
    with pytest.raises(gr.Error, match="weights are not downloaded from this page"):
        actions.weights.ask(proxied, "opensora-1.2")
    told = spoken_answer(list(actions.weights.download(visitor(), "opensora-1.2")), "en")
    assert told == [
        "Downloading model.safetensors: 1.00 of 4.00 GB.",
        "Downloading model.safetensors: 4.00 of 4.00 GB.",
        "",
    ]


def test_a_clip_in_words() -> None:
    def mark(asked: Any, seen: Any, right: bool | None) -> Any:
        return {"asked": asked, "seen": seen, "right": right, "confidence": None}

    said = verdict(
        {
            "shape": mark("ball", "ball", True),
            "colour": mark("red", "red", True),
            "motion": mark("bounce", "left", False),
            "background": mark(None, "meadow", None),
        }
    )
    assert said["seen"] == {"en": "red ball, moving left, meadow", "zh": "红色的球，向左移动，草地"}
    assert (said["right"], said["asked"]) == (2, 3)
    assert said["wrong"] == [{"en": "moving left", "zh": "向左移动"}]
    pair = {
        "shape": mark(None, ("ball", "star"), None),
        "colour": mark(None, ("red", "blue"), None),
        "motion": mark(None, ("spin", "spin"), None),
        "background": mark(None, "night", None),
    }
    assert verdict(pair)["seen"]["en"] == "red ball and blue star, spinning, night"


def test_examples_of_the_page_are_whole() -> None:
    examples = load_examples()
    assert len(examples) >= 8
    for example in examples:
        for value, most in ((example["file"], 1e6), (example["poster"], 5000)):
            assert value["url"].startswith(f"{served_at()}/examples/")
            assert 0 < (served_folder() / value["url"].removeprefix(served_at() + "/")).stat().st_size < most
        assert example["verdict"] is not None


def test_a_prompt_is_understood_and_edited(actions: Actions) -> None:
    def edit(**asked: Any) -> Any:
        return actions.form.edit(gr.EventData(None, {"turn": 2, "at": 0} | asked), "nano")

    value = actions.form.understand(gr.EventData(None, {"text": "🔴 a red elephant", "turn": 7}), "nano")
    assert (value["turn"], value["text"], value["before"]) == (7, "🔴 a red elephant", None)
    assert [(w["start"], w["end"], w["kind"], w["value"], w["near"]) for w in value["words"]] == [
        (0, 2, "unknown", "", "red ball"),  # two units of UTF-16, as scripts count
        (5, 8, "colour", "red", ""),
        (9, 17, "unknown", "", "ball"),
    ]
    value = edit(text="a red elephant dancing", kind="colour", value="blue", pressed=False)
    assert (value["text"], value["before"]) == ("a blue elephant dancing", "a red elephant dancing")
    assert value["words"][0]["value"] == "blue"
    assert edit(text="a red ball", kind="colour", value="red", pressed=True)["text"] == "a ball"
    assert edit(text="a red elephant", at=6)["text"] == "a red ball"
    assert edit(text="", kind="shape", value="star", language="zh")["text"] == "一个星星"
    two = "|0|a red ball|1|a red ball"
    value = edit(text=two, kind="colour", value="blue", at=len(two) - 5)  # in the scene where the caret is
    assert value["text"] == "|0|a red ball|1|a blue ball"
    assert [(w["start"], w["value"]) for w in value["words"]] == [(5, "red"), (9, "ball"), (18, "blue"), (23, "ball")]
    assert edit(text="|0|a ball|1|", kind="shape", value="star", at=12)["text"] == "|0|a ball|1|a star"
    for nonsense in ({"kind": "colour", "value": "<img>"}, {"kind": "price"}, {"kind": ["colour"], "value": "red"}):
        assert edit(text="a ball", **nonsense)["text"] == "a ball"
    assert actions.form.edit(gr.EventData(None, "nonsense"), "nano")["text"] == ""
    assert actions.form.understand(gr.EventData(None, {"text": "a red ball"}), "opensora-1.2")["words"] == []


def test_a_run_whose_server_is_gone_is_said_to_be_lost(actions: Actions) -> None:
    """A page that was loaded anew names the run that it was left with."""
    left = gr.EventData(None, {"jobs": ["of another server"], "going": "of another server"})
    ((stage, _),) = actions.clips.restore(visitor(), left)
    assert (stage["phase"], stage["text"]["code"]) == ("idle", "run.lost")
    assert list(actions.comparison.restore(visitor(), left)) == [stage]
    over = gr.EventData(None, {"jobs": ["of another server"]})
    assert list(actions.clips.restore(visitor(), over)) == list(actions.comparison.restore(visitor(), over)) == []


def test_a_run_is_told_to_go_on_by_itself(actions: Actions, pipeline: Any) -> None:
    pipeline.gate = threading.Semaphore(1)
    values = click(actions)
    while not (shown := next(values))["steps"]:
        assert not shown["kept"]
    wish = gr.EventData(None, {"job": shown["job"], "on": True})
    with pytest.raises(gr.Error, match="only one of your runs"):
        actions.clips.keep(visitor("another"), wish)
    actions.clips.keep(visitor(), wish)
    pipeline.gate.release(100)
    assert any(value["kept"] for value in values)
