"""Numbers in words, scores from rows, and what the commands of the evaluation refuse before they load a model."""

from __future__ import annotations

import math
import sys

import pytest

from opensora_demo.evaluation import card, study
from opensora_demo.evaluation.markdown import count, duration, margin, number, percent, picture, ratio, table
from opensora_demo.evaluation.studies.base import Scores, mean, median


def test_what_was_not_measured_is_a_dash() -> None:
    assert (percent(0.126), percent(None)) == ("13 %", "–")
    assert (number(1.005, 1), number(None)) == ("1.0", "–")
    assert (ratio(1, 2), ratio(None, 2), ratio(1, None), ratio(1, 0)) == (0.5, None, None, None)


def test_units_follow_the_size() -> None:
    assert (count(99_999), count(100_000)) == ("100.0 k", "0.10 M")
    assert (duration(3599), duration(3600)) == ("60 min", "1.0 h")
    assert (margin(100), margin(400)) == ("± 10", "± 5")  # 1.96 sqrt(0.25 / n)


def test_tables_and_pictures() -> None:
    assert table(("a", "b"), [("x", "1")]) == ["| a | b |", "|---|---:|", "| x | 1 |", ""]
    assert picture("What", "a.png", ["a.png"]) == ["![What](a.png)", ""]
    assert picture("What", "a.png", ["b.png"]) == []


def test_means_pass_over_what_is_missing() -> None:
    assert mean([1, None, float("nan"), float("inf"), 3]) == 2
    assert median([1, float("nan"), 2, 9]) == 2
    assert math.isnan(mean([None]))
    assert math.isnan(median([]))


def test_scores_of_one_object_and_of_two() -> None:
    row = {"shape": 0.5, "colour": 0.25, "motion": 0.75, "background": 1.0}
    one = Scores.of(row | {"all four": 0.2, "all four, unseen": 0.1})
    assert (one.all_right, one.all_right_unseen, one.arrangement) == (0.2, 0.1, None)
    two = Scores.of(row | {"arrangement": 0.9, "everything": 0.3})
    assert (two.all_right, two.all_right_unseen, two.arrangement) == (0.3, None, 0.9)
    assert two.weakest == "colour"


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        (study.main, ["nano", "--only", "fps, told"], "nano has no told; there are reader, adherence"),
        (study.main, ["nano-dit", "--only", "reference"], "nano-dit has no reference"),
        (study.main, ["debug-1.2"], "debug-1.2 has no folder; name one with --out"),
        (card.main, ["debug-1.2"], "debug-1.2 has no weights of ours to tell of"),
        (card.main, ["nano", "--logs", "VAE"], "--logs takes NAME=FILE, not VAE"),
    ],
)
def test_commands_refuse_at_once(
    command: object,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["program", *arguments])
    with pytest.raises(SystemExit):
        command()
    assert said in capsys.readouterr().err
