"""The last line of the page: what this instance is, and how it stands with the line for its device (which
`assets/ui/about` asks for)."""

from __future__ import annotations

import os
from html import escape

import gradio as gr

from opensora_demo import __version__
from opensora_demo.messages import Param, message
from opensora_demo.runtime.cost.words import short
from opensora_demo.ui.context import PageContext
from opensora_demo.ui.language import mark
from opensora_demo.ui.scripts import start_line


def build(context: PageContext) -> gr.HTML:
    """`context.about` is what the host says; it stands first, as text."""
    machine, spec = context.estimator.machine, [s.title for s in context.options.listed()]
    memory = short(machine.total_bytes / 1e9)
    name: Param = message("ui.about.cores", n=os.cpu_count() or 1) if machine.device.type == "cpu" else machine.name
    code = "ui.about.facts" if context.engine.blind is None else "ui.about.facts_server"
    facts = message(code, version=__version__, machine=name, gb=memory, models=len(spec))
    rules = message("ui.about.rules", clips=context.files.keep)
    own = f"<p>{escape(context.about)}</p>" if context.about else ""
    return gr.HTML(
        f'<details class="os-about"><summary>{mark(message("ui.about"))} <span class="os-line"></span></summary>'
        f"{own}<p>{mark(facts)} {mark(rules)}</p></details>",
        js_on_load=start_line("about"),
    )
