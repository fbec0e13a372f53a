"""Which words of a caption describe which object, so that a network's attention can be taught to bind them.

While a caption is put together its phrases carry marks, characters of Unicode's private area that no caption has;
`read_marks` takes them out again and answers where they stood.
"""

from __future__ import annotations

from dataclasses import dataclass

_START = ("\ue000", "\ue001")  # of a phrase about the first object of Scene.objects, about the second
_BOTH = "\ue002"
_END = "\ue003"
OBJECTS = {_START[0]: (0,), _START[1]: (1,), _BOTH: (0, 1)}


@dataclass(frozen=True, slots=True)
class Span:
    """Characters [start, end) of a caption describe the object of that index in Scene.objects."""

    start: int
    end: int
    index: int


def mark(phrase: str, room: str, *, both: bool = False) -> str:
    """A phrase about the object that keeps to `room`, or about both; an empty phrase stays empty."""
    if not phrase:
        return phrase
    first = room in ("all", "left", "top")
    return (_BOTH if both else _START[0 if first else 1]) + phrase + _END


def read_marks(marked: str) -> tuple[str, tuple[Span, ...]]:
    """A caption without marks, and its spans in order. Marks do not nest."""
    text: list[str] = []
    spans: list[Span] = []
    indices: tuple[int, ...] = ()
    start = 0
    for character in marked:
        if character in OBJECTS:
            indices, start = OBJECTS[character], len(text)
        elif character == _END:
            spans += [Span(start, len(text), index) for index in indices]
        else:
            text.append(character)
    return "".join(text), tuple(spans)
