"""A pipeline without a model: the events of a run, as fast or as slow as a test wants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Event as Flag
from typing import Any

import numpy as np
import pytest

from opensora_demo.errors import Cancelled
from opensora_demo.types import (
    Clip,
    Decoding,
    Encoded,
    Event,
    Finished,
    GenerationRequest,
    Started,
    StepPreview,
)
from opensora_demo.ui.handlers import Handlers
from opensora_demo.ui.jobs import Job


@dataclass
class FakePipeline:
    """Stands in for `pipeline.generate`; `gate` is waited for before every step, `at_step` is called at every step."""

    unknown: tuple[str, ...] = ()
    error: Exception | None = None
    gate: threading.Semaphore | None = None
    at_step: Callable[[int], None] = lambda index: None
    running: int = 0
    most_running: int = 0
    closed: int = 0
    started: threading.Event = field(default_factory=threading.Event)

    def __call__(self, bundle: Any, request: GenerationRequest, cancel: Flag, *, look: bool = False) -> Iterator[Event]:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            yield Started(request=request)
            yield Encoded(unknown=self.unknown, cut_tokens=0, seconds=0.1)
            self.started.set()
            for index in range(request.steps):
                while self.gate is not None and not self.gate.acquire(timeout=0.01):
                    if cancel.is_set():
                        raise Cancelled("the run was stopped")
                if cancel.is_set():
                    raise Cancelled("the run was stopped")
                self.at_step(index)
                if self.error is not None and index == 1:
                    raise self.error
                picture = np.full((5, 8, 8, 3), index * 8 % 256, np.uint8)
                yield StepPreview(
                    index=index,
                    total=request.steps,
                    t=1 - index / request.steps,
                    seconds=0.1 * (index + 1),
                    previews=(picture,) * len(request.columns),
                    guidance=tuple(scale for scale, _ in request.columns),
                )
            shape, total = request.shape, len(request.columns)
            clips = []
            for k in range(total):
                frames = np.full((shape.frames, shape.height_px, shape.width_px, 3), 10 * k, np.uint8)
                clips.append(Clip(frames=frames, request=request.column(k)))
                yield Decoding(done=k + 1, total=total, clip=clips[-1])
            yield Finished(
                clips=tuple(clips), seconds={"text": 0.1, "denoise": 1.0, "decode": 0.2}, unknown=self.unknown
            )
        finally:
            self.running -= 1
            self.closed += 1


class FakeBundles:
    """A device, and no models."""

    def __init__(self) -> None:
        self.device = threading.Lock()

    def get(self, model_id: str) -> Any:
        return None


@pytest.fixture
def pipeline() -> FakePipeline:
    return FakePipeline()


@pytest.fixture
def handlers(pipeline: FakePipeline) -> Iterator[Handlers]:
    made = Handlers(FakeBundles(), generate=pipeline)
    yield made
    made.files.close()


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every value that runs publish; a watcher may miss some."""
    values: list[dict[str, Any]] = []
    publish = Job.publish

    def noted(job: Job, value: Any) -> None:
        values.append(value)
        publish(job, value)

    monkeypatch.setattr(Job, "publish", noted)
    return values


@pytest.fixture(autouse=True)
def _no_run_outlives_its_test() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("run-"):
            thread.join(60)
            assert not thread.is_alive()
