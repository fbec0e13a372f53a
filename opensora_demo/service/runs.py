"""Runs that outlive a page: each works in a thread of its own, and whoever knows its id can watch it.

A page that is closed or loaded anew loses its connection, not its run: the run goes on for a while and is stopped only
when nobody has come back. An id is a secret of the visitor who started the run. A run is one job of an engine or
several, one after another; it turns their events into values for whoever watches.
"""

from __future__ import annotations

import errno
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from contextvars import copy_context
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

from opensora_demo.errors import Cancelled, DemoError, RequestError
from opensora_demo.memory import is_out_of_memory, let_go
from opensora_demo.messages import Message, message
from opensora_demo.service.engine import FINAL, Job, RunRecord, State
from opensora_demo.service.logs import public_id, running
from opensora_demo.service.visitors import UNREAD_S, Listener

log = logging.getLogger(__name__)
GRACE_S = 30.0  # how long a run goes on that nobody watches
CROWDED_S = 5.0  # the same while somebody else waits for the device
KEPT_S = 2 * 3600.0  # the same where its visitor has said that it is to go on
KEEP = 40  # runs that have ended and can still be asked for
MAX_GOING, MAX_GOING_EACH = 60, 4  # runs at once, of all and of one page
MAX_GOING_VISITOR = 12  # of one address: a class of students may share one
MAX_KEPT = 1  # of one address: runs that go on without anybody
CLOSE_S = 2.0  # how long `close` waits for runs to say that they were interrupted
KEEP_S = 2 * 3600.0

LEFT_S = 1.0  # after so long one who has left does not come back
STALL_S = 90.0  # how long the end of a run waits for one who is there and takes nothing: a proxy may hold up a stream
MAX_STALLED = 20  # such watchers at once, each of whom takes a thread; the others have `UNREAD_S`
LOOK_S, AWAY_S = 1.0, 0.05  # how often a watcher looks whether somebody listens, and where nobody does

ALWAYS = Listener()
_stalled = threading.BoundedSemaphore(MAX_STALLED)

E = TypeVar("E")
V = TypeVar("V")
Clock = Callable[[], float]
End = Callable[[State, Message, float], V]


class RunMemory(Protocol):
    """Where other processes may find runs, and theirs are found (`engine.Engine`)."""

    def remember(self, run_id: str, record: RunRecord | None, alone_s: float = 0.0) -> bool: ...

    def recall(self, run_id: str) -> RunRecord | None: ...


def new_id() -> str:
    return secrets.token_urlsafe(12)


def part_id(run_id: str, number: int = 0) -> str:
    """The id of a job of a run: found again with it (`Engine.submit`)."""
    return f"{run_id}.{number}"


