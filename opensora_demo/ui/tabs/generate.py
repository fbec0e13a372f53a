"""The tab "Generate": the stage, the form beside it, and what each of its controls calls."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from opensora_demo.catalog import DEFAULT_MODEL, MODELS, ModelSpec
from opensora_demo.messages import message
from opensora_demo.request import settings as table
from opensora_demo.request.limits import MAX_SEED, Limits
from opensora_demo.sampling.guidance_notes import GUIDANCE_NOTES
from opensora_demo.service.forms import cost_names, frame_names, given_names, seen_names, size_names
from opensora_demo.toy.chips import TOY_MODELS
from opensora_demo.ui.actions.all import Actions
from opensora_demo.ui.components import Composer, CurveEditor, PlainText, Scope, Stage
from opensora_demo.ui.controls import (
    PRESETS,
    extras_label,
    frame_hint,
    make_control,
    model_note,
    restored_names,
    stage_props,
    updated_names,
)
from opensora_demo.ui.events import COUNTED, QUEUED, QUICK, QUIET, RUN, WATCH, on_last
from opensora_demo.ui.language import mark
from opensora_demo.ui.scripts import UI_ASSETS, call_js, served_at
from opensora_demo.ui.values.common import FileValue, chips_value
from opensora_demo.ui.values.stage import ExampleValue, chips
from opensora_demo.ui.values.verdict import verdict
from opensora_demo.weights.options import WeightOptions

# What the drawing of the curve is told: its points as text, and the scale.
CURVE_JS = "(curve, guidance) => ({ curve, guidance })"

# A prompt that is written in scenes goes into a hidden field, and nothing of any other: Python is asked only where
# there is something to say. As if it were typed: an output of Gradio's would empty the prompt's history (Ctrl+Z).
SCENES_JS = """(prompt) => {
  const scenes = (prompt ?? '').trimStart().startsWith('|0|') ? prompt : '';
  const field = document.querySelector('#in-scenes textarea, #in-scenes input');
  if (!field || field.value === scenes) return [];
  field.value = scenes;
  field.dispatchEvent(new Event('input', { bubbles: true }));
  return [];
}"""

# Folds the settings away on a narrow screen, where the stage and the prompt come first.
FOLD_JS = "() => ({ __type__: 'update', open: window.innerWidth >= 768 })"

# Settings are in the first four; the others are given to the model as they are.
OPENED_FILES = (".mp4", ".png", ".gif", ".webp", ".jpg", ".jpeg", ".avif", ".webm", ".mov", ".m4v")

# How a control stands on the page, beyond what its kind says.
LOOK: Mapping[str, dict[str, Any]] = {
    "prompt": {"placeholder": mark(message("ui.example_toy"))},
    "negative": {"placeholder": mark(message("label.negative.placeholder"))},
    "seed": {"placeholder": mark(message("label.seed.placeholder")), "min_width": 120},
    "resolution": {"min_width": 140},
    "aspect": {"min_width": 140},
    "rule": {"min_width": 160},
    "curve": {"placeholder": mark(message("label.curve.placeholder"))},
}
Fields = dict[str, Any]  # the controls of the settings by name


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateControls:
    """The components of the tab. `fields` are the settings by name, `follows` what else changes with the model."""

    stage: Stage
    fields: dict[str, Any]
    follows: dict[str, Any]
    stop: gr.Button
    dice: gr.Button
    no_seed: gr.Button
    presets: dict[str, gr.Button]
    opened: gr.UploadButton
    fold: gr.Accordion
    curve: CurveEditor
    rule_note: gr.Markdown
    cost: gr.Markdown
    scenes: gr.Markdown
    in_scenes: gr.Textbox
    fetch: gr.Button
    surely: gr.Button
    room: gr.Accordion
    fits: gr.Markdown
    seen: gr.Image


def build(spec: ModelSpec, models: Sequence[tuple[str, str]], options: WeightOptions) -> GenerateControls:
    """Draw the tab for `spec`; `models` are the (title, id) of the list."""
    fields = {s.name: make_control(s, spec, models, **LOOK.get(s.name, {})) for s in table.SETTINGS}
    with gr.Row(elem_classes="os-columns"):
        with gr.Column(elem_classes="os-left", min_width=320):
            stage = Stage({"phase": "idle", "examples": load_examples()}, **stage_props("stage", spec, options=options))
        with gr.Column(elem_classes="os-right", min_width=320):
            parts = _prompt(fields) | _model(fields, spec, options)
            presets, opened, dice, no_seed, fold = _settings(fields, spec.limits, parts)
            parts |= _extras(fields, spec.limits)
            parts |= _branch(fields)
    return GenerateControls(
        stage=stage,
        fields=fields,
        follows={
            name: parts[name]
            for name in ("composer", "die", "go", "note", "instead", "extras", "loop", "hint", "branch")
        }
        | {"stage": stage, "model_before": gr.State(spec.id)},
        stop=parts["stop"],
        dice=dice,
        no_seed=no_seed,
        presets=presets,
        opened=opened,
        fold=fold,
        curve=parts["curve"],
        rule_note=parts["rule_note"],
        cost=parts["cost"],
        scenes=parts["scenes"],
        in_scenes=parts["in_scenes"],
        fetch=parts["fetch"],
        surely=parts["surely"],
        room=parts["room"],
        fits=parts["fits"],
        seen=parts["seen"],
    )


def _prompt(fields: Fields) -> dict[str, Any]:
    place(fields, "prompt")
    scenes = gr.Markdown("", elem_classes="os-hint", elem_id="scenes-line")
    in_scenes = PlainText("", visible="hidden", elem_id="in-scenes")
    composer = Composer(chips_value(), elem_id="composer")
    with gr.Row(elem_classes="os-buttons"):
        go = gr.Button(mark(message("ui.generate")), variant="primary", elem_id="generate", scale=3, min_width=120)
        stop = gr.Button(mark(message("ui.stop")), elem_id="stop", scale=1, min_width=80)
        die = gr.Button(mark(message("ui.surprise")), elem_id="die", scale=1, min_width=144)
    return {"composer": composer, "go": go, "stop": stop, "die": die, "scenes": scenes, "in_scenes": in_scenes}


def _model(fields: Fields, spec: ModelSpec, options: WeightOptions) -> dict[str, Any]:
    with gr.Column(elem_classes="os-model"):
        place(fields, "model")
        note = gr.Markdown(mark(model_note(spec, options)), elem_classes="os-hint", elem_id="model-note")
        cost = gr.Markdown("", elem_classes="os-hint", elem_id="cost")
        with gr.Row(elem_classes="os-fetch"):
            fetch = gr.Button(mark(message("ui.download_weights")), size="sm", elem_id="download", visible=False)
            surely = gr.Button("", size="sm", elem_id="download-surely", variant="primary", visible=False)
            instead = gr.Button(mark(message("ui.use_nano")), size="sm", elem_id="use-nano", visible=False)
        with gr.Accordion(
            mark(message("ui.fits")), open=False, visible=False, elem_classes="os-fold", elem_id="fits"
        ) as room:
            fits = gr.Markdown("", elem_classes="os-hint")
    return {
        "note": note,
        "cost": cost,
        "fetch": fetch,
        "surely": surely,
        "instead": instead,
        "room": room,
        "fits": fits,
    }


def _settings(
    fields: Fields, limits: Limits, parts: dict[str, Any]
) -> tuple[dict[str, gr.Button], gr.UploadButton, gr.Button, gr.Button, gr.Accordion]:
    """What belongs to the rule and the curve is put into `parts`."""
    with gr.Accordion(mark(message("ui.settings")), open=False, elem_classes="os-fold") as fold:
        with gr.Row(elem_classes="os-presets"):
            presets = {
                name: gr.Button(mark(message(f"ui.preset.{name}")), size="sm", min_width=64, elem_id=f"preset-{name}")
                for name in PRESETS
            }
            opened = gr.UploadButton(
                mark(message("ui.from_file")),
                file_types=list(OPENED_FILES),
                size="sm",
                elem_id="open-file",
                min_width=96,
            )
        with gr.Row():
            place(fields, "steps", "guidance")
        with gr.Row():
            place(fields, "fps", "frames")
        with gr.Row(elem_classes="os-optional"):
            place(fields, "resolution", "aspect")
        with gr.Row(elem_classes="os-seed-row"):
            with gr.Row(elem_classes="os-seed"):
                place(fields, "seed")
                dice = gr.Button(mark(message("ui.random")), size="sm", elem_id="random-seed", min_width=72, scale=0)
                no_seed = gr.Button("×", size="sm", elem_id="no-seed", min_width=32, scale=0)
            place(fields, "rule")
        parts["rule_note"] = gr.Markdown(
            mark(GUIDANCE_NOTES[limits.rules[0]].purpose), elem_classes="os-hint", elem_id="rule-note"
        )
        with gr.Accordion(mark(message("ui.curve")), open=False, elem_classes="os-fold", elem_id="curve-fold"):
            place(fields, "curve")
            scale = table.find("guidance").default(limits)
            parts["curve"] = CurveEditor({"curve": "", "guidance": scale}, elem_id="curve-plot")
        with gr.Row(elem_classes="os-optional"):
            place_rest(fields, "settings")
    return presets, opened, dice, no_seed, fold


def _extras(fields: Fields, limits: Limits) -> dict[str, Any]:
    """Negative prompt and given frames."""
    with gr.Accordion(mark(extras_label(limits)), open=False, elem_classes="os-fold") as extras:
        place(fields, "negative")
        with gr.Row(elem_classes="os-given"):
            place(fields, *frame_names())
            seen = gr.Image(
                label=mark(message("ui.seen")),
                interactive=False,
                type="filepath",
                height=200,
                elem_id="seen",
                buttons=[],
                min_width=140,
                visible=False,
            )
        loop = gr.Button(mark(message("ui.loop_frames")), size="sm", elem_id="loop", visible=limits.last_frame)
        place(fields, "video")
        with gr.Row():
            place(fields, "video_use", "video_frames")
        hint = gr.Markdown(mark(frame_hint(limits)), elem_classes="os-hint", elem_id="frame-hint")
        place_rest(fields, "given")
    return {"extras": extras, "seen": seen, "loop": loop, "hint": hint}


def _branch(fields: Fields) -> dict[str, Any]:
    """How a run goes on otherwise from a step; the stage's strip fills it in."""
    with gr.Accordion(mark(message("ui.branch")), open=False, elem_classes="os-fold", elem_id="branch") as fold:
        with gr.Row():
            place(fields, "branch_step", "stop_step")
        place(fields, "branch_prompt", "branch_negative")
        with gr.Row():
            place(fields, "branch_guidance", "branch_seed")
        place_rest(fields, "branch")
    return {"branch": fold}


