"""Runs that outlive a page."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from opensora_demo.errors import Cancelled, DemoError, NumericsError, RequestError
from opensora_demo.messages import Message, message, plain, render
from opensora_demo.service import runs as runs_module
from opensora_demo.service.engine import Job, State, Waiting
from opensora_demo.service.runs import (
    CROWDED_S,
    GRACE_S,
    KEEP,
    KEEP_S,
    KEPT_S,
    LEFT_S,
    MAX_GOING,
    MAX_GOING_EACH,
    MAX_GOING_VISITOR,
    STALL_S,
    Run,
    Runs,
)
from opensora_demo.service.visitors import STALLED_S, UNREAD_S, Listener, Readers

WAIT_S = 10.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeJob:
    """A job whose events are numbers, one for each release of the gate; its states are those the test sets."""

    def __init__(self, gate: threading.Semaphore, count: int) -> None:
        self.id = "job"
        self.state: State = "queued"
        self.place = 0
        self.read = threading.Event()
        self._gate, self._count = gate, count

    def events(self) -> Iterator[int]:
        self.read.set()
        for i in range(self._count):
            assert self._gate.acquire(timeout=WAIT_S)
            if self.state in ("cancelled", "interrupted"):
                raise Cancelled(message("run.was_stopped"))
            self.state = "running"
            yield i
        self.state = "done"

    def cancel(self) -> bool:
        if self.state == "done":
            return False
        self.state = "cancelled"
        return True


def ended(state: State, reason: Message, seconds: float) -> Any:
    return state


def begin(runs: Runs, owner: str | None, gate: threading.Semaphore, count: int, **options: Any) -> Run[Any]:
    def work(run: Run[Any]) -> Any:
        last = None
        for last in run.follow(FakeJob(gate, count)):
            run.publish(last)
        return last

    return runs.start(owner, work, ended, **options)


def at_once(runs: Runs, owner: str | None = "a", value: Any = 1, **options: Any) -> Run[Any]:
    run = runs.start(owner, lambda run: value, ended, **options)
    list(run.watch())
    return run


def test_values_arrive_and_the_last_is_never_missed() -> None:
    run = begin(Runs(), "a", threading.Semaphore(100), 50)
    seen = list(run.watch(pause_s=0.001))
    assert seen[-1] == 49
    assert seen == sorted(seen)
    assert run.over
    assert run.state == "done"
    assert list(run.watch()) == [49]  # also for those who come late


def test_a_value_is_told_once() -> None:
    """The end is no news where nothing has changed."""
    run: Run[int] = Run("a", "")
    run.publish(1)
    watching = run.watch()
    assert next(watching) == 1
    run.end("done")
    assert list(watching) == []


def test_a_run_goes_on_without_its_page_and_is_found_again() -> None:
    gate, runs = threading.Semaphore(1), Runs()
    run = begin(runs, "old page", gate, 3)
    watching = run.watch()
    assert next(watching) == 0
    watching.close()  # type: ignore[attr-defined]
    gate.release(2)
    (found,) = runs.adopt(["unknown", run.id], "new page")
    assert list(found.watch())[-1] == 2
    assert runs.stop("old page") == 0


def test_only_runs_of_the_kind_that_was_asked_for_are_found() -> None:
    runs = Runs()
    clip, figures = at_once(runs, kind="clip"), at_once(runs, kind="figures", run_id="mine")
    assert figures.id == "mine"
    assert runs.adopt([figures.id, clip.id], "a", "clip") == [clip]
    assert runs.adopt([figures.id, clip.id], "a", "comparison") == []


def test_a_run_nobody_came_back_to_is_asked_to_stop() -> None:
    clock, gate = Clock(), threading.Semaphore(1)
    run = begin(Runs(clock), "a", gate, 100)
    watching = run.watch()
    assert next(watching) == 0
    clock.now = 10 * GRACE_S  # watched all the while
    gate.release()
    assert next(watching) == 1
    watching.close()  # type: ignore[attr-defined]
    clock.now += GRACE_S / 2
    run.publish("more")
    assert run.state == "running"
    clock.now += GRACE_S
    run.publish("more")
    gate.release()
    assert list(run.watch())[-1] == "cancelled"
    assert run.state == "cancelled"


def test_a_run_nobody_watches_ends_sooner_when_others_wait() -> None:
    clock, gate = Clock(), threading.Semaphore(1)
    runs = Runs(clock)
    run, other = begin(runs, "a", gate, 9), FakeJob(gate, 9)
    assert next(run.watch()) == 0
    clock.now = 2 * CROWDED_S
    run.publish("x")
    assert run.state == "running"
    other.place = 1
    second = runs.start("b", lambda waiting: list(waiting.follow(other)), ended)
    assert other.read.wait(WAIT_S)
    assert second.place == 1
    clock.now += 2 * CROWDED_S
    run.publish("x")
    gate.release(20)
    assert list(run.watch())[-1] == "cancelled"
    second.cancel()


def test_stop_reaches_the_runs_of_one_owner() -> None:
    gate, runs = threading.Semaphore(0), Runs()
    mine, other = begin(runs, "a", gate, 1), begin(runs, "b", gate, 1)
    assert runs.stop(None) == 0
    assert runs.stop("c") == 0
    assert runs.stop("a") == 1
    gate.release(2)
    assert list(mine.watch()) == ["cancelled"]
    assert list(other.watch()) == [0]
    assert runs.stop("b") == 0  # it has ended
    assert (mine.state, other.state) == ("cancelled", "done")


def test_a_stopped_run_does_not_begin_its_next_job() -> None:
    runs, jobs = Runs(), [FakeJob(threading.Semaphore(9), 1) for _ in range(2)]
    between, go_on = threading.Event(), threading.Event()

    def work(run: Run[Any]) -> Any:
        for job in jobs:
            for event in run.follow(job):
                run.publish(event)
            between.set()
            assert go_on.wait(WAIT_S)
        return "both"

    run = runs.start("a", work, ended)
    assert between.wait(WAIT_S)
    assert run.state == "running"  # though its job is done
    assert run.cancel()
    go_on.set()
    assert list(run.watch())[-1] == "cancelled"
    assert jobs[1].state == "cancelled"
    assert not run.cancel()


def test_final_states_are_final() -> None:
    run = at_once(Runs())
    assert run.state == "done"
    assert not run.cancel()
    run.end("failed", message("run.sorry"))
    assert (run.state, run.failure, run.value) == ("done", None, 1)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            NumericsError(message("run.clip_not_finite")),
            "the decoded clip is not finite; try another guidance scale or more steps",
        ),
        (DemoError(plain("plain")), "plain"),
        (
            OSError(errno.ENOSPC, "x", "/secret"),
            "the server's disk is full, so the file could not be written; try again later",
        ),
        (
            OSError(errno.EROFS, "x", "/secret"),
            "the server may not write to its folder of clips, so the file could not be written",
        ),
        (OSError(errno.EMFILE, "x"), "the server has too many files open; try again in a moment"),
        (OSError(errno.ENOMEM, "x"), "the server has no memory left for this; try again later, or ask for less"),
        (MemoryError(), "the server has no memory left for this; try again later, or ask for less"),
        (OSError(errno.EAGAIN, "x"), "the server has no memory left for this; try again later, or ask for less"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
            "the server has no memory left for this; try again later, or ask for less",
        ),
        (OSError("/secret/path"), "Something went wrong; the details are in the server's log."),
        (ZeroDivisionError("/secret/path"), "Something went wrong; the details are in the server's log."),
    ],
)
def test_every_error_ends_a_run_with_a_reason(
    error: Exception, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    def work(run: Run[Any]) -> Any:
        raise error

    reasons: list[str] = []

    def end(state: State, reason: Message, seconds: float) -> Any:
        reasons.append(render(reason))
        return state

    run = Runs().start("a", work, end)
    assert list(run.watch()) == ["failed"]
    assert run.state == "failed"
    assert run.failure is not None
    assert [render(run.failure)] == reasons == [sentence]
    assert "/secret/path" not in sentence
    assert ("Traceback" in caplog.text) == (not isinstance(error, DemoError))


def test_a_run_that_the_engine_interrupted_says_so() -> None:
    gate = threading.Semaphore(1)
    job = FakeJob(gate, 5)

    def work(run: Run[Any]) -> Any:
        for event in run.follow(job):
            run.publish(event)
        return "done"

    run = Runs().start("a", work, ended)
    assert next(run.watch()) == 0
    job.state = "interrupted"
    gate.release()
    assert list(run.watch())[-1] == "interrupted"
    assert run.state == "interrupted"
    assert run.failure is None


def test_where_even_the_end_cannot_be_said_the_run_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda args: None)

    def work(run: Run[Any]) -> Any:
        raise ZeroDivisionError

    def end(state: State, reason: Message, seconds: float) -> Any:
        raise ZeroDivisionError

    run = Runs().start("a", work, end)
    assert list(run.watch()) == []
    assert run.state == "failed"


def test_a_newer_run_of_the_same_owner_makes_the_older_ones_smaller() -> None:
    runs = Runs()
    shrink: Callable[[Any], Any] = lambda value: (value[0], None)  # noqa: E731
    old, other = at_once(runs, "a", (1, 2), shrink=shrink), at_once(runs, "b", (1, 2), shrink=shrink)
    plain = at_once(runs, "b", (1, 2))
    at_once(runs, "a", (3, 4), shrink=shrink)
    assert (old.value, other.value, plain.value) == ((1, None), (1, None), (1, 2))
    assert at_once(runs, "a", (5, 6), shrink=shrink).value == (5, 6)


def test_too_many_runs_are_refused() -> None:
    gate, runs = threading.Semaphore(0), Runs()
    going = [begin(runs, "a", gate, 1) for _ in range(MAX_GOING_EACH)]
    with pytest.raises(RequestError, match="too many runs are going on"):
        begin(runs, "a", gate, 1)
    going += [begin(runs, None, gate, 1) for _ in range(MAX_GOING - MAX_GOING_EACH)]
    with pytest.raises(RequestError, match="60 runs are going on or waiting"):
        begin(runs, "b", gate, 1)
    gate.release(MAX_GOING)
    for run in going:
        list(run.watch())
    assert at_once(runs, "a").state == "done"


def test_old_runs_are_forgotten() -> None:
    clock = Clock()
    runs = Runs(clock)
    made = [at_once(runs) for _ in range(KEEP + 5)]
    assert not runs.adopt([made[0].id], "a")
    assert runs.adopt([made[-1].id], "a") == [made[-1]]
    clock.now += KEEP_S + 1
    last = at_once(runs)
    assert runs.adopt([run.id for run in (*made, last)], "a") == [last]


def test_a_run_that_is_not_kept_is_gone_with_its_end() -> None:
    runs = Runs()
    gate = threading.Semaphore(0)
    run = begin(runs, "a", gate, 1, keep=False)
    assert runs.adopt([run.id], "a") == [run]
    gate.release()
    list(run.watch())
    for thread in threading.enumerate():
        if thread.name == f"run-{run.id[:4]}":
            thread.join(WAIT_S)
    assert runs.adopt([run.id], "a") == []


def test_ids_cannot_be_guessed() -> None:
    runs = Runs()
    ids = {at_once(runs).id for _ in range(50)}
    assert len(ids) == 50
    assert min(map(len, ids)) >= 16


def test_a_fake_job_is_a_job() -> None:
    job: Job[int] = FakeJob(threading.Semaphore(), 1)
    assert job.place == 0
    assert Waiting(2).place == 2


def test_a_run_that_is_kept_goes_on_though_nobody_watches() -> None:
    clock, gate = Clock(), threading.Semaphore(0)
    runs = Runs(clock)
    run = begin(runs, "a", gate, 3, visitor="here")
    assert not runs.keep_going(run.id, "another")
    assert not runs.keep_going("unknown", "a")
    assert runs.keep_going(run.id, "a")
    second = begin(runs, "a", gate, 3, visitor="here")
    assert not runs.keep_going(second.id, "a")  # one of a visitor's
    clock.now = KEPT_S
    run.publish(0)
    assert not run.over
    assert not runs.keep_going(run.id, "a", on=False)
    assert runs.keep_going(second.id, "a")
    clock.now += GRACE_S + 1
    run.publish(1)
    gate.release(6)
    assert list(run.watch())[-1] == "cancelled"
    assert not runs.keep_going(run.id, "a")  # it is over
    list(second.watch())


def test_a_visitor_has_so_many_runs_whatever_his_pages() -> None:
    gate, runs = threading.Semaphore(0), Runs()
    mine = [begin(runs, f"page {k}", gate, 1, visitor="here") for k in range(MAX_GOING_VISITOR)]
    assert runs.refusal("another page", "here") == message("request.too_many_runs")
    with pytest.raises(RequestError, match="too many runs"):
        begin(runs, "another page", gate, 1, visitor="here")
    assert runs.refusal("another page", "there") is None
    gate.release(MAX_GOING_VISITOR)
    for run in mine:
        list(run.watch())
    assert runs.refusal("another page", "here") is None


def test_closing_ends_every_run_and_none_begins() -> None:
    gate, runs = threading.Semaphore(0), Runs()
    run = begin(runs, "a", gate, 3)
    gate.release(3)
    assert runs.close()
    assert run.over
    with pytest.raises(Cancelled):
        begin(runs, "a", gate, 1)


def test_a_listener_who_does_not_come_or_has_left_is_given_up() -> None:
    clock = Clock()
    readers = Readers(clock)
    never, gone = Listener(readers, "never"), Listener(readers, "gone")
    run: Run[int] = Run("a", "", clock=clock)
    run.publish(1)
    readers.opened("gone")
    watching = run.watch(0.0, gone)
    assert next(watching) == 1
    readers.closed("gone")
    clock.now = LEFT_S + 1
    run.publish(2)
    assert list(watching) == []

    waiting = threading.Thread(target=list, args=(run.watch(0.0, never),))
    waiting.start()
    while run._watchers == 0:
        pass
    clock.now += UNREAD_S + 1
    waiting.join(60)
    assert not waiting.is_alive()


class HeldUp:
    """A listener who is there and takes nothing for so long; every look at him takes three seconds."""

    present = True

    def __init__(self, clock: Clock, until_s: float) -> None:
        self._clock, self._until_s = clock, until_s

    @property
    def ready(self) -> bool:
        self._clock.now += 3
        return self._clock.now > self._until_s


@pytest.mark.parametrize(
    ("places", "until_s", "last"), [(1, 45.0, [2]), (1, 2 * STALL_S, []), (0, 45.0, []), (0, UNREAD_S / 2, [2])]
)
def test_a_run_that_ends_while_its_stream_is_held_up_waits_for_it(
    places: int, until_s: float, last: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_module, "_stalled", held := threading.BoundedSemaphore(1))
    if not places:
        held.acquire()
    clock = Clock()
    run: Run[int] = Run("a", "", clock=clock)
    run.publish(2)
    run.end("done")
    listener: Any = HeldUp(clock, until_s)
    assert list(run.watch(0.0, listener)) == last
    assert held.acquire(blocking=False) == bool(places)  # its place is free again


def test_a_listener_who_takes_nothing_gets_nothing_more_until_he_does() -> None:
    clock = Clock()
    readers = Readers(clock)
    run: Run[int] = Run("a", "", clock=clock)
    run.publish(1)
    readers.opened("slow")
    watching = run.watch(0.0, Listener(readers, "slow"))
    assert next(watching) == 1
    readers.sending("slow")
    clock.now = STALLED_S
    for value in (2, 3, 4):
        run.publish(value)
    run.end("done")
    threading.Timer(0.2, readers.sent, ("slow",)).start()
    assert list(watching) == [4]
