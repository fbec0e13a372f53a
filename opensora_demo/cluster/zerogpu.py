"""The engine of a Space with ZeroGPU, where a GPU is there only within calls of a decorated function.

The hub's package `spaces` forks a process for such a call, in which there is a GPU until it returns, and may use that
process for the next one. What goes there is a `Ticket`, what comes back are events as bytes; models are loaded there,
and a process that is used again has them. This process never touches a GPU. The line in front of it is that of the
local engine: one run at a time. `spaces` is named by `serve` alone; here it is a decorator.
"""

from __future__ import annotations

import math
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from threading import Event as Flag
from typing import Any, Protocol

import torch

from opensora_demo.catalog import find_model
from opensora_demo.cluster.packing import Ticket, heard, packed, unpack
from opensora_demo.errors import RequestError, ServerError
from opensora_demo.explain.run import Part
from opensora_demo.explain.run import explain as explain_run
from opensora_demo.import_lock import IMPORT_LOCK
from opensora_demo.memory import total_bytes
from opensora_demo.messages import message
from opensora_demo.pipeline import generate as run_pipeline
from opensora_demo.request.events import Clip, Event
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.bundle import Bundles, ModelBundle
from opensora_demo.runtime.cost.estimator import Estimator, Machine, Rates
from opensora_demo.service.engine import Quiet
from opensora_demo.service.local import LocalEngine
from opensora_demo.weights.options import WeightOptions

LOAD_BYTES_S = 1e9  # a model is read from disk and put onto the device at about this rate
START_S = 10.0  # until a process is there, and for what an estimate cannot know
MARGIN = 1.5  # of what is estimated: a call that takes longer than it said is ended
LIKELY_RATES = {torch.bfloat16: 1.5e14, torch.float32: 2e13}  # FLOP/s of a product on the slices lent in 2026

Call = Callable[[Ticket], Iterator[bytes]]


class Lend(Protocol):
    """`spaces.GPU`."""

    def __call__(self, *, duration: Callable[[Ticket], int]) -> Callable[[Call], Call]: ...


class _Elsewhere:
    """Models are loaded where they run."""

    def __init__(self, options: WeightOptions) -> None:
        self.options = options

    def get(self, model_id: str, check: Callable[[], None]) -> Any:
        check()


class _Calls:
    """The pipeline, each run in a call of its own."""

    def __init__(self, options: WeightOptions, estimator: Estimator, lend: Lend, refusal: type[Exception], most_s: int):
        self._estimator, self._refusal, self._most_s = estimator, refusal, most_s
        self._bundles = Bundles(options)  # of the processes with a GPU: no thread of this one ever holds its lock
        self._call = lend(duration=self.seconds)(self._work)

    def seconds(self, ticket: Ticket) -> int:
        """What a run may take, for which its call asks. Raises RequestError where that is more than a call may have."""
        spec = find_model(ticket.request.model_id)
        weights = sum(part.weights_bytes for part in self._estimator.work(spec, ticket.request).values())
        run = self._estimator.estimate(spec, ticket.request).seconds
        wanted = math.ceil(START_S + weights / LOAD_BYTES_S + MARGIN * run)
        if wanted > self._most_s:
            raise RequestError("run", message("request.gpu_seconds", seconds=wanted, most=self._most_s))
        return wanted

    def generate(
        self, _bundle: ModelBundle, request: GenerationRequest, cancel: Flag | None = None, *, look: bool = False
    ) -> Iterator[Event]:
        """As `pipeline.generate`, less its Cancelled: who closes it ends the run there after the step that goes on."""
        yield from self._run(Ticket(job=secrets.token_urlsafe(12), request=request, look=look))

    def explain(self, _bundle: ModelBundle, request: GenerationRequest, cancel: Flag) -> Iterator[Part]:
        yield from self._run(Ticket(job=secrets.token_urlsafe(12), request=request, explain=True))

    def _run(self, ticket: Ticket) -> Iterator[Any]:
        """Raises ServerError with the words of the hub where it lends no GPU, and what made the run fail."""
        self.seconds(ticket)  # before anything is asked for: a call that is refused still counts
        clips = dict[int, Clip]()
        waits = not ticket.explain
        if waits:
            yield Quiet(True, message("run.gpu_waits"))
        try:
            with closing(self._call(ticket)) as told:  # type: ignore[type-var]
                for data in told:
                    if waits:
                        waits = False
                        yield Quiet(False, message("run.gpu_waits"))
                    yield heard(unpack(data), clips)
        except self._refusal as error:
            raise ServerError(message("run.gpu_refused", text=_plain(str(getattr(error, "message", error))))) from None

    def _work(self, ticket: Ticket) -> Iterator[bytes]:
        """In the process with the GPU."""
        torch.set_num_threads(1)  # the threads of the process that was forked are not there
        yield from packed(self._events(ticket))

    def _events(self, ticket: Ticket) -> Iterator[Any]:
        bundle = self._bundles.get(ticket.request.model_id)
        if ticket.explain:
            yield from explain_run(bundle, ticket.request, Flag())
        else:
            yield from run_pipeline(bundle, ticket.request, look=ticket.look)


def _plain(text: str) -> str:
    """Without the tags that the hub's messages may have."""
    return re.sub(r"<[^>]*>", "", text).strip()


def engine(
    options: WeightOptions,
    lend: Lend,
    refusal: type[Exception],
    *,
    most_s: int,
    machine: Machine | None = None,
    rates: Rates | None = None,
) -> LocalEngine:
    """An engine whose runs ask `lend` for a GPU. `refusal` is what that raises for a visitor to read; `most_s` are the
    seconds that a call may have."""
    estimator = Estimator(options, machine, rates=rates)
    calls = _Calls(options, estimator, lend, refusal, most_s)
    return LocalEngine(
        _Elsewhere(options), generate=calls.generate, explain=calls.explain, estimator=estimator, learn=True
    )


def on_this_space(options: WeightOptions, lend: Lend, refusal: type[Exception], most_s: int) -> LocalEngine:
    """The same where the GPU is. The machine is as `spaces` says it is, which stands in for a GPU in this process."""
    # A process that is forked while a thread imports would wait for that thread for ever.
    os.register_at_fork(
        before=IMPORT_LOCK.acquire, after_in_parent=IMPORT_LOCK.release, after_in_child=IMPORT_LOCK.release
    )
    device = torch.device("cuda")
    machine = Machine("ZeroGPU", total_bytes(device), device)
    rates = Rates(lambda _kind, dtype: LIKELY_RATES[dtype])
    return engine(options, lend, refusal, most_s=most_s, machine=machine, rates=rates)
