"""What the lesson is told of an exercise: the clips that the reader looked at, and whether they solve it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from opensora_demo.messages import message
from opensora_demo.toy.exercises import EXERCISES, Made
from opensora_demo.ui.values.common import MessageValue, said
from opensora_demo.ui.values.compare import MarkValue

SHOWN = 4  # clips that are listed, those that solve it first


class CheckedClip(TypedDict):
    """A clip as the reader saw it; `counts`: it solves the exercise, or helps to."""

    prompt: str
    seed: int
    steps: int
    guidance: float
    marks: list[MarkValue]
    counts: bool


class LessonValue(TypedDict):
    """The answer to "check my clips" in the step called `exercise`; `check` rises from one answer to the next."""

    check: int
    exercise: str
    solved: bool
    text: MessageValue
    clips: list[CheckedClip]


Seen = tuple[Mapping[str, Any], list[MarkValue]]
"""Settings of a clip, and what the reader saw of it."""


def lesson_value(check: int, exercise: str, clips: Sequence[Seen]) -> LessonValue:
    """`clips`: the visitor's, newest first. Raises KeyError for an exercise that there is not."""
    solving = EXERCISES[exercise]([_made(*clip) for clip in clips])
    order = [*solving, *(i for i in range(len(clips)) if i not in solving)][:SHOWN]
    text = message("note.lesson.none")
    if clips:
        text = message("note.lesson.solved") if solving else message("note.lesson.not_yet", count=len(clips))
    return {
        "check": check,
        "exercise": exercise,
        "solved": bool(solving),
        "text": said(text),
        "clips": [_checked(*clips[i], counts=i in solving) for i in order],
    }


def _made(settings: Mapping[str, Any], marks: Sequence[MarkValue]) -> Made:
    asked = frozenset(mark["kind"] for mark in marks if mark["asked"])
    return Made(settings, asked, frozenset(mark["kind"] for mark in marks if mark["asked"] and mark["right"]))


def _checked(settings: Mapping[str, Any], marks: list[MarkValue], *, counts: bool) -> CheckedClip:
    return {
        "prompt": str(settings["prompt"]),
        "seed": int(settings["seed"]),
        "steps": int(settings["steps"]),
        "guidance": float(settings["guidance"]),
        "marks": marks,
        "counts": counts,
    }
