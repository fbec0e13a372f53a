"""A pipeline without a model: the events of a run, as fast or as slow as a test wants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from threading import Event as Flag
from types import SimpleNamespace
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
                    previews=(picture,) * len(request.guidance),
                    guidance=request.guidance,
                )
            yield Decoding(done=1, total=1)
            frames = np.zeros((request.shape.frames, request.shape.height_px, request.shape.width_px, 3), np.uint8)
            clips = tuple(Clip(frames=frames, request=replace(request, guidance=(g,))) for g in request.guidance)
            yield Finished(clips=clips, seconds={"text": 0.1, "denoise": 1.0, "decode": 0.2}, unknown=self.unknown)
        finally:
            self.running -= 1
            self.closed += 1


class FakeBundles:
    """One bundle that is nothing but its lock."""

    def __init__(self) -> None:
        self.bundle = SimpleNamespace(lock=threading.Lock())

    def get(self, model_id: str) -> Any:
        return self.bundle


@pytest.fixture
def pipeline() -> FakePipeline:
    return FakePipeline()


@pytest.fixture
def handlers(pipeline: FakePipeline) -> Iterator[Handlers]:
    made = Handlers(FakeBundles(), generate=pipeline)
    yield made
    made.files.close()
