"""The line of a cluster as its pages and replicas ask it: an actor with one `Turns` and one `Records`, of which there
is one.

Pages are told apart by an id of their process, and say every second that they are there. What is lost of the line with
the actor comes back with them: a job that waits asks again, and of one that runs its page says so. The records of runs
are lost; such a run goes on at its page, and another page does not find it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from opensora_demo.cluster.records import Records
from opensora_demo.cluster.turns import Entry, Turns

LOST_S = 10.0  # a page that has not been heard for so long is gone, and its jobs with it if no other may find them


@dataclass(frozen=True, slots=True)
class Turn:
    """It is this job's, or so many come before it, which take about so long; or another page has `taken` the job."""

    granted: bool
    place: int
    left_s: float | None
    taken: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands with the line, for everybody."""

    waiting: int = 0
    running: int = 0
    left_s: float | None = None  # until a job that comes now would begin
    free_s: float | None = None  # until the next turn is free


@dataclass(frozen=True, slots=True)
class Place:
    """Up to where a log has been read: so many words of this attempt."""

    attempt: str = ""
    words: int = 0


@dataclass(frozen=True, slots=True)
class Said:
    """What comes behind a place in a log, and the place behind that; whether it is the end; and for how long the
    replica has not been heard, None where there is no log."""

    words: tuple[bytes, ...]
    place: Place
    over: bool
    silent_s: float | None


class Dispatcher:
    """Thread-less: all of it runs in one event loop."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`limit` jobs may run at once."""
        self._turns = Turns(limit)
        self._clock = clock
        self._began = clock()
        self._news = asyncio.Condition()
        self._records = Records()
        self._logged = asyncio.Condition()  # news of logs alone

    async def set_limit(self, limit: int) -> None:
        async with self._news:
            self._turns.limit = limit
            self._changed()

    async def turn(self, entry: Entry, seen: int, wait_s: float) -> Turn:
        """Its turn, or its place as soon as it is another than the one `seen`, or after `wait_s`."""
        async with self._news:
            self._turns.heard(entry.page, self._clock())
            if not self._records.belongs(entry.run, entry.page):
                return Turn(False, 0, None, taken=True)
            self._turns.enter(entry)
            self._changed()
            try:
                async with asyncio.timeout(wait_s):
                    await self._news.wait_for(lambda: self._is_news(entry, seen))
            except TimeoutError:
                pass
            if not self._records.belongs(entry.run, entry.page):
                return Turn(False, 0, None, taken=True)
            place = self._turns.place(entry.job)
            return Turn(self._turns.holds(entry.job), place, self._turns.left_s(place) if place else None)

    async def leave(self, entry: Entry, took_s: float | None = None) -> bool:
        """As `Turns.leave`. False, and nothing changes, where another page has taken the job."""
        async with self._news:
            if not self._records.belongs(entry.run, entry.page):
                return False
            self._turns.leave(entry.job, took_s)
            self._changed()
            return True

    async def alive(self, page: str, running: Sequence[Entry]) -> Standing:
        """A page is there, and these jobs of it have a turn."""
        async with self._news:
            self._turns.heard(page, self._clock())
            for entry in running:
                log = self._records.log(entry.run, entry.job)
                if log is None or not log.over:
                    self._turns.keep(entry)
            self._changed()
            turns = self._turns
            free = turns.running < turns.limit
            return Standing(
                waiting=turns.waiting,
                running=turns.running,
                left_s=0.0 if free else turns.left_s(turns.waiting + 1),
                free_s=0.0 if free else turns.left_s(1),
            )

    async def gone(self, page: str) -> None:
        """A page ends, and says so: it is as if it had not been heard for long."""
        async with self._news:
            self._turns.heard(page, self._clock() - LOST_S - 1e-3)
            self._changed()

    async def wanted(self, job: str, wait_s: float = 0.0, run: str = "") -> bool:
        """Whether a page still reads a job that runs, as soon as none does, or after `wait_s`. A line that has just
        begun does not know yet. Its replica asks, and is heard of so."""
        async with self._news:
            self._records.heard(run, job, self._clock())
            self._changed()
            try:
                async with asyncio.timeout(wait_s):
                    await self._news.wait_for(lambda: not self._is_wanted(job))
            except TimeoutError:
                pass
            return self._is_wanted(job)

    # --- runs that other pages may find

    async def write(self, run: str, page: str, data: bytes, alone_s: float) -> None:
        """As `Records.write`."""
        self._records.write(run, page, data, alone_s, self._clock())

    async def take(self, run: str, page: str) -> bytes | None:
        """As `Records.take`; the jobs of the run keep their places in the line."""
        async with self._news:
            self._turns.heard(page, self._clock())
            if (data := self._records.take(run, page, self._clock())) is not None:
                self._turns.take(run, page)
            self._changed()
            return data

    async def forget(self, run: str, page: str) -> bool:
        """As `Records.forget`; the jobs of the run are stopped."""
        async with self._news:
            if not self._records.forget(run, page):
                return False
            self._turns.drop(run)
            self._changed()
            return True

    async def belongs(self, run: str, page: str) -> bool:
        """As `Records.belongs`."""
        return self._records.belongs(run, page)

    async def began(self, run: str, job: str) -> bool:
        """Whether a replica works on a job, or has said something of it."""
        return self._turns.holds(job) or self._records.log(run, job) is not None

    async def told(self, run: str, job: str, attempt: str, first: int, said: Sequence[bytes], over: bool) -> None:
        """As `Records.add`."""
        async with self._logged:
            self._records.add(run, job, attempt, first, said, self._clock(), over=over)
            self._logged.notify_all()

    async def read(self, run: str, job: str, place: Place, wait_s: float) -> Said:
        """What comes behind this place, as soon as there is something, or nothing after `wait_s`."""

        def found() -> Said:
            log = self._records.log(run, job)
            if log is None:
                return Said((), place, over=False, silent_s=None)
            words = place.words if place.attempt == log.attempt else 0
            behind = Place(log.attempt, len(log.said))
            return Said(tuple(log.said[words:]), behind, over=log.over, silent_s=self._clock() - log.heard_at)

        async with self._logged:
            try:
                async with asyncio.timeout(wait_s):
                    await self._logged.wait_for(lambda: (said := found()).over or bool(said.words))
            except TimeoutError:
                pass
            return found()

    # --- inside

    def _is_wanted(self, job: str) -> bool:
        return self._turns.holds(job) or self._clock() - self._began < LOST_S

    def _is_news(self, entry: Entry, seen: int) -> bool:
        turns, job = self._turns, entry.job
        return turns.holds(job) or not turns.knows(job) or turns.place(job) != seen

    def _alone_s(self, entry: Entry) -> float:
        """How long a job is kept whose page is gone: one that has ended gives its turn up at once."""
        log = self._records.log(entry.run, entry.job)
        return 0.0 if log is not None and log.over else self._records.alone_s(entry.run)

    def _changed(self) -> None:
        self._turns.sweep(self._clock(), LOST_S, self._alone_s)
        self._turns.grant()
        self._news.notify_all()
