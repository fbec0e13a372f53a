"""Replicas behind one line, with everything but Ray: whose turn it is, what is sent, and what becomes of a lost one."""

from __future__ import annotations

import asyncio
import importlib.util
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from opensora_demo.catalog import NANO
from opensora_demo.cli import main
from opensora_demo.cluster import dispatcher as dispatching
from opensora_demo.cluster import engine as engines
from opensora_demo.cluster.dispatcher import Dispatcher, Place, Said, Standing, Turn
from opensora_demo.cluster.engine import ClusterEngine, LineSilent, ReplicaLost
from opensora_demo.cluster.join import found_anywhere, join, shares
from opensora_demo.cluster.packing import Failed, Ready, ReplicaFault, Ticket, completed, pack, unpack
from opensora_demo.cluster.replica import Replica
from opensora_demo.cluster.turns import Entry, Turns
from opensora_demo.errors import Cancelled, NumericsError, RequestError, ServerError
from opensora_demo.explain.run import Progress
from opensora_demo.messages import message, plain, render
from opensora_demo.preview import Lazy
from opensora_demo.request.events import Clip, Finished, StepPreview
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.service.engine import Line, Loading, Quiet, Waiting
from opensora_demo.service.local import LocalEngine
from opensora_demo.service.options import ClusterOptions
from opensora_demo.weights.options import WeightOptions
from tests.ui.conftest import FakeBundles, FakePipeline
from tests.unit.test_imports import ROOT

WAIT_S = 10.0
T = TypeVar("T")


def request_of(steps: int = 3, **raw: Any) -> GenerationRequest:
    raw = {"prompt": "a ball", "steps": steps, "seed": 3, **raw}
    return parse_request(raw, model_id=NANO.id, limits=NANO.limits)


# --- whose turn it is


def entry(job: str, owner: str = "", page: str = "page", scenes: int = 1) -> Entry:
    return Entry(job, owner or job[0], page, scenes)


def served(turns: Turns) -> list[str]:
    """All jobs, in the order of their turns, if each ends before the next one is given."""
    order: list[str] = []
    while given := turns.grant():
        order += given
        for job in given:
            turns.leave(job)
    return order


def test_owners_take_turns_and_jobs_of_one_come_in_their_order() -> None:
    turns = Turns(1)
    for job in ("a1", "a2", "a3", "b1", "c1", "b2"):
        turns.enter(entry(job))
    assert [turns.place(job) for job in ("a1", "b1", "c1", "a2", "b2", "a3")] == [1, 2, 3, 4, 5, 6]
    assert served(turns) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_one_with_twenty_jobs_delays_thirty_visitors_by_one() -> None:
    turns = Turns(2)
    for k in range(20):
        turns.enter(entry(f"greedy {k}", owner="greedy"))
    for k in range(30):
        turns.enter(entry(f"{k}", owner=f"visitor {k}"))
    order = served(turns)
    assert sorted(order) == sorted([f"greedy {k}" for k in range(20)] + [str(k) for k in range(30)])
    assert max(order.index(str(k)) for k in range(30)) <= 33  # each two of turns begun with the greedy one's
    assert [job for job in order if job.startswith("greedy")] == [f"greedy {k}" for k in range(20)]


def test_who_has_a_turn_waits_for_those_who_have_none() -> None:
    turns = Turns(2)
    turns.enter(entry("a1"))
    turns.enter(entry("a2"))
    turns.enter(entry("a3"))
    assert turns.grant() == ["a1", "a2"]
    turns.enter(entry("b1"))
    assert (turns.place("b1"), turns.place("a3"), turns.place("a1")) == (1, 2, 0)
    turns.leave("a1")
    assert turns.grant() == ["b1"]


def test_nobody_is_passed_by_newcomers_for_ever() -> None:
    turns = Turns(1)
    turns.enter(entry("a1"))
    turns.enter(entry("a2"))
    assert turns.grant() == ["a1"]
    turns.leave("a1")
    given = []
    for k in range(5):
        turns.enter(entry(f"n{k}", owner=f"new {k}"))
        given += turns.grant()
        turns.leave(given[-1])
    assert "a2" in given[:2]


def test_what_leaves_the_line_is_not_served() -> None:
    turns = Turns(1)
    for job in ("a1", "b1", "c1"):
        turns.enter(entry(job))
    turns.enter(entry("a1"))  # known
    turns.leave("b1")
    turns.leave("nobody's")
    assert (turns.waiting, turns.place("c1"), turns.knows("b1")) == (2, 2, False)
    assert served(turns) == ["a1", "c1"]


