"""Controls that follow the model, and a form filled from a clip's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from opensora_demo.catalog import MODELS, ModelSpec, find_model
from opensora_demo.errors import RequestError
from opensora_demo.types import GenerationRequest, Range, parse_request
from opensora_demo.ui.controls import (
    FOLLOWS,
    PICKED,
    compare_note,
    extras_label,
    frame_hint,
    limit_updates,
    model_note,
    pick_updates,
)
from opensora_demo.ui.handlers import Handlers
from opensora_demo.ui.present import chips

SPECS = pytest.mark.parametrize("spec", MODELS.values(), ids=list(MODELS))


def request_of(model: str, **raw: Any) -> GenerationRequest:
    spec = find_model(model)
    return parse_request({"prompt": "a ball", "seed": 3} | raw, model_id=spec.id, limits=spec.limits)


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENSORA_WEIGHTS", str(tmp_path))


@SPECS
def test_every_control_follows_the_model(spec: ModelSpec) -> None:
    updates, limits = limit_updates(spec.id), spec.limits
    assert tuple(sorted(updates)) == tuple(sorted(FOLLOWS))
    spans: dict[str, Range | None] = {
        "steps": limits.steps,
        "guidance": limits.guidance,
        "fps": limits.fps,
        "image_guidance": limits.image_guidance,
        "motion_score": limits.motion_score,
    }
    for name, span in spans.items():
        assert updates[name]["visible"] == (span is not None)
        if span is not None:
            assert (updates[name]["minimum"], updates[name]["maximum"]) == (span.low, span.high)
            assert updates[name]["value"] == span.default
    assert updates["frames"]["choices"] == list(limits.frames)
    assert updates["frames"]["value"] == limits.default_frames
    assert updates["rule"]["visible"] == (len(limits.rules) > 1)
    assert updates["rule"]["value"] == limits.rules[0]
    assert updates["reference"] == gr.update(visible=limits.reference)  # no value: a given picture is kept
    assert updates["last_frame"] == gr.update(visible=limits.last_frame)
    assert updates["edit"]["visible"] == limits.edit
    for name in ("composer", "die"):  # the toy worlds are those of the nano models
        assert updates[name]["visible"] == spec.id.startswith("nano")
    height_px, width_px = limits.size_px
    about = updates["stage"]["about"]
    assert about["model"] == spec.id
    assert about["cell"][0] / about["cell"][1] == width_px / height_px
    assert "value" not in updates["stage"]  # what is on the stage stays
    assert updates["grid"]["about"] == about
    for name, names in (("resolution", limits.resolutions), ("aspect", limits.aspects)):
        value = getattr(limits.sizes[0], name)
        assert updates[name] == gr.update(choices=list(names), value=value, visible=len(names) > 1)
    for name in ("rule", "rules"):
        assert [rule for _, rule in updates[name]["choices"]] == list(limits.rules)


@SPECS
def test_only_models_that_are_here_can_be_started(spec: ModelSpec) -> None:
    here = not spec.id.startswith("opensora-")
    updates = limit_updates(spec.id)
    for button, note in (("go", model_note(spec)), ("compare", compare_note(spec))):
        assert updates[button] == gr.update(interactive=here)
        assert ("**Cannot run here:**" in note) == (not here)
    assert updates["stage"]["about"]["runs"] == here


def test_an_unknown_model_is_refused(handlers: Handlers) -> None:
    with pytest.raises(RequestError, match="model: must be one of nano"):
        limit_updates("sora-9")
    with pytest.raises(gr.Error, match="model: must be one of nano"):
        handlers.page_model("sora-9")
    assert len(handlers.page_model("debug-2.0")) == len(FOLLOWS)


def test_the_note_says_what_the_model_is() -> None:
    assert model_note(find_model("nano")).endswith("Reads English and Chinese. 64 x 64 px. Text: cross-attention.")
    assert model_note(find_model("debug-2.0")).endswith(
        "32px, 64px; 48 x 32 px unless asked otherwise. Text: token concatenation."
    )
    assert model_note(find_model("debug-1.0-dit")).endswith("48 x 32 px. Text: pooled vector.")
    why = "opensora-2.0 lacks its transformer (hpcai-tech/Open-Sora-v2/Open_Sora_v2.safetensors), VAE, T5 text "
    assert why in model_note(find_model("opensora-2.0"))
    assert why in compare_note(find_model("opensora-2.0"))
    assert compare_note(find_model("nano")) == (
        "Everything else, and the model (nano · STDiT3), as set under Generate."
    )


@pytest.mark.parametrize(
    ("model", "label", "words"),
    [
        ("debug-1.0", "Negative prompt", "from text alone"),
        ("nano", "Negative prompt and first frame", "starts from this picture. PNG, JPEG or WebP, cropped to 64 x 64."),
        ("debug-2.0", "Negative prompt, first and last frame", "ends on the last"),
    ],
)
def test_the_fold_is_named_after_what_is_in_it(model: str, label: str, words: str) -> None:
    limits = find_model(model).limits
    assert extras_label(limits) == label
    assert words in frame_hint(limits)


def test_a_clip_brings_its_model_and_all_its_settings_back() -> None:
    chosen = {"rule": "plain", "image_guidance": 5, "motion_score": 7, "resolution": "32px", "aspect": "2:3"}
    made = request_of("debug-2.0", **chosen, guidance=2, steps=9, frames=9)
    updates = pick_updates(made.settings())
    assert tuple(sorted(updates)) == tuple(sorted(PICKED))
    wanted = {"model": "debug-2.0", "prompt": "a ball", **chosen}
    wanted |= {"guidance": 2, "steps": 9, "frames": 9, "seed": "3", "negative": "", "fps": 24}
    assert {name: updates[name]["value"] for name in wanted} == wanted
    assert updates["motion_score"]["visible"]
    assert updates["frames"]["choices"] == [1, 9, 17]
    assert updates["reference"]["value"] is updates["last_frame"]["value"] is None  # it was made without


def test_settings_that_a_file_leaves_out_are_not_the_models_defaults() -> None:
    made = request_of("debug-1.3", rule="plain", image_guidance=1)
    assert made.settings().keys().isdisjoint({"rule", "image_guidance"})
    updates = pick_updates(made.settings())
    assert updates["rule"]["value"] == "plain"
    assert updates["image_guidance"]["value"] == 1
    updates = pick_updates(request_of("debug-1.2", edit=0.4, motion_score=0).settings())
    assert updates["edit"]["value"] == 0.4
    assert updates["motion_score"]["value"] == 0
    assert updates["motion_score"]["info"].endswith("0 leaves it out.")


def test_pictures_stay_where_a_clip_had_some() -> None:
    settings = request_of("debug-1.3").settings() | {"reference": True}
    assert "value" not in pick_updates(settings)["reference"]
    assert pick_updates(settings)["last_frame"]["value"] is None
    assert "value" not in pick_updates(settings | {"last_frame": True})["last_frame"]
    assert "value" not in pick_updates({"prompt": "an example", "model": "nano"})["reference"]


def test_chips_name_what_makes_a_clip() -> None:
    given = request_of("debug-2.0").settings() | {"reference": True, "last_frame": True}
    line = dict(map(tuple, chips(given)))  # type: ignore[arg-type]
    assert line["given"] == "first and last frame"
    assert (line["rule"], line["image guidance"], line["motion"]) == ("oscillating", "3", "4")
    line = dict(map(tuple, chips(request_of("debug-2.0", frames=1).settings())))  # type: ignore[arg-type]
    assert "image guidance" not in line  # it pulls nothing
    assert "fps" not in line
    assert line["length"] == "1 picture"


def test_the_empty_stage_takes_the_shape_that_is_asked_for(handlers: Handlers) -> None:
    tall, grid = handlers.page_size("opensora-1.2", "480p", "9:16")
    width, height = tall["about"]["cell"]
    assert width / height == pytest.approx(480 / 848, abs=0.02)
    assert tall["about"]["cell"] == grid["about"]["cell"]
    assert (tall["about"]["model"], tall["name"], grid["name"]) == ("opensora-1.2", "stage", "grid")
    same, _ = handlers.page_size("opensora-1.2", None, None)
    assert same["about"]["cell"] == limit_updates("opensora-1.2")["stage"]["about"]["cell"]
    between, _ = handlers.page_size("opensora-1.2", "768px", "9:16")  # the resolution of the model before
    width, height = between["about"]["cell"]
    assert width / height == pytest.approx(240 / 424, abs=0.02)
