"""The tab "Compare": clips of one noise at several scales and by several rules, in step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from opensora_demo.catalog import ModelSpec
from opensora_demo.messages import message
from opensora_demo.sampling.guidance_notes import GUIDANCE_NOTES
from opensora_demo.service.forms import AXES, DEFAULT_SCALES, MAX_SEEDS, compare_names
from opensora_demo.ui.actions.all import Actions
from opensora_demo.ui.components import Compare, PlainChecks, PlainDropdown, PlainRadio, PlainText
from opensora_demo.ui.controls import compare_note, example_prompt, rule_choices, stage_props, titled, updated_names
from opensora_demo.ui.events import QUICK, RUN, WATCH, on_last
from opensora_demo.ui.language import mark
from opensora_demo.ui.scripts import call_js
from opensora_demo.weights.options import WeightOptions

SAME_JS = "(text) => text"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareControls:
    """The components of the tab. `fields` are its own settings by name, `follows` what changes with the model;
    `presets` and `models` write the field of the rows."""

    prompt: PlainText
    grid: Compare
    fields: dict[str, Any]
    follows: dict[str, Any]
    presets: PlainRadio
    models: PlainChecks
    stop: gr.Button
    plan: gr.Markdown


def build(spec: ModelSpec, options: WeightOptions) -> CompareControls:
    """Draw the tab for `spec`."""
    limits = spec.limits
    with gr.Column(elem_classes="os-compare-tab"):
        compare_prompt = PlainText(
            label=mark(message("label.prompt")),
            lines=1,
            max_lines=3,
            placeholder=mark(example_prompt(spec)),
            elem_id="compare-prompt",
            info=mark(message("ui.same_prompt")),
        )
        with gr.Row(elem_classes="os-compare-form"):
            scales = PlainText(
                label=mark(message("label.scales")),
                value=DEFAULT_SCALES,
                lines=1,
                max_lines=1,
                elem_id="scales",
                scale=2,
                min_width=180,
                info=mark(message("label.scales.hint")),
            )
            axis = PlainDropdown(
                [(mark(message(f"label.axis.{name}")), name) for name in AXES],
                value="none",
                label=mark(message("label.axis")),
                elem_id="axis",
                scale=1,
                min_width=140,
                info=mark(message("label.axis.hint")),
            )
            with gr.Column(scale=2, min_width=180, elem_classes="os-compare-rows"):
                rows = PlainText(
                    label=mark(message("label.rows")),
                    lines=1,
                    max_lines=1,
                    elem_id="rows",
                    placeholder=mark(message("label.rows.placeholder")),
                    info=mark(message("label.rows.hint")),
                    visible=False,
                )
                presets = PlainRadio(
                    [],
                    elem_id="row-presets",
                    label=mark(message("label.rows.presets")),
                    show_label=False,
                    visible=False,
                )
                models = PlainChecks(
                    [],
                    elem_id="row-models",
                    label=mark(message("label.rows")),
                    info=mark(message("label.rows.hint.model")),
                    visible=False,
                )
        with gr.Row(elem_classes="os-compare-form"):
            rules = PlainChecks(
                titled(rule_choices(limits)),
                value=[limits.rules[0]],
                label=mark(message("label.rules")),
                elem_id="rules",
                visible=len(limits.rules) > 1,
                scale=4,
                min_width=280,
                info=mark(message("label.rules.hint")),
            )
            seeds = PlainDropdown(
                [1, 4, 8, MAX_SEEDS],
                value=1,
                label=mark(message("label.seeds")),
                elem_id="seeds",
                scale=1,
                min_width=140,
                info=mark(message("label.seeds.hint")),
            )
            compare = gr.Button(
                mark(message("ui.compare")), variant="primary", elem_id="compare", scale=1, min_width=120
            )
            stop_compare = gr.Button(mark(message("ui.stop")), elem_id="stop-compare", scale=0, min_width=80)
        with gr.Column(elem_classes="os-plan"):
            plan = gr.Markdown("", elem_classes="os-hint", elem_id="plan")
            compared_with = gr.Markdown(
                mark(compare_note(spec, options)), elem_classes="os-hint", elem_id="compare-note"
            )
        grid = Compare({"phase": "idle"}, **stage_props("grid", spec, options=options))
        with gr.Accordion(mark(message("ui.rules")), open=False, elem_classes="os-fold"):
            gr.Markdown(rules_text(), elem_classes="os-rules")
    return CompareControls(
        prompt=compare_prompt,
        grid=grid,
        fields={"scales": scales, "rules": rules, "axis": axis, "rows": rows, "seeds": seeds},
        follows={"rules": rules, "compare": compare, "compare_note": compared_with, "grid": grid},
        presets=presets,
        models=models,
        stop=stop_compare,
        plan=plan,
    )


def rules_text() -> str:
    """The guidance rules as a table."""
    rows = []
    for rule, note in GUIDANCE_NOTES.items():
        cells = (message(f"label.rule.{rule}"), note.purpose, note.formula, note.passes)
        rows.append(f"| {' | '.join(map(mark, cells))} | {note.source} |")
    heads = " | ".join(mark(message(f"ui.rules.{head}")) for head in ("rule", "use", "prediction", "passes", "source"))
    return "\n".join([f"| {heads} |", "|---|---|---|---|---|", *rows])


def wire(tab: CompareControls, everything: dict[str, Any], actions: Actions, page: gr.Blocks) -> None:
    """`everything` has the components of both forms by name; the prompt is one, on two tabs."""
    prompt, fields = everything["prompt"], tab.fields
    form = [(everything | {"prompt": tab.prompt})[name] for name in compare_names()]
    asks = [tab.follows["compare"].click, fields["scales"].submit, fields["rows"].submit, tab.prompt.submit]
    first = call_js("stage/first.js", "filled", "#compare-prompt", compare_names())
    gr.on(asks, actions.comparison.make_comparison, form, tab.grid, js=first, **RUN)
    tab.stop.click(actions.clips.stop, None, None, **QUICK)
    tab.grid.pick(actions.form.pick, None, [everything[name] for name in updated_names()], **QUICK)
    tab.grid.resume(actions.comparison.resume, None, tab.grid, **RUN)
    tab.grid.restore(actions.comparison.restore, None, tab.grid, **WATCH)
    tab.grid.keep(actions.clips.keep, None, None, **QUICK)
    prompt.change(None, prompt, tab.prompt, js=SAME_JS, **QUICK)
    tab.prompt.change(None, tab.prompt, prompt, js=SAME_JS, **QUICK)
    axis, rows, model = fields["axis"], fields["rows"], everything["model"]
    parts = [rows, tab.presets, tab.models, fields["seeds"]]  # controls.ROW_FIELDS
    axis.input(actions.comparison.choose_axis, [axis, rows, model], parts, **QUICK)
    changed = [axis.change, model.change]
    on_last(changed, actions.comparison.follow_axis, [axis, rows, model], parts, **QUICK)
    tab.presets.input(None, tab.presets, rows, js=SAME_JS, **QUICK)
    tab.models.input(None, tab.models, rows, js='(ids) => ids.join("; ")', **QUICK)
    rows.input(None, None, tab.presets, js="() => null", **QUICK)
    planned = [*fields.values(), everything["model"]]
    changes = [*(box.change for box in (*planned, everything["steps"])), page.load]
    on_last(changes, actions.comparison.plan, form, tab.plan, **QUICK)