def test_times_are_told_by_those_before() -> None:
    turns = Turns(2)
    assert turns.left_s(1) is None
    for job in ("a1", "b1", "c1"):
        turns.enter(entry(job))
    turns.enter(entry("d1", scenes=3))
    turns.enter(entry("e1"))
    assert turns.grant() == ["a1", "b1"]
    turns.leave("a1", took_s=4.0)
    assert turns.grant() == ["c1"]
    assert turns.left_s(1) == 2.0  # two run, four seconds each
    assert turns.left_s(turns.place("e1")) == 4.0 * (1 + 3) / 2


def test_a_line_that_was_lost_learns_who_runs() -> None:
    turns = Turns(1)
    turns.enter(entry("b1"))
    turns.keep(entry("a1"))
    turns.keep(entry("a1"))
    assert (turns.grant(), turns.running) == ([], 1)
    turns.leave("a1")
    assert turns.grant() == ["b1"]


def test_a_page_that_is_gone_takes_its_jobs_along() -> None:
    turns = Turns(1)
    turns.heard("one", 0.0)
    turns.heard("other", 0.0)
    turns.enter(entry("a1", page="one"))
    turns.enter(entry("b1", page="other"))
    turns.enter(entry("c1", page="one"))
    assert turns.grant() == ["a1"]
    turns.heard("other", 9.0)
    assert turns.sweep(9.0, 10.0) == []
    assert sorted(turns.sweep(11.0, 10.0)) == ["a1", "c1"]
    assert turns.grant() == ["b1"]


# --- the line as it is asked


def test_who_waits_hears_of_his_place_and_of_his_turn() -> None:
    async def story() -> None:
        line = Dispatcher(1)
        assert await line.turn(entry("a1"), 0, WAIT_S) == Turn(True, 0, None)
        assert await line.turn(entry("b1"), 0, WAIT_S) == Turn(False, 1, None)
        assert await line.turn(entry("c1"), 0, WAIT_S) == Turn(False, 2, None)
        second = asyncio.create_task(line.turn(entry("b1"), 1, WAIT_S))
        third = asyncio.create_task(line.turn(entry("c1"), 2, WAIT_S))
        await asyncio.sleep(0)
        assert await line.alive("page", ()) == Standing(waiting=2, running=1)
        assert await line.leave(entry("a1"), took_s=2.0)
        assert (await second).granted
        assert await third == Turn(False, 1, 2.0)
        assert await line.turn(entry("c1"), 1, 0.01) == Turn(False, 1, 2.0)  # nothing new
        await line.set_limit(2)
        assert (await line.turn(entry("c1"), 1, WAIT_S)).granted
        await line.leave(entry("b1"))
        await line.leave(entry("c1"))
        assert await line.alive("page", ()) == Standing(0, 0, 0.0, 0.0)

    asyncio.run(story())


def test_the_job_of_a_page_that_is_gone_is_not_wanted() -> None:
    now = 100.0

    async def story() -> None:
        nonlocal now
        line = Dispatcher(1, clock=lambda: now)
        assert await line.wanted("a1")  # it may not know yet
        assert (await line.turn(entry("a1"), 0, WAIT_S)).granted
        now += dispatching.LOST_S - 1
        await line.alive("page", (entry("a1"),))
        now += dispatching.LOST_S - 1
        assert await line.wanted("a1")
        now += 2
        assert not await line.wanted("a1")
        assert (await line.turn(entry("b1"), 0, WAIT_S)).granted

    asyncio.run(story())


# --- what is sent


def test_a_step_is_sent_with_all_that_it_would_make() -> None:
    picture = np.full((2, 8, 8, 3), 7, np.uint8)
    made: list[int] = []

    def make() -> list[Any]:
        made.append(1)
        return [picture, picture]

    step = StepPreview(
        index=1,
        total=4,
        t=0.5,
        previews=Lazy(2, make),
        guidance=(1.0, 7.0),
        seconds=0.2,
        look=lambda: "inside",  # type: ignore[arg-type, return-value]
        noisy=Lazy(1, lambda: [picture]),
        latent=lambda: picture,
        decoded=lambda: {"noisy": picture},
    )
    got = unpack(pack(step))
    assert made == [1]
    assert [p.tolist() for p in got.previews] == [picture.tolist()] * 2
    assert (got.look(), got.latent().shape, list(got.decoded()), len(got.noisy)) == (
        "inside",
        picture.shape,
        ["noisy"],
        1,
    )
    assert got.previews[0].flags.writeable
    assert (got.index, got.total, got.guidance) == (1, 4, (1.0, 7.0))
    plain_step = unpack(pack(StepPreview(index=0, total=1, t=1.0, previews=(), guidance=(1.0,), seconds=0.0)))
    assert (plain_step.look, plain_step.latent, plain_step.decoded, plain_step.noisy) == (None, None, None, ())
    assert Ready(3)() == 3


