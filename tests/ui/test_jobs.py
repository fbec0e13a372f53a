"""Runs that outlive a page."""

from __future__ import annotations

import threading
from collections.abc import Callable

from opensora_demo.ui.jobs import CROWDED_S, GRACE_S, KEEP, KEEP_S, Job, Jobs


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def steps(gate: threading.Semaphore, count: int) -> Callable[[Job], None]:
    def work(job: Job) -> None:
        for i in range(count):
            gate.acquire()
            if job.cancel.is_set():
                job.publish("stopped")
                return
            job.publish(i)

    return work


def test_values_arrive_and_the_last_is_never_missed() -> None:
    gate = threading.Semaphore(100)
    job = Jobs().start("a", steps(gate, 50))
    seen = list(job.watch(pause_s=0.001))
    assert seen[-1] == 49
    assert seen == sorted(set(seen))
    assert job.over
    assert list(job.watch()) == [49]  # also for those who come late


def test_a_run_goes_on_without_its_page_and_is_found_again() -> None:
    gate, all_jobs = threading.Semaphore(1), Jobs()
    job = all_jobs.start("old page", steps(gate, 3))
    watching = job.watch()
    assert next(watching) == 0
    watching.close()  # type: ignore[attr-defined]
    gate.release(2)
    (found,) = all_jobs.adopt(["unknown", job.id], "new page")
    assert list(found.watch())[-1] == 2
    assert all_jobs.stop("old page") == 0


def test_a_run_nobody_came_back_to_is_asked_to_stop() -> None:
    clock, gate = Clock(), threading.Semaphore(1)
    all_jobs = Jobs(clock)
    job = all_jobs.start("a", steps(gate, 100))
    watching = job.watch()
    assert next(watching) == 0
    clock.now = 10 * GRACE_S  # watched all the while
    gate.release()
    assert next(watching) == 1
    assert not job.cancel.is_set()
    watching.close()  # type: ignore[attr-defined]
    clock.now += GRACE_S / 2
    job.publish("more")
    assert not job.cancel.is_set()
    clock.now += GRACE_S
    job.publish("more")
    assert job.cancel.is_set()
    gate.release()
    assert list(job.watch())[-1] == "stopped"


def test_a_run_nobody_watches_ends_sooner_when_others_wait() -> None:
    clock, gate = Clock(), threading.Semaphore(0)
    all_jobs = Jobs(clock)
    job, other = all_jobs.start("a", steps(gate, 9)), all_jobs.start("b", steps(gate, 9))
    clock.now = 2 * CROWDED_S
    job.publish("x")
    assert not job.cancel.is_set()
    other.waiting = True
    job.publish("x")
    assert job.cancel.is_set()
    gate.release(20)


def test_stop_reaches_the_runs_of_one_session() -> None:
    gate, all_jobs = threading.Semaphore(0), Jobs()
    mine, other = all_jobs.start("a", steps(gate, 1)), all_jobs.start("b", steps(gate, 1))
    assert all_jobs.stop(None) == 0
    assert all_jobs.stop("c") == 0
    assert all_jobs.stop("a") == 1
    gate.release(2)
    assert list(mine.watch()) == ["stopped"]
    assert list(other.watch()) == [0]
    assert all_jobs.stop("b") == 0  # it has ended


def test_old_runs_are_forgotten() -> None:
    clock = Clock()
    all_jobs = Jobs(clock)
    made = []
    for _ in range(KEEP + 5):
        made.append(all_jobs.start("a", lambda job: job.publish(1)))
        list(made[-1].watch())
    assert not all_jobs.adopt([made[0].id], "a")
    assert all_jobs.adopt([made[-1].id], "a") == [made[-1]]
    clock.now += KEEP_S + 1
    last = all_jobs.start("a", lambda job: job.publish(1))
    list(last.watch())
    assert all_jobs.adopt([job.id for job in (*made, last)], "a") == [last]


def test_ids_cannot_be_guessed() -> None:
    all_jobs = Jobs()
    ids = {all_jobs.start("a", lambda job: None).id for _ in range(50)}
    assert len(ids) == 50
    assert min(map(len, ids)) >= 16
