"""What a comparison's clips say together: means over seeds, and how sure one can be of them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

import numpy as np

from opensora_demo.metrics import jackknife_error, rms_distances
from opensora_demo.service.samples import Sample, rightness, sureness
from opensora_demo.toy.prompt_intent import Mark
from opensora_demo.ui.values.common import MessageValue


class PointValue(TypedDict):
    """A mean over seeds, the value of `each` of them, and its standard error (None of a single one)."""

    mean: float
    error: float | None
    each: list[float]


class LineValue(TypedDict):
    """One line over the columns; None where nothing is known. `sure`: how likely the reader finds it, 0..1, that what
    was asked is shown, mean of the attributes; `right`: the share of them that it sees without doubt; `variety`: how
    far clips of different seeds are apart (RMS, 0..1)."""

    label: MessageValue | None
    sure: list[PointValue | None]
    right: list[PointValue | None]
    variety: list[PointValue | None]


class ChartValue(TypedDict):
    """A line for each row; where the rows are seeds, one of their means."""

    lines: list[LineValue]


def chart_value(
    samples: Sequence[Sample], labels: Sequence[MessageValue | None], columns: int, *, seeds_are_rows: bool
) -> ChartValue:
    """Rows that differ in anything but the seed are never averaged: each is a line of its own."""
    groups = [(None, samples)] if seeds_are_rows else [
        (label, [s for s in samples if s.row == row]) for row, label in enumerate(labels)
    ]  # fmt: skip
    return {"lines": [_line(label, of_line, columns) for label, of_line in groups if of_line]}


def _line(label: MessageValue | None, samples: Sequence[Sample], columns: int) -> LineValue:
    cells = [[s for s in samples if s.column == column] for column in range(columns)]
    return {
        "label": label,
        "sure": [_of_marks(cell, sureness) for cell in cells],
        "right": [_of_marks(cell, rightness) for cell in cells],
        "variety": [_variety(cell) for cell in cells],
    }


def _of_marks(cell: Sequence[Sample], score: Callable[[Mapping[str, Mark]], float | None]) -> PointValue | None:
    each = [value for s in cell if s.marks is not None and (value := score(s.marks)) is not None]
    return _point(each, [(sum(each) - value) / max(len(each) - 1, 1) for value in each]) if each else None


def _variety(cell: Sequence[Sample]) -> PointValue | None:
    """Each seed's mean distance from the others; their mean is that of all pairs."""
    n = len(cell)
    if n < 2:
        return None
    table = rms_distances([s.frames for s in cell])
    total, of_each = table.sum(), table.sum(1)
    without = [(total - 2 * own) / ((n - 1) * (n - 2)) for own in of_each] if n > 2 else []
    return _point([own / (n - 1) for own in of_each], without)


def _point(each: Sequence[float], without: Sequence[float]) -> PointValue:
    error = jackknife_error(without)
    return {
        "mean": round(float(np.mean(each)), 4),
        "error": None if error is None else round(error, 4),
        "each": [round(float(value), 4) for value in each],
    }
