"""Runs in processes that are forked for a call, as the hub's `spaces` does it where a GPU is lent for one."""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from opensora_demo.catalog import MODELS
from opensora_demo.cluster.packing import ReplicaFault, Ticket
from opensora_demo.cluster.zerogpu import LIKELY_RATES, engine
from opensora_demo.errors import Cancelled, NumericsError, OutOfMemory, RequestError, ServerError
from opensora_demo.explain.run import Progress
from opensora_demo.messages import message, render
from opensora_demo.pipeline import run
from opensora_demo.request.events import Finished, StepPreview
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.bundle import Bundles, build_bundle
from opensora_demo.runtime.cost.work import dtypes_of
from opensora_demo.serve import engine_of
from opensora_demo.service.engine import Loading, Quiet
from opensora_demo.service.local import LocalEngine
from opensora_demo.service.options import (
    GPU_SECONDS,
    SERVER_OPTIONS,
    ServerOptions,
    ZeroGpuOptions,
    add_options,
    read_server_options,
)
from opensora_demo.service.runs import Runs
from opensora_demo.weights.options import WeightOptions

pytestmark = pytest.mark.usefixtures("one_thread")  # as there
MODEL = "debug-1.2"
FORK = multiprocessing.get_context("fork")


class Refusal(Exception):
    """As gradio's, which the hub raises for a visitor to read."""

    def __init__(self, text: str) -> None:
        super().__init__("no words")
        self.message = text


@dataclass
class Space:
    """What `spaces.GPU` is on such a Space, less the GPU: a process for each call, which ends with it."""

    refuses: str = ""
    asked_s: list[int] = field(default_factory=list)
    processes: list[Any] = field(default_factory=list)

    def __call__(self, *, duration: Callable[[Ticket], int]) -> Callable[[Any], Any]:
        def decorate(task: Callable[[Ticket], Iterator[bytes]]) -> Callable[[Ticket], Iterator[bytes]]:
            def call(ticket: Ticket) -> Iterator[bytes]:
                self.asked_s.append(duration(ticket))
                if self.refuses:
                    raise Refusal(self.refuses)
                told, stop = FORK.SimpleQueue(), FORK.Event()

                def work() -> None:
                    with closing(task(ticket)) as said:  # type: ignore[type-var]
                        for data in said:
                            told.put(data)
                            if stop.is_set():
                                return
                    told.put(None)

                process = FORK.Process(target=work, daemon=True)
                process.start()
                self.processes.append(process)
                try:
                    while (data := told.get()) is not None:
                        yield data
                finally:
                    stop.set()

            return call

        return decorate


def engine_on(space: Space, most_s: int = 120) -> LocalEngine:
    return engine(WeightOptions(models=frozenset(MODELS)), space, Refusal, most_s=most_s)


def request_of(**more: Any) -> GenerationRequest:
    words = {"prompt": "a red ball", "steps": 2, "seed": 5} | more
    return parse_request(words, model_id=MODEL, limits=MODELS[MODEL].limits)


def test_a_clip_made_there_is_the_one_made_here() -> None:
    space, request = Space(), request_of(guidance=[1.0, 4.0])
    events = list(engine_on(space).submit(request, look=True).events())
    assert [type(e).__name__ for e in events[:4]] == ["Loading", "Quiet", "Quiet", "Started"]
    assert [e.on for e in events if isinstance(e, Quiet)] == [True, False]
    done = events[-1]
    assert isinstance(done, Finished)
    expected = run(build_bundle(MODELS[MODEL]), request)
    for ours, theirs in zip(expected.clips, done.clips, strict=True):
        assert np.array_equal(ours.frames, theirs.frames)
    (first, _) = (e for e in events if isinstance(e, StepPreview))
    assert first.look is not None
    assert first.look()  # was made there
    assert space.asked_s == [space.asked_s[0]]
    assert 10 < space.asked_s[0] < 120


