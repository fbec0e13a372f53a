"""Whose turn it is: one line of jobs for all pages of a cluster, fair to their owners. No clock and no network in it.

Of the owners who wait the one with the fewest running jobs is next, and of these the one whose last turn, or arrival,
lies furthest back; within one owner it is first come, first served. So somebody with twenty jobs in the line delays
somebody with one by a job of his, not by twenty.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace

RECENT = 5  # jobs by whose time, of a scene each, those that wait are told how long


@dataclass(frozen=True, slots=True)
class Entry:
    """A job in the line, or with a turn. `page` is the process that reads its events; `run` is the run that it belongs
    to, where another page process may find that (`records`)."""

    job: str
    owner: str
    page: str
    scenes: int = 1
    run: str = ""


class Turns:
    """At most `limit` jobs have a turn at once."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._entries: dict[str, Entry] = {}  # in the order in which they came
        self._holding: dict[str, Entry] = {}
        self._stamps: dict[str, int] = {}  # of owners who wait: when they had a turn, or came
        self._stamp = 0
        self._heard: dict[str, float] = {}  # of pages
        self._away: set[str] = set()  # pages whose jobs that wait are passed over
        self._took: deque[float] = deque(maxlen=RECENT)
        self._places: dict[str, int] | None = None  # until something changes

    @property
    def waiting(self) -> int:
        return len(self._order())

    @property
    def running(self) -> int:
        return len(self._holding)

    def knows(self, job: str) -> bool:
        return job in self._entries or job in self._holding

    def holds(self, job: str) -> bool:
        """It has a turn."""
        return job in self._holding

    def enter(self, entry: Entry) -> None:
        """At the end of its owner's jobs; nothing where it is known."""
        if self.knows(entry.job):
            return
        if all(other.owner != entry.owner for other in self._entries.values()):
            self._stamps[entry.owner] = self._next_stamp()
        self._entries[entry.job] = entry
        self._places = None

    def keep(self, entry: Entry) -> None:
        """Its page says that it has a turn, which a line that was lost had given."""
        if entry.job not in self._holding:
            self._remove(entry.job)
            self._holding[entry.job] = entry
            self._places = None

    def grant(self) -> list[str]:
        """Give the turns that are free; to which jobs."""
        given: list[str] = []
        while (order := self._order()) and len(self._holding) < self.limit:
            job = min(order, key=order.__getitem__)
            entry = self._remove(job)
            assert entry is not None
            self._holding[job] = entry
            if entry.owner in self._stamps:
                self._stamps[entry.owner] = self._next_stamp()
            given.append(job)
        return given

    def leave(self, job: str, took_s: float | None = None) -> None:
        """It has ended, or is not wanted any more; `took_s` is what one of its scenes took, where it is done."""
        self._remove(job)
        if self._holding.pop(job, None) is not None and took_s is not None:
            self._took.append(took_s)
        self._places = None

    def place(self, job: str) -> int:
        """How many come before it, one that runs among them; 0 where it does not wait, or is passed over."""
        return self._order().get(job, 0)

    def left_s(self, place: int) -> float | None:
        """About how long until so many have ended, if their scenes are like the last ones."""
        if not self._took:
            return None
        mean = sum(self._took) / len(self._took)
        before = list(self._order())[: max(place - 1, 0)]
        scenes = 1 + sum(self._entries[job].scenes for job in before)
        return mean * scenes / max(min(self.limit, self.running), 1)

    # --- pages

    def heard(self, page: str, now: float) -> None:
        self._heard[page] = now
        if page in self._away:
            self._away.discard(page)
            self._places = None

    def take(self, run: str, page: str) -> None:
        """The jobs of a run are read by another page, and keep their places."""
        for jobs in (self._entries, self._holding):
            jobs |= {job: replace(entry, page=page) for job, entry in jobs.items() if entry.run == run and run}
        self._places = None

    def drop(self, run: str) -> None:
        """The jobs of a run are not wanted any more."""
        for entry in (*self._entries.values(), *self._holding.values()):
            if entry.run == run and run:
                self.leave(entry.job)

    def sweep(self, now: float, after_s: float, alone_s: Callable[[Entry], float] = lambda _: 0.0) -> list[str]:
        """The jobs of pages that have not been heard for so long are passed over, and once `alone_s` more has gone by
        they are dropped; which."""
        away = {page: now - at - after_s for page, at in self._heard.items() if now - at > after_s}
        left = [e for e in (*self._entries.values(), *self._holding.values()) if e.page in away]
        lost = [entry.job for entry in left if away[entry.page] > alone_s(entry)]
        for job in lost:
            self.leave(job)
        if away.keys() - self._away:
            self._places = None
        self._away = {entry.page for entry in left if entry.job not in lost}
        for page in away.keys() - self._away:
            del self._heard[page]
        return lost

    # --- inside

    def _next_stamp(self) -> int:
        self._stamp += 1
        return self._stamp

    def _remove(self, job: str) -> Entry | None:
        """Out of those that wait."""
        entry = self._entries.pop(job, None)
        if entry is not None:
            self._places = None
            if all(other.owner != entry.owner for other in self._entries.values()):
                self._stamps.pop(entry.owner, None)
        return entry

    def _order(self) -> dict[str, int]:
        """The place of every job that waits, if none came after it and turns ended in their order."""
        if self._places is not None:
            return self._places
        lines: dict[str, deque[str]] = {}
        for entry in self._entries.values():
            if entry.page not in self._away:
                lines.setdefault(entry.owner, deque()).append(entry.job)
        held = Counter(entry.owner for entry in self._holding.values())
        stamps, stamp, places = dict(self._stamps), self._stamp, dict[str, int]()
        while lines:
            owner = min(lines, key=lambda owner: (held[owner], stamps[owner]))
            places[lines[owner].popleft()] = len(places) + 1
            stamp += 1
            held[owner], stamps[owner] = held[owner] + 1, stamp
            if not lines[owner]:
                del lines[owner]
        self._places = places
        return places
