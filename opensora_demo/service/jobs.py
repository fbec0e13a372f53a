"""What the jobs of every engine have in common: their states, Stop, and the one reader."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from threading import Event as Flag
from typing import Any, Generic, TypeVar

from opensora_demo.errors import Cancelled
from opensora_demo.messages import message
from opensora_demo.request.request import GenerationRequest
from opensora_demo.service.engine import FINAL, RunRecord, State
from opensora_demo.service.logs import public_id
from opensora_demo.service.monitor import Monitor

log = logging.getLogger(__name__)

E = TypeVar("E")


class GoingJobs:
    """The jobs of an engine that have not ended, in the order in which they came. The list and every job's state change
    under `news` alone, which is notified of each end and each Stop."""

    def __init__(self) -> None:
        self.news = threading.Condition()
        self.jobs: list[Any] = []  # of BaseJob
        self.monitor = Monitor()
        self.closed = False

    def add(self, job: BaseJob[Any]) -> None:
        """Raises Cancelled once closed."""
        with self.news:
            if self.closed:
                raise Cancelled(message("run.was_stopped"))
            self.jobs.append(job)

    def close(self, wait_s: float) -> bool:
        """Take no more, interrupt all; whether they ended within `wait_s` seconds."""
        with self.news:
            self.closed = True
            going = list(self.jobs)
        for job in going:
            job.stop("interrupted")
        with self.news:
            return self.news.wait_for(lambda: not self.jobs, timeout=wait_s)


class BaseEngine:
    """What engines say of their jobs. See `engine.Engine`."""

    def __init__(self, going: GoingJobs) -> None:
        self.going = going

    @property
    def monitor(self) -> Monitor:
        return self.going.monitor

    @property
    def closed(self) -> bool:
        return self.going.closed

    def remember(self, run_id: str, record: RunRecord | None, alone_s: float = 0.0) -> bool:
        return True

    def recall(self, run_id: str) -> RunRecord | None:
        return None


class BaseJob(ABC, Generic[E]):
    """See `engine.Job`. An engine's own class says how the events come about (`_make`)."""

    def __init__(self, job_id: str, request: GenerationRequest, owner: str | None, going: GoingJobs) -> None:
        self.id = job_id
        self.request, self.owner = request, owner
        self.reading = False  # somebody reads its events
        self._going = going
        self._flag = Flag()  # set: it is to stop
        self._state: State = "queued"
        self._stopped_as: State = "cancelled"
        self._came = time.monotonic()
        self._ran_since: float | None = None
        self._ran_for: float | None = None  # seconds, once it has ended

    @property
    def state(self) -> State:
        return self._state

    def cancel(self) -> bool:
        return self.stop("cancelled")

    def stop(self, state: State) -> bool:
        """As `cancel`, and it ends in this state."""
        with self._going.news:
            if self._state in FINAL:
                return False
            self._stopped_as = state
            self._flag.set()
            if not self.reading or self._holds_nothing():
                self._end(state)
            self._going.news.notify_all()
        self.note("is to be stopped")
        if not self.reading:
            self._note_end()
        self._stopped()
        return True

    def events(self) -> Iterator[E]:
        with self._going.news:
            if self.reading:
                raise RuntimeError("the events of a job are for one reader")
            self.reading = True
        state: State = "failed"
        try:
            yield from self._make()
            self._finish()
        except (Cancelled, GeneratorExit, KeyboardInterrupt):
            state = self._stopped_as
            raise
        finally:
            with self._going.news:
                self._end(state)
            self._note_end()
            self._left()

    def note(self, what: str, **more: Any) -> None:
        """A line in the host's log."""
        log.info("a job %s", what, extra={"job": public_id(self.id), "model": self.request.model_id, **more})

    @abstractmethod
    def _make(self) -> Iterator[E]:
        """All events. It calls `_began` when the run begins, and `_finish` before it yields the last one."""

    def _holds_nothing(self) -> bool:
        """Under `news`: a job that is read can end at once, for there is nothing that its reader must give back."""
        return False

    def _stopped(self) -> None:
        """After each Stop."""

    def _ended(self, ran_s: float | None) -> None:
        """Under `news`: it has a final state now."""

    def _left(self) -> None:
        """Nobody reads it any more."""

    def _check(self) -> None:
        if self._flag.is_set():
            raise Cancelled(message("run.was_stopped"))

    def _become(self, state: State) -> None:
        """Raises Cancelled where it was stopped."""
        with self._going.news:
            self._check()
            if self._state not in FINAL:
                self._state = state

    def _began(self) -> None:
        """It has the device; the first time counts."""
        if self._ran_since is None:
            self._ran_since = time.monotonic()
            self._going.monitor.began(self.request.model_id, self._ran_since - self._came)

    def _ran_s(self) -> float | None:
        return None if self._ran_since is None else time.monotonic() - self._ran_since

    def _finish(self) -> None:
        """It is done. Raises Cancelled where it was stopped before."""
        with self._going.news:
            if self._state in FINAL:
                return
            self._check()
            self._end("done")

    def _end(self, state: State) -> None:
        """Under `news`. The first end counts."""
        if self._state in FINAL:
            return
        self._state = state
        self._going.jobs.remove(self)
        self._ran_for = ran_s = self._ran_s()
        self._ended(ran_s)
        self._going.monitor.ended(self.request.model_id, state, ran_s)
        self._going.news.notify_all()

    def _note_end(self) -> None:
        """No lock is held while a line is written: whoever reads the log may be slow."""
        self.note("is over", state=self._state, ran_s=self._ran_for and round(self._ran_for, 3))
