"""A pipeline without a model: the events of a run, as fast or as slow as a test wants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Event as Flag
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from opensora_demo.errors import Cancelled
from opensora_demo.messages import from_json, plain, render
from opensora_demo.request.events import Clip, DecodedFrames, Decoding, Encoded, Event, Finished, Started, StepPreview
from opensora_demo.request.request import GenerationRequest
from opensora_demo.request.video import Frames
from opensora_demo.service.local import LocalEngine
from opensora_demo.service.runs import Run
from opensora_demo.ui.actions.all import Actions, actions_of
from opensora_demo.ui.context import PageContext
from opensora_demo.weights.options import WeightOptions

if TYPE_CHECKING:
    from tests.ui.server import Server


@dataclass
class FakePipeline:
    """Stands in for `pipeline.generate`; `gate` is waited for before every step, `at_step` is called at every step, and
    where there are `parts` a clip's frames up to each of them are told before it is whole, `at_part` between them."""

    unknown: tuple[str, ...] = ()
    error: Exception | None = None
    gate: threading.Semaphore | None = None
    at_step: Callable[[int], None] = lambda index: None
    parts: tuple[int, ...] = ()
    at_part: Callable[[int], None] = lambda end: None
    clip_grey: int = 0
    picture: Callable[[int], Frames] = lambda index: np.full((5, 8, 8, 3), index * 8 % 256, np.uint8)
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
                        raise Cancelled(plain("the run was stopped"))
                if cancel.is_set():
                    raise Cancelled(plain("the run was stopped"))
                self.at_step(index)
                if self.error is not None and index == 1:
                    raise self.error
                picture = self.picture(index)
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
                grey = self.clip_grey + 10 * k
                frames = np.full((shape.frames, shape.height_px, shape.width_px, 3), grey, np.uint8)
                for first, end in zip((0, *self.parts), self.parts, strict=False):
                    part, seconds = frames[first:end], 100.0 * end
                    yield DecodedFrames(first=first, frames=part, total=len(frames), seconds=seconds, column=k)
                    self.at_part(end)
                clips.append(Clip(frames=frames, request=request.column(k)))
                yield Decoding(done=k + 1, total=total, clip=clips[-1], column=k)
            yield Finished(
                clips=tuple(clips), seconds={"text": 0.1, "denoise": 1.0, "decode": 0.2}, unknown=self.unknown
            )
        finally:
            self.running -= 1
            self.closed += 1


class FakeBundles:
    """No models."""

    def __init__(self) -> None:
        self.options = WeightOptions()

    def get(self, model_id: str, check: Callable[[], None] = lambda: None) -> Any:
        return None


@pytest.fixture
def pipeline() -> FakePipeline:
    return FakePipeline()


@pytest.fixture
def actions(pipeline: FakePipeline) -> Iterator[Actions]:
    context = PageContext(LocalEngine(FakeBundles(), generate=pipeline))
    yield actions_of(context)
    context.files.close()


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every value that runs publish; a watcher may miss some."""
    values: list[dict[str, Any]] = []
    publish = Run.publish

    def noted(run: Run[Any], value: Any) -> None:
        values.append(value)
        publish(run, value)

    monkeypatch.setattr(Run, "publish", noted)
    return values


@pytest.fixture(autouse=True)
def _no_run_outlives_its_test() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("run-"):
            thread.join(60)
            assert not thread.is_alive()


def read(said: Any) -> str:
    """A message of a value, in English."""
    return render(from_json(said))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests of a file."""
    from tests.ui.server import serving

    with serving(tmp_path_factory.mktemp("served")) as made:
        yield made


@pytest.fixture
def gate(server: Server) -> Iterator[threading.Semaphore]:
    """Runs of the server go on a step at a time while a test has it."""
    from tests.ui.server import going, until

    server.pipeline.gate = gate = threading.Semaphore(0)
    yield gate
    server.pipeline.gate = None
    until(lambda: not going(server) and server.pipeline.running == 0)
