"""The functions behind the page, called as plain functions."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from opensora_demo.errors import NumericsError
from opensora_demo.media import read_settings
from opensora_demo.ui.controls import PICKED
from opensora_demo.ui.handlers import SORRY, Handlers, raw_form
from opensora_demo.ui.runs import Runs

GOOD: dict[str, Any] = {
    "prompt": "a red ball",
    "negative": "",
    "fps": 8,
    "frames": 17,
    "steps": 4,
    "guidance": 4.0,
    "seed": 3,
}


def form(**changes: Any) -> dict[str, Any]:
    return raw_form(**{**GOOD, **changes})


def run(handlers: Handlers, session: str = "a", reference: str | None = None, **changes: Any) -> list[dict[str, Any]]:
    return list(handlers.page(form(**changes), (reference, None), "nano", session))


def test_a_run_from_click_to_clip(handlers: Handlers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opensora_demo.ui.handlers.UPDATE_S", 0.0)
    values = run(handlers)
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


def test_updates_are_thinned_but_the_first_step_and_the_end_are_always_told(handlers: Handlers) -> None:
    handlers._clock = lambda: 0.0
    values = run(handlers, steps=60)
    assert len(values) < 10
    assert any(len(v["steps"]) == 1 for v in values)
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
    values = handlers.page(form(**changes), (None, None), "nano", "a")
    with pytest.raises(gr.Error) as caught:
        next(values)
    assert str(caught.value.message).startswith(sentence)
    assert pipeline.closed == 0
    assert run(handlers)[-1]["phase"] == "done"


def test_unknown_model(handlers: Handlers) -> None:
    with pytest.raises(gr.Error, match="model: must be one of"):
        next(handlers.page(form(), (None, None), "sora-9", "a"))


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
        values.extend(handlers.page(form(), (None, None), "nano", "a"))
    pipeline.error = None
    assert run(handlers)[-1]["phase"] == "done"


def test_the_unforeseen_goes_to_the_log_only(
    handlers: Handlers, pipeline: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline.error = ZeroDivisionError("/secret/path")
    got: list[dict[str, Any]] = []
    with pytest.raises(gr.Error) as caught:
        got.extend(item for item in handlers.page(form(), (None, None), "nano", "a"))
    assert caught.value.message == SORRY
    assert got[-1]["phase"] == "failed"
    assert got[-1]["text"] == SORRY
    assert "/secret/path" in caplog.text


def test_stop_ends_the_run_of_its_own_session(handlers: Handlers, pipeline: Any) -> None:
    pipeline.gate = threading.Semaphore(2)
    got: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: got.extend(handlers.page(form(), (None, None), "nano", "a")))
    thread.start()
    assert pipeline.started.wait(5)
    assert handlers.runs.stop("b") == 0
    assert handlers.runs.stop(None) == 0
    assert handlers.runs.stop("a") == 1
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
        for value in handlers.page(form(prompt=f"a ball {name}"), (None, None), "nano", name):
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
    with handlers.bundles.get("nano").lock:
        values = handlers.page(form(), (None, None), "nano", "a")
        assert next(values)["phase"] == "loading"
        assert next(values)["phase"] == "waiting"
        handlers.runs.stop("a")
        assert [v["phase"] for v in values] == ["stopped"]
    assert pipeline.closed == 0


def test_a_closed_tab_releases_everything(handlers: Handlers, pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opensora_demo.ui.handlers.UPDATE_S", 0.0)
    values = handlers.page(form(), (None, None), "nano", "a")
    while not next(values)["steps"]:
        pass
    values.close()  # type: ignore[attr-defined]
    assert pipeline.closed == 1
    assert not handlers.bundles.get("nano").lock.locked()
    assert handlers.runs.stop("a") == 0


def test_unknown_words_are_said(handlers: Handlers, pipeline: Any) -> None:
    pipeline.unknown = ("dragon", "$")
    last = run(handlers)[-1]
    assert last["note"].startswith("nano does not know: dragon. It was trained on ")
    assert last["clip"]["settings"]["unknown"] == ["dragon", "$"]


def test_runs_forget_what_has_ended() -> None:
    runs = Runs()
    first, second = runs.start("a"), runs.start("a")
    runs.finish("a", first)
    assert first.is_set()
    assert not second.is_set()
    assert runs.stop("a") == 1
    runs.finish("a", second)
    assert runs.stop("a") == 0
    assert not runs._flags


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
    values = (0.4, "oscillating", 3, 7)
    nothing = {"edit": None, "rule": None, "image_guidance": None, "motion_score": None}
    assert handlers.of_model("nano", *values) == nothing
    assert handlers.of_model("debug-1.2", *values) == nothing | {"edit": 0.4, "motion_score": 7}
    of_20 = {"edit": None, "rule": "oscillating", "image_guidance": 3, "motion_score": 7}
    assert handlers.of_model("debug-2.0", *values) == of_20
    assert handlers.pictures_of("debug-1.0", "a.png", "b.png") == (None, None)
    assert handlers.pictures_of("nano", "a.png", "b.png") == ("a.png", None)
    assert handlers.pictures_of("debug-1.1", "a.png", "b.png") == ("a.png", "b.png")
    with pytest.raises(gr.Error, match="model: must be one of"):
        handlers.of_model("sora-9", *values)


def test_a_form_left_from_another_model_still_runs(handlers: Handlers) -> None:
    request = SimpleNamespace(session_hash="a")
    left = {"edit": 0.4, "rule": "oscillating", "image_guidance": 3, "motion_score": 7}
    pictures = {"reference": "of another model.png", "last_frame": "of another model.png"}
    form = {key: value for key, value in GOOD.items() if key != "frames"} | left | pictures
    values = [stage for stage, _ in handlers.page_generate(**form, frames=8, model="debug-1.0", request=request)]  # type: ignore[arg-type]
    assert values[-1]["phase"] == "done"
    assert values[-1]["cell"] == [384, 256]
    assert values[-1]["clip"]["settings"].keys().isdisjoint({"edit", "rule", "image_guidance", "motion_score"})


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
    request: Any = SimpleNamespace(session_hash="a")
    event = gr.EventData(None, made | {"seed": None})
    settings = list(handlers.page_vary(str(picture), str(picture), event, request))[-1][0]["clip"]["settings"]
    assert {key for key in made if settings[key] != made[key]} == {"seed"}
    assert "rule" not in settings  # plain, though the model's default is another
    assert "last_frame" not in settings  # the clip had none
    with pytest.raises(gr.Error, match="prompt: must say what to draw"):
        list(handlers.page_vary(None, None, gr.EventData(None, "nonsense"), request))


def test_a_model_without_weights_is_explained_before_anything_is_shown(handlers: Handlers, pipeline: Any) -> None:
    values = handlers.page(form(fps=24, frames=51), (None, None), "opensora-1.2", "a")
    with pytest.raises(gr.Error) as caught:
        next(values)
    assert str(caught.value.message).startswith(
        "Open-Sora 1.2 · STDiT3 cannot run here: opensora-1.2 needs transformer"
    )
    assert pipeline.closed == 0


def test_compare_writes_one_grid(handlers: Handlers) -> None:
    values = list(handlers.page(form(guidance=[1.0, 4.0]), (None, None), "nano", "a"))
    assert values[-1]["labels"] == ["guidance 1", "guidance 4"]
    assert len(values[-1]["steps"][0]["p"]) == 2
    assert values[-1]["clip"]["settings"]["guidance"] == [1.0, 4.0]
