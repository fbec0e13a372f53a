"""What a reader network sees in a clip of the toy worlds, as a sentence, and how much of what was asked that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from opensora_demo.messages import Language
from opensora_demo.toy.chips import Kind, place_name, word
from opensora_demo.toy.prompt_intent import Mark
from opensora_demo.ui.values.common import WordValue

KINDS: Mapping[str, Kind] = {"colour": "colour", "shape": "shape", "motion": "motion", "background": "place"}


class VerdictValue(TypedDict):
    """A clip in words, "red ball, bouncing, meadow"; of `asked` attributes `right` are as the prompt says, and `wrong`
    names the others as they are seen."""

    seen: WordValue
    right: int
    asked: int
    wrong: list[WordValue]


def verdict(marks: Mapping[str, Mark]) -> VerdictValue:
    asked = [mark for mark in marks.values() if mark["right"] is not None]
    wrong = [(name, mark) for name, mark in marks.items() if mark["right"] is False]
    return {
        "seen": {"en": _sentence(marks, "en"), "zh": _sentence(marks, "zh")},
        "right": sum(bool(mark["right"]) for mark in asked),
        "asked": len(asked),
        "wrong": [{"en": _part(name, mark, "en"), "zh": _part(name, mark, "zh")} for name, mark in wrong],
    }


def _several(mark: Mark) -> Sequence[str]:
    return (mark["seen"],) if isinstance(mark["seen"], str) else mark["seen"]


def _part(name: str, mark: Mark, language: Language) -> str:
    if name == "background":
        return place_name(_several(mark)[0], language)
    return _and([word(KINDS[name], value, language) for value in _several(mark)], language)


def _sentence(marks: Mapping[str, Mark], language: Language) -> str:
    joint = "色的" if language == "zh" else " "
    things = zip(_several(marks["colour"]), _several(marks["shape"]), strict=False)
    named = [word("colour", c, language) + joint + word("shape", s, language) for c, s in things]
    motion, place = (_part(name, marks[name], language) for name in ("motion", "background"))
    return ("，" if language == "zh" else ", ").join([_and(named, language), motion, place])


def _and(words: Sequence[str], language: Language) -> str:
    """Two of the same are said once."""
    return ("和" if language == "zh" else " and ").join(dict.fromkeys(words))