def test_a_clip_is_sent_once() -> None:
    request = request_of()
    clip = Clip(frames=np.zeros((1, 8, 8, 3), np.uint8), request=request)
    finished = Finished(clips=(clip, clip), seconds={"text": 0.1}, unknown=("xyzzy",))
    sent = unpack(pack(finished))
    assert sent.clips == ()
    assert completed(sent, {1: clip, 0: clip}).clips == (clip, clip)


@pytest.mark.parametrize(
    "error",
    [RequestError("steps", message("request.missing")), NumericsError(plain("not finite")), Cancelled(plain("x"))],
    ids=lambda error: type(error).__name__,
)
def test_errors_keep_their_sentences(error: Any) -> None:
    found = unpack(pack(Failed(error))).error
    assert type(found) is type(error)
    assert found.message == error.message
    assert str(found) == str(error)


# --- a cluster without Ray: the line in a loop of its own, replicas in this process


@dataclass
class Told:
    """What one replica says of one job, read from its loop."""

    cluster: Here
    ticket: Ticket
    said: queue.Queue[Any] = field(default_factory=queue.Queue)
    task: Any = None

    def __iter__(self) -> Iterator[bytes]:
        while (data := self.said.get(timeout=WAIT_S)) is not None:
            if isinstance(data, Exception):
                raise data
            yield data

    def cancel(self) -> None:
        self.cluster.loop.call_soon_threadsafe(self.task.cancel)

    async def drain(self, replica: Replica) -> None:
        events = replica.run(self.ticket)
        try:
            async for data in events:
                self.said.put(data)
        finally:
            await events.aclose()  # type: ignore[attr-defined]
            self.said.put(None)


def progress(bundle: Any, request: GenerationRequest, cancel: threading.Event) -> Iterator[Progress]:
    """An explanation of which nothing is seen."""
    for done in range(3):
        yield Progress(done=done, total=3, text=plain("x"))


class Here:
    """See `engine.Cluster`. `lose` has the replica of a job die as soon as it has said so many things."""

    def __init__(self, pipelines: list[FakePipeline], limit: int | None = None) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.line = self.do(self._begin(limit or len(pipelines)))
        engines = [LocalEngine(FakeBundles(), generate=p, explain=progress) for p in pipelines]
        self.free = [Replica(engine, self.line) for engine in engines]
        self.served: list[str] = []
        self.streams: list[Told] = []
        self.silent = self.closed = False
        self.lose: list[int] = []

    async def _begin(self, limit: int) -> Dispatcher:
        return Dispatcher(limit)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(WAIT_S)

    def turn(self, entry: Entry, seen: int, wait_s: float) -> Turn:
        if self.silent:
            raise LineSilent("no answer")
        return self.do(self.line.turn(entry, seen, wait_s))

    def leave(self, entry: Entry, took_s: float | None) -> None:
        self.do(self.line.leave(entry, took_s))

    def stop(self, entry: Entry) -> bool:
        return self.do(self.line.leave(entry))

    def alive(self, page: str, running: tuple[Entry, ...]) -> Standing:
        if self.silent:
            raise LineSilent("no answer")
        return self.do(self.line.alive(page, running))

    def stream(self, ticket: Ticket) -> Any:
        self.served.append(ticket.job)
        replica = self.free.pop(0)
        self.free.append(replica)
        told = Told(self, ticket)
        told.task = asyncio.run_coroutine_threadsafe(told.drain(replica), self.loop)
        self.streams.append(told)
        return Lost(told, self.lose.pop(0)) if self.lose else told

    def write(self, run: str, page: str, data: bytes, alone_s: float) -> None:
        self.do(self.line.write(run, page, data, alone_s))

    def take(self, run: str, page: str) -> bytes | None:
        if self.silent:
            raise LineSilent("no answer")
        return self.do(self.line.take(run, page))

    def forget(self, run: str, page: str) -> bool:
        return self.do(self.line.forget(run, page))

    def belongs(self, run: str, page: str) -> bool:
        return self.do(self.line.belongs(run, page))

    def began(self, run: str, job: str) -> bool:
        return self.do(self.line.began(run, job))

    def read(self, run: str, job: str, place: Place, wait_s: float) -> Said:
        return self.do(self.line.read(run, job, place, wait_s))

    def close(self, page: str) -> None:
        self.do(self.line.gone(page))
        self.closed = True

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(WAIT_S)
        self.loop.close()


