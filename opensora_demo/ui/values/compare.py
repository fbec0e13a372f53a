"""A comparison: the events of the runs of its rows -> the JSON the page draws.

A row is one run whose clips (a column for each guidance scale and rule) share their noise; the rows differ in one
other setting. Where several seeds a cell are asked for, a row is run once for each; the first one's clips are the ones
that are shown large. Pure: no Gradio, no clock of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NotRequired, TypedDict

from opensora_demo.media import jpeg_strip
from opensora_demo.messages import Message, message
from opensora_demo.metrics import shrunk
from opensora_demo.request import settings as table
from opensora_demo.request.events import Clip, Decoding, Encoded, Finished, StepPreview
from opensora_demo.service.engine import Loading, Quiet, RunEvent, Waiting
from opensora_demo.service.forms import Comparison
from opensora_demo.service.outputs import ClipFiles, TableFiles, marks_of
from opensora_demo.service.samples import Sample, unsure
from opensora_demo.toy.prompt_intent import Mark
from opensora_demo.ui.values.chart import ChartValue, chart_value
from opensora_demo.ui.values.common import (
    ChipKind,
    FileValue,
    MessageValue,
    Phase,
    RunValue,
    WordValue,
    said,
    said_or_none,
    word_value,
)
from opensora_demo.ui.values.stage import (
    PREVIEW_PX,
    ChipValue,
    LinkValue,
    SheetValue,
    cell_px,
    chips,
    file_value,
    link_value,
    of_scene,
    reading_note,
    sheet_value,
)

MOST_STEPS = 24  # of a row that are kept to be looked at again, evenly spread, the last one among them


class WaitingCell(TypedDict):
    """A clip that is not there yet, or was not made."""

    state: Literal["waiting", "missing"]


class DenoisingCell(TypedDict):
    """A clip being made: `step` from 1."""

    state: Literal["denoising"]
    step: int


class MarkValue(TypedDict):
    """One attribute: what was asked, nothing where it was left open, and what the reader saw (of two objects two words
    each), whether that agrees, whether the reader cannot tell, and how likely it finds, 0..1, that what was asked is
    shown."""

    kind: ChipKind
    asked: list[WordValue]
    seen: list[WordValue]
    right: bool | None
    unsure: bool
    confidence: float | None


class DoneCell(TypedDict):
    """A finished clip; `mosaic` shows it among those of the other seeds."""

    state: Literal["done"]
    file: FileValue
    sheet: SheetValue
    mosaic: SheetValue | None
    settings: dict[str, Any]
    marks: list[MarkValue] | None


CellValue = WaitingCell | DenoisingCell | DoneCell


class ColumnValue(TypedDict):
    """What the clips of a column share."""

    label: MessageValue
    scale: float
    rule: str
    rule_title: MessageValue


class RowStepValue(TypedDict):
    """A step of a row: `index` from 1, `pictures` a JPEG of each column's estimate, its latent frames side by side."""

    index: int
    noise_level: float
    pictures: list[str]


class RowValue(TypedDict):
    """What the clips of a row share; `latent` is the number of latent frames, `cell` width and height in the file,
    `total` the number of steps, `steps` those that are kept."""

    label: MessageValue | None
    fps: int
    frames: int
    latent: int
    cell: tuple[int, int]
    total: int
    steps: list[RowStepValue]


class CompareValue(RunValue):
    """A comparison: `done` and `total` steps of all runs, `seeds` clips a cell, `negative` (empty where the rows
    differ in it) and `chips` what all clips share. `grid` is the whole table as an mp4, `numbers` as a CSV file.
    `stored`: it was made with the demo, and not for this visitor."""

    done: int
    total: int
    axis: str
    seeds: int
    negative: str
    chips: list[ChipValue]
    columns: list[ColumnValue]
    rows: list[RowValue]
    cells: list[list[CellValue]]
    chart: ChartValue | None
    grid: FileValue | None
    numbers: FileValue | None
    link: LinkValue
    note: MessageValue | None
    stored: NotRequired[bool]


MARKED: Mapping[ChipKind, str] = {"colour": "colour", "shape": "shape", "motion": "motion", "place": "background"}


def mark_values(marks: Mapping[str, Mark]) -> list[MarkValue]:
    """What a reader says of a clip, in the order of the chips."""
    return [mark_value(kind, marks[attribute]) for kind, attribute in MARKED.items()]


def mark_value(kind: ChipKind, mark: Mark) -> MarkValue:
    def words(values: str | tuple[str | None, ...] | None) -> list[WordValue]:
        several = (values,) if isinstance(values, str) else values or ()
        return [word_value(kind, value) for value in several if value is not None]

    return {
        "kind": kind,
        "asked": words(mark["asked"]),
        "seen": words(mark["seen"]),
        "right": mark["right"],
        "unsure": unsure(mark),
        "confidence": mark["confidence"],
    }


