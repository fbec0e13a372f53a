"""A comparison: what a visitor typed -> rows of requests, and the events of their runs -> the JSON the page draws.

A row is one run whose clips (a column for each guidance scale and rule) share their noise; the rows differ in one
other setting. Pure: no Gradio, no clock of its own.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from opensora_demo.catalog import ModelSpec, find_model
from opensora_demo.errors import RequestError
from opensora_demo.media import jpeg_strip
from opensora_demo.types import (
    MAX_SEED,
    Clip,
    Decoding,
    Encoded,
    Finished,
    Frames,
    GenerationRequest,
    StepPreview,
    parse_guidance_list,
)
from opensora_demo.ui.jobs import Value
from opensora_demo.ui.present import PREVIEW_PX, cell_px, file_data, unknown_sentence
from opensora_demo.ui.runs import Loading, RunEvent, Waiting

Axis = Literal["none", "seed", "steps", "fps", "negative", "model"]
AXES: Mapping[Axis, str] = {
    "none": "one row",
    "seed": "seed",
    "steps": "steps",
    "fps": "FPS",
    "negative": "negative prompt",
    "model": "model",
}
MAX_ROWS = 4
_NUMBERS = {"seed": 3, "steps": 0, "fps": 0}  # how many are taken when none is typed

Row = tuple[str, dict[str, Any]]  # label, settings that differ from the form's


def parse_rows(axis: str, text: str, seed: int) -> list[Row]:
    """The rows of `axis` as typed: numbers "4, 8, .., 20", negative prompts or models separated by semicolons or
    commas; no seeds are `seed` and the next two. Raises RequestError("rows")."""
    if axis not in AXES:
        raise RequestError("rows", f"must be one of {', '.join(AXES)}")
    if axis == "none":
        return [("", {})]
    rows: list[Row]
    if axis in _NUMBERS:
        numbers = parse_whole_numbers(text) or [(seed + i) % (MAX_SEED + 1) for i in range(_NUMBERS[axis])]
        rows = [(f"{AXES[axis]} {n}", {axis: n}) for n in numbers]  # type: ignore[index]
    elif axis == "negative":
        prompts = [part.strip() for part in re.split(r"[;|；\n]", text)] if text.strip() else []
        rows = [(f"without {p}" if p else "no negative prompt", {"negative": p}) for p in prompts]
    else:
        ids = [part for part in re.split(r"[,;\s]+", text.strip()) if part]
        rows = [(find_model(i).title, {"model": i}) for i in ids]
    if not rows:
        raise RequestError("rows", f"must name the values of {AXES[axis]} to compare")  # type: ignore[index]
    if len(rows) > MAX_ROWS:
        raise RequestError("rows", f"must be at most {MAX_ROWS}, not {len(rows)}")
    if len({str(settings) for _, settings in rows}) != len(rows):
        raise RequestError("rows", "must not name a value twice")
    return rows


def parse_whole_numbers(text: str) -> list[int]:
    """Whole numbers typed as a list of scales is, 4, 8, .., 20, none below zero. Raises RequestError("rows")."""
    if not text.strip():
        return []
    try:
        numbers = parse_guidance_list(text)
    except RequestError:
        if ".." not in text:
            raise RequestError("rows", "must be whole numbers, as in 1, 2, 3") from None
        raise RequestError(
            "rows", "'..' needs two rising numbers before it and one after it, as in 4, 8, .., 20"
        ) from None
    if not all(0 <= number < 1e12 and number == int(number) for number in numbers):
        raise RequestError("rows", "must be whole numbers, as in 1, 2, 3")
    return [int(number) for number in numbers]


def fit_to_model(raw: Mapping[str, Any], own: ModelSpec, spec: ModelSpec) -> dict[str, Any]:
    """The form's settings as another model takes them: what is the default of the form's `own` model, or is not
    accepted, becomes the other's default."""
    limits, fitted = spec.limits, dict(raw)
    spans = (("fps", own.limits.fps, limits.fps), ("steps", own.limits.steps, limits.steps))
    for name, of_form, span in spans:
        value = fitted.get(name)
        if not isinstance(value, int | float) or value == of_form.default or not span.low <= value <= span.high:
            fitted[name] = None
    for name, span_or_none in (("image_guidance", limits.image_guidance), ("motion_score", limits.motion_score)):
        if span_or_none is None:
            fitted[name] = None
    for name, names in limits.choices.items():
        if fitted.get(name) not in names:
            fitted[name] = None
    if not limits.edit:
        fitted["edit"] = None
    return fitted


@dataclass(frozen=True, slots=True)
class Made:
    """A finished clip: its mp4, its frames side by side in one JPEG file with `across` in a line, and what a reader
    saw in it, where one can tell."""

    file: Path
    sprite: Path
    across: int
    size_px: tuple[int, int]  # height, width of a frame in the sprite
    marks: dict[str, Any] | None


