"""The line of a cluster as its pages and replicas ask it: an actor with one `Turns`, of which there is one.

Pages are told apart by an id of their process, and say every second that they are there. What is lost with the actor
comes back with them: a job that waits asks again, and of one that runs its page says so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from opensora_demo.cluster.turns import Entry, Turns

LOST_S = 10.0  # a page that has not been heard for so long is gone, and its jobs with it


@dataclass(frozen=True, slots=True)
class Turn:
    """It is this job's, or so many come before it, which take about so long."""

    granted: bool
    place: int
    left_s: float | None


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands with the line, for everybody."""

    waiting: int = 0
    running: int = 0
    left_s: float | None = None  # until a job that comes now would begin
    free_s: float | None = None  # until the next turn is free


class Dispatcher:
    """Thread-less: all of it runs in one event loop."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`limit` jobs may run at once."""
        self._turns = Turns(limit)
        self._clock = clock
        self._began = clock()
        self._news = asyncio.Condition()

    async def set_limit(self, limit: int) -> None:
        async with self._news:
            self._turns.limit = limit
            self._changed()

    async def turn(self, entry: Entry, seen: int, wait_s: float) -> Turn:
        """Its turn, or its place as soon as it is another than the one `seen`, or after `wait_s`."""
        async with self._news:
            self._turns.heard(entry.page, self._clock())
            self._turns.enter(entry)
            self._changed()
            try:
                async with asyncio.timeout(wait_s):
                    await self._news.wait_for(lambda: self._is_news(entry.job, seen))
            except TimeoutError:
                pass
            place = self._turns.place(entry.job)
            return Turn(self._turns.holds(entry.job), place, self._turns.left_s(place) if place else None)

    async def leave(self, job: str, took_s: float | None = None) -> None:
        """As `Turns.leave`."""
        async with self._news:
            self._turns.leave(job, took_s)
            self._changed()

    async def alive(self, page: str, running: Sequence[Entry]) -> Standing:
        """A page is there, and these jobs of it have a turn."""
        async with self._news:
            self._turns.heard(page, self._clock())
            for entry in running:
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

    async def wanted(self, job: str) -> bool:
        """Whether a page still reads a job that runs. A line that has just begun does not know yet."""
        async with self._news:
            self._changed()
            return self._turns.holds(job) or self._clock() - self._began < LOST_S

    def _is_news(self, job: str, seen: int) -> bool:
        turns = self._turns
        return turns.holds(job) or not turns.knows(job) or turns.place(job) != seen

    def _changed(self) -> None:
        self._turns.sweep(self._clock(), LOST_S)
        self._turns.grant()
        self._news.notify_all()