def place(fields: Fields, *names: str) -> None:
    """Put controls where the page is being drawn."""
    for name in names:
        fields[name].render()


def place_rest(fields: Fields, section: str) -> None:
    """The controls of a section that have no place of their own, those of a new setting among them."""
    place(fields, *(s.name for s in table.SETTINGS if s.section == section and not fields[s.name].is_rendered))


def load_examples() -> list[ExampleValue]:
    """Clips made by `make_examples`, of every embedded model; none where they are missing."""
    found: list[ExampleValue] = []
    for model in TOY_MODELS:
        if model not in MODELS:
            continue
        folder = UI_ASSETS / "examples" / model
        try:
            entries = json.loads((folder / "examples.json").read_text("utf-8"))
        except (OSError, ValueError):
            continue
        found += [example_value(folder, entry) for entry in entries if (folder / entry["file"]).is_file()]
    return found


def example_file(file: Path) -> FileValue:
    return {"orig_name": file.name, "url": f"{served_at()}/{file.relative_to(UI_ASSETS).as_posix()}"}


def example_value(folder: Path, entry: Mapping[str, Any]) -> ExampleValue:
    return {
        "file": example_file(folder / entry["file"]),
        "poster": example_file(folder / entry["poster"]),
        "prompt": entry["prompt"],
        "seed": entry["seed"],
        "settings": entry["settings"],
        "chips": chips(entry["settings"] | {"seed": entry["seed"]}),
        "verdict": verdict(entry["marks"]) if entry["marks"] else None,
    }