class Run(Generic[V]):
    """One run: its state and its newest value. Thread-safe."""

    def __init__(
        self,
        owner: str | None,
        kind: str,
        *,
        run_id: str | None = None,
        shrink: Callable[[V], V] | None = None,
        visitor: str | None = None,
        form: Mapping[str, Any] | None = None,
        clock: Clock = time.monotonic,
        crowded: Callable[[Run[Any]], bool] = lambda _: False,
        alone_s: float | None = None,
        record: RunRecord | None = None,
        elapsed_s: float = 0.0,
    ) -> None:
        """`kind` is the caller's, to tell his runs apart. `shrink` makes the last value smaller once a newer run of the
        same owner begins; `visitor` is where its owner is, as far as can be told; `form` is what its owner filled in;
        `crowded` says whether somebody else waits; `alone_s` is how long it goes on though nobody watches it, None as a
        page's; `record` is by what another process finds it; `elapsed_s` have gone by of it elsewhere."""
        self.id = run_id or new_id()
        self.kind = kind
        self.visitor = visitor
        self.form = form
        self.kept = record is not None and record.kept  # goes on, though nobody watches
        self.record = record
        self.owners = {owner} - {None}
        self.failure: Message | None = None  # once it has failed
        self._shrink = shrink
        self._clock = clock
        self._crowded = crowded
        self._alone_s = alone_s
        self._news = threading.Condition()
        self._value: V | None = None
        self._version = 0
        self._end_state: State | None = None
        self._job: Job[Any] | None = None
        self._stopped = False
        self._watchers = 0
        self._left_at = clock()
        self._begin = self._left_at - elapsed_s

    @property
    def state(self) -> State:
        """Its own once it has ended, before that the one of its job."""
        if self._end_state is not None:
            return self._end_state
        job = self._job
        if job is None:
            return "queued"
        return "running" if job.state in FINAL else job.state  # files are written, or the next row begins

    @property
    def over(self) -> bool:
        return self._end_state is not None

    @property
    def place(self) -> int:
        """How many jobs come before it."""
        job = self._job
        return 0 if job is None or self.over else job.place

    @property
    def value(self) -> V | None:
        """The newest value; None before the first."""
        return self._value

    @property
    def elapsed_s(self) -> float:
        return self._clock() - self._begin

    def follow(self, job: Job[E]) -> Iterator[E]:
        """The events of a job, which is this run's from now on: stopping the run cancels it."""
        with self._news:
            self._job = job
            stopped = self._stopped
        if stopped:
            job.cancel()
        with closing(job.events()) as events:  # type: ignore[type-var]
            yield from events

    def publish(self, value: V) -> None:
        """A new value for whoever watches. The run is stopped when nobody has watched for a while."""
        with self._news:
            self._value = value
            self._version += 1
            self._news.notify_all()
            alone_s = 0.0 if self._watchers else self._clock() - self._left_at
        if alone_s > (self._grace_s() if self._alone_s is None else self._alone_s):
            self.cancel()

    @property
    def alone_s(self) -> float:
        """How long it goes on though nobody watches it, if nobody waits."""
        return GRACE_S if self._alone_s is None else self._alone_s

    def _grace_s(self) -> float:
        return KEPT_S if self.kept else CROWDED_S if self._crowded(self) else GRACE_S

    def seen(self) -> None:
        """Somebody has asked for it, who does not watch."""
        with self._news:
            self._left_at = self._clock()

    def cancel(self) -> bool:
        """Ask it to stop; False where it had ended, and then nothing changes."""
        with self._news:
            if self.over:
                return False
            self._stopped = True
            job = self._job
        if job is not None:
            job.cancel()
        return True

    def end(self, state: State, failure: Message | None = None) -> None:
        """The first end counts."""
        with self._news:
            if self.over:
                return
            self._end_state, self.failure = state, failure
            self._left_at = self._clock()
            self._news.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Until it is over; whether it is."""
        with self._news:
            return self._news.wait_for(lambda: self.over, timeout=max(timeout_s, 0.0))

    def make_smaller(self) -> None:
        with self._news:
            if self.over and self._shrink is not None and self._value is not None:
                self._value = self._shrink(self._value)

    def expired(self) -> bool:
        return self.over and self._clock() - self._left_at > KEEP_S

    def watch(self, pause_s: float = 0.0, listener: Listener = ALWAYS) -> Iterator[V]:
        """The newest value whenever there is a newer one, at most every `pause_s`, the last one at the end. To a
        listener who does not take what he was given there is nothing more for now; one who does not come within
        `UNREAD_S`, has left, or takes nothing for `STALL_S` after the end, is given up."""
        with self._news:
            self._watchers += 1
        waited_for = False
        seen, there_at, patience_s = 0, self._clock(), UNREAD_S
        try:
            while True:
                with self._news:
                    self._news.wait_for(lambda seen=seen: self._version != seen or self.over, timeout=LOOK_S)  # type: ignore[misc]
                    if listener.present:
                        waited_for = waited_for or (
                            self.over and not listener.ready and _stalled.acquire(blocking=False)
                        )
                        patience_s = STALL_S if waited_for else UNREAD_S if self.over else LEFT_S
                    if listener.ready if self.over else listener.present:
                        there_at = self._clock()
                    if self._clock() - there_at > patience_s:
                        return
                    if not listener.ready:
                        self._news.wait(AWAY_S)
                        continue
                    value, last = self._value, self.over
                    fresh, seen = self._version != seen, self._version
                if fresh and value is not None:
                    yield value
                if last:
                    return
                if pause_s:
                    with self._news:
                        self._news.wait_for(lambda: self.over, timeout=pause_s)
        finally:
            if waited_for:
                _stalled.release()
            with self._news:
                self._watchers -= 1
                self._left_at = self._clock()


class Runs:
    """All runs of this process, by id and by owner."""

    def __init__(
        self,
        clock: Clock = time.monotonic,
        *,
        most: int = MAX_GOING,
        most_each: int = MAX_GOING_VISITOR,
        memory: RunMemory | None = None,
    ) -> None:
        """`most` runs go on at once, `most_each` of one address; of one page `MAX_GOING_EACH`. `memory` is where other
        processes find those of this one."""
        self._memory = memory
        self.most, self.most_each = most, most_each
        self._guard = threading.Lock()
        self._runs: dict[str, Run[Any]] = {}  # oldest first
        self._clock = clock
        self._closed = False

    def start(
        self,
        owner: str | None,
        work: Callable[[Run[V]], V],
        end: End[V],
        *,
        kind: str = "",
        run_id: str | None = None,
        visitor: str | None = None,
        form: Mapping[str, Any] | None = None,
        shrink: Callable[[V], V] | None = None,
        keep: bool = True,
        alone_s: float | None = None,
        record: RunRecord | None = None,
        found: bool = False,
    ) -> Run[V]:
        """Begin `work` in its own thread, in the caller's context (where ZeroGPU reads whose click it was). It
        publishes on the run it is given and returns the last value; where it does not come to that, `end` of the state,
        the reason and the seconds is the last. Without `keep` the run is forgotten as soon as it has ended. Other
        processes find it by its `record`; one that was `found` so goes on here (`recall`). Raises RequestError where
        too many runs are going on, Cancelled once they have been closed."""
        run = Run(
            owner, kind, run_id=run_id, shrink=shrink, visitor=visitor, form=form, clock=self._clock,
            crowded=self._somebody_else_waits, alone_s=alone_s, record=record,
            elapsed_s=record.elapsed_s(time.time()) if record is not None and found else 0.0,
        )  # fmt: skip
        with self._guard:
            self._forget()
            if self._closed:
                raise Cancelled(message("run.was_stopped"))
            if why := self._refusal(owner, visitor):
                raise RequestError("run", why)
            for old in self._runs.values():
                if owner in old.owners:
                    old.make_smaller()
            self._runs[run.id] = run
        if not found:
            self._remember(run)

        def supervised() -> None:
            running.set(public_id(run.id))  # of this thread alone
            try:
                supervise(run, work, end)
            finally:
                run.end("failed")  # where even saying so has failed
                if not self._ended(run) or not keep:
                    with self._guard:
                        self._runs.pop(run.id, None)

        context = copy_context()
        threading.Thread(target=context.run, args=(supervised,), name=f"run-{run.id[:4]}", daemon=True).start()
        return run

    def refusal(self, owner: str | None, visitor: str | None) -> Message | None:
        """Why a run of theirs could not begin now."""
        with self._guard:
            return self._refusal(owner, visitor)

    def _refusal(self, owner: str | None, visitor: str | None) -> Message | None:
        going = [old for old in self._runs.values() if not old.over]
        of_owner = sum(owner in old.owners for old in going)
        of_visitor = sum(visitor is not None and visitor == old.visitor for old in going)
        if of_owner >= MAX_GOING_EACH or of_visitor >= self.most_each:
            return message("request.too_many_runs")
        return message("request.line_full", runs=len(going)) if len(going) >= self.most else None

    def keep_going(self, run_id: str, owner: str | None, *, on: bool = True) -> bool:
        """A run of an owner goes on, though nobody watches, or no longer; whether it does. Of one visitor's runs only
        `MAX_KEPT` may."""
        with self._guard:
            run = self._runs.get(run_id)
            if run is None or run.over or owner not in run.owners:
                return False
            others = [r for r in self._runs.values() if r.kept and not r.over and r.visitor == run.visitor and r != run]
            run.kept = on and len(others) < MAX_KEPT
            if run.record is not None:
                run.record = replace(run.record, kept=run.kept)
        self._remember(run)
        return run.kept

    def close(self) -> bool:
        """No run begins any more, and those that go on are stopped; whether all have said their last word."""
        with self._guard:
            self._closed = True
            going = [run for run in self._runs.values() if not run.over]
        for run in going:
            run.cancel()
        end = time.monotonic() + CLOSE_S
        return sum(not run.wait(end - time.monotonic()) for run in going) == 0

    def _forget(self) -> None:
        ended = [key for key, old in self._runs.items() if old.over]
        surplus = ended[: max(len(ended) - KEEP, 0)]
        for key in {*surplus, *(key for key in ended if self._runs[key].expired())}:
            del self._runs[key]

    def _somebody_else_waits(self, than: Run[Any]) -> bool:
        with self._guard:
            return any(run.place > 0 for run in self._runs.values() if run is not than)

    def adopt(self, ids: Sequence[str], owner: str | None, kind: str = "") -> list[Run[Any]]:
        """The runs of these ids and this kind that are still known, in the order of `ids`; now they are this owner's
        too."""
        with self._guard:
            self._forget()
            found = [self._runs[key] for key in ids if key in self._runs and self._runs[key].kind == kind]
            for run in found:
                run.owners |= {owner} - {None}
        return found

    def find(self, run_id: str) -> Run[Any] | None:
        """The run of this id, if it is still known."""
        with self._guard:
            self._forget()
            return self._runs.get(run_id)

    # --- with other processes

    def recall(self, run_id: str, kind: str) -> RunRecord | None:
        """The record of a run of this kind that another process began, if it is not known here; `start` it with that
        and `found`."""
        if self._memory is None or not re.fullmatch(r"[\w-]{8,64}", run_id) or self.find(run_id) is not None:
            return None
        record = self._memory.recall(run_id)
        if record is not None and record.kind != kind:
            self.forget(run_id)  # nobody would read it: it must not keep a turn
            return None
        return record

    def forget(self, run_id: str) -> None:
        """No other process is to find it any more."""
        if self._memory is not None:
            self._memory.remember(run_id, None)

    def _remember(self, run: Run[Any]) -> None:
        if self._memory is not None and run.record is not None:
            self._memory.remember(run.id, run.record, KEPT_S if run.kept else run.alone_s)

    def _ended(self, run: Run[Any]) -> bool:
        """A run is over: others find one that is done, and those that this process was stopped in. Whether it was still
        this process's."""
        if self._memory is None or run.record is None or run.state == "interrupted":
            return True
        if run.state != "done":
            return self._memory.remember(run.id, None)
        if run.record.seconds is None:
            run.record = replace(run.record, seconds=run.elapsed_s)
        return self._memory.remember(run.id, run.record, run.alone_s)

    def newest(self, owner: str | None, kind: str = "") -> Run[Any] | None:
        """The run that an owner began last."""
        with self._guard:
            mine = [run for run in self._runs.values() if owner in run.owners and run.kind == kind]
        return mine[-1] if mine else None

    def stop(self, owner: str | None) -> int:
        """Ask every run of an owner to stop; how many there were."""
        with self._guard:
            going = [run for run in self._runs.values() if owner and owner in run.owners]
        return sum(run.cancel() for run in going)


