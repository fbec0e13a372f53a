"""Whose turn it is: one line of jobs for all pages of a cluster, fair to their owners. No clock and no network in it.

Of the owners who wait the one with the fewest running jobs is next, and of these the one whose last turn, or arrival,
lies furthest back; within one owner it is first come, first served. So somebody with twenty jobs in the line delays
somebody with one by a job of his, not by twenty.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

RECENT = 5  # jobs by whose time, of a scene each, those that wait are told how long


@dataclass(slots=True)
class Entry:
    """A job in the line, or with a turn. `page` is the process that reads its events."""

    job: str
    owner: str
    page: str
    scenes: int = 1


class Turns:
    """At most `limit` jobs have a turn at once."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._entries: dict[str, Entry] = {}  # in the order in which they came
        self._holding: dict[str, Entry] = {}
        self._stamps: dict[str, int] = {}  # of owners who wait: when they had a turn, or came
        self._stamp = 0
        self._heard: dict[str, float] = {}  # of pages
        self._took: deque[float] = deque(maxlen=RECENT)
        self._places: dict[str, int] | None = None  # until something changes

    @property
    def waiting(self) -> int:
        return len(self._entries)

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
        while self._entries and len(self._holding) < self.limit:
            job = min(self._order(), key=self._order().__getitem__)
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
        """How many come before it, one that runs among them; 0 where it does not wait."""
        return self._order().get(job, 0)

    def left_s(self, place: int) -> float | None:
        """About how long until so many have ended, if their scenes are like the last ones."""
        if not self._took:
            return None
        mean = sum(self._took) / len(self._took)
        before = sorted(self._entries.values(), key=lambda entry: self.place(entry.job))[: max(place - 1, 0)]
        scenes = 1 + sum(entry.scenes for entry in before)
        return mean * scenes / max(min(self.limit, self.running), 1)

    # --- pages

    def heard(self, page: str, now: float) -> None:
        self._heard[page] = now

    def sweep(self, now: float, after_s: float) -> list[str]:
        """The jobs of pages that have not been heard for so long are dropped; which."""
        gone = {page for page, at in self._heard.items() if now - at > after_s}
        lost = [e.job for e in (*self._entries.values(), *self._holding.values()) if e.page in gone]
        for job in lost:
            self.leave(job)
        for page in gone:
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
