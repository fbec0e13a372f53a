"""A cell of a comparison that was made before is not made again, and shows all that it showed then."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch

from opensora_demo.catalog import NANO
from opensora_demo.messages import message
from opensora_demo.pipeline import generate
from opensora_demo.request.events import DecodedFrames, Decoding, Finished, StepPreview
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.bundle import ModelBundle
from opensora_demo.service.local import LocalEngine
from opensora_demo.service.made import Made, MadeClips, fingerprint
from opensora_demo.ui.actions.all import Actions
from tests.ui.conftest import FakeBundles, FakePipeline, read
from tests.ui.test_actions import comparison


def asked(scales: str = "1, 4", **raw: Any) -> GenerationRequest:
    guidance = [float(scale) for scale in scales.split(",")]
    form = {"prompt": "a red ball", "steps": 3, "seed": 5, "guidance": guidance, **raw}
    return parse_request(form, model_id="nano", limits=NANO.limits)


@dataclass
class Asked(FakePipeline):
    """Notes the columns of every run."""

    columns: list[tuple[Any, ...]] = field(default_factory=list)

    def __call__(self, bundle: Any, request: GenerationRequest, cancel: Any, *, look: bool = False) -> Any:
        self.columns.append(request.columns)
        self.picture = lambda index: np.full((5, 8, 8, 3), request.seed + index, np.uint8)
        return super().__call__(bundle, request, cancel, look=look)


@pytest.fixture
def fake() -> Asked:
    return Asked()


@pytest.fixture
def engine(fake: Asked) -> LocalEngine:
    return LocalEngine(FakeBundles(), generate=fake)


def events(made: MadeClips, engine: LocalEngine, request: GenerationRequest, **how: Any) -> list[Any]:
    return list(made.submit(engine, request, **how).events())


def last(events: list[Any]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


def test_one_scale_more_is_one_clip_more(engine: LocalEngine, fake: Asked) -> None:
    made = MadeClips()
    before = last(events(made, engine, asked("1, 4")))
    seen = events(made, engine, asked("1, 2, 4"))
    assert fake.columns == [((1.0, "plain"), (4.0, "plain")), ((2.0, "plain"),)]
    clips = last(seen).clips
    assert [clip.request.guidance for clip in clips] == [(1.0,), (2.0,), (4.0,)]
    assert np.array_equal(clips[0].frames, before.clips[0].frames)
    assert np.array_equal(clips[2].frames, before.clips[1].frames)
    steps = [event for event in seen if isinstance(event, StepPreview)]
    assert [len(step.previews) for step in steps] == [3, 3, 3]
    assert [step.guidance for step in steps] == [(1.0, 2.0, 4.0)] * 3
    assert [(e.column, e.done, e.again) for e in seen if isinstance(e, Decoding)] == [
        (0, 1, True), (2, 2, True), (1, 3, False)
    ]  # fmt: skip


def test_parts_of_a_clip_stand_in_its_column(engine: LocalEngine, fake: Asked) -> None:
    made, fake.parts = MadeClips(), (9,)
    assert [e.column for e in events(made, engine, asked("1, 4")) if isinstance(e, DecodedFrames)] == [0, 1]
    assert [e.column for e in events(made, engine, asked("1, 2, 4")) if isinstance(e, DecodedFrames)] == [1]


def test_nothing_new_needs_no_device(engine: LocalEngine, fake: Asked) -> None:
    made, request = MadeClips(), asked("1, 4, 7")
    first = events(made, engine, request)
    fake.gate = threading.Semaphore(0)  # a run would never end
    busy = engine.submit(asked("3")).events()
    next(busy)
    again = events(made, engine, request)
    assert [type(event) for event in again if isinstance(event, StepPreview)] == [StepPreview] * 3
    for one, other in zip(last(first).clips, last(again).clips, strict=True):
        assert np.array_equal(one.frames, other.frames)
    for one, other in zip(*([e for e in of if isinstance(e, StepPreview)] for of in (first, again)), strict=True):
        assert (one.index, one.total, one.t, one.guidance) == (other.index, other.total, other.t, other.guidance)
        assert np.array_equal(one.previews[2], other.previews[2])
    busy.close()


def test_what_decides_about_a_clip_decides_whether_it_was_made(engine: LocalEngine, fake: Asked) -> None:
    frame = np.zeros((1, 128, 128, 3), np.uint8)
    one = asked()
    others = [
        asked(steps=4), asked(seed=6), asked(prompt="a blue ball"), asked(fps=12), asked(negative="blue"),
        asked(rule=["apg"]), replace(one, reference=frame), replace(one, reference=frame + 1),
        replace(one, last_frame=frame), replace(one, curve=((0.0, 1.0), (1.0, 0.0))), replace(one, stop_step=2),
    ]  # fmt: skip
    assert len({fingerprint(request) for request in (one, *others)}) == 1 + len(others)
    assert fingerprint(replace(one, reference=frame)) == fingerprint(replace(one, reference=frame.copy()))
    assert fingerprint(asked("1, 4").column(1)) == fingerprint(asked("4"))


def test_pairs_that_are_no_table_are_covered_by_one(engine: LocalEngine, fake: Asked) -> None:
    made = MadeClips()
    events(made, engine, asked("1", rule=["plain"]))
    events(made, engine, asked("4", rule=["apg"]))
    seen = events(made, engine, asked("1, 4", rule=["plain", "apg"]))
    assert set(fake.columns[-1]) == {(1.0, "plain"), (4.0, "plain"), (1.0, "apg"), (4.0, "apg")}
    assert [clip.request.columns[0] for clip in last(seen).clips] == [*asked("1, 4", rule=["plain", "apg"]).columns]
    assert len([e for e in seen if isinstance(e, Decoding)]) == 4


def test_a_clip_without_its_steps_is_made_again_where_they_are_shown(fake: Asked) -> None:
    made, engine = MadeClips(), LocalEngine(FakeBundles(), generate=fake)
    made.keep(asked("4"), Made(frames=np.zeros((17, 8, 8, 3), np.uint8), steps=(), encoded=None))
    events(made, engine, asked("4"), pictures=False)
    assert not fake.columns
    events(made, engine, asked("4"))
    assert len(fake.columns) == 1
    engine.blind = message("run.done")  # any reason: no run there has pictures
    made.keep(asked("7"), Made(frames=np.zeros((17, 8, 8, 3), np.uint8), steps=(), encoded=None))
    events(made, engine, asked("7"))
    assert len(fake.columns) == 1


def test_an_engine_whose_steps_have_no_pictures(fake: Asked) -> None:
    def without_pictures(*args: Any, **how: Any) -> Iterator[Any]:
        for event in fake(*args, **how):
            yield replace(event, previews=(), guidance=()) if isinstance(event, StepPreview) else event

    engine, made = LocalEngine(FakeBundles(), generate=without_pictures), MadeClips()
    engine.blind = message("note.blind")
    for scales, runs in (("1, 4", 1), ("1, 2, 4", 2), ("2, 4", 2)):
        assert len(last(events(made, engine, asked(scales))).clips) == len(scales.split(","))
        assert len(fake.columns) == runs


def test_the_oldest_make_room_and_a_cleaned_folder_is_no_error(engine: LocalEngine, fake: Asked) -> None:
    made = MadeClips(keep_bytes=2_000_000)  # two clips of 0.84 MB
    for scale in ("1", "2", "3"):
        events(made, engine, asked(scale))
    assert made.find(asked("1")) is None
    assert made.find(asked("2")) is not None
    found = list(made._folder.iterdir())  # type: ignore[union-attr]
    assert sum(file.stat().st_size for file in found) <= 2_000_000
    shutil.rmtree(found[0].parent)
    assert last(events(made, engine, asked("2, 3"))).clips[1].request.guidance == (3.0,)
    assert made.find(asked("2")) is not None


def test_a_full_disk_only_means_making_it_again(
    engine: LocalEngine, fake: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **arrays: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    made = MadeClips()
    for _ in range(2):
        assert len(last(events(made, engine, asked("1, 4"))).clips) == 2
    assert len(fake.columns) == 2


def test_the_page_says_how_many_and_shows_their_steps(actions: Actions, pipeline: Any) -> None:
    first = comparison(actions, scales="1, 4")[-1]
    assert read(first["text"]) == "Done"
    more = comparison(actions, scales="1, 4, 7")
    assert read(more[-1]["text"]) == "Done. Made before, and not again: 2 of 3 clips."
    assert [cell["state"] for cell in more[-1]["cells"][0]] == ["done"] * 3
    assert [len(step["pictures"]) for step in more[-1]["rows"][0]["steps"]] == [3] * 4
    assert more[-1]["rows"][0]["steps"][1]["pictures"][:2] == first["rows"][0]["steps"][1]["pictures"]
    assert more[-1]["done"] == more[-1]["total"]
    assert pipeline.closed == 2
    again = comparison(actions, scales="7, 1")[-1]
    assert read(again["text"]) == "Done. Made before, and not again: 2 of 2 clips."
    assert again["chart"] is not None
    assert pipeline.closed == 2


def seeds_of(value: dict[str, Any]) -> set[int]:
    return {cell["settings"]["seed"] for row in value["cells"] for cell in row}


def test_a_table_that_grows_keeps_its_noise(actions: Actions, pipeline: Any) -> None:
    """No seed is typed: it is drawn, for the very same table anew."""
    first = comparison(actions, seed=None, scales="1, 4")[-1]
    more = comparison(actions, seed=None, scales="1, 4, 7")[-1]
    assert seeds_of(more) == seeds_of(first)
    assert read(more["text"]) == "Done. Made before, and not again: 2 of 3 clips."
    other_rule = comparison(actions, seed=None, scales="1, 4, 7", rules=["plain", "apg"])[-1]
    assert seeds_of(other_rule) == seeds_of(first)
    same = comparison(actions, seed=None, scales="1, 4, 7", rules=["plain", "apg"])[-1]
    assert seeds_of(same).isdisjoint(seeds_of(first))
    prompt = comparison(actions, seed=None, scales="1, 4", prompt="a blue ball")[-1]
    assert seeds_of(prompt).isdisjoint(seeds_of(same))
    typed = comparison(actions, seed=9, scales="1, 7", prompt="a blue ball")[-1]
    assert seeds_of(typed) == {9}


def test_a_clip_of_the_model_is_the_same_within_a_comparison_of_another_size(nano: ModelBundle) -> None:
    class Bundles(FakeBundles):
        def get(self, model_id: str, check: Any = None) -> ModelBundle:
            return nano

    made, engine = MadeClips(), LocalEngine(Bundles(), generate=generate)
    with torch.inference_mode():
        events(made, engine, asked("2, 6"))
        together = last(list(engine.submit(asked("2, 4, 6")).events())).clips
        apart = last(events(made, engine, asked("2, 4, 6"))).clips
    for one, other in zip(together, apart, strict=True):
        assert np.abs(one.frames.astype(int) - other.frames.astype(int)).max() <= 1
