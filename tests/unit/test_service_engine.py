"""The local engine: a fair line, states that go one way, a device that is always free again."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from contextlib import closing
from queue import Queue
from typing import Any

import pytest
import torch

from opensora_demo.catalog import MODELS, NANO, ModelSpec
from opensora_demo.errors import Cancelled, NumericsError, OutOfMemory
from opensora_demo.explain.run import Progress
from opensora_demo.messages import plain
from opensora_demo.request.events import Decoding, Finished
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.cost.estimator import Estimator
from opensora_demo.service.engine import FINAL, Loading, State, Waiting
from opensora_demo.service.local import LocalEngine, LocalJob
from opensora_demo.weights.options import WeightOptions
from tests.unit.devices import WAIT_S, Device


def request_of(prompt: str = "a ball", steps: int = 3) -> GenerationRequest:
    return parse_request({"prompt": prompt, "steps": steps, "seed": 3}, model_id=NANO.id, limits=NANO.limits)


class Reader:
    """Reads a job's events in a thread of its own, and tells of each."""

    def __init__(self, job: LocalJob[Any]) -> None:
        self.job = job
        self.events: list[Any] = []
        self.error: BaseException | None = None
        self.news: Queue[Any] = Queue()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            for event in self.job.events():
                self.events.append(event)
                self.news.put(event)
        except BaseException as error:
            self.error = error
        self.news.put(None)

    def until(self, wanted: Callable[[Any], bool]) -> Any:
        while True:
            event = self.news.get(timeout=WAIT_S)
            assert event is not None, (self.events, self.error)
            if wanted(event):
                return event

    def join(self) -> None:
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()


def waits(place: int) -> Callable[[Any], bool]:
    return lambda event: event == Waiting(place)


def is_free(engine: LocalEngine) -> bool:
    """A run goes through at once."""
    with closing(engine.submit(request_of("another")).events()) as events:  # type: ignore[type-var]
        found = list(events)
    return isinstance(found[0], Loading) and isinstance(found[-1], Finished)


def test_a_run_goes_through_its_states(engine: LocalEngine) -> None:
    job = engine.submit(request_of())
    assert (job.state, job.place) == ("queued", 0)
    states: list[tuple[str, State]] = [(type(event).__name__, job.state) for event in job.events()]
    assert states == [
        ("Loading", "loading"), ("Started", "running"), ("Encoded", "running"), ("StepPreview", "running"),
        ("StepPreview", "running"), ("StepPreview", "running"), ("Decoding", "running"), ("Finished", "done"),
    ]  # fmt: skip
    assert (job.state, job.place) == ("done", 0)
    with pytest.raises(RuntimeError, match="one reader"):
        next(job.events())


def test_three_owners_are_served_in_the_order_of_arrival(engine: LocalEngine, device: Device) -> None:
    device.hold("step 0")
    first = Reader(engine.submit(request_of("a"), "a"))
    assert device.reached["step 0"].wait(WAIT_S)
    jobs = [engine.submit(request_of(name), name) for name in ("b", "c", "a again", "b again")]
    readers = [Reader(job) for job in reversed(jobs)]  # whoever asks first for his events is not served first
    for place, (job, reader) in enumerate(zip(jobs, reversed(readers), strict=True), 1):
        reader.until(waits(place))
        assert (job.state, job.place) == ("queued", place)
    device.held["step 0"].set()
    for reader in (first, *readers):
        reader.join()
    assert device.log == ["a", "b", "c", "a again", "b again"]
    assert device.most == 1
    assert {job.state for job in jobs} == {"done"}


def test_the_place_in_the_line_is_told_as_it_changes(engine: LocalEngine, device: Device) -> None:
    device.hold("step 0")
    first = Reader(engine.submit(request_of("a")))
    assert device.reached["step 0"].wait(WAIT_S)
    second, third = (Reader(engine.submit(request_of(name))) for name in "bc")
    third.until(waits(2))
    assert second.job.cancel()
    third.until(waits(1))
    assert third.job.place == 1
    device.held["step 0"].set()
    third.until(lambda event: isinstance(event, Loading))
    assert third.job.place == 0
    for reader in (first, second, third):
        reader.join()
    places = [event.place for event in third.events if isinstance(event, Waiting)]
    assert places == sorted(places, reverse=True)
    assert device.log == ["a", "c"]


