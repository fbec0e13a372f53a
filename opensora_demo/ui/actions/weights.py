"""What a run costs, and the weights it needs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gradio as gr

from opensora_demo.catalog import ElsewhereWeights
from opensora_demo.errors import DemoError, DeviceError, WeightsError
from opensora_demo.messages import Message, in_a_row, message, paragraphs
from opensora_demo.runtime.cost.fits import fit_lines, what_fits
from opensora_demo.runtime.cost.words import bytes_words, in_words
from opensora_demo.service.forms import (
    cost_names,
    example_of_form,
)
from opensora_demo.ui.context import (
    UPDATE_S,
    PageContext,
    may,
    user_errors,
)
from opensora_demo.ui.controls import markdown_list
from opensora_demo.ui.language import mark
from opensora_demo.weights.store import download, download_bytes, free_bytes, missing_places, unavailable_reason

log = logging.getLogger(__name__)


class WeightActions:
    """The lines under the model, and the button that fetches its weights."""

    def __init__(self, context: PageContext) -> None:
        self.context = context
        self._fits: dict[str, list[Message]] = {}

    def cost(self, *values: Any) -> Iterator[Message | str]:
        """What the run of the form would take, in a sentence; empty while the form says nothing that can run. Counting
        may take seconds for a large model, and the last sentence must not stand that long."""
        try:
            spec, wanted = example_of_form(dict(zip(cost_names(), values, strict=True)), self.context.options)
            if isinstance(spec.weights, ElsewhereWeights):  # it is not known what it takes there
                yield ""
                return
            if spec.published:
                yield message("note.counting")
            cost = in_words(self.context.estimator.estimate(spec, wanted))
            if missing := download_bytes(spec, self.context.options):
                cost = in_a_row(cost, message("note.to_download", gb=f"{missing / 1e9:.1f}"))
            words: Message | str = cost
            if not unavailable_reason(spec, self.context.options):  # counting smaller clips takes long
                self.context.estimator.check_fits(spec, wanted)
        except DeviceError as error:
            words = message("note.no_fit", reason=error.message)
        except DemoError:
            words = ""
        except Exception:  # what a run takes is not worth an error, nor may "counting" stand for ever
            log.exception("a run could not be counted")
            words = ""
        yield words

    def fits(self, model: Any) -> Iterator[str]:
        """What of the chosen model fits this device, as a list; counted once."""
        with user_errors():
            spec = self.context.options.find_model(model)
        if spec.id not in self._fits:
            yield mark(message("note.counting"))
            with user_errors():
                self._fits[spec.id] = fit_lines(what_fits(spec, self.context.estimator))
        machine = self.context.estimator.machine
        have = bytes_words(machine.total_bytes)
        lines = [message("note.fits.line", line=line) for line in self._fits[spec.id]]
        yield mark(paragraphs(message("note.fits", machine=machine.name, have=have), markdown_list(lines)))

    def download(self, request: gr.Request, model: Any) -> Iterator[Message | str]:
        """Fetch what the chosen model lacks; how far it is, in a sentence. It stops when the page is left, and goes on
        from there the next time."""
        with user_errors():
            spec = self.context.options.find_model(model)
            if not self.may_download(request):
                raise WeightsError(message("weights.not_from_page"))
            with closing(download(spec, self.context.options)) as coming:  # type: ignore[type-var]
                last_s = -UPDATE_S
                for news in coming:
                    if (now := self.context.clock()) - last_s >= 10 * UPDATE_S or news.done_bytes == news.total_bytes:
                        last_s = now
                        done, total = (f"{size / 1e9:.2f}" for size in (news.done_bytes, news.total_bytes))
                        yield message("run.downloading", file=Path(news.file).name, done=done, total=total)
        yield ""

    def fetchable(self, request: gr.Request, model: Any) -> tuple[Any, Any]:
        """The button that fetches a model's weights: there where it may, and something is missing; and the one that
        asks once more, which is not there yet."""
        with user_errors():
            options = self.context.options
            missing = self.may_download(request) and bool(missing_places(options.find_model(model), options))
        return gr.update(visible=missing), gr.update(visible=False)

    def ask(self, request: gr.Request, model: Any) -> tuple[Any, Any]:
        """Gigabytes are fetched at a second click, on a button that says how many and how much room there is."""
        with user_errors():
            spec = self.context.options.find_model(model)
            if not self.may_download(request):
                raise WeightsError(message("weights.not_from_page"))
            size = download_bytes(spec, self.context.options)
            free = free_bytes(self.context.options.weights_dir)
            folder = self.context.options.weights_name
        label = message("ui.download_surely", gb=f"{size / 1e9:.1f}", folder=folder, free=f"{free / 1e9:.0f}")
        return gr.update(visible=False), gr.update(value=mark(label), visible=True, interactive=free > size)

    def may_download(self, request: gr.Request) -> bool:
        """Not through a proxy, behind which anybody may be, unless it was asked for."""
        return may(self.context.downloads, request.headers)
