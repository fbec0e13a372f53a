"""What a prompt asks for, in English and Chinese, and whether a clip shows it.

The tags of the prompt are divided into clauses, one for each object: at commas, "and", "left of", or where an article
opens a second noun. What a clause says belongs to its object; what is said twice and differently counts as not said.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import TypedDict

import numpy as np

from opensora_demo.request.video import Frames
from opensora_demo.toy.reader import OF_OBJECTS, Detection, Reader, Reading, read_clips
from opensora_demo.toy.tagger import NOUN_PHRASE, Tag, grammar
from opensora_demo.toy.worlds import ARRANGEMENTS, OPPOSITE


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectIntent:
    """One object as a prompt asks for it; None is left open, or unclear."""

    shape: str | None = None
    colour: str | None = None
    motion: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptIntent:
    """What a prompt asks for: one object or two, the background, and of two objects how they are arranged.

    Where the prompt says who is where (`ordered`), the left or upper one comes first, else the one named first. Of
    three objects and more, `objects` has one entry: what holds for all of them.
    """

    objects: tuple[ObjectIntent, ...] = (ObjectIntent(),)
    background: str | None = None
    arrangement: str | None = None
    ordered: bool = False


class Mark(TypedDict):
    """One attribute: asked and seen (of two objects a pair of values), whether that agrees, and how likely the reader
    finds it, 0..1, that the asked value is shown; `certainty` is how likely it finds what it saw, of two objects the
    lesser. `right` and `confidence` are None where nothing was asked."""

    asked: str | tuple[str | None, ...] | None
    seen: str | tuple[str, ...]
    right: bool | None
    confidence: float | None
    certainty: float


# --- which words belong together -------------------------------------------------------------------------------


@dataclass(slots=True)
class _Clause:
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
    more: list[_Clause] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not (self.shapes or self.colours or self.motions or self.rooms or self.two or self.together)

    def take(self, other: _Clause) -> None:
        self.shapes |= other.shapes
        self.colours |= other.colours
        self.motions |= other.motions
        self.rooms |= other.rooms
        self.two |= other.two
        self.together |= other.together

    def intent(self) -> ObjectIntent:
        return ObjectIntent(shape=_one(self.shapes), colour=_one(self.colours), motion=_one(self.motions))


def _one(values: Iterable[str | None]) -> str | None:
    """The value if there is exactly one."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None


def _noun_ahead(tags: Sequence[Tag]) -> bool:
    for tag in tags:
        if tag.kind in ("shape", "link"):
            return tag.kind == "shape"
    return False


def _clauses(tags: Sequence[Tag]) -> list[_Clause]:
    clauses = [_Clause()]
    for i, tag in enumerate(tags):
        clause = clauses[-1]
        last, after = (tags[i - 1] if i else tag), (tags[i + 1] if i + 1 < len(tags) else tag)
        opens = tag.opened or tag.kind in ("article", "count")
        if tag.kind in (*NOUN_PHRASE, "motion"):
            opens |= tag.kind == "colour" and bool(clause.colours) and (after.kind, after.start) == ("shape", tag.end)
            beside = tag.kind == "shape" and bool(clause.rooms)  # 红球左边蓝星右边
            counted = (
                tag.kind == "article" and tag.words != ("one",) and bool(clause.colours)
            )  # 一个红一个蓝, "a red one"
            if counted or (clause.shapes and (opens or beside)):
                clause = _Clause()
                clauses.append(clause)
            if opens and not clause.shapes:
                clause.opened, clause.definite = True, clause.definite or tag.definite
        match tag.kind:
            case "link":
                clause.unfinished = last.kind in ("colour", "size") and last.end == tag.start
                clauses.append(_Clause(link=tag.value))
            case "relation":
                clauses.append(_Clause(link="relation", relation=tag.value))
            case "at" if clause.shapes and _noun_ahead(tags[i + 1 :]):
                clauses.append(_Clause(link="at"))
            case "there" if clause.shapes and clause.rooms and _noun_ahead(tags[i + 1 :]):
                clauses.append(_Clause(link="there", rooms=clause.rooms))  # 蓝星的左边有一个红球
                clause.rooms = {OPPOSITE[room] for room in clause.rooms}
            case "shape":
                clause.shapes.add(tag.value)
                clause.plural |= tag.form == "plural"
            case "colour":
                clause.colours.add(tag.value)
            case "motion":
                clause.motions.add(tag.value)
                clause.together |= tag.form == "plural"
            case "room":
                clause.rooms.add(tag.value)
            case "count":
                clause.two = True
            case "both":
                clause.together = True
    return [clause for clause in clauses if not clause.empty]


