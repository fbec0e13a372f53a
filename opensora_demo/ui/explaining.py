"""What the tab "How it works" does on a click, and when it is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from threading import Event as Flag
from typing import Any

import gradio as gr

from opensora_demo.bundle import ModelBundle
from opensora_demo.catalog import find_model
from opensora_demo.catalog.spec import HubWeights
from opensora_demo.explain.run import Part, explain
from opensora_demo.store import why_not
from opensora_demo.types import GenerationRequest
from opensora_demo.ui.controls import PLACEHOLDER, TOY_PLACEHOLDER
from opensora_demo.ui.explained import ExplainView, View
from opensora_demo.ui.handlers import Handlers, noting, sentences
from opensora_demo.ui.jobs import Job
from opensora_demo.ui.runs import stream
from opensora_demo.ui.words import knows_words

SEED = 7  # where the form names none: the same figures at every visit
Watch = Callable[[ModelBundle, GenerationRequest, Flag], Iterator[Part]]


class Explaining:
    """Runs that are watched. They share the handlers' device lock, and the page's Stop ends them too."""

    def __init__(self, handlers: Handlers, *, watch: Watch = explain) -> None:
        self.handlers = handlers
        self._watch = watch

    def page_explain(self, request: gr.Request, prompt: Any, seed: Any, model: Any) -> Iterator[View]:
        """Values of the figures for the form's prompt, or an example where there is none."""
        with sentences():
            spec = find_model(model)
            text = prompt if not isinstance(prompt, str) or prompt.strip() else None
            text = text or (TOY_PLACEHOLDER if knows_words(spec.id) else PLACEHOLDER)
            chosen = SEED if seed is None or (isinstance(seed, str) and not seed.strip()) else seed
            spec, asked = self.handlers.parse({"prompt": text, "seed": chosen}, (None, None), model)

        def work(job: Job) -> None:
            view = ExplainView(next(self.handlers.numbers), asked, spec)

            def run(begin: float) -> None:
                events = stream(self.handlers.bundles, self._watch, asked, job.cancel)
                with closing(events):  # type: ignore[type-var]
                    for event in noting(job, events):
                        view.add(event)
                        job.publish(view.value())
                job.publish(view.end("done", "Done"))

            self.handlers.attend(job, lambda phase, text, seconds: view.end(phase, text), run)

        with sentences():
            job = self.handlers.jobs.start(request.session_hash, work, keep=False)
        yield from self.handlers.follow(job)

    def page_glance(self, request: gr.Request, prompt: Any, seed: Any, model: Any) -> Iterator[View]:
        """The tab was opened for the first time: a run by itself, if it takes seconds; an embedded model's does."""
        with sentences():
            spec = find_model(model)
        if not why_not(spec) and not isinstance(spec.weights, HubWeights):
            yield from self.page_explain(request, prompt, seed, model)
        else:
            yield {"phase": "idle"}
