"""What a prompt asks for, in English and Chinese, and whether a clip shows it.

The tags of the prompt are divided into parts, one for each object: at commas, "and", "left of", or where an article
opens a second noun. What a part says belongs to its object; what is said twice and differently counts as not said.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import TypedDict

import numpy as np

from opensora_demo.training.phrases import NOUN_PHRASE, Tag, grammar
from opensora_demo.training.reader import OF_OBJECTS, Reader, Reading, Sight, read_clips
from opensora_demo.training.worlds import ARRANGEMENTS, OPPOSITE
from opensora_demo.types import Frames


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One object as a prompt asks for it; None is left open, or unclear."""

    shape: str | None = None
    colour: str | None = None
    motion: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a prompt asks for: one object or two, the background, and of two objects how they are arranged.

    Where the prompt says who is where (`ordered`), the left or upper one comes first, else the one named first. Of
    three objects and more, `objects` has one entry: what holds for all of them.
    """

    objects: tuple[Wanted, ...] = (Wanted(),)
    background: str | None = None
    arrangement: str | None = None
    ordered: bool = False


class Mark(TypedDict):
    """One attribute: asked and seen (of two objects a pair of values), whether that agrees, and how likely the reader
    finds it, 0..1, that the asked value is shown. `right` and `confidence` are None where nothing was asked."""

    asked: str | tuple[str | None, ...] | None
    seen: str | tuple[str, ...]
    right: bool | None
    confidence: float | None


# --- which words belong together -------------------------------------------------------------------------------


@dataclass(slots=True)
class _Part:
    """The words about one object. `relation` is where the object before it is, seen from here."""

    link: str = ""
    relation: str = ""
    shapes: set[str] = field(default_factory=set)
    colours: set[str] = field(default_factory=set)
    motions: set[str] = field(default_factory=set)
    rooms: set[str] = field(default_factory=set)
    two: bool = False
    plural: bool = False  # the noun
    together: bool = False  # its verb is said of several
    opened: bool = False
    definite: bool = False
    unfinished: bool = False  # ends in an adjective
    more: list[_Part] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not (self.shapes or self.colours or self.motions or self.rooms or self.two or self.together)

    def take(self, other: _Part) -> None:
        self.shapes |= other.shapes
        self.colours |= other.colours
        self.motions |= other.motions
        self.rooms |= other.rooms
        self.two |= other.two
        self.together |= other.together

    def wanted(self) -> Wanted:
        return Wanted(shape=_one(self.shapes), colour=_one(self.colours), motion=_one(self.motions))


def _one(values: Iterable[str | None]) -> str | None:
    """The value if there is exactly one."""
    found = set(values)
    return found.pop() if len(found) == 1 else None


def _noun_ahead(tags: Sequence[Tag]) -> bool:
    for tag in tags:
        if tag.kind in ("shape", "link"):
            return tag.kind == "shape"
    return False


def _parts(tags: Sequence[Tag]) -> list[_Part]:
    parts = [_Part()]
    for i, tag in enumerate(tags):
        part = parts[-1]
        last, after = (tags[i - 1] if i else tag), (tags[i + 1] if i + 1 < len(tags) else tag)
        opens = tag.opened or tag.kind in ("article", "count")
        if tag.kind in (*NOUN_PHRASE, "motion"):
            opens |= tag.kind == "colour" and bool(part.colours) and (after.kind, after.start) == ("shape", tag.end)
            beside = tag.kind == "shape" and bool(part.rooms)  # 红球左边蓝星右边
            counted = (
                tag.kind == "article" and tag.words != ("one",) and bool(part.colours)
            )  # 一个红一个蓝, "a red one"
            if counted or (part.shapes and (opens or beside)):
                part = _Part()
                parts.append(part)
            if opens and not part.shapes:
                part.opened, part.definite = True, part.definite or tag.definite
        match tag.kind:
            case "link":
                part.unfinished = last.kind in ("colour", "size") and last.end == tag.start
                parts.append(_Part(link=tag.value))
            case "relation":
                parts.append(_Part(link="relation", relation=tag.value))
            case "at" if part.shapes and _noun_ahead(tags[i + 1 :]):
                parts.append(_Part(link="at"))
            case "there" if part.shapes and part.rooms and _noun_ahead(tags[i + 1 :]):
                parts.append(_Part(link="there", rooms=part.rooms))  # 蓝星的左边有一个红球
                part.rooms = {OPPOSITE[room] for room in part.rooms}
            case "shape":
                part.shapes.add(tag.value)
                part.plural |= tag.form == "plural"
            case "colour":
                part.colours.add(tag.value)
            case "motion":
                part.motions.add(tag.value)
                part.together |= tag.form == "plural"
            case "room":
                part.rooms.add(tag.value)
            case "count":
                part.two = True
            case "both":
                part.together = True
    return [part for part in parts if not part.empty]


def _objects(parts: list[_Part]) -> list[_Part]:
    """The parts that name an object; what the others say goes to the object it is said of."""
    objects: list[_Part] = []
    end = _Part()
    for part, after in zip(parts, [*parts[1:], end], strict=False):
        adjective = part.colours and part.unfinished and after.shapes and (part.opened or after.plural)
        if part.shapes:
            again = [o for o in objects if o.shapes == part.shapes and len(o.colours | part.colours) < 2]
            if part.link == "." and part.definite and len(again) == 1:  # "A red ball. The ball bounces."
                again[0].more.append(part)
            else:
                objects.append(part)
        elif objects and objects[-1].two:  # "two balls, one red and one blue"
            objects[-1].more.append(part)
        elif adjective and after.link == "and" and (after.opened or after.plural):
            part.shapes = after.shapes  # "a red and a blue ball", "red and blue balls"
            part.two = after.two = False
            objects.append(part)
        elif adjective and after.link in ("and", ","):  # "a red, shiny ball"
            after.take(part)
            after.opened = True
        elif part.colours and part.opened and not part.unfinished:  # a thing that the tables do not have
            objects.append(part)
        elif objects:
            objects[-1].more.append(part)
        elif after is end:
            objects.append(part)
        else:
            after.take(part)
    for thing in objects:
        if not thing.two:
            for part in thing.more:
                thing.take(part)
    return objects


def _place(objects: list[_Part]) -> None:
    """Relations become rooms: "left of" puts the object before it on the left, and this one on the right."""
    for k, thing in enumerate(objects):
        rooms = {thing.relation} if thing.relation else thing.rooms if thing.link == "at" else set()
        if not rooms or len(objects) < 2:
            continue
        other = objects[k - 1] if k else objects[1]
        opposite = {OPPOSITE[room] for room in rooms}
        if thing.link == "at":
            thing.rooms = set()
        other.rooms |= rooms
        thing.rooms |= opposite


def asked(prompt: str) -> Asked:
    """Which shapes, colours, motions and background an English or Chinese prompt asks for.

    What is not said, or said twice and differently, is None. Reads the first 2000 characters; never raises.
    """
    tags = grammar().tags(prompt)
    background = grammar().place(tags)
    objects = _objects(_parts(tags))
    if not objects:
        return Asked(background=background)
    arrangement = _one(tag.value for tag in tags if tag.kind == "together")
    if len(objects) == 1 and objects[0].two:
        (thing,) = objects
        return Asked(objects=_of_twins(thing), background=background, arrangement=arrangement)
    if len(objects) != 2 or any(thing.two for thing in objects):
        return Asked(objects=(_common([thing.wanted() for thing in objects]),), background=background)
    first, second = objects
    if second.together and not first.motions:
        first.motions = second.motions  # "a ball and a star move left"
    _place(objects)
    rooms = [_one(first.rooms), _one(second.rooms)]
    if rooms[1] is None and rooms[0] is not None and not second.rooms:
        rooms[1] = OPPOSITE[rooms[0]]
    if rooms[0] is None and rooms[1] is not None and not first.rooms:
        rooms[0] = OPPOSITE[rooms[1]]
    wanted = (first.wanted(), second.wanted())
    if rooms[0] is None or rooms[1] is None or OPPOSITE[rooms[0]] != rooms[1]:
        return Asked(objects=wanted, background=background, arrangement=arrangement if rooms == [None, None] else None)
    said = ARRANGEMENTS[1 if rooms[0] in ("left", "right") else 2]
    if arrangement not in (None, said):
        return Asked(objects=wanted, background=background)
    return Asked(
        objects=wanted if rooms[0] in ("left", "top") else wanted[::-1],
        background=background,
        arrangement=said,
        ordered=True,
    )


def _of_twins(thing: _Part) -> tuple[Wanted, Wanted]:
    """Both of "two red balls", with what is said of the one and of the other: two colours, else two of anything."""
    each = [part for part in thing.more if part.colours]
    each = each if len(each) == 2 else thing.more if len(thing.more) == 2 else []
    for part in thing.more:
        if part not in each:
            thing.take(part)
    if not each:
        return thing.wanted(), thing.wanted()
    for part in each:
        part.take(thing)
    return each[0].wanted(), each[1].wanted()


def _common(wanted: Sequence[Wanted]) -> Wanted:
    return Wanted(
        shape=_one(w.shape for w in wanted),
        colour=_one(w.colour for w in wanted),
        motion=_one(w.motion for w in wanted),
    )


# --- beside what a clip shows ----------------------------------------------------------------------------------


def _agreement(asked: Asked, sights: Sequence[Sight]) -> list[tuple[Wanted, Sight]] | None:
    """Which object seen stands for which asked; None where two are asked and one is seen.

    One description holds for every object seen. Two whose order is not asked stand as they agree best.
    """
    if len(asked.objects) == 1:
        return [(asked.objects[0], sight) for sight in sights]
    if len(sights) < 2:
        return None
    orders = [sights] if asked.ordered else list(permutations(sights))
    ways = [list(zip(asked.objects, order, strict=True)) for order in orders]
    return max(ways, key=lambda way: (sum(_right(w, s, n) is True for w, s in way for n in OF_OBJECTS), _likely(way)))


def _right(wanted: Wanted, sight: Sight, name: str) -> bool | None:
    value = getattr(wanted, name)
    return None if value is None else value == getattr(sight, name)


def _likely(way: Sequence[tuple[Wanted, Sight]], names: Sequence[str] = OF_OBJECTS) -> float:
    """How likely all that is asked is shown: the product of the reader's chances."""
    chances = [sight.chances[n][value] for wanted, sight in way for n in names if (value := getattr(wanted, n))]
    return float(np.prod(chances))