@dataclass
class Lost:
    told: Told
    after: int

    def __iter__(self) -> Iterator[bytes]:
        for k, data in enumerate(self.told):
            if k == self.after:
                self.told.cancel()
                raise ReplicaLost("killed")
            yield data

    def cancel(self) -> None:
        self.told.cancel()


@pytest.fixture
def pipelines() -> list[FakePipeline]:
    return [FakePipeline(), FakePipeline()]


@pytest.fixture
def cluster(pipelines: list[FakePipeline]) -> Iterator[Here]:
    made = Here(pipelines)
    yield made
    made.end()


@pytest.fixture
def engine(cluster: Here, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterEngine]:
    monkeypatch.setattr(engines, "PULSE_S", 0.05)
    monkeypatch.setattr(engines, "ALIVE_S", 0.05)
    made = ClusterEngine(cluster, WeightOptions(models=frozenset({NANO.id})))
    yield made
    assert made.close()
    assert cluster.closed


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def kinds(events: list[Any]) -> list[str]:
    return [type(event).__name__ for event in events if not isinstance(event, Loading | Waiting)]


RUN = ["Started", "Encoded", "StepPreview", "StepPreview", "StepPreview", "Decoding", "Finished"]


class Reader(threading.Thread):
    def __init__(self, job: Any) -> None:
        super().__init__(daemon=True)
        self.job, self.events, self.error = job, list[Any](), None
        self.start()

    def run(self) -> None:
        try:
            with closing(self.job.events()) as events:
                for event in events:
                    self.events.append(event)
        except BaseException as error:
            self.error: Any = error

    def end(self) -> Any:
        self.join(WAIT_S)
        assert not self.is_alive()
        return self.error


def test_a_run_is_told_as_by_the_engine_of_one_process(engine: ClusterEngine) -> None:
    job = engine.submit(request_of(), "somebody")
    assert (job.state, job.place) == ("queued", 0)
    events = list(job.events())
    assert kinds(events) == RUN
    assert job.state == "done"
    assert not job.cancel()
    finished = events[-1]
    assert finished.clips == (events[-2].clip,)
    assert [offer.spec.id for offer in engine.models()] == [NANO.id]
    assert job.replica is not None
    assert 'jobs_total{model="nano",state="done"} 1' in engine.monitor.exposition({})
    with pytest.raises(RuntimeError, match="one reader"):
        list(job.events())
    assert engine.blind is None


def test_a_comparison_gets_its_clips_in_their_columns(engine: ClusterEngine) -> None:
    events = list(engine.submit(request_of(guidance=[1, 3, 7])).events())
    finished = events[-1]
    assert [clip.request.guidance for clip in finished.clips] == [(1.0,), (3.0,), (7.0,)]
    assert [int(clip.frames[0, 0, 0, 0]) for clip in finished.clips] == [0, 10, 20]


def test_two_run_and_the_third_waits(engine: ClusterEngine, pipelines: list[FakePipeline]) -> None:
    gate = threading.Semaphore(0)
    for pipeline in pipelines:
        pipeline.gate = gate
    readers = [Reader(engine.submit(request_of(), f"owner {k}")) for k in range(3)]
    until(lambda: sum(reader.job.state == "running" for reader in readers) == 2)
    (waits,) = (reader for reader in readers if reader.job.state == "queued")
    until(lambda: waits.job.place == 1)
    until(lambda: engine.line().waiting == 1 and engine.line().busy)
    gate.release(9)
    assert [reader.end() for reader in readers] == [None] * 3
    assert Waiting(1) in waits.events
    until(lambda: engine.line().waiting == 0 and engine.next_free_s() == 0)


def test_who_waits_can_stop(engine: ClusterEngine, pipelines: list[FakePipeline]) -> None:
    gate = threading.Semaphore(0)
    for pipeline in pipelines:
        pipeline.gate = gate
    running = [Reader(engine.submit(request_of(), f"{k}")) for k in range(2)]
    until(lambda: all(reader.job.state == "running" for reader in running))
    waits = Reader(engine.submit(request_of(), "x"))
    until(lambda: waits.job.place == 1)
    assert waits.job.cancel()
    assert isinstance(waits.end(), Cancelled)
    assert waits.job.state == "cancelled"
    gate.release(6)
    assert [reader.end() for reader in running] == [None, None]


