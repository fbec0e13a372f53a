"""What the clips of a comparison say together: means over seeds only, their errors, and the numbers as a file."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

import numpy as np
import pytest

from opensora_demo.catalog import NANO
from opensora_demo.metrics import jackknife_error, pairwise_rms, rms_distances, shrunk
from opensora_demo.request.parse import parse_request
from opensora_demo.service.samples import Sample, numbers_csv, rightness, sureness, verdict
from opensora_demo.ui.values.chart import chart_value

ASKED = ("colour", "shape")


def marks_of(*confidences: float, right: bool = True, certainty: float = 0.9) -> Any:
    marks = {
        name: {"asked": "red", "seen": "red", "right": right, "confidence": p, "certainty": certainty}
        for name, p in zip(ASKED, confidences, strict=True)
    }
    free = {"asked": None, "seen": "falling", "right": None, "confidence": None, "certainty": 0.7}
    return marks | {"motion": free, "background": free}


def sample(row: int, column: int, marks: Any, grey: int = 0, **raw: Any) -> Sample:
    settings = {"prompt": "a red ball", "seed": 3, "guidance": 4.0} | raw
    request = parse_request(settings, model_id=NANO.id, limits=NANO.limits)
    return Sample(row=row, column=column, request=request, marks=marks, frames=np.full((2, 4, 4, 3), grey, np.uint8))


def test_rows_that_differ_in_steps_are_never_averaged() -> None:
    """Four steps are bad at any scale, sixteen are good: a mean of both would say that guidance hurts."""
    sure = {(0, 0): 0.9, (0, 1): 0.4, (1, 0): 0.9, (1, 1): 1.0}
    samples = [sample(row, column, marks_of(p, p)) for (row, column), p in sure.items()]
    labels: Any = [{"code": "note.row.steps", "params": {"n": n}} for n in (4, 16)]
    chart = chart_value(samples, labels, 2, seeds_are_rows=False)
    means = [[point and point["mean"] for point in line["sure"]] for line in chart["lines"]]
    assert means == [[0.9, 0.4], [0.9, 1.0]]
    assert [line["label"] for line in chart["lines"]] == labels
    assert all(point["error"] is None for line in chart["lines"] for point in line["sure"] if point)


def test_seeds_are_averaged_and_their_spread_is_said() -> None:
    samples = [sample(row, 0, marks_of(p, p), grey) for row, p, grey in ((0, 0.2, 0), (1, 0.4, 0), (2, 0.9, 255))]
    (line,) = chart_value(samples, [None] * 3, 1, seeds_are_rows=True)["lines"]
    (point,), (variety,) = line["sure"], line["variety"]
    assert point is not None
    assert variety is not None
    assert (point["mean"], point["each"]) == (0.5, [0.2, 0.4, 0.9])
    assert point["error"] == pytest.approx(np.std([0.2, 0.4, 0.9], ddof=1) / math.sqrt(3), abs=1e-4)
    assert variety["mean"] == pytest.approx(pairwise_rms([s.frames for s in samples]), abs=1e-4)
    assert variety["each"] == [0.5, 0.5, 1.0]


def test_a_pair_has_a_distance_without_an_error_and_one_clip_none() -> None:
    pair = [sample(0, 0, None, grey) for grey in (0, 255)]
    (line,) = chart_value(pair, [None], 2, seeds_are_rows=False)["lines"]
    assert line["variety"] == [{"mean": 1.0, "error": None, "each": [1.0, 1.0]}, None]
    assert line["sure"] == [None, None]  # no reader


def test_the_jackknife_of_a_mean_is_the_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=16)
    without = [np.delete(values, i).mean() for i in range(16)]
    assert jackknife_error(without) == pytest.approx(values.std(ddof=1) / 4)
    assert jackknife_error(without[:1]) is None


def test_what_the_reader_cannot_tell_is_not_right() -> None:
    lump = marks_of(0.38, 0.9, certainty=0.38)
    assert [verdict(lump[name]) for name in (*ASKED, "motion")] == ["unsure", "unsure", ""]
    assert rightness(lump) == 0
    assert rightness(marks_of(0.9, 0.9)) == 1
    assert verdict(marks_of(0.1, 0.1, right=False)["shape"]) == "wrong"
    assert sureness(lump) == pytest.approx(0.64)
    free = {"motion": lump["motion"]}
    assert sureness(free) is rightness(free) is None


def test_numbers_are_a_table_that_no_spreadsheet_runs() -> None:
    marks = marks_of(0.25, 1)
    marks["shape"] |= {"asked": ("ball", None), "seen": ("ball", "star")}
    written = numbers_csv([sample(1, 0, None, prompt='=SUM(A1), "x"'), sample(0, 1, marks, rule="apg")])
    first, second = csv.DictReader(io.StringIO(written))
    assert (first["row"], first["column"], first["rule"], first["guidance"]) == ("1", "2", "apg", "4.0")
    assert (first["colour_confidence"], first["shape_asked"], first["shape_seen"]) == (
        "0.2500",
        "ball + any",
        "ball + star",
    )
    assert second["prompt"] == '\'=SUM(A1), "x"'
    assert second["colour_seen"] == ""


def test_distances_and_small_clips() -> None:
    clip = np.zeros((2, 8, 8, 3), np.uint8)
    assert rms_distances([clip, clip + 255]).tolist() == [[0, 1], [1, 0]]
    large = np.repeat(np.repeat(clip + 7, 17, 1), 17, 2)  # 136 x 136
    assert shrunk(large).shape == (2, 68, 68, 3)
    assert (shrunk(large) == 7).all()
    assert shrunk(clip) is clip
