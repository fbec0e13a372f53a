"""The whole page: its tabs, built and wired."""

from __future__ import annotations

import gradio as gr

from opensora_demo.catalog import DEFAULT_MODEL, MODELS
from opensora_demo.messages import message
from opensora_demo.ui import about, form_memory
from opensora_demo.ui.actions.all import actions_of
from opensora_demo.ui.api import Api, add_api
from opensora_demo.ui.components import Scope
from opensora_demo.ui.context import PageContext
from opensora_demo.ui.controls import listed_title
from opensora_demo.ui.head import TITLE
from opensora_demo.ui.language import mark, speak_to_visitors
from opensora_demo.ui.scripts import start_line
from opensora_demo.ui.tabs import compare, explain, gallery, generate, lesson


def build_page(context: PageContext) -> gr.Blocks:
    """The whole page and its two API endpoints."""
    spec, options, actions = context.options.find_model(None), context.options, actions_of(context)
    hidden = "" if DEFAULT_MODEL in MODELS else " hidden"  # the lesson is about that model
    models = [(mark(listed_title(s, options)), s.id) for s in options.listed()]
    tagline = message("ui.tagline" if context.engine.blind is None else "ui.tagline_server")
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 7200), fill_width=True) as page:
        gr.HTML(
            f'<header class="os-head"><h1>{TITLE}</h1><p>{mark(tagline)}</p>'
            f'<button type="button" class="os-lesson-open"{hidden}>{mark(message("ui.lesson"))}</button></header>',
            js_on_load=start_line("page"),
        )
        teaching = lesson.build()
        with gr.Tabs(elem_classes="os-tabs") as tabs:
            with gr.Tab(mark(message("ui.generate")), id="generate", render_children=True):
                making = generate.build(spec, models, options)
            with gr.Tab(mark(message("ui.compare")), id="compare", render_children=True):
                comparing = compare.build(spec, options)
            with gr.Tab(mark(message("ui.scope")), render_children=True):
                say_blind(context)
                scope = Scope(elem_id="scope")
            with gr.Tab(mark(message("ui.how")), render_children=True):
                say_blind(context)
                explaining = explain.build(spec)
            if context.storage is not None:
                with gr.Tab(mark(message("ui.gallery")), id="gallery"):
                    kept = gallery.build()
        everything = {**making.fields, **making.follows, **comparing.fields, **comparing.follows, **explaining.follows}
        everything["tabs"] = tabs
        generate.wire(making, everything, scope, actions, page)
        compare.wire(comparing, everything, actions, page)
        explain.wire(explaining, everything, actions)
        lesson.wire(teaching, everything, scope, actions)
        about.build(context)
        if context.storage is not None:
            gallery.wire(kept, everything, actions)
        form_memory.wire(everything, actions, page)
        add_api(Api(context))
    speak_to_visitors(page)
    return page


def say_blind(context: PageContext) -> None:
    """Why there is nothing to look into, where that is so."""
    if (why := context.engine.blind) is not None:
        gr.Markdown(mark(why), elem_classes="os-hint os-blind")
