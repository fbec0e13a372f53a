"""Runs that another page process of the same cluster finds: what the line keeps of them, and what becomes of them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from opensora_demo.catalog import NANO
from opensora_demo.cluster import dispatcher as dispatching
from opensora_demo.cluster import engine as engines
from opensora_demo.cluster.dispatcher import Dispatcher, Place
from opensora_demo.cluster.engine import ClusterEngine, LineSilent, ReplicaLost
from opensora_demo.cluster.records import Records
from opensora_demo.cluster.turns import Turns
from opensora_demo.errors import Cancelled
from opensora_demo.request.events import Finished, StepPreview
from opensora_demo.service.engine import RunRecord
from opensora_demo.service.outputs import OutputFolder
from opensora_demo.service.runs import Runs, part_id
from opensora_demo.service.video_jobs import VideoJobs
from opensora_demo.weights.options import WeightOptions
from tests.ui.conftest import FakePipeline
from tests.unit.test_cluster import RUN, WAIT_S, Here, Reader, entry, kinds, request_of, until
from tests.unit.test_service_videos import ASKED

RUN_ID = "a-run-of-somebody"
JOB = part_id(RUN_ID)


# --- what is kept


def test_a_run_is_found_by_its_id_and_belongs_to_who_found_it_last() -> None:
    records = Records()
    records.write("run", "one", b"first", 30.0, 0.0)
    assert records.take("other", "two", 1.0) is None
    assert records.belongs("run", "one")
    assert records.take("run", "two", 1.0) == b"first"
    assert not records.belongs("run", "one")
    records.write("run", "one", b"late", 30.0, 2.0)
    assert not records.forget("run", "one")
    assert records.take("run", "two", 2.0) == b"first"
    records.write("run", "two", b"second", 7200.0, 3.0)
    assert (records.take("run", "two", 3.0), records.alone_s("run")) == (b"second", 7200.0)
    assert records.forget("run", "two")
    assert (records.take("run", "two", 3.0), records.alone_s("run")) == (None, 0.0)


def test_a_log_is_that_of_the_last_replica() -> None:
    records = Records()
    records.add("run", "job", "x", 0, [b"of a run that is not kept"], 0.0, over=False)
    assert records.log("run", "job") is None
    records.write("run", "one", b"", 30.0, 0.0)
    records.add("run", "job", "x", 0, [b"1", b"2"], 0.0, over=False)
    records.add("run", "job", "x", 2, [b"3"], 1.0, over=False)
    log = records.log("run", "job")
    assert log is not None
    assert (log.said, log.over, log.heard_at) == ([b"1", b"2", b"3"], False, 1.0)
    records.add("run", "job", "y", 0, [b"1"], 2.0, over=False)
    records.add("run", "job", "x", 3, [b"4"], 3.0, over=True)
    log = records.log("run", "job")
    assert log is not None
    assert (log.said, log.over) == ([b"1"], False)
    records.add("run", "job", "y", 1, [], 4.0, over=True)
    assert log.over


def test_what_is_kept_is_bounded_in_number_bytes_and_age() -> None:
    records = Records(keep=3, keep_bytes=100, keep_s=50.0)
    for k in range(4):
        records.write(f"run {k}", "page", b"x", 0.0, float(k))
    assert [records.page_of(f"run {k}") for k in range(4)] == [None, "page", "page", "page"]
    records.add("run 1", "job", "a", 0, [b"x" * 98], 4.0, over=True)  # heard of last: the others go
    assert [records.page_of(f"run {k}") for k in range(4)] == [None, "page", None, "page"]
    records.add("run 1", "job", "a", 1, [b"x" * 10], 5.0, over=True)
    assert records.page_of("run 3") is None
    assert records.log("run 1", "job") is None  # too large alone: the run is known all the same
    assert records.page_of("run 1") == "page"
    records.add("run 1", "job", "a", 0, [b"x"], 6.0, over=True)
    assert records.log("run 1", "job") is None
    records.sweep(56.0)
    assert records.page_of("run 1") is not None
    records.sweep(56.1)
    assert records.page_of("run 1") is None


def test_bytes_that_are_dropped_are_counted() -> None:
    records = Records(keep_bytes=100)
    for k in range(50):
        records.write("run", "page", b"x" * 20, 0.0, 0.0)
        records.add("run", "job", str(k), 0, [b"x" * 60], 0.0, over=False)
        records.write("short", "page", b"x" * 20, 0.0, 0.0)
        assert records.forget("short", "page")
    log = records.log("run", "job")
    assert log is not None
    assert log.attempt == "49"


# --- whose turn it is meanwhile


def test_a_job_whose_page_is_gone_is_passed_over_and_keeps_its_place() -> None:
    turns = Turns(1)
    for page in ("one", "two"):
        turns.heard(page, 0.0)
    turns.enter(entry("r1", page="two"))
    assert turns.grant() == ["r1"]
    a = replace(entry("a1", page="one"), run="run")
    turns.enter(a)
    turns.enter(entry("b1", page="two"))
    assert (turns.place("a1"), turns.place("b1"), turns.waiting) == (1, 2, 2)
    turns.heard("two", 10.0)
    assert turns.sweep(11.0, 10.0, lambda e: 30.0 if e.run else 0.0) == []
    assert (turns.place("a1"), turns.place("b1"), turns.waiting) == (0, 1, 1)
    turns.take("run", "two")
    assert (turns.place("a1"), turns.place("b1"), turns.waiting) == (1, 2, 2)
    turns.leave("r1")
    assert turns.grant() == ["a1"]


def test_a_job_that_nobody_finds_is_dropped_after_a_while() -> None:
    turns = Turns(1)
    turns.heard("one", 0.0)
    a = replace(entry("a1", page="one"), run="run")
    turns.enter(a)
    assert turns.grant() == ["a1"]
    assert turns.sweep(40.0, 10.0, lambda _: 30.0) == []
    assert turns.holds("a1")
    assert turns.sweep(40.1, 10.0, lambda _: 30.0) == ["a1"]
    assert not turns.holds("a1")


def test_a_turn_of_a_run_that_is_over_is_free_once_its_page_is_gone() -> None:
    now = 0.0

    async def story() -> None:
        nonlocal now
        line = Dispatcher(1, clock=lambda: now)
        mine = replace(entry("a1", page="one"), run="run")
        await line.write("run", "one", b"", 30.0)
        assert (await line.turn(mine, 0, WAIT_S)).granted
        await line.told("run", "a1", "x", 0, [b"all"], over=True)
        now = dispatching.LOST_S + 1
        assert (await line.turn(entry("b1", page="two"), 0, WAIT_S)).granted

    asyncio.run(story())


def test_who_reads_a_log_hears_what_is_new_and_of_another_replica_all() -> None:
    now = 0.0

    async def story() -> None:
        nonlocal now
        line = Dispatcher(1, clock=lambda: now)
        await line.write("run", "one", b"", 30.0)
        assert (await line.read("run", "job", Place(), 0.01)).silent_s is None
        reading = asyncio.create_task(line.read("run", "job", Place(), WAIT_S))
        await asyncio.sleep(0)
        await line.told("run", "job", "x", 0, [b"1", b"2"], over=False)
        said = await reading
        assert (said.words, said.place, said.over) == ((b"1", b"2"), Place("x", 2), False)
        now = 3.0
        said = await line.read("run", "job", said.place, 0.01)
        assert (said.words, said.silent_s) == ((), 3.0)
        await line.wanted("job", 0.0, "run")  # so its replica is there
        assert (await line.read("run", "job", said.place, 0.01)).silent_s == 0.0
        await line.told("run", "job", "y", 0, [b"1"], over=False)
        said = await line.read("run", "job", said.place, WAIT_S)
        assert (said.words, said.place) == ((b"1",), Place("y", 1))
        await line.told("run", "job", "y", 1, [], over=True)
        assert (await line.read("run", "job", said.place, WAIT_S)).over

    asyncio.run(story())


# --- two page processes, and replicas that are not theirs


class Way:
    """A page process's way to a cluster. Once it has `died` nothing it says arrives."""

    def __init__(self, here: Here) -> None:
        self.here = here
        self.died = False

    def __getattr__(self, name: str) -> Any:
        def ask(*args: Any) -> Any:
            if not self.died:
                return getattr(self.here, name)(*args)
            if name in ("leave", "write", "close"):
                return None
            raise LineSilent("dead")

        return ask

    def stream(self, ticket: Any) -> Any:
        if self.died:
            raise ReplicaLost("dead")
        return Heard(self.here.stream(ticket), self)