AXIS_CHIPS: Mapping[str, tuple[str, ...]] = {"fps": ("fps", "length"), "model": ("model", "steps")}


def common_chips(comparison: Comparison) -> list[ChipValue]:
    """The line over the table: what all its clips share. The labels of columns and rows say the rest."""
    first = comparison.requests[0]
    labelled = {*AXIS_CHIPS.get(comparison.axis, (comparison.axis,))}
    labelled |= {"guidance"} if len(first.guidance) > 1 or len(first.rules) == 1 else set()
    labelled |= {"rule"} if len(first.rules) > 1 else set()
    codes = {s.chip.title.code for s in table.SETTINGS if s.chip and s.chip.name in labelled}
    return [chip for chip in chips(first.settings()) if chip["name"]["code"] not in codes]


class CompareView:
    """Folds the events of all runs into the value of the comparison."""

    def __init__(
        self,
        run: int,
        job: str,
        comparison: Comparison,
        finish_clip: Callable[[Clip], ClipFiles],
        blind: Message | None = None,
    ) -> None:
        """`blind` says why steps will have no pictures."""
        self._blind = blind
        self._before = said(message("run.starting"))
        self._comparison = comparison
        self._requests = requests = comparison.requests
        self._finish_clip = finish_clip
        self._row = self._seed = 0
        self._seconds = 0.0
        self._done = 0  # steps of the runs before
        self._again = 0  # clips that were made before this comparison
        self._finished: set[tuple[int, int]] = set()
        self._refined: dict[str, None] = {}
        self._fresh: list[Sample] = []  # of the run that is going on
        self._samples: list[Sample] = []
        self._clips: list[list[Clip]] = [[] for _ in requests]
        self._value: CompareValue = {
            "run": run,
            "job": job,
            "phase": "loading",
            "text": said(message("run.starting")),
            "prompt": requests[0].prompt,
            "elapsed": 0.0,
            "left": None,
            "kept": False,
            "done": 0,
            "total": sum(r.steps * r.scenes for r in requests) * comparison.seeds,
            "axis": comparison.axis,
            "seeds": comparison.seeds,
            "negative": "" if comparison.axis == "negative" else requests[0].negative_prompt,
            "chips": common_chips(comparison),
            "columns": [
                {"label": said(label), "scale": scale, "rule": rule, "rule_title": said(table.RULE_MESSAGES[rule])}
                for label, (scale, rule) in zip(requests[0].labels, requests[0].columns, strict=True)
            ],
            "rows": [
                {
                    "label": said_or_none(label),
                    "fps": r.fps,
                    "frames": r.total_frames,
                    "latent": 1,
                    "cell": cell_px(r.shape.height_px, r.shape.width_px),
                    "total": r.steps * r.scenes,
                    "steps": [],
                }
                for label, r in zip(comparison.labels, requests, strict=True)
            ],
            "cells": [[{"state": "waiting"} for _ in r.columns] for r in requests],
            "chart": None,
            "grid": None,
            "numbers": None,
            "link": link_value(comparison.settings()),
            "note": said_or_none(blind),
        }

    def name(self, run: int, job: str) -> None:
        """The run that makes it from now on, the first or another after it was stopped."""
        self._value["run"], self._value["job"] = run, job
        self._value["cells"] = [
            [cell if cell["state"] == "done" else {"state": "waiting"} for cell in row] for row in self._value["cells"]
        ]

    def has(self, row: int, seed: int) -> bool:
        """Whether this row is finished for this seed."""
        return (row, seed) in self._finished

    def begin(self, row: int, seed: int) -> None:
        """A run begins: its row, and which of the seeds a cell it is, from 0."""
        self._row, self._seed, self._fresh = row, seed, []
        if seed == 0:  # it may have been stopped half way
            self._clips[row] = []
            self._value["rows"][row]["steps"] = []
            self._value["cells"][row] = [{"state": "waiting"} for _ in self._requests[row].columns]

    def value(self, elapsed: float, *, kept: bool = False) -> CompareValue:
        """What the page draws now."""
        self._value["elapsed"], self._value["kept"] = round(elapsed, 2), kept
        return {
            **self._value,
            "rows": [{**row, "steps": list(row["steps"])} for row in self._value["rows"]],
            "cells": [list(row) for row in self._value["cells"]],
        }

    def add(self, event: RunEvent) -> None:
        """Take in one event of the current run."""
        request = self._requests[self._row]
        match event:
            case Loading():
                self._say("loading", message("run.loading"))
            case Waiting():
                self._say("waiting", event.text)
            case Quiet(on=on, text=text):
                self._before, self._value["text"] = self._value["text"], said(text) if on else self._before
            case Encoded(unknown=unknown, cut_tokens=cut, refined=refined):
                self._refined |= {} if refined is None else {refined: None}
                self._value["note"] = said_or_none(
                    reading_note(request.model_id, unknown, cut, self._refined) or self._blind
                )
                self._say("denoising", of_scene(event, self._denoising(0, request.steps)))
            case StepPreview():
                self._step(event)
                self._say("denoising", of_scene(event, self._denoising(event.index + 1, event.total)))
            case Decoding(done=done, clip=clip, column=column, again=again):
                self._take(column, clip)
                if again:
                    self._again += 1
                else:
                    self._say("decoding", self._decoding(done, len(request.columns)))
            case Finished():
                self._seconds += sum(event.seconds.values())
                self._done += request.steps * request.scenes
                self._finished.add((self._row, self._seed))
                self._samples += self._fresh
                self._value["chart"] = self.chart()
            case _:
                pass

    def _of_rows(self) -> dict[str, int]:
        return {"row": self._row + 1, "rows": len(self._requests)}

    def _denoising(self, step: int, total: int) -> Message:
        if len(self._requests) == 1:
            return self._of_seed(message("run.denoising", step=step, total=total))
        return self._of_seed(message("run.denoising_row", step=step, total=total, **self._of_rows()))

    def _decoding(self, done: int, total: int) -> Message:
        if len(self._requests) == 1:
            return self._of_seed(message("run.decoding_of", done=done, total=total))
        return self._of_seed(message("run.decoding_row", done=done, total=total, **self._of_rows()))

    def _of_seed(self, text: Message) -> Message:
        seeds = self._comparison.seeds
        return text if seeds == 1 else message("run.of_seed", text=text, seed=self._seed + 1, seeds=seeds)

    def _say(self, phase: Phase, text: Message) -> None:
        self._value["phase"], self._value["text"] = phase, said(text)

    def _step(self, event: StepPreview) -> None:
        value, step = self._value, event.place + 1
        value["done"] = self._done + step
        spent = self._seconds + event.seconds
        value["left"] = round(spent / value["done"] * (value["total"] - value["done"]), 2)
        if self._seed or not event.previews:
            return
        row = value["rows"][self._row]
        every = math.ceil(event.of_all / MOST_STEPS)
        if event.place % every == 0 or step == event.of_all:
            row["latent"] = int(event.previews[0].shape[0])
            pictures = [jpeg_strip(preview, PREVIEW_PX) for preview in event.previews]
            row["steps"].append({"index": step, "noise_level": round(event.t, 3), "pictures": pictures})
        cells = value["cells"][self._row]
        for column, cell in enumerate(cells):
            if cell["state"] != "done":  # made before
                cells[column] = {"state": "denoising", "step": step}

    def _take(self, column: int, clip: Clip) -> None:
        """A clip is there: the first seed's is shown, the others count."""
        made = self._finish_clip(clip) if self._seed == 0 else None
        marks = marks_of(clip) if made is None else made.marks
        self._fresh.append(
            Sample(row=self._row, column=column, request=clip.request, marks=marks, frames=shrunk(clip.frames))
        )
        if made is not None:
            self._clips[self._row].append(clip)
            self._value["cells"][self._row][column] = self._cell(clip, made)

    def _cell(self, clip: Clip, made: ClipFiles) -> DoneCell:
        return {
            "state": "done",
            "file": file_value(made.file),
            "sheet": sheet_value(made.sheet),
            "mosaic": None,
            "settings": clip.request.settings(),
            "marks": None if made.marks is None else mark_values(made.marks),
        }

    def chart(self) -> ChartValue:
        """What the finished runs say of the columns."""
        labels = [row["label"] for row in self._value["rows"]]
        seeds_are_rows = self._comparison.axis == "seed"
        return chart_value(self._samples, labels, len(self._value["columns"]), seeds_are_rows=seeds_are_rows)

    @property
    def clips(self) -> list[list[Clip]]:
        """Of the first seed, by rows."""
        return self._clips

    @property
    def samples(self) -> list[Sample]:
        """Every clip of the runs that are finished."""
        return self._samples

    def keep(self, files: TableFiles) -> None:
        """The files of the whole table."""
        value = self._value
        value["grid"] = None if files.grid is None else file_value(files.grid)
        value["numbers"] = None if files.numbers is None else file_value(files.numbers)
        for (row, column), sheet in files.mosaics.items():
            cell = value["cells"][row][column]
            if cell["state"] == "done":
                value["cells"][row][column] = {**cell, "mosaic": sheet_value(sheet)}

    def finish(self, elapsed: float) -> CompareValue:
        """The last value of a comparison that went well."""
        again = message("run.done_again", count=self._again, total=len(self._samples))
        self._say("done", again if self._again else message("run.done"))
        self._value["left"] = None
        return self.value(elapsed)

    def end(self, phase: Phase, text: Message, elapsed: float) -> CompareValue:
        """The last value of a comparison that was stopped or failed."""
        self._say(phase, text)
        self._value["left"] = None
        self._value["cells"] = [
            [cell if cell["state"] == "done" else {"state": "missing"} for cell in row] for row in self._value["cells"]
        ]
        return self.value(elapsed)
