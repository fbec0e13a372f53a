"""A page that is loaded anew at another page process of its cluster finds its runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
import pytest

from opensora_demo.cluster import engine as engines
from opensora_demo.cluster.engine import ClusterEngine
from opensora_demo.service.forms import compare_names
from opensora_demo.ui.actions.all import Actions, actions_of
from opensora_demo.ui.context import LOST_RUN, PageContext
from opensora_demo.weights.options import WeightOptions
from tests.ui.conftest import FakePipeline, read
from tests.ui.server import until
from tests.ui.test_actions import GOOD, click, visitor
from tests.unit.test_cluster import Here
from tests.unit.test_records import Way, cluster_began_long_ago


@dataclass
class Page:
    """A page process; `die` ends it as a kill would."""

    way: Way
    actions: Actions

    def die(self) -> None:
        self.way.died = True

    @property
    def going(self) -> list[Any]:
        return [run for run in self.actions.context.runs._runs.values() if not run.over]


@pytest.fixture
def cluster(pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    monkeypatch.setattr(engines, "PULSE_S", 0.05)
    monkeypatch.setattr(engines, "ALIVE_S", 0.02)
    monkeypatch.setattr(engines, "SILENT_S", 0.1)
    monkeypatch.setattr("opensora_demo.cluster.replica.ASK_S", 0.02)
    made = Here([pipeline])
    yield made
    made.end()


@pytest.fixture
def start(cluster: Here) -> Iterator[Callable[[], Page]]:
    made: list[Page] = []

    def begin() -> Page:
        way = Way(cluster)
        made.append(Page(way, actions_of(PageContext(ClusterEngine(way, WeightOptions())))))
        return made[-1]

    yield begin
    for page in made:
        context = page.actions.context
        context.engine.close()
        context.runs.close()
        context.files.close()


Start = Callable[[], Page]


def left(values: Any, going: bool = True) -> gr.EventData:
    """What a tab says that was loaded anew."""
    jobs = [values["job"]] if isinstance(values, dict) else [value["job"] for value in values]
    return gr.EventData(None, {"jobs": jobs, "going": jobs[:1] if going else None})


def until_step(values: Iterator[dict[str, Any]], step: int) -> dict[str, Any]:
    return next(value for value in values if len(value["steps"]) >= step)


def test_a_run_is_found_at_another_page_process_and_comes_to_its_clip(
    start: Start, cluster: Here, pipeline: FakePipeline
) -> None:
    one, two = start(), start()
    before = list(click(one.actions, prompt="a blue star"))[-1]
    pipeline.gate = threading.Semaphore(2)
    shown = until_step(click(one.actions), 2)
    one.die()
    again = two.actions.clips.restore(visitor("new page"), left([shown, before]))
    found = (stage for stage, _ in again)
    value = until_step(found, 2)
    assert (value["job"], value["run"], value["phase"]) == (shown["job"], shown["run"], "denoising")
    assert value["settings"] == shown["settings"]
    assert [old["prompt"] for old in value["history"]] == ["a blue star"]
    history = value["history"][0]["clip"]
    assert two.actions.context.here(history["file"])
    pipeline.gate.release(100)
    last = list(found)[-1]
    assert last["phase"] == "done"
    assert len(last["steps"]) == 4
    assert all(step["guess"] for step in last["steps"])
    assert two.actions.context.here(last["clip"]["file"])
    assert len(cluster.served) == 2  # what is found is not made again


def test_a_run_that_is_done_is_found(start: Start, cluster: Here) -> None:
    one, two = start(), start()
    last = list(click(one.actions))[-1]
    until(lambda: not one.going)
    one.die()
    values = [stage for stage, _ in two.actions.clips.restore(visitor("new page"), left(last, going=False))]
    assert values[-1]["phase"] == "done"
    assert values[-1]["clip"]["settings"] == last["clip"]["settings"]
    assert values[-1]["elapsed"] >= last["elapsed"]
    assert len(cluster.served) == 1


def test_stop_at_the_page_that_found_it_stops_it_for_good(start: Start, pipeline: FakePipeline) -> None:
    one, two, three = start(), start(), start()
    cluster_began_long_ago(one)
    pipeline.gate = threading.Semaphore(1)
    shown = until_step(click(one.actions), 1)
    one.die()
    again = two.actions.clips.restore(visitor("new page"), left(shown))
    until_step((stage for stage, _ in again), 1)
    two.actions.clips.stop(visitor("new page"))
    value = list(again)[-1][0]
    assert (value["phase"], read(value["text"])) == ("stopped", "Stopped after step 1 of 4")
    until(lambda: pipeline.closed == 1 and not two.going)
    ((lost, _),) = three.actions.clips.restore(visitor("third"), left(shown))
    assert lost == LOST_RUN


def test_a_run_that_was_told_to_go_on_does_so_elsewhere(start: Start, pipeline: FakePipeline) -> None:
    one, two = start(), start()
    pipeline.gate = threading.Semaphore(1)
    shown = until_step(click(one.actions), 1)
    one.actions.clips.keep(visitor(), gr.EventData(None, {"job": shown["job"], "on": True}))
    assert one.way.here.line._records.alone_s(shown["job"]) == 2 * 3600.0
    one.die()
    again = two.actions.clips.restore(visitor("new page"), left(shown))
    value = until_step((stage for stage, _ in again), 1)
    assert value["kept"]
    pipeline.gate.release(100)
    assert list(again)[-1][0]["phase"] == "done"


def test_a_comparison_goes_on_with_the_rows_that_are_missing(
    start: Start, cluster: Here, pipeline: FakePipeline
) -> None:
    one, two = start(), start()
    form = (
        dict.fromkeys(compare_names()) | GOOD | {"scales": "1, 4", "rules": ["plain"], "axis": "steps", "rows": "2; 3"}
    )
    form |= {"seeds": 1}
    pipeline.gate = threading.Semaphore(3)  # the first row, and a step of the second
    values = one.actions.comparison.make_comparison(visitor(), *form.values())
    shown = next(value for value in values if len(value["rows"][1]["steps"]) >= 1)
    one.die()
    again = two.actions.comparison.restore(visitor("new page"), left(shown))
    value = next(value for value in again if len(value["rows"][1]["steps"]) >= 1)
    assert [cell["state"] for cell in value["cells"][0]] == ["done", "done"]
    assert value["run"] == shown["run"]
    pipeline.gate.release(100)
    last = list(again)[-1]
    assert last["phase"] == "done"
    assert [cell["state"] for row in last["cells"] for cell in row] == ["done"] * 4
    assert len(cluster.served) == 2


def test_a_run_is_nobody_elses(start: Start, cluster: Here, pipeline: FakePipeline) -> None:
    one, two = start(), start()
    pipeline.gate = threading.Semaphore(1)
    shown = until_step(click(one.actions), 1)
    guessed = [{"job": shown["job"][:-1]}, {"job": shown["job"][:-1] + "\n"}, {"job": "x" * 5000}]
    ((lost, _),) = two.actions.clips.restore(visitor("new page"), left(guessed))
    assert lost == LOST_RUN
    pipeline.gate.release(100)
    assert one.way.here.line._records.belongs(shown["job"], one.actions.context.engine.page)  # type: ignore[attr-defined]