def test_a_job_that_nobody_reads_does_not_hold_up_the_others(engine: LocalEngine) -> None:
    forgotten = engine.submit(request_of("forgotten"))
    assert is_free(engine)
    assert forgotten.state == "queued"
    assert [type(e) for e in forgotten.events()][-1] is Finished


def test_cancelled_while_it_waits(engine: LocalEngine, device: Device) -> None:
    device.hold("step 0")
    first = Reader(engine.submit(request_of("a")))
    assert device.reached["step 0"].wait(WAIT_S)
    second = Reader(engine.submit(request_of("b")))
    second.until(waits(1))
    assert second.job.cancel()
    assert second.job.state == "cancelled"  # at once
    second.join()
    assert isinstance(second.error, Cancelled)
    unread = engine.submit(request_of("c"))
    assert unread.cancel()
    with pytest.raises(Cancelled):
        next(unread.events())
    device.held["step 0"].set()
    first.join()
    assert first.job.state == "done"
    assert device.log == ["a"]


@pytest.mark.parametrize(
    ("point", "state"), [("load", "loading"), ("step 1", "running"), ("decode", "running"), ("let go", "running")]
)
def test_cancelled_while_it_works(engine: LocalEngine, device: Device, point: str, state: State) -> None:
    device.hold(point)
    reader = Reader(engine.submit(request_of("a")))
    assert device.reached[point].wait(WAIT_S)
    assert reader.job.state == state
    assert reader.job.cancel()
    device.held.pop(point).set()
    reader.join()
    assert isinstance(reader.error, Cancelled)
    assert reader.job.state == "cancelled"
    assert not any(isinstance(event, Finished) for event in reader.events)
    assert point == "let go" or not any(isinstance(event, Decoding) for event in reader.events)
    assert device.on_it == 0
    assert device.log == ([] if point == "load" else ["a"])
    assert is_free(engine)


def test_final_states_are_final(engine: LocalEngine, device: Device) -> None:
    done = engine.submit(request_of())
    list(done.events())
    assert not done.cancel()
    assert not done.stop("interrupted")
    assert done.state == "done"
    stopped = engine.submit(request_of())
    assert stopped.cancel()
    assert not stopped.cancel()
    engine.close()
    assert (done.state, stopped.state) == ("done", "cancelled")
    assert {"done", "cancelled", "failed", "interrupted"} == FINAL


def test_a_run_that_has_ended_stays_so_while_its_file_is_written(engine: LocalEngine) -> None:
    """Its reader sees the end when the device is free already; a cancel then changes nothing."""
    job = engine.submit(request_of())
    with closing(job.events()) as events:  # type: ignore[type-var]
        for event in events:
            if isinstance(event, Finished):
                assert job.state == "done"
                assert is_free(engine)
                assert not job.cancel()
    assert job.state == "done"


@pytest.mark.parametrize("error", [NumericsError(plain("not finite")), ZeroDivisionError("x"), OSError("load")])
def test_the_device_is_free_after_a_failure(engine: LocalEngine, device: Device, error: Exception) -> None:
    device.error = error
    job = engine.submit(request_of())
    with pytest.raises(type(error)):
        list(job.events())
    assert job.state == "failed"
    assert not job.cancel()
    device.error = None
    assert is_free(engine)


