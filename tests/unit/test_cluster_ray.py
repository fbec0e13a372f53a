"""Two replicas of nano on a real cluster of this machine: what they tell, Stop, a kill, a crowd, a restart."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from opensora_demo.catalog import NANO
from opensora_demo.cluster.join import found_anywhere, join
from opensora_demo.errors import Cancelled, ServerError
from opensora_demo.request.events import Decoding, Encoded, Event, Finished, Started, StepPreview
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.bundle import ModelBundle
from opensora_demo.service.engine import Loading, Quiet, RunRecord, Waiting
from opensora_demo.service.options import ClusterOptions
from opensora_demo.weights.options import WeightOptions

if TYPE_CHECKING:
    from opensora_demo.cluster.engine import ClusterEngine

if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed (requirements-cluster.txt)", allow_module_level=True)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.thorough,
    pytest.mark.filterwarnings("ignore"),  # of Ray, about itself
]
TWO = ClusterOptions(least=2, most=2)
WEIGHTS = WeightOptions(models=frozenset({NANO.id}))
WAIT_S = 120.0


def request_of(steps: int = 8, seed: int = 3, **raw: Any) -> GenerationRequest:
    raw = {"prompt": "a red ball bouncing over a meadow", "steps": steps, "seed": seed, **raw}
    return parse_request(raw, model_id=NANO.id, limits=NANO.limits)


@pytest.fixture(scope="module")
def engine() -> Iterator[ClusterEngine]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    made = join(TWO, WEIGHTS)
    yield made
    assert made.close()


class Reader(threading.Thread):
    """Reads a job to its end; `at` is called with every event."""

    def __init__(self, job: Any, at: Callable[[Any], object] = lambda event: None) -> None:
        super().__init__(daemon=True)
        self.job, self.at = job, at
        self.events: list[Any] = []
        self.error: Any = None
        self.over_at = 0.0
        self.start()

    def run(self) -> None:
        try:
            with closing(self.job.events()) as events:
                for event in events:
                    self.events.append(event)
                    self.at(event)
        except BaseException as error:
            self.error = error
        self.over_at = time.monotonic()

    def end(self) -> Any:
        self.join(WAIT_S)
        assert not self.is_alive(), "it hangs"
        return self.error


def told(events: list[Any]) -> Counter[type]:
    return Counter(type(event) for event in events if not isinstance(event, Loading | Waiting | Quiet))


def frames_of(events: list[Any]) -> Any:
    assert isinstance(events[-1], Finished)
    return events[-1].clips[0].frames


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def replicas_up() -> int:
    from ray import serve

    states = serve.status().applications["opensora-demo"].deployments["generator"].replica_states
    return states.get("RUNNING", 0) if len(states) == 1 else 0


def test_a_run_is_that_of_one_process_steps_and_all(engine: ClusterEngine, nano: ModelBundle) -> None:
    from opensora_demo.pipeline import generate

    request = request_of()
    events = list(engine.submit(request, "somebody", look=True).events())
    assert told(events) == {Started: 1, Encoded: 1, StepPreview: 8, Decoding: 1, Finished: 1}
    here: list[Event] = list(generate(nano, request, look=True))
    steps, own = ([e for e in of if isinstance(e, StepPreview)] for of in (events, here))
    for there, mine in zip(steps, own, strict=True):
        assert there.previews[0].shape == mine.previews[0].shape
        assert np.abs(there.previews[0].astype(int) - mine.previews[0]).mean() < 1
        assert there.look is not None
        assert mine.look is not None
        assert there.look().size == mine.look().size
    assert np.abs(frames_of(events).astype(int) - frames_of(here)).mean() < 1
    assert frames_of(events).flags.writeable


def test_what_is_watched_from_inside_travels(engine: ClusterEngine) -> None:
    parts = [type(part).__name__ for part in engine.explain(request_of(steps=4)).events()]
    assert {"Tokens", "Attentions", "Flow", "Guided"} <= set(parts)


def test_stop_ends_a_run_within_a_step(engine: ClusterEngine) -> None:
    stopped_at: list[float] = []

    def stop(event: Any) -> None:
        if isinstance(event, StepPreview) and event.index == 2:
            stopped_at.append(time.monotonic())
            assert reader.job.cancel()

    reader = Reader(engine.submit(request_of(steps=50)), stop)
    assert isinstance(reader.end(), Cancelled)
    assert reader.job.state == "cancelled"
    assert reader.over_at - stopped_at[0] < 10.0
    until(lambda: not engine.line().busy)
    for _ in range(2):  # both replicas are free
        assert Reader(engine.submit(request_of(steps=2))).end() is None


def test_a_killed_replica_is_replaced_and_the_clip_is_the_same(engine: ClusterEngine) -> None:
    pids: list[int] = []

    def kill(event: Any) -> None:
        if isinstance(event, StepPreview) and event.index == 3 and not pids:
            pids.append(reader.job.replica.pid)
            os.kill(pids[0], signal.SIGKILL)

    until(lambda: replicas_up() == 2)
    undisturbed = list(engine.submit(request_of(steps=12)).events())
    reader = Reader(engine.submit(request_of(steps=12)), kill)
    assert reader.end() is None
    assert reader.job.replica.pid != pids[0]
    assert told(reader.events) == told(undisturbed)
    assert [event.on for event in reader.events if isinstance(event, Quiet)] == [True, False]
    assert (frames_of(reader.events) == frames_of(undisturbed)).all()


def test_a_run_is_found_by_another_page_process(engine: ClusterEngine) -> None:
    from opensora_demo.cluster.engine import ClusterEngine as Engine

    other = Engine(engine.cluster, WEIGHTS)
    try:
        record = RunRecord(kind="clip", what=request_of(steps=16), number=1, began_at=time.time())
        assert engine.remember("a-run-of-somebody", record, 30.0)
        before = Reader(engine.submit(record.what, "somebody", look=True, job_id="a-run-of-somebody.0"))
        until(lambda: told(before.events)[StepPreview] >= 3)
        found = other.recall("a-run-of-somebody")
        assert found is not None
        after = Reader(other.submit(found.what, "somebody", look=True, job_id="a-run-of-somebody.0"))
        assert (before.end(), after.end()) == (None, None)  # both are told all of it
        assert told(after.events) == told(before.events)
        assert (frames_of(after.events) == frames_of(before.events)).all()
        again = Reader(other.submit(found.what, "somebody", look=True, job_id="a-run-of-somebody.0"))
        assert again.end() is None
        assert told(again.events) == told(before.events)
        assert other.recall("another-run") is None
    finally:
        other._over.set()  # its cluster is the other's too


def test_thirty_visitors_are_served_beside_one_with_many_jobs(engine: ClusterEngine) -> None:
    begun: list[str] = []

    def reader(owner: str) -> Reader:
        def note(event: Any) -> None:
            if isinstance(event, Started):
                begun.append(owner)

        return Reader(engine.submit(request_of(steps=1, frames=1), owner), note)

    greedy = [reader("greedy") for _ in range(10)]
    until(lambda: engine.line().waiting >= 7)
    visitors = [reader(f"visitor {k}") for k in range(30)]
    assert [one.end() for one in (*greedy, *visitors)] == [None] * 40
    last = max(place for place, owner in enumerate(begun) if owner != "greedy")
    assert begun[:last].count("greedy") <= 6  # those that ran before anybody came, and his turns among thirty
    assert begun.count("greedy") == 10


def test_a_restart_one_after_the_other_loses_no_job(engine: ClusterEngine) -> None:
    from opensora_demo.cluster.on_ray import deploy

    until(lambda: replicas_up() == 2)
    readers = [Reader(engine.submit(request_of(steps=16, seed=k), f"visitor {k}")) for k in range(6)]
    until(lambda: sum(one.job.replica is not None for one in readers) >= 2)
    before = {one.job.replica.pid for one in readers if one.job.replica is not None}
    deploy(TWO, found_anywhere(WEIGHTS))
    assert [one.end() for one in readers] == [None] * 6
    assert not [event for one in readers for event in one.events if isinstance(event, Quiet)]
    after = [Reader(engine.submit(request_of(steps=1), f"visitor {k}")) for k in range(4)]
    assert [one.end() for one in after] == [None] * 4
    assert len(before) == 2
    assert not before & {one.job.replica.pid for one in after}


def test_a_run_whose_replicas_are_killed_twice_ends_as_a_sentence(engine: ClusterEngine) -> None:
    killed: set[int] = set()

    def kill() -> None:
        while reader.is_alive():
            replica = reader.job.replica
            if replica is not None and replica.pid not in killed and reader.job.state == "running":
                killed.add(replica.pid)
                os.kill(replica.pid, signal.SIGKILL)
            time.sleep(0.01)

    until(lambda: replicas_up() == 2)
    reader = Reader(engine.submit(request_of(steps=50)))
    threading.Thread(target=kill, daemon=True).start()
    assert isinstance(reader.end(), ServerError)
    assert reader.job.state == "failed"
    assert len(killed) == 2