def test_stop_ends_the_run_where_it_is_made(
    engine: ClusterEngine, cluster: Here, pipelines: list[FakePipeline]
) -> None:
    gate = threading.Semaphore(0)
    for pipeline in pipelines:
        pipeline.gate = gate
    reader = Reader(engine.submit(request_of(steps=8)))
    gate.release()
    until(lambda: any(isinstance(event, StepPreview) for event in reader.events))
    assert reader.job.cancel()
    assert isinstance(reader.end(), Cancelled)
    until(lambda: pipelines[0].closed == 1)
    assert pipelines[0].running == 0
    until(lambda: engine.line() == Line(0, False, 0.0))


def test_closing_the_events_stops_the_run(engine: ClusterEngine, pipelines: list[FakePipeline]) -> None:
    job = engine.submit(request_of())
    events = job.events()
    while not isinstance(next(events), StepPreview):
        pass
    events.close()  # type: ignore[attr-defined]
    assert job.state == "cancelled"
    until(lambda: pipelines[0].closed == 1)


def test_a_job_that_nobody_reads_can_be_stopped(engine: ClusterEngine) -> None:
    job = engine.submit(request_of())
    assert job.cancel()
    assert job.state == "cancelled"
    with pytest.raises(Cancelled):
        list(job.events())


