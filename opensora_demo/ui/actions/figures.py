"""What the tab "How it works" does on a click, and when it is opened."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from opensora_demo.catalog import ModelSpec
from opensora_demo.messages import Message, message, render
from opensora_demo.request.request import GenerationRequest
from opensora_demo.service.engine import State
from opensora_demo.service.forms import open_request
from opensora_demo.service.runs import Run
from opensora_demo.ui.context import PageContext, address_of, phase_of, user_errors
from opensora_demo.ui.controls import example_prompt
from opensora_demo.ui.values.common import IdleValue
from opensora_demo.ui.values.explain import ExplainValue, ExplainView
from opensora_demo.weights.store import unavailable_reason

SEED = 7  # where the form names none: the same figures at every visit


class FigureActions:
    """Runs that are watched from inside. They wait in the same line, and the page's Stop ends them too."""

    def __init__(self, context: PageContext) -> None:
        self.context = context

    def explain(self, request: gr.Request, prompt: Any, seed: Any, model: Any) -> Iterator[ExplainValue]:
        """Values of the figures for the form's prompt, or an example where there is none."""
        with user_errors():
            spec = self.context.options.find_model(model)
            text = prompt if not isinstance(prompt, str) or prompt.strip() else None
            text = text or render(example_prompt(spec))
            chosen = SEED if seed is None or (isinstance(seed, str) and not seed.strip()) else seed
            spec, wanted = open_request({"prompt": text, "seed": chosen, "model": model}, self.context.estimator)

        with user_errors():
            run = self.start(spec, wanted, request.session_hash, address_of(request))
        yield from self.context.follow(run, request)

    def start(
        self, spec: ModelSpec, wanted: GenerationRequest, owner: str | None, visitor: str | None = None
    ) -> Run[ExplainValue]:
        """Begin one run; it publishes values of the figures."""
        view = ExplainView(next(self.context.numbers), wanted, spec)

        def work(run: Run[ExplainValue]) -> ExplainValue:
            for event in run.follow(self.context.engine.explain(wanted, owner)):
                view.add(event)
                run.publish(view.value())
            return view.end("done", message("run.done"))

        def end(state: State, reason: Message, _seconds: float) -> ExplainValue:
            return view.end(phase_of(state), reason)

        return self.context.runs.start(owner, work, end, kind="figures", visitor=visitor, keep=False)

    def glance(self, request: gr.Request, prompt: Any, seed: Any, model: Any) -> Iterator[ExplainValue | IdleValue]:
        """The tab was opened for the first time: a run by itself, if it takes seconds; an embedded model's does."""
        with user_errors():
            spec = self.context.options.find_model(model)
        runs = not unavailable_reason(spec, self.context.options) and self.context.engine.blind is None
        if runs and not spec.published:
            yield from self.explain(request, prompt, seed, model)
        else:
            yield {"phase": "idle"}
