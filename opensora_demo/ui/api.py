"""What a program can call: /generate and /compare. A call that is given up stops its run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
from gradio.components import Component

from opensora_demo.messages import Message
from opensora_demo.request import settings as table
from opensora_demo.request.events import Finished
from opensora_demo.request.parse import parse_guidance_list
from opensora_demo.request.settings import Choice, Kind, Number, Picture, VideoFile
from opensora_demo.service.engine import State
from opensora_demo.service.forms import DEFAULT_SCALES, MAX_TYPED, Form, open_request
from opensora_demo.service.runs import Run
from opensora_demo.ui.components import AnyValue, GivenVideo, ReferenceImage
from opensora_demo.ui.context import PageContext, address_of, user_errors
from opensora_demo.ui.events import RUNS
from opensora_demo.ui.values.stage import RunView

NEWS_S = 0.25  # a caller is told at most this often

Answer = tuple[str | None, dict[str, Any]]
News = Iterator[Answer]


def endpoint(function: Callable[[gr.Request, dict[str, Any]], News]) -> Callable[..., News]:
    """A function with a parameter for each setting, all of them None if left out, in the order of the table."""

    def call(*values: Any, **named: Any) -> News:
        given = inspect.signature(call).bind(*values, **named)
        given.apply_defaults()
        form = dict(given.arguments)
        yield from function(form.pop("visitor"), form)

    both = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, both, default=None, annotation=Any) for name in table.names()]
    visitor = inspect.Parameter("visitor", both, annotation=gr.Request)  # which Gradio fills in
    call.__signature__ = inspect.Signature([visitor, *parameters])  # type: ignore[attr-defined]
    call.__annotations__ = {"visitor": gr.Request}
    call.__name__, call.__doc__ = function.__name__, function.__doc__
    return call


class Api:
    """The functions behind the endpoints."""

    def __init__(self, context: PageContext) -> None:
        self.context = context

    def _call(self, request: gr.Request, form: Form) -> News:
        """News of a run as (None, state), then (file, settings)."""
        form = {**form, "prompt": "" if form["prompt"] is None else form["prompt"]}
        with user_errors():
            spec, wanted = open_request(form, self.context.estimator)
            view = RunView(0, "", wanted, spec, pictures=False)

            def work(run: Run[Answer]) -> Answer:
                last: Answer | None = None
                for event in run.follow(self.context.engine.submit(wanted)):
                    view.add(event)
                    run.publish((None, view.news(run.elapsed_s)))
                    if isinstance(event, Finished):
                        file, settings = self.context.files.write_run(wanted, event)
                        last = str(file), settings
                assert last is not None
                return last

            def end(state: State, reason: Message, seconds: float) -> Answer:
                return None, view.news(seconds)

            run = self.context.runs.start(None, work, end, kind="call", visitor=address_of(request), keep=False)
        try:
            yield from self.context.follow(run, request, NEWS_S)
        finally:
            run.cancel()

    def generate(self, request: gr.Request, form: dict[str, Any]) -> News:
        """Make one clip of `prompt`; answers the mp4 and its settings: the seed used, seconds per stage, unknown words.

        Everything but the prompt may be left out and takes the model's default; without a seed, or with -1, a random
        one is taken. While it runs a job's outputs are (null, state).
        """
        several = {s.name for s in table.SETTINGS if isinstance(s.kind, Number | Choice) and s.kind.several}
        yield from self._call(
            request,
            # several are /compare's: as a text they are refused by the parser
            {k: str(v) if k in several and isinstance(v, list | tuple) else v for k, v in form.items()},
        )

    def compare(self, request: gr.Request, form: dict[str, Any]) -> News:
        """The same prompt and noise at several guidance scales, such as "1, 2, 4, 7", and by one or several rules;
        answers one labelled grid mp4."""
        scales = DEFAULT_SCALES if form["guidance"] is None else form["guidance"]
        with user_errors():
            scales = parse_guidance_list(scales[:MAX_TYPED]) if isinstance(scales, str) else scales
        yield from self._call(request, form | {"guidance": scales})


def _input(kind: Kind) -> type[Component]:
    match kind:
        case Picture():
            return ReferenceImage
        case VideoFile():
            return GivenVideo
        case _:
            return AnyValue


def add_api(api: Api) -> None:
    """/generate and /compare on the page that is being built: inputs that let every value through to the one parser."""
    hidden = gr.Button(visible=False)
    for function in (api.generate, api.compare):
        inputs = [_input(setting.kind)(label=setting.name, visible=False) for setting in table.SETTINGS]
        hidden.click(
            endpoint(function),
            inputs,
            [gr.File(label="mp4", visible=False), gr.JSON(label="settings", visible=False)],
            api_name=function.__name__,
            concurrency_limit=None,
            concurrency_id=RUNS,
            show_progress="hidden",
        )
