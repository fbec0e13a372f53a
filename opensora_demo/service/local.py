"""The engine of this process: one device, one run at a time, first come, first served.

Whoever reads a job's events does its work, in his own thread and at his own pace: a reader that stops reading holds
nothing but its turn, and one that closes the events ends the run. No lock is held while an event is out.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from threading import Event as Flag
from typing import Any, Generic, Protocol, TypeVar

from opensora_demo.catalog import find_model
from opensora_demo.errors import OutOfMemory
from opensora_demo.explain.run import Part
from opensora_demo.explain.run import explain as explain_run
from opensora_demo.memory import is_out_of_memory, let_go
from opensora_demo.messages import Message, message
from opensora_demo.pipeline import generate as run_pipeline
from opensora_demo.request.events import Event, Finished
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.bundle import ModelBundle
from opensora_demo.runtime.cost.estimator import Estimator
from opensora_demo.service.engine import Line, Loading, ModelOffer, Waiting
from opensora_demo.service.jobs import BaseEngine, BaseJob, GoingJobs
from opensora_demo.weights.options import WeightOptions
from opensora_demo.weights.store import unavailable_reason

log = logging.getLogger(__name__)
PULSE_S = 0.5  # a waiting job says so at least this often: its reader may have something else to look at
RECENT = 5  # jobs by whose time, of a scene each, those that wait are told how long
CLOSE_S = 5.0  # how long `close` waits for the run that has the device

E = TypeVar("E")
Generate = Callable[..., Iterator[Event]]
"""(bundle, request, cancel flag, *, look), as `pipeline.generate`."""
Explain = Callable[[ModelBundle, GenerationRequest, Flag], Iterator[Part]]


class BundleSource(Protocol):
    @property
    def options(self) -> WeightOptions: ...

    def get(self, model_id: str, check: Callable[[], None]) -> ModelBundle:
        """`check` is asked between the parts of a model, and raises where the load is not wanted any more."""
        ...


class _Line(GoingJobs):
    """In front of the device, and the job that has it. All of it changes under `news` alone."""

    def __init__(self) -> None:
        super().__init__()
        self.took: deque[float] = deque(maxlen=RECENT)  # seconds a scene that the last jobs had the device
        self.since = 0.0  # when the one that has it now began
        self.holder: LocalJob[Any] | None = None

    def is_next(self, job: LocalJob[Any]) -> bool:
        """Its turn has come: the device is free, and nobody who came before waits for it."""
        if self.holder is not None:
            return False
        return next((first for first in self.jobs if first.reading), None) is job

    def left_s(self, place: int) -> float | None:
        """About how long the first so many jobs take, of which one has the device, if their scenes are like those
        before."""
        if not self.took:
            return None
        mean = sum(self.took) / len(self.took)
        scenes = sum(job.request.scenes for job in self.jobs[:place])
        return max(mean * scenes - (time.monotonic() - self.since), mean / 4)

    def place(self, job: LocalJob[Any]) -> int:
        return self.jobs.index(job) if job in self.jobs and job is not self.holder else 0


class LocalJob(BaseJob[Loading | Waiting | E], Generic[E]):
    """A turn in the line. See `engine.Job`."""

    def __init__(
        self,
        line: _Line,
        request: GenerationRequest,
        owner: str | None,
        load: Callable[[Callable[[], None]], ModelBundle],
        produce: Callable[[ModelBundle, GenerationRequest, Flag], Iterator[E]],
        learn: Callable[[Finished], None],
        no_memory: Callable[[], OutOfMemory],
        job_id: str | None,
    ) -> None:
        super().__init__(job_id or secrets.token_urlsafe(12), request, owner, line)
        self._line = line
        self._load = load
        self._produce = produce
        self._learn = learn
        self._no_memory = no_memory

    @property
    def place(self) -> int:
        with self._line.news:
            return self._line.place(self)

    def _holds_nothing(self) -> bool:
        return self._state == "queued"

    def _make(self) -> Iterator[Loading | Waiting | E]:
        yield from self._wait()
        yield Loading()
        self._check()
        self.note("has the device", waited_s=round(time.monotonic() - self._came, 3))
        try:
            bundle = self._load(self._check)
            self._become("running")
            last: E | None = None
            with closing(self._produce(bundle, self.request, self._flag)) as events:  # type: ignore[type-var]
                for event in events:
                    self._check()
                    if isinstance(event, Finished):  # all that it held is let go before the device is
                        last = event
                        break
                    yield event
        except Exception as error:
            if not (isinstance(error, OutOfMemory) or is_out_of_memory(error)):
                raise
            let_go(error)
            with self._line.news:
                self._end("failed")  # counting what it would need takes no device
            raise self._no_memory() from None
        self._finish()
        if last is not None:
            yield last
            assert isinstance(last, Finished)
            self._learn(last)

    def _wait(self) -> Iterator[Waiting]:
        line = self._line
        while True:
            with line.news:
                self._check()
                if line.is_next(self):
                    self._became_holder()
                    return
                place = line.place(self)
                left_s = line.left_s(max(place, 1))
            yield Waiting(max(place, 1), left_s)
            with line.news:
                line.news.wait_for(
                    lambda seen=place: self._flag.is_set() or line.is_next(self) or line.place(self) != seen,  # type: ignore[misc]
                    timeout=PULSE_S,
                )

    def _became_holder(self) -> None:
        """Under `news`."""
        self._line.holder, self._line.since = self, time.monotonic()
        self._become("loading")
        self._began()

    def _ended(self, ran_s: float | None) -> None:
        if self._line.holder is not self:
            return
        self._line.holder = None
        if self._state == "done" and ran_s is not None:
            self._line.took.append(ran_s / self.request.scenes)


class LocalEngine(BaseEngine):
    """See `engine.Engine`. It explains runs in the same line."""

    blind: Message | None = None

    def __init__(
        self,
        bundles: BundleSource,
        *,
        generate: Generate = run_pipeline,
        explain: Explain = explain_run,
        estimator: Estimator | None = None,
        learn: bool = False,
    ) -> None:
        """`estimator` None is one of this machine. With `learn` the estimates of later runs go by how long earlier ones
        took (counting a run takes a while)."""
        self._line = _Line()
        super().__init__(self._line)
        self.bundles = bundles
        self.estimator = estimator or Estimator(bundles.options)
        self._learn = learn
        self._generate = generate
        self._explain = explain

    @property
    def options(self) -> WeightOptions:
        return self.bundles.options

    def models(self) -> tuple[ModelOffer, ...]:
        return tuple(ModelOffer(spec, unavailable_reason(spec, self.options)) for spec in self.options.listed())

    def submit(
        self, request: GenerationRequest, owner: str | None = None, *, look: bool = False, job_id: str | None = None
    ) -> LocalJob[Event]:
        def produce(bundle: ModelBundle, request: GenerationRequest, flag: Flag) -> Iterator[Event]:
            return self._generate(bundle, request, flag, look=look)

        return self._join(request, owner, produce, job_id)

    def explain(self, request: GenerationRequest, owner: str | None = None) -> LocalJob[Part]:
        """A run that is watched from inside."""
        return self._join(request, owner, self._explain)

    def _join(
        self,
        request: GenerationRequest,
        owner: str | None,
        produce: Callable[[ModelBundle, GenerationRequest, Flag], Iterator[E]],
        job_id: str | None = None,
    ) -> LocalJob[E]:
        def learn(done: Finished) -> None:
            if not self._learn:
                return
            try:
                self.estimator.remember(find_model(request.model_id), request, done.seconds)
            except Exception:  # an estimate is not worth a finished clip
                log.exception("a run could not be remembered")

        def no_memory() -> OutOfMemory:
            try:
                return self.estimator.ran_out(find_model(request.model_id), request)
            except Exception:  # there may be no memory for that either
                log.exception("what a run needs could not be counted")
                return OutOfMemory(message("device.out_of_memory"))

        def load(check: Callable[[], None]) -> ModelBundle:
            return self.bundles.get(request.model_id, check)

        job = LocalJob(self._line, request, owner, load, produce, learn, no_memory, job_id)
        self._line.add(job)
        job.note("waits for the device")
        return job

    def line(self) -> Line:
        with self._line.news:
            jobs, busy = len(self._line.jobs), self._line.holder is not None
            return Line(jobs - busy, busy, self._line.left_s(jobs) if jobs else 0.0)

    def next_free_s(self) -> float | None:
        """About how long until the job that has the device ends, where that can be told."""
        with self._line.news:
            return self._line.left_s(1)

    def close(self) -> bool:
        """Whether the device is free; a step of a large model may take longer than is waited."""
        return self._line.close(CLOSE_S)
