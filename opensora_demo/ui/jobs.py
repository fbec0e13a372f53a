"""Runs that outlive a page: each works in a thread of its own, and whoever knows its id can watch it.

A page that is closed or loaded anew loses its connection, not its run: the run goes on for a while and is stopped only
when nobody has come back. An id is a secret of the visitor who started the run.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from threading import Event as Flag
from typing import Any

from opensora_demo.errors import RequestError

GRACE_S = 30.0  # how long a run goes on that nobody watches
CROWDED_S = 5.0  # the same while somebody else waits for the device
KEEP = 40  # jobs that have ended and can still be asked for
MAX_GOING, MAX_GOING_EACH = 40, 4  # runs at once, of all and of one session
KEEP_S = 2 * 3600.0

Value = Any


class Job:
    """One run: its newest value, and a flag that asks it to stop. Thread-safe."""

    def __init__(
        self,
        session: str | None,
        clock: Callable[[], float] = time.monotonic,
        crowded: Callable[[Job], bool] = lambda job: False,
    ) -> None:
        self.id = secrets.token_urlsafe(12)
        self.sessions = {session} - {None}
        self.cancel = Flag()
        self.failure = ""  # a sentence, once it has failed
        self.waiting = False  # for the device
        self._clock = clock
        self._crowded = crowded
        self._news = threading.Condition()
        self._value: Value = None
        self._version = 0
        self._over = False
        self._watchers = 0
        self._left_at = clock()

    @property
    def over(self) -> bool:
        return self._over

    @property
    def value(self) -> Value:
        """The newest value; None before the first."""
        return self._value

    def publish(self, value: Value) -> None:
        """A new value for whoever watches. Asks the run to stop when nobody has watched for a while."""
        with self._news:
            self._value = value
            self._version += 1
            self._news.notify_all()
            alone_s = 0.0 if self._watchers else self._clock() - self._left_at
        if alone_s > (CROWDED_S if self._crowded(self) else GRACE_S):
            self.cancel.set()

    def end(self) -> None:
        with self._news:
            self._over = True
            self._left_at = self._clock()
            self._news.notify_all()

    def thin_out(self) -> None:
        """Forget the second part of a value of two, which only the newest run of a visit is asked for."""
        with self._news:
            if self._over and isinstance(self._value, tuple):
                self._value = (self._value[0], None)

    def expired(self) -> bool:
        return self._over and self._clock() - self._left_at > KEEP_S

    def watch(self, pause_s: float = 0.0) -> Iterator[Value]:
        """The newest value whenever there is a newer one, at most every `pause_s`, the last one at the end."""
        with self._news:
            self._watchers += 1
        seen = 0
        try:
            while True:
                with self._news:
                    while self._version == seen and not self._over:
                        self._news.wait()
                    value, seen, last = self._value, self._version, self._over
                if value is not None:
                    yield value
                if last:
                    return
                if pause_s:
                    with self._news:
                        self._news.wait_for(lambda: self._over, timeout=pause_s)
        finally:
            with self._news:
                self._watchers -= 1
                self._left_at = self._clock()


class Jobs:
    """All runs of this process, by id and by session."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._guard = threading.Lock()
        self._jobs: dict[str, Job] = {}  # oldest first
        self._clock = clock

    def start(self, session: str | None, work: Callable[[Job], None], *, keep: bool = True) -> Job:
        """Begin `work` in its own thread. It publishes on the job it is given, and must not raise. Without `keep` the
        job is forgotten as soon as it has ended.

        Raises RequestError where too many runs are going on.
        """
        job = Job(session, self._clock, self._somebody_else_waits)
        with self._guard:
            self._forget()
            going = [old for old in self._jobs.values() if not old.over]
            if len(going) >= MAX_GOING or sum(session in old.sessions for old in going) >= MAX_GOING_EACH:
                raise RequestError("run", "too many runs are going on; wait until one of them has ended")
            for old in self._jobs.values():
                if session in old.sessions:
                    old.thin_out()
            self._jobs[job.id] = job

        def run() -> None:
            try:
                work(job)
            finally:
                job.end()
                if not keep:
                    with self._guard:
                        self._jobs.pop(job.id, None)

        threading.Thread(target=run, name=f"run-{job.id[:4]}", daemon=True).start()
        return job

    def _forget(self) -> None:
        ended = [key for key, old in self._jobs.items() if old.over]
        surplus = ended[: max(len(ended) - KEEP, 0)]
        for key in {*surplus, *(key for key in ended if self._jobs[key].expired())}:
            del self._jobs[key]

    def _somebody_else_waits(self, than: Job) -> bool:
        with self._guard:
            return any(job.waiting and not job.over for job in self._jobs.values() if job is not than)

    def adopt(self, ids: list[str], session: str | None) -> list[Job]:
        """The jobs of these ids that are still known, in the order of `ids`; now they are this session's too."""
        with self._guard:
            self._forget()
            found = [self._jobs[key] for key in ids if key in self._jobs]
            for job in found:
                job.sessions |= {session} - {None}
        return found

    def stop(self, session: str | None) -> int:
        """Ask every run of a session to stop; how many there were."""
        with self._guard:
            going = [job for job in self._jobs.values() if session and session in job.sessions and not job.over]
        for job in going:
            job.cancel.set()
        return len(going)
