"""Where things stand on the page, and which function each of them calls."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from opensora_demo.catalog import DEFAULT_MODEL, MODELS, find_model
from opensora_demo.types import RULE_TITLES, Range
from opensora_demo.ui.api import Api
from opensora_demo.ui.compare import AXES
from opensora_demo.ui.components import (
    UI_ASSETS,
    AnyValue,
    Compare,
    Composer,
    Explain,
    PlainChecks,
    PlainDropdown,
    PlainRadio,
    PlainSlider,
    PlainText,
    ReferenceImage,
    Scope,
    Stage,
)
from opensora_demo.ui.controls import (
    FOLLOWS,
    PICKED,
    PRESETS,
    TOY_PLACEHOLDER,
    compare_note,
    extras_label,
    frame_hint,
    listed_title,
    model_note,
    motion_info,
    rule_choices,
    stage_props,
)
from opensora_demo.ui.explaining import Explaining
from opensora_demo.ui.handlers import COMPARE_FORM, COST_FORM, DEFAULT_SCALES, FORM, Handlers
from opensora_demo.ui.language import translate
from opensora_demo.ui.present import chips, file_data
from opensora_demo.ui.words import CHIPS, RULE_NOTES

TITLE = "Open-Sora Demo"
MAX_AT_ONCE = 20  # runs that may wait for the device inside the page; more wait in Gradio's queue
# Folds the settings away on a narrow screen, where the stage and the prompt come first.
FOLD_JS = "() => ({ __type__: 'update', open: window.innerWidth >= 768 })"
SAME_JS = "(text) => text"


def load_examples() -> list[dict[str, Any]]:
    """Clips made by `make_examples`, each {file, prompt, seed, settings}; an empty list where there are none."""
    folder = UI_ASSETS / "examples"
    try:
        entries = json.loads((folder / "examples.json").read_text("utf-8"))
    except (OSError, ValueError):
        return []
    return [
        entry | {"file": file_data(folder / entry["file"]), "chips": chips(entry["settings"] | {"seed": entry["seed"]})}
        for entry in entries
        if (folder / entry["file"]).is_file()
    ]


def slider(span: Range | None, label: str, info: str) -> gr.Slider:
    """A slider over `span`; hidden where the model has no such setting."""
    s = span or Range(low=0, high=1, default=0)
    return PlainSlider(
        s.low, s.high, value=s.default, step=s.step, label=label, info=info, buttons=[], visible=span is not None
    )


def rules_text() -> str:
    """The guidance rules as a table."""
    rows = [
        f"| {RULE_TITLES[name]} | {formula} | {use} | {source} |" for name, (formula, use, source) in RULE_NOTES.items()
    ]
    return "\n".join(["| rule | prediction | what for | source |", "|---|---|---|---|", *rows])


def build_page(handlers: Handlers, *, debug_models: bool = False) -> gr.Blocks:
    """The whole page and its two API endpoints; `debug_models` offers the tiny random ones too."""
    spec = find_model(None)
    limits = spec.limits
    models = [(listed_title(s), s.id) for s in MODELS.values() if debug_models or not s.hidden]
    gr.set_static_paths([UI_ASSETS / "examples"])
    examples = load_examples()
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 7200), fill_width=True) as page:
        gr.HTML(
            f'<header class="os-head"><h1>{TITLE}</h1><p>Type a sentence and watch noise turn into it, step by step, '
            "on this machine.</p></header>",
            js_on_load="window.openSora.sayAll(element);",
        )
        with gr.Tabs(elem_classes="os-tabs"):
            with gr.Tab("Generate", render_children=True), gr.Row(elem_classes="os-columns"):
                with gr.Column(elem_classes="os-left", min_width=320):
                    stage = Stage({"phase": "idle", "examples": examples}, **stage_props("stage", spec))
                with gr.Column(elem_classes="os-right", min_width=320):
                    prompt = PlainText(
                        label="Prompt",
                        lines=1,
                        max_lines=5,
                        placeholder=TOY_PLACEHOLDER,
                        info="What the clip shows. Enter runs it.",
                        elem_id="prompt",
                    )
                    composer = Composer(dict(CHIPS), elem_id="composer")
                    with gr.Row(elem_classes="os-buttons"):
                        go = gr.Button("Generate", variant="primary", elem_id="generate", scale=3, min_width=120)
                        stop = gr.Button("Stop", elem_id="stop", scale=1, min_width=80)
                        die = gr.Button("Surprise me", elem_id="die", scale=1, min_width=144)
                    with gr.Column(elem_classes="os-model"):
                        model = PlainDropdown(
                            models,
                            value=DEFAULT_MODEL,
                            label="Model",
                            elem_id="model",
                            info="Which network draws. The settings follow what it accepts.",
                        )
                        note = gr.Markdown(model_note(spec), elem_classes="os-hint", elem_id="model-note")
                        cost = gr.Markdown("", elem_classes="os-hint", elem_id="cost")
                        fetch = gr.Button("Download the weights", size="sm", elem_id="download", visible=False)
                    with gr.Accordion("Settings", open=False, elem_classes="os-fold") as fold:
                        with gr.Row(elem_classes="os-presets"):
                            presets = [
                                gr.Button(name, size="sm", min_width=64, elem_id=f"preset-{name.lower()}")
                                for name in PRESETS
                            ]
                            opened = gr.UploadButton(
                                "From a file",
                                file_types=[".mp4", ".png"],
                                size="sm",
                                elem_id="open-file",
                                min_width=96,
                            )
                        with gr.Row():
                            steps = slider(limits.steps, "Steps", "More steps: cleaner picture, longer wait.")
                            guidance = slider(
                                limits.guidance,
                                "Guidance scale",
                                "How hard the prompt pulls. 1 is no pull; too much burns the colours.",
                            )
                        with gr.Row():
                            fps = slider(
                                limits.fps,
                                "FPS",
                                "Of the file, and told to the model (from 1.1 on): higher means smaller moves per "
                                "frame, a shorter clip.",
                            )
                            frames = PlainRadio(
                                list(limits.frames),
                                value=limits.default_frames,
                                label="Frames",
                                info="Pictures in the clip. Its length is frames divided by FPS.",
                            )
                        with gr.Row(elem_classes="os-optional"):
                            resolution, aspect = (
                                PlainDropdown(
                                    list(limits.choices[name]),
                                    value=getattr(limits.sizes[0], name),
                                    label=name.capitalize(),
                                    visible=len(limits.choices[name]) > 1,
                                    elem_id=name,
                                    min_width=140,
                                    info=info,
                                )
                                for name, info in (
                                    ("resolution", "How many pixels a picture has."),
                                    ("aspect", "Width to height."),
                                )
                            )
                        with gr.Row(elem_classes="os-seed-row"):
                            with gr.Row(elem_classes="os-seed"):
                                seed = PlainText(
                                    label="Seed",
                                    value="",
                                    lines=1,
                                    max_lines=1,
                                    placeholder="random",
                                    elem_id="seed",
                                    min_width=120,
                                    info="Same seed, same noise, same clip. Empty: a new one.",
                                )
                                dice = gr.Button("Random", size="sm", elem_id="random-seed", min_width=72, scale=0)
                            rule = PlainDropdown(
                                rule_choices(limits),
                                value=limits.rules[0],
                                label="Guidance rule",
                                visible=len(limits.rules) > 1,
                                elem_id="rule",
                                min_width=160,
                                info="How the scale is applied. The Compare tab explains and compares them.",
                            )
                        with gr.Row(elem_classes="os-optional"):
                            image_guidance = slider(
                                limits.image_guidance,
                                "Image guidance",
                                "How hard given frames pull.",
                            )
                            motion_score = slider(
                                limits.motion_score,
                                "Motion score",
                                motion_info(limits),
                            )
                    with gr.Accordion(extras_label(limits), open=False, elem_classes="os-fold") as extras:
                        negative = PlainText(
                            label="Negative prompt",
                            lines=1,
                            max_lines=3,
                            placeholder="nothing",
                            info="What guidance pushes away from. Without effect at guidance 1.",
                        )
                        with gr.Row(elem_classes="os-given"):
                            reference = ReferenceImage(
                                label="First frame",
                                sources=["upload"],
                                type="filepath",
                                height=200,
                                elem_id="reference",
                                buttons=[],
                                min_width=140,
                            )
                            last_frame = ReferenceImage(
                                label="Last frame",
                                sources=["upload"],
                                type="filepath",
                                height=200,
                                elem_id="last-frame",
                                buttons=[],
                                min_width=140,
                                visible=limits.last_frame,
                            )
                            seen = gr.Image(
                                label="As the model sees it",
                                interactive=False,
                                type="filepath",
                                height=200,
                                elem_id="seen",
                                buttons=[],
                                min_width=140,
                                visible=False,
                            )
                        loop = gr.Button("Loop: end as it begins", size="sm", elem_id="loop", visible=limits.last_frame)
                        hint = gr.Markdown(frame_hint(limits), elem_classes="os-hint", elem_id="frame-hint")
                        edit = PlainSlider(
                            0,
                            1,
                            value=0,
                            step=0.05,
                            label="Freedom of given frames",
                            buttons=[],
                            visible=limits.edit,
                            info="0 keeps them; 0.4 lets the last 40 % of the way redraw them.",
                        )
            with gr.Tab("Compare", render_children=True), gr.Column(elem_classes="os-compare"):
                compare_prompt = PlainText(
                    label="Prompt",
                    lines=1,
                    max_lines=3,
                    placeholder=TOY_PLACEHOLDER,
                    elem_id="compare-prompt",
                    info="The same as under Generate.",
                )
                with gr.Row(elem_classes="os-compare-row"):
                    scales = PlainText(
                        label="Guidance scales",
                        value=DEFAULT_SCALES,
                        lines=1,
                        max_lines=1,
                        elem_id="scales",
                        scale=2,
                        min_width=180,
                        info="A column for each: 1, 2, 4, 7 or 1, 2, .., 5.",
                    )
                    axis = PlainDropdown(
                        [(title, name) for name, title in AXES.items()],
                        value="none",
                        label="Rows",
                        elem_id="axis",
                        scale=1,
                        min_width=140,
                        info="A second setting to vary.",
                    )
                    rows = PlainText(
                        label="Values of the rows",
                        lines=1,
                        max_lines=1,
                        elem_id="rows",
                        scale=2,
                        min_width=180,
                        placeholder="none: three seeds",
                        info="Up to four: 4, 8, 16 or red; blue or nano; nano-dit.",
                    )
                with gr.Row(elem_classes="os-compare-row"):
                    rules = PlainChecks(
                        rule_choices(limits),
                        value=[limits.rules[0]],
                        label="Guidance rules",
                        elem_id="rules",
                        visible=len(limits.rules) > 1,
                        scale=4,
                        min_width=280,
                        info="Each is applied at every scale. Up to six clips in a row.",
                    )
                    compare = gr.Button("Compare", variant="primary", elem_id="compare", scale=1, min_width=120)
                    stop_compare = gr.Button("Stop", elem_id="stop-compare", scale=0, min_width=80)
                with gr.Column(elem_classes="os-plan"):
                    plan = gr.Markdown("", elem_classes="os-hint", elem_id="plan")
                    compared_with = gr.Markdown(compare_note(spec), elem_classes="os-hint", elem_id="compare-note")
                grid = Compare({"phase": "idle"}, **stage_props("grid", spec))
                with gr.Accordion("The rules", open=False, elem_classes="os-fold"):
                    gr.Markdown(rules_text(), elem_classes="os-rules")
            with gr.Tab("Scope", render_children=True):
                scope = Scope(elem_id="scope")
            with gr.Tab("How it works", render_children=True):
                explain = Explain({"phase": "idle"}, elem_id="explain")

        named = {
            "prompt": prompt, "negative": negative, "seed": seed, "model": model, "note": note, "composer": composer,
            "die": die, "go": go, "steps": steps, "guidance": guidance, "fps": fps, "frames": frames, "rule": rule,
            "image_guidance": image_guidance, "motion_score": motion_score, "extras": extras, "reference": reference,
            "last_frame": last_frame, "loop": loop, "hint": hint, "edit": edit, "rules": rules, "compare": compare,
            "compare_note": compared_with, "stage": stage, "grid": grid, "scales": scales, "axis": axis, "rows": rows,
            "resolution": resolution, "aspect": aspect,
        }  # fmt: skip
        form = [named[name] for name in FORM]
        compared = [(named | {"prompt": compare_prompt})[name] for name in COMPARE_FORM]
        follows, picked = [named[name] for name in FOLLOWS], [named[name] for name in PICKED]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        run: dict[str, Any] = {
            **quiet,
            "concurrency_limit": MAX_AT_ONCE,
            "concurrency_id": "runs",
            "trigger_mode": "once",
        }
        quick: dict[str, Any] = {**quiet, "queue": False}
        told: dict[str, Any] = {**quiet, "concurrency_limit": None}  # only through the queue do words reach the page
        gr.on([go.click, prompt.submit], handlers.page_generate, form, [stage, scope], **run)
        asks = [compare.click, scales.submit, rows.submit, compare_prompt.submit]
        gr.on(asks, handlers.page_compare, compared, grid, **run)
        gr.on([stop.click, stop_compare.click], handlers.page_stop, None, None, **quick)
        stage.pick(handlers.page_pick, None, picked, **quick)
        grid.pick(handlers.page_pick, None, picked, **quick)
        stage.vary(handlers.page_pick, None, picked, **quick)
        stage.vary(handlers.page_vary, [reference, last_frame], [stage, scope], **run)
        stage.restore(handlers.page_restore, None, [stage, scope], **run)
        grid.restore(handlers.page_restore_comparison, None, grid, **run)
        composer.compose(handlers.page_compose, None, prompt, trigger_mode="multiple", **quick)
        die.click(handlers.page_roll, None, prompt, **quick)
        dice.click(lambda: "", None, seed, **quick)
        for button in presets:
            button.click(handlers.page_preset, [button, model], [steps, guidance], **quick)
        opened.upload(handlers.page_open, opened, picked, **told)
        model.input(handlers.page_model, model, follows, **quick)
        model.change(handlers.page_fetchable, model, fetch, **quick)
        fetched = fetch.click(handlers.page_download, model, cost, **run | {"concurrency_id": "download"})
        fetched.success(handlers.page_model, model, follows, **quick)
        fetched.success(handlers.page_fetchable, model, fetch, **quick)
        given = [reference.change, last_frame.change, model.change, resolution.change, aspect.change]
        gr.on(given, handlers.page_crop, [reference, last_frame, model, resolution, aspect], seen, **told)
        shaped, of_size = [resolution.change, aspect.change], [model, resolution, aspect]
        gr.on(shaped, handlers.page_size, of_size, [stage, grid], trigger_mode="always_last", **quick)
        loop.click(None, reference, last_frame, js="(first) => first", **quick)
        prompt.change(None, prompt, compare_prompt, js=SAME_JS, **quick)
        compare_prompt.change(None, compare_prompt, prompt, js=SAME_JS, **quick)
        planned = [scales.change, axis.change, rows.change, rules.change, model.change, steps.change, page.load]
        gr.on(planned, handlers.page_plan, compared, plan, trigger_mode="always_last", **quick)
        costs = [named[name] for name in COST_FORM]
        costly = [box.change for box in costs]
        counted: dict[str, Any] = {**quiet, "concurrency_limit": 1, "concurrency_id": "cost"}
        gr.on([*costly, page.load], handlers.page_cost, costs, cost, trigger_mode="always_last", **counted)
        fetched.success(handlers.page_cost, costs, cost, **counted)
        explaining = Explaining(handlers)
        explain.explain(explaining.page_explain, [prompt, seed, model], explain, **run)
        explain.glance(explaining.page_glance, [prompt, seed, model], explain, **run)
        explain.halt(handlers.page_stop, None, None, **quick)
        page.load(None, None, fold, js=FOLD_JS, **quiet)
        page.load(handlers.page_link, None, picked, **told)
        add_api(Api(handlers))
    translate(page)
    return page


def add_api(api: Api) -> None:
    """/generate and /compare for programs: inputs that let every value through to the one schema."""
    hidden = gr.Button(visible=False)
    for function, name in ((api.generate, "generate"), (api.compare, "compare")):
        labels = (
            "prompt",
            "negative",
            "reference",
            "fps",
            "frames",
            "steps",
            "guidance",
            "seed",
            "model",
            "last_frame",
            "edit",
            "rule",
            "image_guidance",
            "motion_score",
            "resolution",
            "aspect",
        )
        inputs = [
            (ReferenceImage if label in ("reference", "last_frame") else AnyValue)(label=label, visible=False)
            for label in labels
        ]
        outputs = [gr.File(label="mp4", visible=False), gr.JSON(label="settings", visible=False)]
        hidden.click(
            function,
            inputs,
            outputs,
            api_name=name,
            concurrency_limit=MAX_AT_ONCE,
            concurrency_id="runs",
            show_progress="hidden",
        )
