"""What a cluster keeps of runs, so that a page process finds one that another began. No clock and no network in it.

Of a run it keeps what begins it again, as bytes, and of each of its jobs all that the replica said, also as bytes. A
run is found by its id alone, which is a secret of its visitor. It belongs to the page process that began it, or was the
last to find it. What is kept is bounded in number, bytes and age.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

KEEP = 500  # runs
KEEP_BYTES = 1_000_000_000
KEEP_S = 2 * 3600.0  # after a run was last heard of, as a page process keeps its own


@dataclass(slots=True)
class JobLog:
    """What the replica of one job said. A replica that takes the place of a lost one is another `attempt`."""

    attempt: str = ""
    said: list[bytes] = field(default_factory=list)
    over: bool = False
    heard_at: float = 0.0

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.said))


@dataclass(slots=True)
class RunNote:
    """A run: what begins it again, the page process that has it, and how long it goes on without one."""

    data: bytes
    page: str
    alone_s: float
    heard_at: float
    logs: dict[str, JobLog] = field(default_factory=dict)
    dropped: bool = False  # its logs, for which there was no room

    @property
    def size_bytes(self) -> int:
        return len(self.data) + sum(log.size_bytes for log in self.logs.values())


class Records:
    """Runs by their ids, and the logs of their jobs."""

    def __init__(self, keep: int = KEEP, keep_bytes: int = KEEP_BYTES, keep_s: float = KEEP_S) -> None:
        self.keep, self.keep_bytes, self.keep_s = keep, keep_bytes, keep_s
        self._runs: dict[str, RunNote] = {}  # longest unheard of first
        self._bytes = 0

    def write(self, run: str, page: str, data: bytes, alone_s: float, now: float) -> None:
        """Keep what begins a run again. Nothing where it belongs to another page process."""
        if not self.belongs(run, page):
            return
        if (note := self._runs.get(run)) is None:
            self._runs[run] = RunNote(data, page, alone_s, now)
            self._bytes += len(data)
        else:
            self._bytes += len(data) - len(note.data)
            note.data, note.alone_s = data, alone_s
            self._touch(run, now)
        self.sweep(now)

    def take(self, run: str, page: str, now: float) -> bytes | None:
        """What begins a run again, which belongs to this page process from now on; None where there is none."""
        self.sweep(now)
        if (note := self._runs.get(run)) is None:
            return None
        note.page = page
        self._touch(run, now)
        return note.data

    def forget(self, run: str, page: str) -> bool:
        """Keep a run no longer. False, and nothing changes, where it belongs to another page process."""
        if not self.belongs(run, page):
            return False
        if (note := self._runs.pop(run, None)) is not None:
            self._bytes -= note.size_bytes
        return True

    def page_of(self, run: str) -> str | None:
        """The page process that has it; None where it is not known."""
        note = self._runs.get(run)
        return None if note is None else note.page

    def belongs(self, run: str, page: str) -> bool:
        """Whether no other page process has it."""
        return self.page_of(run) in (None, page)

    def alone_s(self, run: str) -> float:
        """How long it goes on without its page process."""
        note = self._runs.get(run)
        return 0.0 if note is None else note.alone_s

    # --- of its jobs

    def add(
        self, run: str, job: str, attempt: str, first: int, said: Sequence[bytes], now: float, *, over: bool
    ) -> None:
        """What a replica said, from the `first` word on; `over` is the end. Nothing of a run that is not kept, nor what
        comes late from a replica whose place another took."""
        note = self._runs.get(run)
        if note is None:
            return
        self._touch(run, now)
        if note.dropped:
            return
        log = note.logs.get(job)
        if first == 0 and (log is None or log.attempt != attempt):
            self._bytes -= 0 if log is None else log.size_bytes
            log = note.logs[job] = JobLog(attempt)
        if log is None or log.attempt != attempt or first != len(log.said):
            return
        log.said += said
        log.over, log.heard_at = over, now
        self._bytes += sum(map(len, said))
        self.sweep(now)

    def heard(self, run: str, job: str, now: float) -> None:
        """The replica of a job is there, and has nothing new to say."""
        if (log := self.log(run, job)) is not None:
            log.heard_at = now
            self._touch(run, now)

    def log(self, run: str, job: str) -> JobLog | None:
        note = self._runs.get(run)
        return None if note is None else note.logs.get(job)

    # --- inside

    def _touch(self, run: str, now: float) -> None:
        note = self._runs.pop(run)
        note.heard_at = now
        self._runs[run] = note

    def sweep(self, now: float) -> None:
        """Drop what is too old, and, longest unheard of first, what is too many; of one run alone that is too large its
        logs."""
        while self._runs:
            oldest = next(iter(self._runs))
            note = self._runs[oldest]
            if now - note.heard_at <= self.keep_s and len(self._runs) <= self.keep and self._bytes <= self.keep_bytes:
                return
            if len(self._runs) == 1 and now - note.heard_at <= self.keep_s:
                if not note.logs:
                    return
                self._bytes -= sum(log.size_bytes for log in note.logs.values())
                note.logs, note.dropped = {}, True
                continue
            self._bytes -= self._runs.pop(oldest).size_bytes