def wire(tab: GenerateControls, everything: dict[str, Any], scope: Scope, actions: Actions, page: gr.Blocks) -> None:
    """`everything` has the components of both forms by name: a model or a picked clip changes them all."""
    fields, seen = tab.fields, tab.seen
    prompt, model = fields["prompt"], fields["model"]
    form, shown = list(fields.values()), [tab.stage, scope]
    updated, files = [everything[name] for name in updated_names()], [fields[name] for name in given_names()]
    first = call_js("stage/first.js", "filled", "#prompt", list(fields))
    made = gr.on([tab.follows["go"].click, prompt.submit], actions.clips.make_clip, form, shown, js=first, **RUN)
    made.then(actions.clips.complete, None, shown, **QUEUED)
    tab.stop.click(actions.clips.stop, None, None, **QUICK)
    tab.stage.pick(actions.form.pick, None, updated, **QUICK)
    tab.stage.again(actions.clips.again, files, shown, **RUN).then(actions.clips.complete, None, shown, **QUEUED)
    tab.stage.extend(actions.clips.extend, form, shown, **RUN).then(actions.clips.complete, None, shown, **QUEUED)
    tab.stage.keep(actions.clips.keep, None, None, **QUICK)
    tab.stage.restore(actions.clips.restore, None, shown, **WATCH)
    composer = tab.follows["composer"]
    composer.understand(actions.form.understand, model, composer, trigger_mode="always_last", **QUICK)
    composer.edit(actions.form.edit, model, composer, trigger_mode="multiple", **QUICK)
    gr.on(
        [prompt.change, model.change],
        None,
        [prompt, model],
        None,
        js=call_js("composer/composer.js", "notice"),
        **QUIET,
    )
    tab.follows["die"].click(actions.form.roll, model, prompt, **QUICK)
    tab.curve.draw(actions.form.draw, None, fields["curve"], trigger_mode="multiple", **QUICK)
    drawn = [fields["curve"], fields["guidance"]]
    gr.on([*(box.change for box in drawn), page.load], None, drawn, tab.curve, js=CURVE_JS, **QUICK)
    on_last([fields["rule"].change], actions.form.rule_note, fields["rule"], tab.rule_note, **QUICK)
    tab.dice.click(lambda: str(secrets.randbelow(MAX_SEED + 1)), None, fields["seed"], **QUICK)
    tab.no_seed.click(lambda: "", None, fields["seed"], **QUICK)
    for name, button in tab.presets.items():
        button.click(_preset(actions, name), model, [fields["steps"], fields["guidance"]], **QUICK)
    tab.opened.upload(actions.form.open, [tab.opened, model], [everything[name] for name in restored_names()], **QUEUED)
    page.load(None, None, tab.fold, js=FOLD_JS, **QUIET)
    _wire_model(tab, everything, updated, actions, page)
    cut = [fields[name] for name in seen_names()]
    cropped = on_last([box.change for box in (*cut, model)], actions.form.crop, [model, *cut], seen, **QUEUED)
    cropped.failure(actions.form.without_unreadable, files, files, **QUICK)
    tab.follows["loop"].click(None, *(fields[name] for name in frame_names()), js="(first) => first", **QUICK)


