"""The clips of a comparison as samples: what a reader saw in each, and all of them as a table of numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from opensora_demo.request.request import GenerationRequest
from opensora_demo.request.video import Frames
from opensora_demo.toy.prompt_intent import Mark

SURE = 0.5  # below it the reader finds other values together likelier than the one it saw
ATTRIBUTES = ("colour", "shape", "motion", "background")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One finished clip of a comparison: where it stands, what made it, what a reader saw, its frames (small)."""

    row: int
    column: int
    request: GenerationRequest
    marks: Mapping[str, Mark] | None
    frames: Frames


def unsure(mark: Mark) -> bool:
    """Whether the reader cannot tell what it sees."""
    return mark["certainty"] < SURE


def sureness(marks: Mapping[str, Mark]) -> float | None:
    """Mean probability of what was asked; None where nothing was."""
    return _mean([mark["confidence"] for mark in marks.values() if mark["confidence"] is not None])


def rightness(marks: Mapping[str, Mark]) -> float | None:
    """Share of what was asked that is seen, and seen without doubt; None where nothing was asked."""
    return _mean([float(mark["right"] and not unsure(mark)) for mark in marks.values() if mark["right"] is not None])


def verdict(mark: Mark) -> str:
    """ "right", "wrong", "unsure", or nothing where nothing was asked."""
    if mark["right"] is None:
        return ""
    return "unsure" if unsure(mark) else "right" if mark["right"] else "wrong"


def numbers_csv(samples: Sequence[Sample]) -> str:
    """A line for each clip: what made it, and for each attribute asked, seen, verdict and the probability of what was
    asked. RFC 4180 with a header; words are English, as everywhere in files."""
    made = ("model", "prompt", "negative", "seed", "guidance", "rule", "steps", "fps", "frames")
    seen = [f"{name}_{part}" for name in ATTRIBUTES for part in ("asked", "seen", "verdict", "confidence")]
    sheet = io.StringIO()
    writer = csv.writer(sheet)
    writer.writerow(["row", "column", *made, *seen])
    for sample in sorted(samples, key=lambda s: (s.row, s.column)):
        settings = {"rule": sample.request.rules[0], "negative": ""} | sample.request.settings()
        values = [settings.get(name, "") for name in made]
        marks = [part for name in ATTRIBUTES for part in _mark_cells(sample.marks, name)]
        writer.writerow([sample.row + 1, sample.column + 1, *map(_harmless, values), *marks])
    return sheet.getvalue()


def _mark_cells(marks: Mapping[str, Mark] | None, name: str) -> list[str]:
    if marks is None:
        return [""] * 4
    mark = marks[name]
    confidence = "" if mark["confidence"] is None else f"{mark['confidence']:.4f}"
    return [_words(mark["asked"]), _words(mark["seen"]), verdict(mark), confidence]


def _words(values: str | tuple[str | None, ...] | None) -> str:
    several = (values,) if isinstance(values, str) else values or ()
    return " + ".join(value or "any" for value in several)


def _harmless(value: object) -> object:
    """A spreadsheet runs a text that begins like a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@") else value


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