_OF_SYSTEM = {
    "run.disk": (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    "run.read_only": (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR),
    "run.too_many_files": (errno.EMFILE, errno.ENFILE),
}


def reason_of(error: BaseException) -> Message:
    """What a visitor is told of an error that is no sentence of ours. It may name files of the server, so its own text
    is for the log."""
    if is_out_of_memory(error):
        return message("run.no_memory")
    number = error.errno if isinstance(error, OSError) else None
    return message(next((code for code, numbers in _OF_SYSTEM.items() if number in numbers), "run.sorry"))


def supervise(run: Run[V], work: Callable[[Run[V]], V], end: End[V]) -> None:
    """`work` from start to end. Here, and nowhere else, an error becomes a final state and its reason."""
    state: State = "failed"
    failure: Message | None = None
    try:
        last = work(run)
        state = "done"
    except Cancelled as error:
        job = run._job  # noqa: SLF001 - the other half of Run.start
        state = "interrupted" if job is not None and job.state == "interrupted" else "cancelled"
        reason = error.message  # more than that it was stopped, where there is more to say
        if reason.code == "run.was_stopped":
            reason = message("run.interrupted" if state == "interrupted" else "run.stopped")
        last = end(state, reason, run.elapsed_s)
    except DemoError as error:
        failure = error.message
    except Exception as error:
        log.exception("a run failed")
        failure = reason_of(error)
        let_go(error)
    if failure is not None:
        last = end(state, failure, run.elapsed_s)
    run.publish(last)
    run.end(state, failure)