@pytest.mark.parametrize("after", [0, 3, 6])
def test_a_replica_that_is_lost_is_replaced_once(
    engine: ClusterEngine, cluster: Here, after: int, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.lose = [after]
    events = list((job := engine.submit(request_of())).events())
    assert [kind for kind in kinds(events) if kind != "Quiet"] == RUN  # nothing is told twice
    assert [event.on for event in events if isinstance(event, Quiet)] == [True, False]
    (said,) = (render(event.text) for event in events if event == Quiet(True))
    assert "begins it anew" in said
    assert job.state == "done"
    assert cluster.served == [job.id] * 2
    assert "a replica was lost in a job" in caplog.text


def test_a_replica_that_is_lost_twice_ends_as_a_sentence(engine: ClusterEngine, cluster: Here) -> None:
    cluster.lose = [2, 2]
    reader = Reader(job := engine.submit(request_of()))
    error = reader.end()
    assert isinstance(error, ServerError)
    assert "try again" in render(error.message)
    assert job.state == "failed"
    until(lambda: not engine.line().busy)


def test_an_explanation_is_begun_anew_too(engine: ClusterEngine, cluster: Here) -> None:
    cluster.lose = [3]
    events = list((job := engine.explain(request_of())).events())
    assert [event.done for event in events if isinstance(event, Progress)] == [0, 1, 2]
    assert not [event for event in events if isinstance(event, Quiet)]
    assert (job.state, len(cluster.served)) == ("done", 2)


def test_stop_while_a_replica_is_replaced(engine: ClusterEngine, cluster: Here, pipelines: list[FakePipeline]) -> None:
    pipelines[1].gate = threading.Semaphore(0)
    cluster.lose = [2]
    reader = Reader(engine.submit(request_of()))
    until(lambda: Quiet(True) in reader.events)
    assert reader.job.cancel()
    assert isinstance(reader.end(), Cancelled)
    assert reader.job.state == "cancelled"


def test_what_fails_in_a_replica_fails_here(engine: ClusterEngine, pipelines: list[FakePipeline]) -> None:
    pipelines[0].error = NumericsError(plain("not finite"))
    pipelines[1].error = ZeroDivisionError("oops")
    error = Reader(job := engine.submit(request_of())).end()
    assert isinstance(error, NumericsError)
    assert (str(error), job.state) == ("not finite", "failed")
    error = Reader(engine.submit(request_of())).end()
    assert isinstance(error, ReplicaFault)
    assert "ZeroDivisionError: oops" in str(error)


def test_a_line_that_is_silent_ends_as_a_sentence(
    engine: ClusterEngine, cluster: Here, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engines, "SILENT_S", 0.1)
    cluster.silent = True
    error = Reader(engine.submit(request_of())).end()
    assert isinstance(error, ServerError)
    assert "has not answered for 0 s" in render(error.message)
    until(lambda: "the line of the cluster does not answer" in caplog.text)
    cluster.silent = False


def test_a_replica_that_never_begins_ends_as_a_sentence(
    engine: ClusterEngine, cluster: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "START_S", 0.1)
    monkeypatch.setattr(cluster, "stream", lambda ticket: Silence())
    reader = Reader(engine.submit(request_of()))
    assert isinstance(reader.end(), ServerError)
    assert Loading() in reader.events


class Silence:
    def __init__(self) -> None:
        self.over = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        self.over.wait(WAIT_S)
        return iter(())

    def cancel(self) -> None:
        self.over.set()


def test_the_end_of_the_page_interrupts_its_jobs(
    cluster: Here, pipelines: list[FakePipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipelines[0].gate = threading.Semaphore(0)
    engine = ClusterEngine(cluster, WeightOptions())
    reader = Reader(engine.submit(request_of()))
    until(lambda: reader.job.state == "running")
    idle = engine.submit(request_of())
    assert engine.close()
    assert isinstance(reader.end(), Cancelled)
    assert (reader.job.state, idle.state) == ("interrupted", "interrupted")
    with pytest.raises(Cancelled):
        engine.submit(request_of())


def test_a_run_whose_page_is_gone_is_stopped(
    cluster: Here, pipelines: list[FakePipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opensora_demo.cluster.replica.ASK_S", 0.02)
    monkeypatch.setattr(dispatching, "LOST_S", 0.1)
    pipelines[0].gate = threading.Semaphore(0)
    told = cluster.stream(Ticket(job="of nobody", request=request_of()))
    assert pipelines[0].started.wait(WAIT_S)
    until(lambda: pipelines[0].closed == 1)
    assert isinstance(unpack(list(told)[-1]).error, Cancelled)


# --- the way there


def test_without_ray_the_option_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opensora_demo.cluster.join.find_spec", lambda name: None)
    with pytest.raises(RequestError) as refused:
        join(ClusterOptions(), WeightOptions())
    assert refused.value.field == "--engine"
    assert "requirements-cluster.txt" in render(refused.value.problem)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["restart"], "error: --replicas: is missing"),
        (["restart", "--replicas", "2"], "error: --engine: needs Ray"),
        (["restart", "--autoscale", "2", "1"], "error: --autoscale: must be two whole numbers"),
    ],
)
def test_a_restart_that_cannot_be(
    argv: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("opensora_demo.cluster.join.find_spec", lambda name: None)
    assert main(argv) == 2
    assert says in capsys.readouterr().err


def test_replicas_find_the_weights_from_another_folder() -> None:
    found = found_anywhere(WeightOptions(weights_dir=Path("weights"), cache_dir=Path("cache")))
    assert found.weights_dir == Path.cwd() / "weights"
    assert found.cache_dir == Path.cwd() / "cache"
    assert found_anywhere(WeightOptions()).cache_dir is None


@pytest.mark.parametrize(
    ("resources", "replicas", "share"),
    [
        ({"CPU": 2.0}, 2, {"num_cpus": 1.0}),
        ({"CPU": 16.0}, 3, {"num_cpus": 5.0}),
        ({"CPU": 2.0}, 8, {"num_cpus": 0.25}),
        ({"CPU": 16.0, "GPU": 4.0}, 2, {"num_cpus": 8.0, "num_gpus": 1.0}),
        ({}, 1, {"num_cpus": 1.0}),
    ],
)
def test_what_a_replica_gets_of_the_cluster(
    resources: dict[str, float], replicas: int, share: dict[str, float]
) -> None:
    assert shares(resources, replicas) == share


def test_more_replicas_than_gpus_are_refused() -> None:
    with pytest.raises(RequestError, match="--replicas: must lie between 1 and 2, not 3"):
        shares({"CPU": 8.0, "GPU": 2.0}, 3)


@pytest.mark.slow
@pytest.mark.thorough
def test_who_does_not_ask_for_a_cluster_imports_no_ray() -> None:
    """Nor where it is installed: a stand-in that is found, and breaks."""
    script = (
        "import sys; sys.modules['ray'] = None;"
        "import opensora_demo.serve;"
        "print([name for name in sys.modules if name.startswith('ray.')])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


def test_what_the_cluster_needs_is_pinned() -> None:
    (line,) = [
        line for line in (ROOT / "requirements-cluster.txt").read_text().splitlines() if not line.startswith("#")
    ]
    assert line == "ray[serve]==2.60.0"
    assert importlib.util.find_spec("opensora_demo.cluster.on_ray") is not None
