"""Controls that follow the model, and a form filled from a clip's settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from opensora_demo.catalog import MODELS, ModelSpec, find_model
from opensora_demo.errors import RequestError
from opensora_demo.messages import Language, from_json, render
from opensora_demo.request import settings as table
from opensora_demo.request.limits import Range
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.service.forms import AXES, parse_rows
from opensora_demo.toy.chips import TOY_MODELS
from opensora_demo.ui.actions.all import Actions
from opensora_demo.ui.controls import (
    ROW_FIELDS,
    compare_note,
    extras_label,
    frame_hint,
    limit_updates,
    model_note,
    pick_updates,
    row_updates,
    updated_names,
)
from opensora_demo.ui.language import speak
from opensora_demo.ui.values.stage import chips, took_words
from opensora_demo.weights.options import WeightOptions

SPECS = pytest.mark.parametrize("spec", MODELS.values(), ids=list(MODELS))


def request_of(model: str, **raw: Any) -> GenerationRequest:
    spec = find_model(model)
    return parse_request({"prompt": "a ball", "seed": 3} | raw, model_id=spec.id, limits=spec.limits)


def form_of(model: str, **changes: Any) -> dict[str, Any]:
    """The form as the page shows it for a model."""
    limits = find_model(model).limits
    return {setting.name: setting.default(limits) for setting in table.SETTINGS} | {"model": model} | changes


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # without the folder `weights`


@SPECS
def test_every_control_follows_the_model(spec: ModelSpec) -> None:
    updates, limits = limit_updates(spec.id), spec.limits
    assert tuple(sorted(updates)) == tuple(sorted(updated_names()))
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
    assert updates["video"] == gr.update(visible=bool(limits.video_uses))
    assert updates["video_use"]["visible"] == (len(limits.video_uses) > 1)
    assert updates["video_frames"]["visible"] == (len(limits.video_frames) > 1)
    assert updates["stage"]["about"]["extends"] == ("extend" in limits.video_uses)
    for name in ("composer", "die"):  # the toy worlds are those of the nano models
        assert updates[name]["visible"] == (spec.id in TOY_MODELS or bool(spec.labels))
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
    for button, note in (("go", render(model_note(spec))), ("compare", render(compare_note(spec)))):
        assert updates[button] == gr.update(interactive=here)
        assert ("**Cannot run here:**" in note) == (not here)
    assert updates["stage"]["about"]["runs"] == here


def test_an_unknown_model_is_refused(actions: Actions) -> None:
    with pytest.raises(RequestError, match="model: must be one of nano"):
        limit_updates("sora-9")
    with pytest.raises(gr.Error, match="model: must be one of nano"):
        actions.form.choose_model("sora-9", "nano", *form_of("nano").values())
    assert len(actions.form.choose_model("debug-2.0", "nano", *form_of("nano").values())) == len(updated_names())


def test_the_note_says_what_the_model_is() -> None:
    assert render(model_note(find_model("nano"))).endswith(
        "Reads English and Chinese. 128 x 128 px. Text: cross-attention."
    )
    assert render(model_note(find_model("debug-2.0"))).endswith(
        "32px, 64px; 48 x 32 px unless asked otherwise. Text: token concatenation."
    )
    assert render(model_note(find_model("debug-1.0-dit"))).endswith("48 x 32 px. Text: pooled vector.")
    why = "opensora-2.0 lacks its transformer (hpcai-tech/Open-Sora-v2/Open_Sora_v2.safetensors), VAE, T5 text "
    note = render(model_note(find_model("opensora-2.0")))  # a list, and a command to copy
    assert "- ✗ transformer, 23.8 GB · hpcai-tech/Open-Sora-v2\n- ✗ VAE, 493 MB · " in note
    assert "missing into weights, 35.5 GB (room on the disk: " in note or "takes 35.5 GB, **and the disk" in note
    assert note.endswith("```sh\npython -m opensora_demo download opensora-2.0\n```")
    assert why in render(compare_note(find_model("opensora-2.0")))
    assert render(compare_note(find_model("nano"))) == (
        "Everything else, and the model (nano · STDiT3), as set under Generate."
    )


def test_the_card_says_what_is_missing_and_whether_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = find_model("opensora-1.2")
    monkeypatch.setattr("opensora_demo.ui.controls.free_bytes", lambda _: 200 * 10**9)
    assert "To fetch what is missing into weights, 15.9 GB (room on the disk: 200 GB):" in render(model_note(spec))
    monkeypatch.setattr("opensora_demo.ui.controls.free_bytes", lambda _: 10 * 10**9)
    assert "What is missing takes 15.9 GB, **and the disk of weights has room for 10.0 GB**." in render(
        model_note(spec)
    )
    assert "缺少的部分共 15.9 GB" in render(model_note(spec), "zh")


@pytest.mark.parametrize(
    ("model", "label", "words"),
    [
        ("debug-1.0", "Negative prompt", "from text alone"),
        (
            "nano",
            "Negative prompt, given frames, video",
            "starts from this picture. PNG, JPEG, WebP, AVIF or GIF, cropped to 128 x 128.",
        ),
        ("nano", "Negative prompt, given frames, video", "mp4, MOV, WebM, GIF or WebP of at most 100 MB, 300 frames"),
        ("debug-1.3", "Negative prompt, given frames, video", "ends on the last"),
        ("debug-2.0", "Negative prompt, given frames, video", "ends on the last"),
    ],
)
def test_the_fold_is_named_after_what_is_in_it(model: str, label: str, words: str) -> None:
    limits = find_model(model).limits
    assert render(extras_label(limits)) == label
    assert words in render(frame_hint(limits))


def test_a_clip_brings_its_model_and_all_its_settings_back() -> None:
    chosen = {"rule": "plain", "image_guidance": 5, "motion_score": 7, "resolution": "32px", "aspect": "2:3"}
    made = request_of("debug-2.0", **chosen, guidance=2, steps=9, frames=9)
    updates = pick_updates(made.settings())
    assert tuple(sorted(updates)) == tuple(sorted(updated_names()))
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
    assert speak(updates["motion_score"]["info"], "en").endswith("0 leaves it out.")


def test_pictures_stay_where_a_clip_had_some() -> None:
    settings = request_of("debug-1.3").settings() | {"reference": True}
    assert "value" not in pick_updates(settings)["reference"]
    assert pick_updates(settings)["last_frame"]["value"] is None
    assert "value" not in pick_updates(settings | {"last_frame": True})["last_frame"]
    assert "value" not in pick_updates({"prompt": "an example", "model": "nano"})["reference"]
    extended = request_of("nano").settings() | {"video": True}
    assert "value" not in pick_updates(extended)["video"]
    assert pick_updates(request_of("nano").settings())["video"]["value"] is None


def chip_line(settings: Mapping[str, Any], language: Language = "en") -> dict[str, str]:
    """Word -> value under a clip, as its reader sees them."""
    found = chips(settings)
    return {render(from_json(c["name"]), language): render(from_json(c["value"]), language) for c in found}


def test_chips_name_what_makes_a_clip() -> None:
    given = request_of("debug-2.0").settings() | {"reference": True, "last_frame": True}
    line = chip_line(given)
    assert line["given"] == "first and last frame"
    assert (line["rule"], line["image guidance"], line["motion"]) == ("oscillating", "3", "4")
    line = chip_line(request_of("debug-2.0", frames=1).settings())
    assert "image guidance" not in line  # it pulls nothing
    assert "fps" not in line
    assert line["length"] == "1 picture"


def test_chips_are_chinese_for_a_chinese_reader() -> None:
    several = request_of("debug-2.0", frames=1).settings() | {"last_frame": True, "rule": ["plain", "apg", "older"]}
    line = chip_line(several | {"lora": ["a.safetensors", "b.safetensors"]}, "zh")
    assert (line["给定"], line["方式"], line["时长"]) == ("尾帧", "普通、APG、older", "1 张图片")
    assert line["LoRA"] == "a.safetensors, b.safetensors"
    assert chip_line(request_of("nano").settings(), "zh")["时长"] == "2.1 秒"
    took = took_words({"seconds": {"encode": 0.25, "denoise": 1.0}, "peak_gb": 0.93})
    assert (render(took), render(took, "zh")) == ("1.2 s, 0.9 GB", "1.2 秒、0.9 GB")
    assert render(took_words({"seconds": {"denoise": 300.0}}), "zh") == "5 分钟"
    for network, codec, words in (("float32", "float32", "2 s"), ("bfloat16", "float32", "2 s, bfloat16")):
        numbers = {"network": network, "codec": codec}
        assert render(took_words({"seconds": {"denoise": 2.0}, "precision": numbers})) == words


def test_the_empty_stage_takes_the_shape_that_is_asked_for(actions: Actions) -> None:
    tall, grid = actions.form.size("opensora-1.2", "480p", "9:16")
    width, height = tall["about"]["cell"]
    assert width / height == pytest.approx(480 / 848, abs=0.02)
    assert tall["about"]["cell"] == grid["about"]["cell"]
    assert (tall["about"]["model"], tall["name"], grid["name"]) == ("opensora-1.2", "stage", "grid")
    same, _ = actions.form.size("opensora-1.2", None, None)
    assert same["about"]["cell"] == limit_updates("opensora-1.2")["stage"]["about"]["cell"]
    between, _ = actions.form.size("opensora-1.2", "768px", "9:16")  # the resolution of the model before
    width, height = between["about"]["cell"]
    assert width / height == pytest.approx(240 / 424, abs=0.02)


def test_what_was_set_by_hand_outlives_another_model() -> None:
    """Where the new model accepts it; a default becomes the new model's."""
    typed = form_of("nano", steps=30, guidance=2.5, fps=8, frames=17, seed="7", rule="apg")
    updates = limit_updates("debug-1.2", typed, "nano")
    assert (updates["steps"]["value"], updates["guidance"]["value"]) == (30, 2.5)
    assert updates["rule"]["value"] == "apg"
    assert updates["fps"]["value"] == find_model("debug-1.2").limits.fps.default  # it was the default
    assert "value" not in updates["seed"] | updates["prompt"]
    assert limit_updates("debug-2.0", form_of("nano", frames=9), "nano")["frames"]["value"] == 9
    there = limit_updates("debug-2.0", form_of("nano", steps=101, frames=5, rule="cfg-zero"), "nano")
    limits = find_model("debug-2.0").limits
    assert there["frames"]["value"] == limits.default_frames  # 5 is none of its lengths
    assert there["steps"]["value"] == limits.steps.default
    assert there["image_guidance"]["value"] == limits.image_guidance.default  # nano shows none
    back = limit_updates("nano", form_of("debug-2.0", rule="plain", aspect="2:3", motion_score=7), "debug-2.0")
    assert back["rule"]["value"] == "plain"
    assert back["motion_score"] == gr.update(visible=False)


