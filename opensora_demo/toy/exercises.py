"""The lesson's exercises: what clips somebody has to make, checked by what the reader network saw in them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ALL_FOUR = frozenset(("colour", "shape", "motion", "place"))
FEW_STEPS = 3
SIX_STEPS = 6
LOW_GUIDANCE = 3


@dataclass(frozen=True, slots=True)
class Made:
    """A finished clip of one of the toy worlds' models: its settings, which of the four its prompt asks for, and which
    of these the reader saw."""

    settings: Mapping[str, Any]
    asked: frozenset[str]
    right: frozenset[str]

    @property
    def faultless(self) -> bool:
        """Something is asked for, and all of it is seen."""
        return bool(self.asked) and self.asked == self.right

    def but_seed(self) -> tuple[tuple[str, str], ...]:
        """The settings that decide about the clip, without the seed."""
        names = ("model", "prompt", "negative", "fps", "frames", "steps", "guidance", "rule")
        return tuple((name, repr(self.settings.get(name))) for name in names)


Check = Callable[[Sequence[Made]], list[int]]
"""Clips, newest first -> the indices of those that solve an exercise together; none where it is not solved."""


def _one(solves: Callable[[Made], bool]) -> Check:
    def check(made: Sequence[Made]) -> list[int]:
        return next(([i] for i, clip in enumerate(made) if solves(clip)), [])

    return check


def _two_noises(solves: Callable[[Made, Made], bool]) -> Check:
    """Two clips that differ in their seed and in nothing else, in either order."""

    def check(made: Sequence[Made]) -> list[int]:
        for i, first in enumerate(made):
            for k, second in enumerate(made):
                apart = first.settings.get("seed") != second.settings.get("seed")
                if apart and first.but_seed() == second.but_seed() and solves(first, second):
                    return sorted({i, k})
        return []

    return check


EXERCISES: Mapping[str, Check] = {
    "noise": _two_noises(lambda first, second: first.faultless and second.faultless),
    "guess": _one(lambda clip: clip.settings["steps"] <= FEW_STEPS and "colour" in clip.right),
    "steps": _one(lambda clip: clip.settings["steps"] <= SIX_STEPS and clip.right == ALL_FOUR),
    "guidance": _one(lambda clip: clip.settings["guidance"] <= LOW_GUIDANCE and clip.right == ALL_FOUR),
    "seed": _two_noises(lambda first, second: first.faultless and second.right < second.asked),
    "failure": _one(lambda clip: "motion" in clip.asked - clip.right),
}
"""By the step of the lesson."""
