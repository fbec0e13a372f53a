"""The tab "How it works": figures about one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from opensora_demo.catalog import ModelSpec
from opensora_demo.messages import message
from opensora_demo.ui.actions.all import Actions
from opensora_demo.ui.components import Explain, PlainText
from opensora_demo.ui.controls import example_prompt, restored_names
from opensora_demo.ui.events import QUICK, RUN
from opensora_demo.ui.language import mark

SAME_JS = "(text) => text"
ABOUT_JS = "(prompt, model) => ({ __type__: 'update', props: { about: { prompt: prompt ?? '', model } } })"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainControls:
    """The components of the tab. `follows` changes with the model."""

    figures: Explain
    prompt: PlainText
    follows: dict[str, Any]


def build(spec: ModelSpec) -> ExplainControls:
    """Draw the tab for `spec`."""
    prompt = PlainText(
        label=mark(message("label.prompt")),
        lines=1,
        max_lines=3,
        placeholder=mark(example_prompt(spec)),
        elem_id="explain-prompt",
        info=mark(message("ui.explain.prompt.hint")),
    )
    figures = Explain({"phase": "idle"}, elem_id="explain", about={"prompt": "", "model": spec.id})
    return ExplainControls(figures=figures, prompt=prompt, follows={"explain_prompt": prompt})


def wire(tab: ExplainControls, everything: dict[str, Any], actions: Actions) -> None:
    """`everything` has the components of the form by name; the prompt is one, on all tabs."""
    prompt, model = everything["prompt"], everything["model"]
    form = [tab.prompt, everything["seed"], model]
    tab.figures.explain(actions.figures.explain, form, tab.figures, **RUN)
    tab.prompt.submit(actions.figures.explain, form, tab.figures, **RUN)
    tab.figures.glance(actions.figures.glance, form, tab.figures, **RUN)
    tab.figures.halt(actions.clips.stop, None, None, **QUICK)
    filled = [everything[name] for name in restored_names()]
    tab.figures.compare(actions.lesson.fill, None, filled, **QUICK)
    tab.figures.compare(actions.lesson.compare_step, None, everything["grid"], **RUN)
    prompt.change(None, prompt, tab.prompt, js=SAME_JS, **QUICK)
    tab.prompt.change(None, tab.prompt, prompt, js=SAME_JS, **QUICK)
    gr.on([tab.prompt.change, model.change], None, [tab.prompt, model], tab.figures, js=ABOUT_JS, **QUICK)