def _preset(actions: Actions, name: str) -> Callable[[Any], tuple[Any, Any]]:
    """What one of the buttons does for the chosen model."""
    return lambda model: actions.form.preset(name, model)


def is_published(model: object) -> bool:
    """Whether a model is one of those whose weights are elsewhere: what of it fits here is worth asking."""
    return isinstance(model, str) and model in MODELS and MODELS[model].published is not None


def _wire_model(
    tab: GenerateControls, everything: dict[str, Any], updated: list[Any], actions: Actions, page: gr.Blocks
) -> None:
    """What the model, its size and its weights change."""
    fields, cost, fetch = tab.fields, tab.cost, tab.fetch
    fetched_by = [fetch, tab.surely]
    model, sizes = fields["model"], [fields[name] for name in size_names()]
    chosen = [model, everything["model_before"], *fields.values()]
    model.input(actions.form.choose_model, chosen, updated, **QUICK)
    on_last([model.change], actions.weights.fetchable, model, fetched_by, **QUICK)
    fetch.click(actions.weights.ask, model, fetched_by, **QUICK)
    fetched = tab.surely.click(actions.weights.download, model, cost, **WATCH)
    tab.surely.click(lambda: gr.update(visible=False), None, tab.surely, **QUICK)
    use_nano = everything["instead"].click(lambda: DEFAULT_MODEL, None, model, **QUICK)
    use_nano.then(actions.form.choose_model, chosen, updated, **QUICK)
    fetched.success(actions.form.choose_model, chosen, updated, **QUICK)
    fetched.success(actions.weights.fetchable, model, fetched_by, **QUICK)
    tab.room.expand(actions.weights.fits, model, tab.fits, **COUNTED)
    on_last(
        [model.change],
        lambda chosen: (gr.update(visible=is_published(chosen), open=False), ""),
        model,
        [tab.room, tab.fits],
        **QUICK,
    )
    stages = [everything["stage"], everything["grid"]]
    shaped = [box.change for box in sizes]
    on_last(shaped, actions.form.size, [model, *sizes], stages, **QUICK)
    costs = [tab.in_scenes if name == "prompt" else fields[name] for name in cost_names()]
    costly = [*(box.change for box in costs), page.load]
    on_last(costly, actions.weights.cost, costs, cost, **COUNTED)
    fetched.success(actions.weights.cost, costs, cost, **COUNTED)
    fields["prompt"].change(None, fields["prompt"], None, js=SCENES_JS, **QUIET)
    timed = [fields["fps"], *costs]
    lasting = [box.change for box in timed]
    on_last(lasting, actions.form.scenes, timed, tab.scenes, **QUICK)
