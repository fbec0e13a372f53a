"""What the tab "How it works" does on a click, and when it is opened."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from threading import Event as Flag
from typing import Any

import gradio as gr

from opensora_demo.bundle import ModelBundle
from opensora_demo.catalog import RandomWeights, find_model
from opensora_demo.errors import Cancelled, DemoError
from opensora_demo.explain.run import Part, explain
from opensora_demo.types import GenerationRequest
from opensora_demo.ui.controls import PLACEHOLDER, TOY_PLACEHOLDER
from opensora_demo.ui.explained import ExplainView, View
from opensora_demo.ui.handlers import SORRY, Handlers, raw_form, sentences
from opensora_demo.ui.runs import stream
from opensora_demo.ui.words import knows_words
from opensora_demo.weights import why_not

log = logging.getLogger(__name__)
SEED = 7  # where the form names none: the same figures at every visit
UPDATE_S = 0.1  # the page is told at most this often
Watch = Callable[[ModelBundle, GenerationRequest, Flag], Iterator[Part]]


class Explaining:
    """Runs that are watched. They share the handlers' device lock, and the page's Stop ends them too."""

    def __init__(self, handlers: Handlers, *, watch: Watch = explain) -> None:
        self.handlers = handlers
        self._watch = watch
        self._numbers = itertools.count(1)

    def page_explain(self, prompt: Any, seed: Any, model: Any, request: gr.Request) -> Iterator[View]:
        """Values of the figures for the form's prompt, or an example where there is none."""
        with sentences():
            spec = find_model(model)
            text = prompt if not isinstance(prompt, str) or prompt.strip() else None
            text = text or (TOY_PLACEHOLDER if knows_words(spec.id) else PLACEHOLDER)
            chosen = SEED if seed is None or (isinstance(seed, str) and not seed.strip()) else seed
            spec, asked = self.handlers.parse(raw_form(prompt=text, seed=chosen), (None, None), model)
        view = ExplainView(next(self._numbers), asked, spec)
        flag = self.handlers.runs.start(request.session_hash)
        shown = float("-inf")

        try:
            with closing(stream(self.handlers.bundles, self._watch, asked, flag)) as events:  # type: ignore[type-var]
                for event in events:
                    view.add(event)
                    if time.monotonic() - shown >= UPDATE_S:
                        shown = time.monotonic()
                        yield view.value()
            yield view.end("done", "Done")
        except Cancelled:
            yield view.end("stopped", "Stopped")
        except DemoError as error:
            yield view.end("failed", str(error))
            raise gr.Error(str(error), title="Not finished", print_exception=False) from error
        except Exception as error:
            log.exception("an explained run failed")
            yield view.end("failed", SORRY)
            raise gr.Error(SORRY, title="Sorry", print_exception=False) from error
        finally:
            self.handlers.runs.finish(request.session_hash, flag)

    def page_glance(self, prompt: Any, seed: Any, model: Any, request: gr.Request) -> Iterator[View]:
        """The tab was opened for the first time: a run by itself, if it takes seconds; an embedded model's does."""
        with sentences():
            spec = find_model(model)
        if not why_not(spec) and (isinstance(spec.weights, RandomWeights) or spec.weights.embedded):
            yield from self.page_explain(prompt, seed, model, request)
        else:
            yield {"phase": "idle"}