def _objects(clauses: list[_Clause]) -> list[_Clause]:
    """The clauses that name an object; what the others say goes to the object it is said of."""
    objects: list[_Clause] = []
    end = _Clause()
    for clause, after in zip(clauses, [*clauses[1:], end], strict=False):
        adjective = clause.colours and clause.unfinished and after.shapes and (clause.opened or after.plural)
        if clause.shapes:
            again = [o for o in objects if o.shapes == clause.shapes and len(o.colours | clause.colours) < 2]
            if clause.link == "." and clause.definite and len(again) == 1:  # "A red ball. The ball bounces."
                again[0].more.append(clause)
            else:
                objects.append(clause)
        elif objects and objects[-1].two:  # "two balls, one red and one blue"
            objects[-1].more.append(clause)
        elif adjective and after.link == "and" and (after.opened or after.plural):
            clause.shapes = after.shapes  # "a red and a blue ball", "red and blue balls"
            clause.two = after.two = False
            objects.append(clause)
        elif adjective and after.link in ("and", ","):  # "a red, shiny ball"
            after.take(clause)
            after.opened = True
        elif clause.colours and clause.opened and not clause.unfinished:  # a thing that the tables do not have
            objects.append(clause)
        elif objects:
            objects[-1].more.append(clause)
        elif after is end:
            objects.append(clause)
        else:
            after.take(clause)
    for thing in objects:
        if not thing.two:
            for clause in thing.more:
                thing.take(clause)
    return objects


def _place(objects: list[_Clause]) -> None:
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


def prompt_intent(prompt: str) -> PromptIntent:
    """Which shapes, colours, motions and background an English or Chinese prompt asks for.

    What is not said, or said twice and differently, is None. Reads the first 2000 characters; never raises.
    """
    tags = grammar().tags(prompt)
    background = grammar().place(tags)
    objects = _objects(_clauses(tags))
    if not objects:
        return PromptIntent(background=background)
    arrangement = _one(tag.value for tag in tags if tag.kind == "together")
    if len(objects) == 1 and objects[0].two:
        (thing,) = objects
        return PromptIntent(objects=_of_twins(thing), background=background, arrangement=arrangement)
    if len(objects) != 2 or any(thing.two for thing in objects):
        return PromptIntent(objects=(_common([thing.intent() for thing in objects]),), background=background)
    first, second = objects
    if second.together and not first.motions:
        first.motions = second.motions  # "a ball and a star move left"
    _place(objects)
    rooms = [_one(first.rooms), _one(second.rooms)]
    if rooms[1] is None and rooms[0] is not None and not second.rooms:
        rooms[1] = OPPOSITE[rooms[0]]
    if rooms[0] is None and rooms[1] is not None and not first.rooms:
        rooms[0] = OPPOSITE[rooms[1]]
    wanted = (first.intent(), second.intent())
    if rooms[0] is None or rooms[1] is None or OPPOSITE[rooms[0]] != rooms[1]:
        return PromptIntent(
            objects=wanted, background=background, arrangement=arrangement if rooms == [None, None] else None
        )
    said = ARRANGEMENTS[1 if rooms[0] in ("left", "right") else 2]
    if arrangement not in (None, said):
        return PromptIntent(objects=wanted, background=background)
    return PromptIntent(
        objects=wanted if rooms[0] in ("left", "top") else wanted[::-1],
        background=background,
        arrangement=said,
        ordered=True,
    )