@pytest.mark.slow
def test_a_run_is_explained_there() -> None:
    parts = list(engine_on(Space()).explain(request_of()).events())
    here = list(LocalEngine(Bundles(WeightOptions(models=frozenset(MODELS)))).explain(request_of()).events())
    assert isinstance(parts[0], Loading)
    assert [type(part) for part in parts] == [type(part) for part in here]
    assert sum(isinstance(part, Progress) for part in parts) > 0


def test_stop_ends_the_call() -> None:
    space = Space()
    job = engine_on(space).submit(request_of(steps=100))
    events = job.events()
    assert any(isinstance(event, StepPreview) for event in events)
    assert job.cancel()
    with pytest.raises(Cancelled):
        next(events)
    assert job.state == "cancelled"
    space.processes[0].join(20)
    assert not space.processes[0].is_alive()


def test_what_the_hub_says_is_read() -> None:
    space = Space(refuses="You have <b>exceeded</b> your quota (60s requested vs. 30s left).")
    job = engine_on(space).submit(request_of())
    with pytest.raises(ServerError) as refused:
        list(job.events())
    assert render(refused.value.message).endswith("You have exceeded your quota (60s requested vs. 30s left).")
    assert job.state == "failed"


def test_more_than_a_call_may_have_is_not_asked_for() -> None:
    space = Space()
    with pytest.raises(RequestError) as refused:
        list(engine_on(space, most_s=10).submit(request_of()).events())
    assert "and a call may have 10 s" in render(refused.value.message)
    assert space.asked_s == []


def test_what_fails_there_fails_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_finite(*_args: Any, **_more: Any) -> Iterator[Any]:
        raise NumericsError(message("run.clip_not_finite"))

    monkeypatch.setattr("opensora_demo.cluster.zerogpu.run_pipeline", not_finite)
    with pytest.raises(NumericsError):
        list(engine_on(Space()).submit(request_of()).events())
    monkeypatch.setattr("opensora_demo.cluster.zerogpu.run_pipeline", lambda *_args, **_more: 1 / 0)
    with pytest.raises(ReplicaFault, match="ZeroDivisionError"):
        list(engine_on(Space()).submit(request_of()).events())


def test_memory_that_runs_out_there_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_args: Any, **_more: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("opensora_demo.runtime.bundle.build_bundle", no_memory)
    with pytest.raises(OutOfMemory):
        list(engine_on(Space()).submit(request_of()).events())


def test_a_run_keeps_the_context_of_the_click() -> None:
    """There `spaces` finds whose quota a call is of."""
    clicked: ContextVar[str] = ContextVar("clicked", default="nobody's")
    seen: list[str] = []
    clicked.set("a visitor's")
    runs = Runs()
    runs.start("owner", lambda _run: seen.append(clicked.get()), lambda *_end: None)
    until = time.monotonic() + 10
    while not seen and time.monotonic() < until:
        time.sleep(0.01)
    assert seen == ["a visitor's"]


def engine_options(**environment: str) -> Any:
    parser = argparse.ArgumentParser()
    add_options(parser, SERVER_OPTIONS)
    return read_server_options(parser.parse_args([]), environment).engine


def test_a_space_with_that_hardware_has_this_engine() -> None:
    assert engine_options() is None
    assert engine_options(SPACES_ZERO_GPU="true") == ZeroGpuOptions(most_s=120)
    assert engine_options(SPACES_ZERO_GPU="1", OPENSORA_GPU_SECONDS="300") == ZeroGpuOptions(most_s=300)
    assert engine_options(SPACES_ZERO_GPU="1", OPENSORA_ENGINE="local") is None
    with pytest.raises(RequestError) as refused:
        engine_options(OPENSORA_GPU_SECONDS="60")
    assert refused.value.field == GPU_SECONDS.flag


def test_elsewhere_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    with pytest.raises(RequestError) as refused:
        engine_of(ServerOptions(engine=ZeroGpuOptions()), WeightOptions())
    assert refused.value.field == "--engine"


def test_rates_are_known_for_what_runs_there() -> None:
    for spec in MODELS.values():
        assert set(dtypes_of(spec, torch.device("cuda")).values()) <= set(LIKELY_RATES)