@dataclass
class Heard:
    told: Any
    way: Way

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.told)

    def cancel(self) -> None:
        if not self.way.died:
            self.told.cancel()


@dataclass
class PageProcess:
    way: Way
    engine: ClusterEngine

    def die(self) -> None:
        self.way.died = True

    def remember(self, kind: str = "clip", run_id: str = RUN_ID, alone_s: float = 30.0, **what: Any) -> None:
        record = RunRecord(kind=kind, what=request_of(**what), number=1, began_at=time.time())
        assert self.engine.remember(run_id, record, alone_s)


@pytest.fixture
def pipelines() -> list[FakePipeline]:
    return [FakePipeline()]


@pytest.fixture
def cluster(pipelines: list[FakePipeline], monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    monkeypatch.setattr(engines, "PULSE_S", 0.05)
    monkeypatch.setattr(engines, "ALIVE_S", 0.02)
    monkeypatch.setattr(engines, "SILENT_S", 0.1)
    monkeypatch.setattr("opensora_demo.cluster.replica.ASK_S", 0.02)
    made = Here(pipelines)
    yield made
    made.end()


Start = Callable[[], PageProcess]


@pytest.fixture
def start(cluster: Here) -> Iterator[Start]:
    made: list[PageProcess] = []

    def begin() -> PageProcess:
        way = Way(cluster)
        made.append(PageProcess(way, ClusterEngine(way, WeightOptions(models=frozenset({NANO.id})))))
        return made[-1]

    yield begin
    for page in made:
        page.engine.close()


def steps_of(events: list[Any]) -> list[int]:
    return [event.index for event in events if isinstance(event, StepPreview)]


def test_a_run_that_goes_on_is_found_with_all_that_was_seen(
    start: Start, cluster: Here, pipelines: list[FakePipeline]
) -> None:
    pipelines[0].gate = gate = threading.Semaphore(2)
    one, two = start(), start()
    one.remember()
    before = Reader(one.engine.submit(request_of(), "visitor", job_id=JOB))
    until(lambda: steps_of(before.events) == [0, 1])
    one.die()
    record = two.engine.recall(RUN_ID)
    assert record is not None
    after = Reader(two.engine.submit(record.what, "visitor", job_id=JOB))
    until(lambda: steps_of(after.events) == [0, 1])
    assert after.job.state == "running"
    gate.release()
    assert after.end() is None
    assert kinds(after.events) == RUN
    assert after.job.state == "done"
    assert isinstance(after.events[-1], Finished)
    assert len(after.events[-1].clips[0].frames) == request_of().shape.frames
    assert cluster.served == [JOB]  # no second replica made it
    until(lambda: not two.engine.line().busy)


def test_a_run_that_is_done_is_found_without_being_made(start: Start, cluster: Here) -> None:
    one, two = start(), start()
    one.remember()
    first = list(one.engine.submit(request_of(), job_id=JOB).events())
    one.die()
    assert two.engine.recall(RUN_ID) is not None
    found = list(two.engine.submit(request_of(), job_id=JOB).events())
    assert kinds(found) == kinds(first) == RUN
    assert (found[-1].clips[0].frames == first[-1].clips[0].frames).all()
    assert cluster.served == [JOB]


def test_one_that_waits_is_passed_over_and_gets_its_place_back(
    start: Start, cluster: Here, pipelines: list[FakePipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipelines[0].gate = gate = threading.Semaphore(0)
    one, two = start(), start()
    runs = Reader(two.engine.submit(request_of(), "x"))
    until(lambda: runs.job.state == "running")
    one.remember()
    lost = Reader(one.engine.submit(request_of(), "y", job_id=JOB))
    until(lambda: lost.job.place == 1)
    later = Reader(two.engine.submit(request_of(), "z"))
    until(lambda: later.job.place == 2)
    monkeypatch.setattr(dispatching, "LOST_S", 0.2)
    one.die()
    until(lambda: later.job.place == 1)
    assert two.engine.recall(RUN_ID) is not None
    found = Reader(two.engine.submit(request_of(), "y", job_id=JOB))
    until(lambda: found.job.place == 1 and later.job.place == 2)
    gate.release(9)
    assert [reader.end() for reader in (runs, found, later)] == [None] * 3
    assert cluster.served == [runs.job.id, JOB, later.job.id]
    assert isinstance(lost.end(), Exception)


def test_stop_ends_a_run_that_was_found_where_it_is_made(start: Start, pipelines: list[FakePipeline]) -> None:
    pipelines[0].gate = threading.Semaphore(1)
    one, two = start(), start()
    cluster_began_long_ago(two)
    one.remember()
    before = Reader(one.engine.submit(request_of(), job_id=JOB))
    until(lambda: steps_of(before.events) == [0])
    one.die()
    assert two.engine.recall(RUN_ID) is not None
    after = Reader(two.engine.submit(request_of(), job_id=JOB))
    until(lambda: steps_of(after.events) == [0])
    assert after.job.cancel()
    assert isinstance(after.end(), Cancelled)
    until(lambda: pipelines[0].closed == 1)
    until(lambda: not two.engine.line().busy)


def test_who_has_lost_a_run_to_another_page_does_not_stop_it(start: Start, pipelines: list[FakePipeline]) -> None:
    pipelines[0].gate = gate = threading.Semaphore(1)
    one, two = start(), start()
    one.remember()
    before = Reader(one.engine.submit(request_of(), job_id=JOB))
    until(lambda: steps_of(before.events) == [0])
    assert two.engine.recall(RUN_ID) is not None
    after = Reader(two.engine.submit(request_of(), job_id=JOB))
    assert before.job.cancel()
    assert isinstance(before.end(), Cancelled)
    assert not one.engine.remember(RUN_ID, None)
    gate.release(2)
    assert after.end() is None
    assert kinds(after.events) == RUN


def test_who_waits_with_a_run_that_another_page_takes_ends(
    start: Start, cluster: Here, pipelines: list[FakePipeline]
) -> None:
    pipelines[0].gate = gate = threading.Semaphore(0)
    one, two = start(), start()
    runs = Reader(two.engine.submit(request_of(), "x"))
    until(lambda: runs.job.state == "running")
    one.remember()
    before = Reader(one.engine.submit(request_of(), "y", job_id=JOB))
    until(lambda: before.job.place == 1)
    assert two.engine.recall(RUN_ID) is not None
    error = before.end()
    assert isinstance(error, Cancelled)
    assert error.message.code == "run.taken"
    after = Reader(two.engine.submit(request_of(), "y", job_id=JOB))
    gate.release(6)
    assert [runs.end(), after.end()] == [None, None]
    assert cluster.served == [runs.job.id, JOB]


def test_a_page_that_ends_leaves_its_runs_to_others(start: Start, cluster: Here, pipelines: list[FakePipeline]) -> None:
    pipelines[0].gate = gate = threading.Semaphore(1)
    one, two = start(), start()
    one.remember()
    one.remember(run_id="another-run", kind="clip")
    runs = Reader(one.engine.submit(request_of(), "x", job_id=JOB))
    until(lambda: steps_of(runs.events) == [0])
    waits = Reader(one.engine.submit(request_of(), "y", job_id=part_id("another-run")))
    until(lambda: waits.job.place == 1)
    assert one.engine.close()
    assert (runs.job.state, waits.job.state) == ("interrupted", "interrupted")
    assert pipelines[0].closed == 0
    later = Reader(two.engine.submit(request_of(), "z"))
    until(lambda: later.job.place == 1)  # what waits is passed over at once
    assert two.engine.recall(RUN_ID) is not None
    found = Reader(two.engine.submit(request_of(), "x", job_id=JOB))
    gate.release(5)
    assert [found.end(), later.end()] == [None, None]
    assert cluster.served == [JOB, later.job.id]


def test_a_run_that_nobody_comes_back_for_is_stopped(
    start: Start, pipelines: list[FakePipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipelines[0].gate = threading.Semaphore(1)
    one, two = start(), start()
    one.remember(alone_s=0.1)
    before = Reader(one.engine.submit(request_of(), job_id=JOB))
    until(lambda: steps_of(before.events) == [0])
    monkeypatch.setattr(dispatching, "LOST_S", 0.1)
    cluster_began_long_ago(two)
    one.die()
    until(lambda: pipelines[0].closed == 1)
    assert two.engine.recall(RUN_ID) is not None
    found = Reader(two.engine.submit(request_of(), job_id=JOB))
    assert isinstance(found.end(), Cancelled)
    assert steps_of(found.events) == [0]  # as far as it had come


def cluster_began_long_ago(page: Any) -> None:
    """A line that has just begun takes every job for wanted."""
    page.way.here.line._began -= 3600


def test_a_replica_that_is_lost_meanwhile_is_replaced(
    start: Start, cluster: Here, pipelines: list[FakePipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipelines[0].gate = gate = threading.Semaphore(1)
    one, two = start(), start()
    one.remember()
    before = Reader(one.engine.submit(request_of(), job_id=JOB))
    until(lambda: steps_of(before.events) == [0])
    one.die()
    assert two.engine.recall(RUN_ID) is not None
    after = Reader(two.engine.submit(request_of(), job_id=JOB))
    until(lambda: steps_of(after.events) == [0])
    monkeypatch.setattr(engines, "LOST_REPLICA_S", 0.1)

    async def nothing(*_: Any) -> None:
        pass

    monkeypatch.setattr(cluster.line, "told", nothing)  # it says no more, and no last word
    cluster.streams[0].cancel()
    gate.release(9)
    assert after.end() is None
    assert [kind for kind in kinds(after.events) if kind != "Quiet"] == RUN
    assert cluster.served == [JOB, JOB]


def test_what_is_not_known_is_not_found(start: Start, cluster: Here) -> None:
    one, two = start(), start()
    assert two.engine.recall("no-such-run") is None
    one.remember()
    assert one.engine.remember(RUN_ID, None)
    assert two.engine.recall(RUN_ID) is None
    cluster.silent = True
    one.remember()
    assert two.engine.recall(RUN_ID) is None
    cluster.silent = False


# --- runs, and jobs of /v1/videos


def test_a_run_of_another_kind_is_not_found_and_keeps_no_turn(start: Start, pipelines: list[FakePipeline]) -> None:
    pipelines[0].gate = threading.Semaphore(1)
    one, two = start(), start()
    one.remember(kind="clip")
    before = Reader(one.engine.submit(request_of(), job_id=JOB))
    until(lambda: steps_of(before.events) == [0])
    one.die()
    assert Runs(memory=two.engine).recall(RUN_ID, "comparison") is None
    cluster_began_long_ago(two)
    until(lambda: pipelines[0].closed == 1)
    until(lambda: not two.engine.line().busy)


def test_a_video_job_is_found_by_another_process(
    start: Start, cluster: Here, pipelines: list[FakePipeline], files: OutputFolder
) -> None:
    pipelines[0].gate = gate = threading.Semaphore(2)
    one, two = start(), start()
    first, second = (VideoJobs(page.engine, Runs(memory=page.engine), files) for page in (one, two))
    job = first.start(ASKED, owner="somebody")
    until(lambda: job.step == 2)
    one.die()
    assert second.find(job.id) is None
    found = second.find_elsewhere(job.id)
    assert found is not None
    assert (found.id, found.owner, found.created_at) == (job.id, "somebody", job.created_at)
    until(lambda: found.step == 2)
    assert found.status == "in_progress"
    gate.release(9)
    assert found.run is not None
    assert found.run.wait(WAIT_S)
    assert found.status == "completed"
    assert found.file is not None
    assert found.file.is_file()
    assert second.find(job.id) is found
    assert second.listed("somebody", None, 9)[0] == [found]
    assert len(cluster.served) == 1
    assert second.find_elsewhere("video_of-nobody") is None


def test_a_video_job_that_is_done_is_found_until_it_is_deleted(
    start: Start, cluster: Here, files: OutputFolder
) -> None:
    one, two, three = start(), start(), start()
    first, second, third = (VideoJobs(page.engine, Runs(memory=page.engine), files) for page in (one, two, three))
    job = first.start(ASKED)
    assert job.run is not None
    assert job.run.wait(WAIT_S)
    until(lambda: one.engine.cluster.take(job.id, one.engine.page) is not None)
    thread_ended()
    one.die()
    found = second.find_elsewhere(job.id)
    assert found is not None
    assert found.status == "completed"  # at once
    assert found.completed_at is not None
    assert job.completed_at is not None
    assert abs(found.completed_at - job.completed_at) <= 1
    thread_ended()
    assert second.remove(job.id)
    assert third.find_elsewhere(job.id) is None
    assert len(cluster.served) == 1


def thread_ended() -> None:
    """What a run says of its end has arrived."""
    for thread in threading.enumerate():
        if thread.name.startswith("run-"):
            thread.join(WAIT_S)
