"""The functions behind the page, called as plain functions."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from opensora_demo import estimate
from opensora_demo.errors import NumericsError
from opensora_demo.media import read_settings
from opensora_demo.store import Fetching
from opensora_demo.ui.controls import PICKED
from opensora_demo.ui.handlers import COMPARE_FORM, FORM, SORRY, Handlers
from opensora_demo.ui.jobs import MAX_GOING_EACH

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


def click(handlers: Handlers, session: str = "a", **changes: Any) -> Iterator[dict[str, Any]]:
    form = dict.fromkeys(FORM) | GOOD | changes
    return (stage for stage, _ in handlers.page_generate(visitor(session), *form.values()))


def run(handlers: Handlers, session: str = "a", **changes: Any) -> Values:
    return list(click(handlers, session, **changes))


def test_a_run_from_click_to_clip(handlers: Handlers, published: Values) -> None:
    assert run(handlers)[-1] == published[-1][0]
    values = [stage for stage, _ in published]
    texts = [v["text"] for v in values]
    assert texts[0] == "Loading the model"
    assert "Reading the prompt" in texts
    assert "Denoising 1 of 4" in texts
    assert texts[-1] == "Done"
    first = next(v for v in values if v["steps"])
    assert len(first["steps"]) == 1
    assert first["steps"][0]["p"][0].startswith("data:image/jpeg;base64,")
    assert first["left"] == pytest.approx(0.3)
    last = values[-1]
    assert last["phase"] == "done"
    assert len(last["steps"]) == 4
    assert ["seed", "3"] in last["chips"]
    assert ["length", "2.1 s"] in last["chips"]
    file = Path(last["clip"]["file"]["path"])
    assert file.name.startswith("nano-a-red-ball-3-")
    assert read_settings(file) == last["clip"]["settings"]


def test_updates_are_thinned_but_the_first_and_the_last_are_always_told(handlers: Handlers) -> None:
    values = run(handlers, steps=60)
    assert len(values) < 30
    assert len(values[-1]["steps"]) == 60


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"prompt": ""}, "prompt: must say what to draw"),
        ({"prompt": None}, "prompt: must say what to draw"),
        ({"prompt": "\u200b \u200d"}, "prompt: must say what to draw"),
        ({"prompt": {"a": 1}}, "prompt: must be text"),
        ({"prompt": "x" * 1_000_000}, "prompt: must have at most 500 characters"),
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
    handlers: Handlers, pipeline: Any, changes: dict[str, Any], sentence: str
) -> None:
    values = click(handlers, **changes)
    with pytest.raises(gr.Error) as caught:
        next(values)
    assert str(caught.value.message).startswith(sentence)
    assert pipeline.closed == 0
    assert run(handlers)[-1]["phase"] == "done"


def test_unknown_model(handlers: Handlers) -> None:
    with pytest.raises(gr.Error, match="model: must be one of"):
        next(click(handlers, model="sora-9"))


def test_reference_images(handlers: Handlers, tmp_path: Path) -> None:
    good, corrupt, huge = tmp_path / "good.png", tmp_path / "corrupt.png", tmp_path / "huge.png"
    Image.fromarray(np.zeros((40, 90, 3), np.uint8)).save(good)
    corrupt.write_bytes(b"\x89PNG\r\n\x1a\n nothing of the kind")
    Image.new("1", (9000, 9000)).save(huge)
    assert run(handlers, reference=str(good))[-1]["clip"]["settings"]["reference"] is True
    with pytest.raises(gr.Error, match="reference: this is not a readable PNG, JPEG or WebP image"):
        run(handlers, reference=str(corrupt))
    with pytest.raises(gr.Error, match="reference: the image has 9000 x 9000 pixels; at most 40 megapixels"):
        run(handlers, reference=str(huge))


def test_an_error_midway_is_told_and_releases_the_device(handlers: Handlers, pipeline: Any) -> None:
    pipeline.error = NumericsError("the clip is not finite")
    values: list[dict[str, Any]] = []
    with pytest.raises(gr.Error, match="the clip is not finite"):
        values.extend(click(handlers))
    pipeline.error = None
    assert run(handlers)[-1]["phase"] == "done"


def test_the_unforeseen_goes_to_the_log_only(
    handlers: Handlers, pipeline: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline.error = ZeroDivisionError("/secret/path")
    got: list[dict[str, Any]] = []
    with pytest.raises(gr.Error) as caught:
        got.extend(item for item in click(handlers))
    assert caught.value.message == SORRY
    assert got[-1]["phase"] == "failed"
    assert got[-1]["text"] == SORRY
    assert "/secret/path" in caplog.text


def test_stop_ends_the_run_of_its_own_session(handlers: Handlers, pipeline: Any) -> None:
    pipeline.gate = threading.Semaphore(2)
    got: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: got.extend(click(handlers)))
    thread.start()
    assert pipeline.started.wait(5)
    assert handlers.jobs.stop("b") == 0
    assert handlers.jobs.stop(None) == 0
    assert handlers.jobs.stop("a") == 1
    thread.join(5)
    assert not thread.is_alive()
    assert got[-1]["phase"] == "stopped"
    assert pipeline.running == 0
    pipeline.gate = None
    assert run(handlers)[-1]["phase"] == "done"


def test_two_people_take_turns_and_the_second_is_told(handlers: Handlers, pipeline: Any) -> None:
    pipeline.gate = threading.Semaphore(0)
    results: dict[str, list[dict[str, Any]]] = {"a": [], "b": []}
    waiting = threading.Event()

    def visit(name: str) -> None:
        for value in click(handlers, name, prompt=f"a ball {name}"):
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


def test_a_waiting_run_can_be_stopped(handlers: Handlers, pipeline: Any) -> None:
    with handlers.bundles.device:
        values = click(handlers)
        assert next(value for value in values if value["phase"] == "waiting")
        handlers.jobs.stop("a")
        assert [v["phase"] for v in values][-1] == "stopped"
    assert pipeline.closed == 0


def test_a_page_loaded_anew_finds_its_run_and_what_came_before(handlers: Handlers, pipeline: Any) -> None:
    first = run(handlers, prompt="a blue star")[-1]
    pipeline.gate = threading.Semaphore(2)
    values = click(handlers, "old page")
    while not (shown := next(values))["steps"]:
        pass
    values.close()  # type: ignore[attr-defined]
    event = gr.EventData(None, {"jobs": [shown["job"], first["job"], "unknown", 7]})
    again = handlers.page_restore(visitor("new page"), event)
    value, _ = next(again)
    assert value["run"] == shown["run"]
    assert [old["prompt"] for old in value["history"]] == ["a blue star"]
    pipeline.gate.release(100)
    assert list(again)[-1][0]["phase"] == "done"
    ((value, scope),) = handlers.page_restore(visitor("third"), gr.EventData(None, {"jobs": [shown["job"]]}))
    assert value["phase"] == "done"
    assert value["history"] == []
    assert scope["done"]
    for nonsense in (None, {"jobs": "x"}, {"jobs": ["x"]}, {}):
        assert list(handlers.page_restore(visitor(), gr.EventData(None, nonsense))) == []


def test_unknown_words_are_said(handlers: Handlers, pipeline: Any) -> None:
    pipeline.unknown = ("dragon", "$")
    last = run(handlers)[-1]
    assert last["note"].startswith("nano does not know: dragon. It was trained on ")
    assert last["clip"]["settings"]["unknown"] == ["dragon", "$"]


def test_picking_a_clip_fills_the_form(handlers: Handlers) -> None:
    event = gr.EventData(None, {"prompt": "a star", "seed": 5, "fps": 8, "steps": {"x": 1}})
    picked = dict(zip(PICKED, handlers.page_pick(event), strict=True))
    assert picked["prompt"]["value"] == "a star"
    assert picked["fps"]["value"] == 8
    assert picked["seed"]["value"] == "5"
    assert picked["steps"] == picked["model"] == gr.skip()
    picked = dict(zip(PICKED, handlers.page_pick(gr.EventData(None, "nonsense")), strict=True))
    assert picked.pop("seed")["value"] == ""
    assert all(update == gr.skip() for update in picked.values())


def test_hidden_controls_say_nothing(handlers: Handlers) -> None:
    """They keep what was set for another model."""
    left = {"edit": 0.4, "image_guidance": 3, "motion_score": 7, "last_frame": "of another model.png"}
    settings = run(handlers, **left)[-1]["clip"]["settings"]
    assert settings.keys().isdisjoint({"edit", "image_guidance", "motion_score", "last_frame"})
    left |= {"reference": "of another model.png", "rule": "plain", "frames": 8, "model": "debug-1.0"}
    value = run(handlers, **left)[-1]
    assert value["cell"] == [384, 256]
    assert value["clip"]["settings"]["reference"] is False


def test_a_varied_clip_has_its_own_settings_and_another_seed(handlers: Handlers, tmp_path: Path) -> None:
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
    settings = list(handlers.page_vary(visitor(), event, str(picture), str(picture)))[-1][0]["clip"]["settings"]
    assert {key for key in made if settings[key] != made[key]} == {"seed"}
    assert "rule" not in settings  # plain, though the model's default is another
    assert "last_frame" not in settings  # the clip had none
    with pytest.raises(gr.Error, match="prompt: must say what to draw"):
        list(handlers.page_vary(visitor(), gr.EventData(None, "nonsense"), None, None))


def test_a_model_without_weights_is_explained_before_anything_is_shown(handlers: Handlers, pipeline: Any) -> None:
    values = click(handlers, fps=24, frames=51, model="opensora-1.2")
    with pytest.raises(gr.Error) as caught:
        next(values)
    assert str(caught.value.message).startswith(
        "Open-Sora 1.2 · STDiT3 cannot run here: opensora-1.2 lacks its transformer"
    )
    assert pipeline.closed == 0


# --- comparisons


def comparison(handlers: Handlers, **changes: Any) -> Values:
    form = dict.fromkeys(COMPARE_FORM) | GOOD | {"scales": "1, 4", "axis": "none", "rows": ""} | changes
    return list(handlers.page_compare(visitor(), *form.values()))


def test_a_comparison_from_click_to_table(handlers: Handlers, published: Values) -> None:
    last = comparison(handlers, rules=["plain", "apg"])[-1]
    values = published
    assert [column["label"] for column in last["columns"]] == [
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
        assert read_settings(Path(cell["file"]["path"])) == settings
        with Image.open(cell["sprite"]["path"]) as sheet:
            lines = -(-cell["count"] // cell["across"])
            assert sheet.size == (cell["across"] * cell["size"][1], lines * cell["size"][0])
    grid = read_settings(Path(last["grid"]["path"]))
    assert grid is not None
    assert grid["rows"][0]["guidance"] == [1, 4]


@pytest.mark.parametrize(
    ("axis", "text", "field", "expected"),
    [
        ("seed", "", "seed", [3, 4, 5]),
        ("seed", "9, 1", "seed", [9, 1]),
        ("steps", "2, 4, .., 6", "steps", [2, 4, 6]),
        ("fps", "8 12 24", "fps", [8, 12, 24]),
        ("negative", "red; ", "negative", ["red", ""]),
        ("model", "nano, debug-1.2", "model", ["nano", "debug-1.2"]),
    ],
)
def test_rows_differ_in_one_setting(handlers: Handlers, axis: str, text: str, field: str, expected: list[Any]) -> None:
    last = comparison(handlers, axis=axis, rows=text)[-1]
    assert last["phase"] == "done"
    settings = [[cell["settings"] for cell in row] for row in last["cells"]]
    assert [row[0][field] for row in settings] == expected
    assert all(row[0][field] == row[1][field] for row in settings)
    if axis != "seed":
        assert {cell["seed"] for row in settings for cell in row} == {3}
    assert (last["chart"]["variety"] is not None) == (axis == "seed")


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
    handlers: Handlers, pipeline: Any, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(gr.Error) as caught:
        comparison(handlers, **changes)
    assert str(caught.value.message).startswith(sentence)
    assert pipeline.closed == 0
    form = dict.fromkeys(COMPARE_FORM) | GOOD | {"scales": "1, 4", "axis": "none", "rows": ""} | changes
    assert handlers.page_plan(visitor(), *form.values()).startswith(f"**Not yet:** {sentence}")


def test_the_plan_is_told_before_the_run(handlers: Handlers) -> None:
    form = dict.fromkeys(COMPARE_FORM) | GOOD | {"scales": "1, 4, 7", "axis": "seed", "rows": "", "prompt": ""}
    assert handlers.page_plan(visitor(), *form.values()) == (
        "3 by 3: 9 clips from one noise for each row, 12 steps of up to 3 clips at once."
    )


def test_a_stopped_comparison_keeps_what_it_has(handlers: Handlers, pipeline: Any) -> None:
    def stop_in_the_second_row(index: int) -> None:
        if pipeline.closed == 1 and index == 2:
            handlers.jobs.stop("a")

    pipeline.at_step = stop_in_the_second_row
    last = comparison(handlers, axis="seed")[-1]
    assert last["phase"] == "stopped"
    assert [[cell["state"] for cell in row] for row in last["cells"]] == [
        ["done"] * 2,
        ["missing"] * 2,
        ["missing"] * 2,
    ]


def test_models_are_compared_at_their_own_defaults(handlers: Handlers) -> None:
    """What was set by hand is kept, where the model takes it."""
    rows = {"axis": "model", "rows": "nano; nano-dit"}
    cells = comparison(handlers, **rows, steps=16)[-1]["cells"]
    assert [row[0]["settings"]["steps"] for row in cells] == [16, 50]
    cells = comparison(handlers, **rows, steps=12)[-1]["cells"]
    assert [row[0]["settings"]["steps"] for row in cells] == [12, 12]


def test_short_clips_are_compared_without_marks(handlers: Handlers) -> None:
    last = comparison(handlers, frames=5)[-1]
    assert last["phase"] == "done"
    assert [cell["marks"] for cell in last["cells"][0]] == [None, None]


def test_a_table_restores_the_settings_of_its_first_row(handlers: Handlers) -> None:
    grid = comparison(handlers, axis="steps", rows="6, 9")[-1]["grid"]["path"]
    found = dict(zip(PICKED, handlers.page_open(grid), strict=True))
    assert (found["steps"]["value"], found["seed"]["value"], found["model"]["value"]) == (6, "3", "nano")


def test_too_many_runs_of_one_visitor_are_refused(handlers: Handlers, pipeline: Any) -> None:
    pipeline.gate = threading.Semaphore(0)
    going = [click(handlers) for _ in range(MAX_GOING_EACH)]
    for values in going:
        next(values)
    with pytest.raises(gr.Error, match="too many runs are going on"):
        next(click(handlers))
    assert next(click(handlers, "b"))  # others are served
    pipeline.gate = None
    handlers.jobs.stop("a")
    handlers.jobs.stop("b")


# --- settings from outside


def test_a_link_fills_the_form_and_says_what_it_ignored(handlers: Handlers, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda text, **_: told.append(text))
    query = {"prompt": "a red ball", "seed": "7", "steps": "1000", "guidance": "2.5", "evil": "<script>", "fps": "x"}
    updates = handlers.page_link(SimpleNamespace(session_hash="a", query_params=query))  # type: ignore[arg-type]
    found = dict(zip(PICKED, updates, strict=True))
    assert found["prompt"]["value"] == "a red ball"
    assert found["seed"]["value"] == "7"
    assert found["guidance"]["value"] == 2.5
    assert found["steps"] == found["model"] == gr.skip()  # what was out of range changes nothing
    assert len(told) == 1
    assert "steps: must lie between 1 and 100" in told[0]
    assert "fps: must be a whole number" in told[0]
    assert "evil" not in told[0]
    hostile = {"model": "<a href=//x>y</a>", "prompt": "a ball"}
    handlers.page_link(SimpleNamespace(session_hash="a", query_params=hostile, headers={}))  # type: ignore[arg-type]
    assert "<" not in told[1]
    handlers.page_link(SimpleNamespace(session_hash="a", query_params={"model": "debug-1.0"}, headers={}))  # type: ignore[arg-type]
    assert "debug-1.0 is not offered here" in told[2]
    assert all(update == gr.skip() for update in handlers.page_link(visitor()))


def test_a_file_restores_its_settings(handlers: Handlers, tmp_path: Path) -> None:
    clip = run(handlers, prompt="a blue star", steps=7, rule="apg")[-1]["clip"]["file"]["path"]
    found = dict(zip(PICKED, handlers.page_open(clip), strict=True))
    assert (found["prompt"]["value"], found["steps"]["value"], found["rule"]["value"]) == ("a blue star", 7, "apg")
    assert found["seed"]["value"] == "3"
    other = tmp_path / "other.mp4"
    other.write_bytes(b"no film")
    for file in (str(other), None, 7):
        with pytest.raises(gr.Error, match="holds no settings of this demo"):
            handlers.page_open(file)


def test_presets_are_factors_of_the_models_defaults(handlers: Handlers) -> None:
    assert [update["value"] for update in handlers.page_preset("Quick", "nano")] == [8, 4]
    assert [update["value"] for update in handlers.page_preset("Fine", "nano")] == [32, 4]
    assert [update["value"] for update in handlers.page_preset("Strong", "nano")] == [16, 7]
    assert [update["value"] for update in handlers.page_preset("?", "nano")] == [16, 4]


def test_a_given_frame_is_shown_as_the_model_sees_it(handlers: Handlers, tmp_path: Path) -> None:
    picture = tmp_path / "wide.png"
    Image.fromarray(np.zeros((40, 90, 3), np.uint8)).save(picture)
    update = handlers.page_crop(str(picture), None, "nano", "64px", "1:1")
    with Image.open(update["value"]) as seen:
        assert seen.size[0] == seen.size[1]
    assert handlers.page_crop(None, str(picture), "nano", None, None) == gr.update(value=None, visible=False)
    update = handlers.page_crop(str(picture), str(picture), "debug-2.0", "64px", "1:1")  # an aspect of another model
    with Image.open(update["value"]) as seen:
        assert seen.size[0] == 2 * 1.5 * seen.size[1]  # both, side by side
    update = handlers.page_crop(str(picture), None, "debug-2.0", "64px", "2:3")
    with Image.open(update["value"]) as seen:
        assert seen.size[1] == 1.5 * seen.size[0]
    none = tmp_path / "none.png"
    none.write_bytes(b"no picture")
    with pytest.raises(gr.Error, match="reference: this is not a readable"):
        handlers.page_crop(str(none), None, "nano", "", "")


def test_the_cost_of_a_run_is_told_before_it(handlers: Handlers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "machine_of", lambda _: estimate.Machine("this machine", 20 * 10**9))

    def cost(*form: Any) -> str:
        *before, told = handlers.page_cost(visitor(), *form)
        assert before == (["Counting what this takes."] if form[0] == "opensora-1.2" else [])
        return told

    nano = cost("nano", 16, 17, "64px", "1:1", 4)
    assert re.fullmatch(r"About [\d.]+ (s|min) and 0\.\d+ GB of 20 GB here\.", nano)
    published = cost("opensora-1.2", 30, 17, "144p", "16:9", 7)
    assert re.fullmatch(r"About \d+ (min|h) and 10 GB of 20 GB here\. To download: 15\.9 GB\.", published)
    assert cost("nano", 16, 51, "480p", "16:9", 4) == nano  # left from another model
    assert cost("nano", None, 17, "", "", "much") == ""
    assert cost("nemo", 16, 17, "64px", "1:1", 4) == ""
    monkeypatch.setattr(estimate, "machine_of", lambda _: estimate.Machine("this machine", 10**9))
    monkeypatch.setattr("opensora_demo.ui.handlers.why_not", lambda spec: "")
    told = cost("opensora-1.2", 30, 17, "144p", "16:9", 7)
    assert told.startswith("**Does not fit here:** this needs about 5.89 GB, and this machine has 1; no clip")


def test_a_run_that_cannot_fit_is_not_started(handlers: Handlers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opensora_demo.ui.handlers.why_not", lambda spec: "")
    monkeypatch.setattr(estimate, "machine_of", lambda _: estimate.Machine("the GPU", 12 * 10**9))
    with pytest.raises(gr.Error, match=r"this needs about .* GB, and the GPU has 12; .* frames of .* would fit"):
        run(handlers, model="opensora-1.2", frames=102, resolution="720p", aspect="1:1", guidance=7, fps=24)


def test_weights_are_fetched_from_the_page_where_that_is_allowed(
    handlers: Handlers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENSORA_WEIGHTS", str(tmp_path))
    news = [Fetching("a/model.safetensors", done, 4 * 10**9) for done in (10**9, 4 * 10**9)]
    monkeypatch.setattr("opensora_demo.ui.handlers.download", lambda spec: (n for n in news))
    assert handlers.page_fetchable(visitor(), "opensora-1.2") == gr.update(visible=False)
    with pytest.raises(gr.Error, match="weights are not downloaded from this page"):
        list(handlers.page_download(visitor(), "opensora-1.2"))
    handlers.downloads = "alone"
    proxied: Any = SimpleNamespace(session_hash="a", headers={"x-forwarded-for": "192.0.2.1"})
    assert handlers.page_fetchable(proxied, "opensora-1.2") == gr.update(visible=False)
    assert handlers.page_fetchable(visitor(), "opensora-1.2") == gr.update(visible=True)
    assert handlers.page_fetchable(visitor(), "nano") == gr.update(visible=False)
    told = list(handlers.page_download(visitor(), "opensora-1.2"))
    assert told == [
        "Downloading model.safetensors: 1.00 of 4.00 GB.",
        "Downloading model.safetensors: 4.00 of 4.00 GB.",
        "",
    ]