class CompareView:
    """Folds the events of all rows into the value of the comparison."""

    def __init__(
        self,
        run: int,
        job: str,
        axis: str,
        labels: Sequence[str],
        requests: Sequence[GenerationRequest],
        finish_clip: Callable[[Clip], Made],
    ) -> None:
        self._requests = requests
        self._finish_clip = finish_clip
        self._row = 0
        self._steps_done = 0
        self._seconds = 0.0
        self._clips: list[list[Clip]] = [[] for _ in requests]
        self._cells: list[list[Value]] = [[{"state": "waiting"} for _ in r.columns] for r in requests]
        self._view: dict[str, Any] = {
            "run": run,
            "job": job,
            "phase": "loading",
            "text": "Starting",
            "prompt": requests[0].prompt,
            "elapsed": 0.0,
            "left": None,
            "done": 0,
            "total": sum(r.steps for r in requests),
            "axis": axis,
            "columns": [
                {"label": label, "scale": scale, "rule": rule}
                for label, (scale, rule) in zip(requests[0].labels, requests[0].columns, strict=True)
            ],
            "rows": [
                {
                    "label": label,
                    "fps": r.fps,
                    "frames": r.shape.frames,
                    "latent": 1,
                    "cell": cell_px(r.shape.height_px, r.shape.width_px),
                }
                for label, r in zip(labels, requests, strict=True)
            ],
            "chart": None,
            "grid": None,
            "note": "",
        }

    def begin_row(self, row: int) -> None:
        self._row = row

    def value(self, elapsed: float) -> Value:
        """What the page draws now."""
        self._view["elapsed"] = round(elapsed, 2)
        return {**self._view, "cells": [list(row) for row in self._cells]}

    def add(self, event: RunEvent) -> None:
        """Take in one event of the current row."""
        request = self._requests[self._row]
        where = f", row {self._row + 1} of {len(self._requests)}" if len(self._requests) > 1 else ""
        match event:
            case Loading():
                self._say("loading", "Loading the model")
            case Waiting():
                self._say("waiting", "Waiting for another run to finish")
            case Encoded(unknown=unknown, cut_tokens=cut):
                self._view["note"] = unknown_sentence(request.model_id, unknown, cut)
                self._say("denoising", f"Denoising 0 of {request.steps}{where}")
            case StepPreview():
                self._step(event)
                self._say("denoising", f"Denoising {event.index + 1} of {event.total}{where}")
            case Decoding(done=done, clip=clip):
                self._clips[self._row].append(clip)
                self._cells[self._row][done - 1] = self._cell(clip)
                self._say("decoding", f"Decoding {done} of {len(request.columns)}{where}")
            case Finished():
                self._seconds += sum(event.seconds.values())
                self._view["chart"] = self.chart()
            case _:
                pass

    def _say(self, phase: str, text: str) -> None:
        self._view |= {"phase": phase, "text": text}

    def _step(self, event: StepPreview) -> None:
        self._view["rows"][self._row]["latent"] = int(event.previews[0].shape[0])
        for column, preview in enumerate(event.previews):
            strip = jpeg_strip(preview, PREVIEW_PX)
            self._cells[self._row][column] = {"state": "denoising", "i": event.index + 1, "e": strip}
        self._view["done"] = sum(r.steps for r in self._requests[: self._row]) + event.index + 1
        spent = self._seconds + event.seconds
        self._view["left"] = round(spent / self._view["done"] * (self._view["total"] - self._view["done"]), 2)

    def _cell(self, clip: Clip) -> Value:
        made = self._finish_clip(clip)
        return {
            "state": "done",
            "file": file_data(made.file),
            "sprite": file_data(made.sprite),
            "across": made.across,
            "size": list(made.size_px),
            "count": len(clip.frames),
            "settings": clip.request.settings(),
            "marks": made.marks,
        }

    def chart(self) -> Value:
        """Over the columns: how sure the reader is of what was asked (mean of rows, None without a reader), the share
        that is right, and how far the clips of different seeds are apart (None unless the rows are seeds)."""
        finished = [row for row, clips in enumerate(self._clips) if len(clips) == len(self._requests[row].columns)]
        columns = range(len(self._requests[0].columns))
        marks = [[self._cells[row][k].get("marks") for row in finished] for k in columns]
        asked = [[m for found in of_column if found for m in found.values() if m["asked"]] for of_column in marks]
        variety = None
        if self._view["axis"] == "seed" and len(finished) > 1:
            variety = [round(spread([self._clips[row][k].frames for row in finished]), 4) for k in columns]
        return {
            "rows": len(finished),
            "sure": [round(float(np.mean([m["confidence"] for m in a])), 4) if a else None for a in asked],
            "right": [round(float(np.mean([bool(m["right"]) for m in a])), 4) if a else None for a in asked],
            "variety": variety,
        }

    @property
    def clips(self) -> list[list[Clip]]:
        return self._clips

    def finish(self, file: Path, elapsed: float) -> Value:
        """The last value of a comparison that went well; `file` is the whole table as one mp4."""
        self._view |= {"phase": "done", "text": "Done", "left": None, "grid": file_data(file)}
        return self.value(elapsed)

    def end(self, phase: str, text: str, elapsed: float) -> Value:
        """The last value of a comparison that was stopped or failed."""
        self._view |= {"phase": phase, "text": text, "left": None}
        self._cells = [
            [cell if cell["state"] == "done" else {"state": "missing"} for cell in row] for row in self._cells
        ]
        return self.value(elapsed)


def spread(clips: Sequence[Frames]) -> float:
    """Mean RMS distance, 0..1, between every two clips of equal shape."""
    pairs = itertools.combinations([clip.astype(np.float32) / 255 for clip in clips], 2)
    return float(np.mean([np.sqrt(np.mean((a - b) ** 2)) for a, b in pairs]))