def _of_twins(thing: _Clause) -> tuple[ObjectIntent, ObjectIntent]:
    """Both of "two red balls", with what is said of the one and of the other: two colours, else two of anything."""
    each = [clause for clause in thing.more if clause.colours]
    each = each if len(each) == 2 else thing.more if len(thing.more) == 2 else []
    for clause in thing.more:
        if clause not in each:
            thing.take(clause)
    if not each:
        return thing.intent(), thing.intent()
    for clause in each:
        clause.take(thing)
    return each[0].intent(), each[1].intent()


def _common(intents: Sequence[ObjectIntent]) -> ObjectIntent:
    """What holds for all of them."""
    return ObjectIntent(
        shape=_one(intent.shape for intent in intents),
        colour=_one(intent.colour for intent in intents),
        motion=_one(intent.motion for intent in intents),
    )


# --- beside what a clip shows ----------------------------------------------------------------------------------


def _agreement(intent: PromptIntent, detections: Sequence[Detection]) -> list[tuple[ObjectIntent, Detection]] | None:
    """Which object seen stands for which asked; None where two are asked and one is seen.

    One description holds for every object seen. Two whose order is not asked stand as they agree best.
    """
    if len(intent.objects) == 1:
        return [(intent.objects[0], detection) for detection in detections]
    if len(detections) < 2:
        return None
    orders = [detections] if intent.ordered else list(permutations(detections))
    ways = [list(zip(intent.objects, order, strict=True)) for order in orders]
    return max(ways, key=lambda way: (sum(_right(w, s, n) is True for w, s in way for n in OF_OBJECTS), _likely(way)))


def _right(wanted: ObjectIntent, detection: Detection, name: str) -> bool | None:
    value = getattr(wanted, name)
    return None if value is None else value == getattr(detection, name)


def _likely(way: Sequence[tuple[ObjectIntent, Detection]], names: Sequence[str] = OF_OBJECTS) -> float:
    """How likely all that is asked is shown: the product of the reader's probabilities."""
    probabilities = [
        detection.probabilities[n][value] for wanted, detection in way for n in names if (value := getattr(wanted, n))
    ]
    return float(np.prod(probabilities))


def marks(intent: PromptIntent, reading: Reading) -> dict[str, Mark]:
    """Shape, colour, motion and background: what is asked beside what is seen.

    Shape, colour and motion are right if they are right for both of two objects asked, or, where one is asked, for
    every object that is seen.
    """
    way = _agreement(intent, reading.objects)
    table: dict[str, Mark] = {}
    for name in OF_OBJECTS:
        values = [getattr(wanted, name) for wanted in intent.objects]
        detections = reading.objects if way is None else [detection for _, detection in way]
        seen = [getattr(detection, name) for detection in detections]
        open_ = all(value is None for value in values)
        right = None if open_ else way is not None and all(_right(w, s, name) is not False for w, s in way)
        table[name] = Mark(
            asked=None if open_ else values[0] if len(values) == 1 else tuple(values),
            seen=seen[0] if len(seen) == 1 else tuple(seen),
            right=right,
            confidence=None if open_ else 0.0 if way is None else _likely(way, [name]),
            certainty=min(detection.confidence[name] for detection in detections),
        )
    place = intent.background
    table["background"] = Mark(
        asked=place,
        seen=reading.background,
        right=None if place is None else place == reading.background,
        confidence=None if place is None else reading.probabilities[place],
        certainty=reading.probabilities[reading.background],
    )
    return table


def mark_clips(reader: Reader, prompt: str, clips: Sequence[Frames]) -> list[dict[str, Mark]]:
    """`marks` of one prompt for each clip, which are as `read_clips` takes them (ValueError otherwise)."""
    intent = prompt_intent(prompt)
    return [marks(intent, reading) for reading in read_clips(reader, clips)]