def marks(asked: Asked, reading: Reading) -> dict[str, Mark]:
    """Shape, colour, motion and background: what is asked beside what is seen.

    Shape, colour and motion are right if they are right for both of two objects asked, or, where one is asked, for
    every object that is seen.
    """
    way = _agreement(asked, reading.objects)
    table: dict[str, Mark] = {}
    for name in OF_OBJECTS:
        values = [getattr(wanted, name) for wanted in asked.objects]
        seen = [getattr(sight, name) for sight in (reading.objects if way is None else [s for _, s in way])]
        open_ = all(value is None for value in values)
        right = None if open_ else way is not None and all(_right(w, s, name) is not False for w, s in way)
        table[name] = Mark(
            asked=None if open_ else values[0] if len(values) == 1 else tuple(values),
            seen=seen[0] if len(seen) == 1 else tuple(seen),
            right=right,
            confidence=None if open_ else 0.0 if way is None else _likely(way, [name]),
        )
    place = asked.background
    table["background"] = Mark(
        asked=place,
        seen=reading.background,
        right=None if place is None else place == reading.background,
        confidence=None if place is None else reading.chances[place],
    )
    return table


def mark_clips(reader: Reader, prompt: str, clips: Sequence[Frames]) -> list[dict[str, Mark]]:
    """`marks` of one prompt for each clip, which are as `read_clips` takes them (ValueError otherwise)."""
    wanted = asked(prompt)
    return [marks(wanted, reading) for reading in read_clips(reader, clips)]