def test_the_field_of_the_rows_follows_its_axis() -> None:
    options = WeightOptions()

    def fields(axis: str, rows: str = "", *, fill: bool = True, model: str = "nano") -> dict[str, Any]:
        return dict(zip(ROW_FIELDS, row_updates(axis, rows, model, options, fill=fill), strict=True))

    shown = {axis: [name for name, update in fields(axis).items() if update["visible"]] for axis in AXES}
    text = ["rows", "row_presets"]
    assert shown == {
        "none": ["seeds"], "seed": text, "steps": [*text, "seeds"], "fps": [*text, "seeds"],
        "negative": [*text, "seeds"], "model": ["row_models", "seeds"],
    }  # fmt: skip
    for model in ("nano", "debug-2.0", "debug-1.0"):
        for axis in ("seed", "steps", "fps", "negative"):
            found = fields(axis, model=model)
            for preset in found["row_presets"]["choices"]:
                for _, changes in parse_rows(axis, preset, 3):
                    request_of(model, **changes)
            assert found["rows"]["value"] == found["row_presets"]["choices"][0]
    models = fields("model")
    assert parse_rows("model", models["rows"]["value"], 0)
    assert models["row_models"]["value"] == models["rows"]["value"].split("; ")
    begun = {model: fields("model", model=model)["row_models"]["value"] for model in ("nano", "debug-2.0")}
    assert begun["nano"] == ["nano", "nano-dit", "nano-mmdit"]
    assert begun["debug-2.0"] == ["nano", "nano-dit", "nano-mmdit"]  # itself only on a page that lists debug models
    assert "debug-1.2" not in [model for _, model in models["row_models"]["choices"]]
    typed = fields("model", "nano-dit", fill=False)  # as a link has it
    assert typed["row_models"]["value"] == ["nano-dit"]
    assert "value" not in typed["rows"]
