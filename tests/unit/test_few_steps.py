"""Fewer steps are compared prompt by prompt."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from opensora_demo.catalog import NANO
from opensora_demo.evaluation.adherence import held_out_prompts
from opensora_demo.evaluation.few_steps import compare, few_steps
from opensora_demo.evaluation.studies.base import Counts, Setup
from opensora_demo.request.video import Frames
from opensora_demo.toy.reader import load_reader
from opensora_demo.toy.worlds import render


def test_what_is_lost_and_gained_makes_the_difference() -> None:
    default = np.array([True] * 80 + [False] * 20)
    right = default.copy()
    right[:10], right[80:84] = False, True
    found = compare(6, right, default, 0.5)
    assert (found.lost, found.gained, found.right) == (10, 4, 0.74)
    assert found.difference == pytest.approx(-0.06)
    # sqrt(b + c - (b - c)^2 / n) / n = sqrt(14 - 36 / 100) / 100
    assert found.high - found.difference == pytest.approx(1.96 * 0.036932, abs=1e-4)
    assert found.low == pytest.approx(found.difference - (found.high - found.difference))
    same = compare(6, default, default, 0.5)
    assert (same.difference, same.low, same.high) == (0, 0, 0)


@pytest.mark.slow
def test_a_model_that_errs_at_four_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """It draws another scene for every other prompt, and loses nothing at eight."""
    scenes = [scene for scene, _ in held_out_prompts(8, 8)]

    def made(_setup: Setup, raw: dict[str, Any]) -> Frames:
        wrong = raw["steps"] == 4 and raw["seed"] % 2 == 0
        return render(scenes[raw["seed"] + 1 if wrong else raw["seed"]])[0]

    monkeypatch.setattr(Setup, "made", made)
    bundle: Any = SimpleNamespace(spec=NANO)
    rows = few_steps(Setup(bundle=bundle, reader=load_reader(), counts=Counts()), 8, (8, 4, 16))
    assert [row.steps for row in rows] == [16, 4, 8]
    assert rows[0].right >= 0.75
    assert (rows[2].lost, rows[2].gained) == (0, 0)
    assert rows[1].lost >= 3
    assert rows[1].gained == 0
    assert rows[1].right == rows[0].right - rows[1].lost / 8