@pytest.mark.parametrize("point", ["load", "step 1", "decode"])
@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError(), RuntimeError("can't allocate memory")])
def test_without_memory_a_run_says_what_it_needs_and_the_next_succeeds(
    device: Device, engine: LocalEngine, error: Exception, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ran_out(spec: ModelSpec, request: GenerationRequest) -> OutOfMemory:
        assert is_free(engine)  # while it is counted
        return OutOfMemory(plain(f"{spec.id} needs more"))

    monkeypatch.setattr(engine.estimator, "ran_out", ran_out)

    def at(reached: str) -> None:
        if reached == point and job.state not in FINAL:
            raise error

    device.at = at  # type: ignore[method-assign]
    job = engine.submit(request_of())
    with pytest.raises(OutOfMemory, match="nano needs more"):
        list(job.events())
    assert job.state == "failed"


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_a_reader_that_leaves_cancels(engine: LocalEngine, device: Device, count: int) -> None:
    """Between any two events."""
    job = engine.submit(request_of())
    events = job.events()
    for _ in range(count):
        next(events)
    events.close()  # type: ignore[attr-defined]
    assert job.state == "cancelled"
    assert device.on_it == 0
    assert is_free(engine)


def test_a_reader_that_is_dropped_too(engine: LocalEngine) -> None:
    events = engine.submit(request_of()).events()
    next(events)
    next(events)
    del events
    gc.collect()
    assert is_free(engine)


def test_control_c_cancels(engine: LocalEngine, device: Device) -> None:
    device.error = KeyboardInterrupt()  # type: ignore[assignment]
    job = engine.submit(request_of())
    with pytest.raises(KeyboardInterrupt):
        list(job.events())
    assert job.state == "cancelled"
    device.error = None
    assert is_free(engine)


def test_explanations_wait_in_the_same_line(engine: LocalEngine, device: Device) -> None:
    device.hold("explain")
    first = Reader(engine.explain(request_of("a")))
    assert device.reached["explain"].wait(WAIT_S)
    second, third = Reader(engine.submit(request_of("b"))), None
    second.until(waits(1))
    third = Reader(engine.explain(request_of("c")))
    third.until(waits(2))
    device.held["explain"].set()
    for reader in (first, second, third):
        reader.join()
    assert device.log == ["explain a", "b", "explain c"]
    assert [type(event) for event in first.events] == [Loading, Progress]
    assert first.job.state == third.job.state == "done"


def test_closing_interrupts_what_waits_and_what_runs(engine: LocalEngine, device: Device) -> None:
    device.hold("step 1")
    first = Reader(engine.submit(request_of("a")))
    assert device.reached["step 1"].wait(WAIT_S)
    second = Reader(engine.submit(request_of("b")))
    second.until(waits(1))
    closing_it = threading.Thread(target=engine.close)
    closing_it.start()
    second.join()
    assert closing_it.is_alive()  # until the device is free
    device.held["step 1"].set()
    for thread in (closing_it, first.thread):
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert first.job.state == second.job.state == "interrupted"
    assert isinstance(first.error, Cancelled)
    assert isinstance(second.error, Cancelled)
    with pytest.raises(Cancelled):
        engine.submit(request_of())


def test_many_at_once_are_served_one_at_a_time(engine: LocalEngine, device: Device) -> None:
    readers = [Reader(engine.submit(request_of(f"{i}"), str(i % 3))) for i in range(24)]
    for reader in readers[::3]:
        reader.job.cancel()
    for reader in readers:
        reader.join()
        assert reader.job.state in FINAL
    assert device.most == 1
    assert all(reader.job.state == "done" for i, reader in enumerate(readers) if i % 3)
    assert engine._line.jobs == []
    assert engine._line.holder is None


def test_what_can_run_here(engine: LocalEngine, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    engine.bundles.options = WeightOptions(weights_dir=tmp_path, models=tuple(MODELS))  # type: ignore[misc]
    offers = {offer.spec.id: offer.reason for offer in engine.models()}
    assert list(offers) == list(MODELS)
    assert offers["nano"] is None is offers["debug-2.0"]
    assert offers["opensora-2.0"] is not None
    assert offers["opensora-2.0"].code == "weights.absent"


def test_ids_cannot_be_guessed(engine: LocalEngine) -> None:
    ids = {engine.submit(request_of()).id for _ in range(50)}
    assert len(ids) == 50
    assert min(map(len, ids)) >= 16


@pytest.mark.parametrize("learn", [True, False])
def test_estimates_learn_from_what_a_run_took(device: Device, monkeypatch: pytest.MonkeyPatch, learn: bool) -> None:
    learned: list[Any] = []
    monkeypatch.setattr(Estimator, "remember", lambda self, *args: learned.append(args))
    engine = LocalEngine(device, generate=device.generate, learn=learn)
    list(engine.submit(request_of()).events())
    assert [args[2]["denoise"] for args in learned] == [0.2] * learn


def test_a_run_that_cannot_be_remembered_is_a_run_all_the_same(
    device: Device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Estimator, "remember", fail)
    job = LocalEngine(device, generate=device.generate, learn=True).submit(request_of())
    assert isinstance(list(job.events())[-1], Finished)
    assert job.state == "done"
    assert "could not be remembered" in caplog.text
