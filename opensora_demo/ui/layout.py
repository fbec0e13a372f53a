"""Where things stand on the page, and which function each of them calls."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from opensora_demo.catalog import DEFAULT_MODEL, MODELS, find_model
from opensora_demo.types import Limits
from opensora_demo.ui.components import (
    UI_ASSETS,
    AnyValue,
    Composer,
    PlainDropdown,
    PlainRadio,
    PlainSlider,
    PlainText,
    ReferenceImage,
    Stage,
)
from opensora_demo.ui.handlers import DEFAULT_SCALES, Handlers
from opensora_demo.ui.present import chips, file_data
from opensora_demo.ui.words import CHIPS

TITLE = "Open-Sora Demo"
MAX_AT_ONCE = 20  # runs that may wait for the device inside the page; more wait in Gradio's queue
# Folds the settings away on a narrow screen, where the stage and the prompt come first.
FOLD_JS = "() => ({ __type__: 'update', open: window.innerWidth >= 768 })"


def load_examples() -> list[dict[str, Any]]:
    """Clips made by `make_examples`, each {file, prompt, seed, settings}; an empty list where there are none."""
    folder = UI_ASSETS / "examples"
    try:
        entries = json.loads((folder / "examples.json").read_text("utf-8"))
    except (OSError, ValueError):
        return []
    return [
        entry | {"file": file_data(folder / entry["file"]), "chips": chips(entry["settings"] | {"seed": entry["seed"]})}
        for entry in entries if (folder / entry["file"]).is_file()
    ]


def slider(span: Any, label: str, info: str) -> gr.Slider:
    return PlainSlider(span.low, span.high, value=span.default, step=span.step, label=label, info=info, buttons=[])


def limit_updates(model: object) -> list[Any]:
    """FPS, frames, steps and guidance as the chosen model allows them."""
    limits: Limits = find_model(model).limits
    spans = (limits.fps, limits.steps, limits.guidance)
    fps, steps, guidance = (gr.update(minimum=s.low, maximum=s.high, value=s.default, step=s.step) for s in spans)
    return [fps, gr.update(choices=list(limits.frames), value=limits.default_frames), steps, guidance]


def build_page(handlers: Handlers) -> gr.Blocks:
    """The whole page and its two API endpoints."""
    limits = MODELS[DEFAULT_MODEL].limits
    gr.set_static_paths([UI_ASSETS / "examples"])
    examples = load_examples()
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 7200), fill_width=True) as page:
        gr.HTML(
            f'<header class="os-head"><h1>{TITLE}</h1><p>Type a sentence and watch noise turn into it, step by step, '
            "on this machine.</p></header>", js_on_load=None,
        )
        with gr.Tabs(elem_classes="os-tabs"):
            with gr.Tab("Generate"), gr.Row(elem_classes="os-columns"):
                with gr.Column(elem_classes="os-left", min_width=320):
                    stage = Stage({"phase": "idle", "examples": examples}, name="stage")
                with gr.Column(elem_classes="os-right", min_width=320):
                    prompt = PlainText(
                        label="Prompt", lines=1, max_lines=5, placeholder="a red ball bouncing over a meadow",
                        info="What the clip shows. Enter runs it.", elem_id="prompt",
                    )
                    composer = Composer(dict(CHIPS), elem_id="composer")
                    with gr.Row(elem_classes="os-buttons"):
                        go = gr.Button("Generate", variant="primary", elem_id="generate", scale=3, min_width=120)
                        stop = gr.Button("Stop", elem_id="stop", scale=1, min_width=80)
                        die = gr.Button("Surprise me", elem_id="die", scale=1, min_width=144)
                    with gr.Accordion("Settings", open=False, elem_classes="os-fold") as fold:
                        with gr.Row():
                            steps = slider(limits.steps, "Steps", "More steps: cleaner picture, longer wait.")
                            guidance = slider(
                                limits.guidance, "Guidance scale",
                                "How hard the prompt pulls. 1 is no pull; too much burns the colours.",
                            )
                        with gr.Row():
                            fps = slider(
                                limits.fps, "FPS",
                                "Told to the model and used by the file: higher means smaller moves per frame, a "
                                "shorter clip.",
                            )
                            frames = PlainRadio(
                                list(limits.frames), value=limits.default_frames, label="Frames",
                                info="Pictures in the clip. Its length is frames divided by FPS.",
                            )
                        with gr.Row(elem_classes="os-seed-row"):
                            with gr.Row(elem_classes="os-seed"):
                                seed = PlainText(
                                    label="Seed", value="", lines=1, max_lines=1, placeholder="random",
                                    elem_id="seed", min_width=120,
                                    info="Same seed, same noise, same clip. Empty: a new one.",
                                )
                                dice = gr.Button("Random", size="sm", elem_id="random-seed", min_width=72, scale=0)
                            model = PlainDropdown(
                                [(spec.title, spec.id) for spec in MODELS.values()], value=DEFAULT_MODEL, label="Model",
                                info="Which network draws. The settings follow what it accepts.", min_width=200,
                            )
                    with gr.Accordion("Negative prompt and first frame", open=False, elem_classes="os-fold"):
                        negative = PlainText(
                            label="Negative prompt", lines=1, max_lines=3, placeholder="nothing",
                            info="What guidance pushes away from. Without effect at guidance 1.",
                        )
                        reference = ReferenceImage(
                            label="First frame", sources=["upload"], type="filepath", height=200,
                            elem_id="reference", buttons=[],
                        )
                        gr.Markdown(
                            "The clip starts from this picture (PNG, JPEG or WebP, cropped to a square).",
                            elem_classes="os-hint",
                        )
            with gr.Tab("Compare guidance"), gr.Column(elem_classes="os-compare"):
                with gr.Row(elem_classes="os-compare-row"):
                    scales = PlainText(
                        label="Guidance scales", value=DEFAULT_SCALES, lines=1, max_lines=1, elem_id="scales", scale=3,
                        info="Up to six clips from the same prompt, noise and settings as on the first tab.",
                    )
                    compare = gr.Button("Compare", variant="primary", elem_id="compare", scale=1, min_width=120)
                    stop_compare = gr.Button("Stop", elem_id="stop-compare", scale=1, min_width=80)
                grid = Stage({"phase": "idle"}, name="grid", wide=True)

        form = [prompt, negative, reference, fps, frames, steps, guidance, seed, model]
        compared = [*form[:6], scales, *form[7:]]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        run: dict[str, Any] = {
            **quiet, "concurrency_limit": MAX_AT_ONCE, "concurrency_id": "runs", "trigger_mode": "once",
        }
        quick: dict[str, Any] = {**quiet, "queue": False}
        picked = [prompt, negative, fps, frames, steps, guidance, seed]
        gr.on([go.click, prompt.submit], handlers.page_generate, form, stage, **run)
        gr.on([compare.click, scales.submit], handlers.page_compare, compared, grid, **run)
        gr.on([stop.click, stop_compare.click], handlers.page_stop, None, None, **quick)
        stage.pick(handlers.page_pick, None, picked, **quick)
        stage.vary(handlers.page_pick, None, picked, **quick).then(handlers.page_generate, form, stage, **run)
        composer.compose(handlers.page_compose, None, prompt, trigger_mode="multiple", **quick)
        die.click(handlers.page_roll, None, prompt, **quick)
        dice.click(lambda: "", None, seed, **quick)
        model.change(limit_updates, model, [fps, frames, steps, guidance], **quick)
        page.load(None, None, fold, js=FOLD_JS, **quiet)
        add_api(handlers)
    return page


def add_api(handlers: Handlers) -> None:
    """/generate and /compare for programs: inputs that let every value through to the one schema."""
    hidden = gr.Button(visible=False)
    for function, name in ((handlers.api_generate, "generate"), (handlers.api_compare, "compare")):
        labels = ("prompt", "negative", "reference", "fps", "frames", "steps", "guidance", "seed", "model")
        inputs = [
            ReferenceImage(label=label, visible=False) if label == "reference" else AnyValue(label=label, visible=False)
            for label in labels
        ]
        outputs = [gr.File(label="mp4", visible=False), gr.JSON(label="settings", visible=False)]
        hidden.click(
            function, inputs, outputs, api_name=name, concurrency_limit=MAX_AT_ONCE, concurrency_id="runs",
            show_progress="hidden",
        )
