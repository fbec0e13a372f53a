"""What a prompt asks for, read with the tables of the grammar in English and Chinese, and whether a clip shows it.

The prompt becomes words (Chinese by the character), the words become tags by the longest phrase of the tables that
fits, and the tags are divided into parts, one for each object: at commas, "and", "left of", or where an article opens
a second noun. What a part says belongs to its object; what is said twice and differently counts as not said.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import permutations
from typing import TypedDict

import numpy as np

from opensora_demo.training import captions_zh
from opensora_demo.training.captions import (
    BACKGROUND_PHRASES,
    COLOUR_WORDS,
    FILLERS,
    MOTION_PHRASES,
    RELATION_PHRASES,
    ROOM_PHRASES,
    SHAPE_WORDS,
    SIZE_WORDS,
    SPEED_WORDS,
    TOGETHER_PHRASES,
    VERBS,
    plural,
)
from opensora_demo.training.reader import OF_OBJECTS, Reader, Reading, Sight, read_clips
from opensora_demo.training.worlds import ARRANGEMENTS, OPPOSITE
from opensora_demo.types import Frames

Words = tuple[str, ...]


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


# --- the tables as one dictionary ------------------------------------------------------------------------------

MAX_CHARACTERS = 2000  # of a prompt; models read far fewer
_ARTICLES = {"a", "an", "the"}
_SILENT = {"的", "色"}  # 红色的球 is 红球
_STOPS = {".": ".", ";": ".", "!": ".", "?": ".", "。": "."}
_LINKS: dict[str, str] = {"and": "and", "while": ",", "but": ",", "then": ",", "beside": ",", "和": "and", "与": "and"} | {
    mark: "," for mark in (",", ":", "、", "(", ")", "跟", "而", "–", "—")
}
# What stands before a place, and "in the background" behind it, say nothing of which place it is.
_BEFORE_A_PLACE = {"in", "on", "at", "over", "by", "under", "among", "with", "against", "before", "above", "front", "of", "high"}
_NOUN_PHRASE = ("shape", "colour", "size", "count", "article")
_DIRECTIONS = ("left", "right", "up", "down")


@dataclass(frozen=True, slots=True)
class _Sense:
    """One meaning of a phrase; `form` says more where it matters: "plural" nouns and verbs, "bare" words that mean
    this only by default."""

    kind: str
    value: str = ""
    form: str = ""


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    opened: bool = False  # an article stands before it
    definite: bool = False  # and is "the"


@dataclass(frozen=True, slots=True)
class _Tag:
    kind: str
    value: str
    form: str
    words: Words
    start: int
    end: int
    opened: bool
    definite: bool


def _words(text: str) -> list[_Word]:
    """Lower-case words, Chinese characters and marks; articles, 的 and 色 only leave their trace."""
    text = unicodedata.normalize("NFKC", text[:MAX_CHARACTERS]).lower().replace("’", "'").replace("\n", ",")
    text = re.sub(r"'s\b", "", text).replace("chequer", "checker")
    found: list[_Word] = []
    article = before = ""
    for word in re.findall(r"[a-z]+|[0-9]+|[\u3400-\u9fff]|[,.;:!?()。、–—]", text):
        if word in _ARTICLES:
            article = "" if before == "of" else word  # "of a red colour" opens no second noun
        elif word not in _SILENT:
            found.append(_Word(word, bool(article), article == "the"))
            article = ""
        before = word
    return found


def _key(phrase: str) -> Words:
    return tuple(word.text for word in _words(phrase))


class _Grammar:
    """Phrase -> its meanings."""

    def __init__(self) -> None:
        self.senses: dict[Words, list[_Sense]] = {}
        self.speeds = {
            _key(p) for table in (SPEED_WORDS, captions_zh.SPEEDS) for options in table.values() for p in options if p
        }
        self._nouns()
        self._motions()
        self._chinese_motions()
        self._places()
        self._small_words()
        self.longest = max(map(len, self.senses))
        self.known = {word for phrase in (*self.senses, *self.speeds) for word in phrase}

    def add(self, phrase: str | Words, kind: str, value: str = "", form: str = "") -> None:
        key = _key(phrase) if isinstance(phrase, str) else phrase
        senses = self.senses.setdefault(key, [])
        if key and all(sense.kind != kind for sense in senses):
            senses.append(_Sense(kind, value, form))

    def _table(self, kind: str, *tables: dict[str, tuple[str, ...]]) -> None:
        for table in tables:
            for value, phrases in table.items():
                for phrase in phrases:
                    self.add(phrase, kind, value)

    def _nouns(self) -> None:
        self._table("shape", SHAPE_WORDS, captions_zh.SHAPES)
        for value, names in SHAPE_WORDS.items():
            for name in names:
                self.add(plural(name), "shape", value, "plural")
        self._table("colour", COLOUR_WORDS, captions_zh.COLOURS)
        self._table("size", {size: tuple(filter(None, words)) for size, words in SIZE_WORDS.items()})
        for filler in FILLERS:
            self.add(filler, "size")

    def _motions(self) -> None:
        said = {verb: {m for m, phrases in MOTION_PHRASES.items() if verb in dict(phrases)} for verb in VERBS}
        told = {tail: {m for m, phrases in MOTION_PHRASES.items() if tail in {t for _, t in phrases}} for tail in
                {t for phrases in MOTION_PHRASES.values() for _, t in phrases if t}}  # fmt: skip
        forms = {verb: self._forms(verb) for verb in VERBS}
        for motion, phrases in MOTION_PHRASES.items():
            for verb, tail in phrases:
                # Verbs that say nothing alone ("move", "roll") go with the tails of one another.
                general = [v for v, motions in said.items() if len(motions) != 1] if len(said[verb]) != 1 else [verb]
                for one in general:
                    for form, grammatical in forms[one]:
                        self.add(f"{form} {tail}", "motion", motion, grammatical)
                if len(said[verb]) == 1:
                    for form, grammatical in forms[verb]:
                        self.add(form, "motion", motion, grammatical)
                words = _key(tail)
                alone = (len(words) > 1 and words[0] != "to") or tail.endswith(("ward", "wards")) or motion == "still"
                if words and len(told[tail]) == 1 and alone:
                    self.add(tail, "motion", motion, "bare")
        for direction in _DIRECTIONS:
            self.add(direction, "direction", direction)

    @staticmethod
    def _forms(verb: str) -> list[tuple[str, str]]:
        finite, *participles = VERBS[verb]
        stems = [p.removesuffix("ing") for p in participles]
        return [(verb, "plural"), (finite, ""), *((p, "") for p in participles), *((s + "ed", "") for s in stems)]

    def _chinese_motions(self) -> None:
        self._table("motion", captions_zh.MOTIONS)
        grams = {
            motion: Counter(gram for p in set(phrases) for n in (2, 3) for gram in {p[i : i + n] for i in range(len(p) - n + 1)})
            for motion, phrases in captions_zh.MOTIONS.items()
        }
        for motion, counts in grams.items():
            for gram, count in counts.items():
                heading = gram[0] in "向往" and len(gram) == 2
                if (count > 1 or heading) and all(gram not in grams[m] for m in grams if m != motion):
                    self.add(gram, "motion", motion)  # 静止 of 静止不动, 往左 of 往左移动
                    if heading:
                        for preposition in "向往朝":
                            self.add(preposition + gram[1], "motion", motion)

    def _places(self) -> None:
        self._table("background", BACKGROUND_PHRASES, captions_zh.BACKGROUNDS)
        cores: dict[Words, str] = {}
        for table in (BACKGROUND_PHRASES, captions_zh.BACKGROUNDS):
            for value, phrases in table.items():
                for phrase in phrases:
                    for core in self._cores(_key(phrase)):
                        cores[core] = value
        adjectives = {core[0] for core in cores if core[1:] == ("background",)}  # "black", "dark"
        for core, value in cores.items():
            if core[0] not in adjectives or len(core) > 1:
                self.add(core, "background", value, "bare") if not self.senses.get(core) else None
        # "green background", "绿背景": a stage of a colour that is none of the backgrounds, and no colour of an object.
        for core in cores:
            if core[-1].isascii():
                last = core[-1:]
            elif self._is("colour", core[:1]):
                last = core[1:]
            else:
                continue
            if last not in self.senses and len(core) > 1:
                self.add(last, "stage")
        words = Counter(word for value in BACKGROUND_PHRASES for word in {w for p in BACKGROUND_PHRASES[value] for w in _key(p)})
        for value, phrases in BACKGROUND_PHRASES.items():
            for phrase in phrases:
                for word in _key(phrase):
                    if words[word] == 1 and (word,) not in self.senses and word not in _BEFORE_A_PLACE:
                        self.add((word,), "hint", value)  # "starry" before "sky"
        self.place_phrases = {value: [_key(p) for p in phrases] for value, phrases in BACKGROUND_PHRASES.items()}

    @staticmethod
    def _cores(words: Words) -> Iterable[Words]:
        """A place without its preposition: "blue sky" of "in a blue sky"; 海边 of 在海边, 草地上 and 草地 of 在草地上."""
        if words[-2:] == ("in", "background"):
            words = words[:-2]
        if words[0] == "在":
            yield words[1:]
            if len(words) > 3:
                yield words[1:-1]
            return
        while words[0] in _BEFORE_A_PLACE:
            words = words[1:]
        yield words

    def _is(self, kind: str, words: Words) -> bool:
        return any(sense.kind == kind for sense in self.senses.get(words, ()))

    def _small_words(self) -> None:
        for table, kind in ((RELATION_PHRASES, "relation"), (ROOM_PHRASES, "room"), (captions_zh.ROOMS, "room")):
            self._table(kind, table)
        for direction in ROOM_PHRASES:
            self.add(f"to the {direction}", "room", direction)
        self._table("together", TOGETHER_PHRASES)
        for phrases, value in zip(captions_zh.TOGETHER_PHRASES.values(), ARRANGEMENTS[1:], strict=True):
            for phrase in phrases:
                self.add(phrase, "together", value)
        for counter in captions_zh.COUNTERS:
            if counter:
                self.add(counter, "article")
                self.add("两" + counter[1:], "count")
        for word in ("one", "another"):
            self.add(word, "article")
        for word in ("two", "2", "pair of", "两"):
            self.add(word, "count")
        for word in ("both", "are", "they", "都"):
            self.add(word, "both")
        self.add("next to", "link", ",")
        self.add("正在", "silent")
        self.add("在", "at")
        self.add("有", "there")
        for word, value in (_LINKS | _STOPS).items():
            self.add((word,), "link", value)

    def tags(self, prompt: str) -> list[_Tag]:
        """The longest phrase from the left, again and again; words that no table has are passed over."""
        words = self._joined(self._without_speeds(_words(prompt)))
        tags: list[_Tag] = []
        noun = anywhere = False  # has this part of the prompt, has any, named a shape?
        at = 0
        while at < len(words):
            key: Words = ()
            for length in range(min(self.longest, len(words) - at), 0, -1):
                key = tuple(word.text for word in words[at : at + length])
                if key in self.senses:
                    break
            else:
                at += 1
                continue
            first = words[at]
            senses = {sense.kind: sense for sense in self.senses[key]}
            if {"shape", "motion"} <= senses.keys():  # a circle, they circle; circles, it circles
                if senses["shape"].form == "plural":
                    named = anywhere and not (tags and tags[-1].end == at and _count_before(tags))
                else:
                    named = noun and not first.opened
                sense = senses["motion" if named else "shape"]
            elif {"relation", "room"} <= senses.keys():
                sense = replace(senses["relation"], form="room")
            elif {"size", "colour"} <= senses.keys():
                sense = senses["colour"]
            else:
                sense = self.senses[key][0]
            tags.append(
                _Tag(sense.kind, sense.value, sense.form, key, at, at + len(key), first.opened, first.definite)
            )
            noun = sense.kind == "shape" or (noun and sense.kind not in ("link", "relation", "at"))
            anywhere |= sense.kind == "shape"
            at += len(key)
        return self._settled(tags)

    def _without_speeds(self, words: list[_Word]) -> list[_Word]:
        """"Moving slowly to the left" says the motion in one piece without its speed."""
        kept: list[_Word] = []
        at = 0
        while at < len(words):
            for length in range(4, 0, -1):
                if tuple(word.text for word in words[at : at + length]) in self.speeds:
                    at += length
                    break
            else:
                kept.append(words[at])
                at += 1
        return kept

    def _joined(self, words: list[_Word]) -> list[_Word]:
        """Words that the tables write as one: "zig zag", "zig-zag", "star fish"."""
        joined: list[_Word] = []
        for word in words:
            last = joined[-1] if joined else None
            if last and last.text + word.text in self.known and not {last.text, word.text} <= self.known:
                joined[-1] = replace(last, text=last.text + word.text)
            else:
                joined.append(word)
        return joined

    def _settled(self, tags: list[_Tag]) -> list[_Tag]:
        """Meanings that depend on the neighbours."""
        settled: list[_Tag] = []
        for i, tag in enumerate(tags):
            last = settled[-1] if settled else None
            after = tags[i + 1] if i + 1 < len(tags) else None
            touches = after is not None and after.start == tag.end
            noun_follows = after is not None and (after.kind in _NOUN_PHRASE or after.opened)
            before = tags[i - 1] if i and tags[i - 1].end == tag.start else None
            match tag.kind:
                case "background" if touches and noun_follows and not after.opened and self._is("colour", tag.words[-1:]):  # type: ignore[union-attr]
                    tag = replace(tag, kind="colour", value=self.senses[tag.words[-1:]][0].value)  # "on white stars"
                case "background" if tag.form == "bare" and touches and after.kind == "colour" and not after.opened:  # type: ignore[union-attr]
                    continue  # "sky blue", a colour the tables do not have
                case "colour" if touches and (after.kind == "stage" or (after.kind, after.form) == ("background", "bare")):  # type: ignore[union-attr]
                    continue
                case "colour" if before and before.kind == "background" and before.form == "bare":
                    continue
                case "colour" if tag.words == ("rose",) and before and before.kind == "shape":
                    tag = replace(tag, kind="motion", value="up")  # the one past tense that is a colour too
                case "hint" if touches and (after.kind, after.form) == ("background", "bare"):  # type: ignore[union-attr]
                    tag = replace(tag, kind="background", form="")
                case "motion" if tag.form == "bare" and touches and after.kind == "motion":  # type: ignore[union-attr]
                    continue  # "still spinning"
                case "direction":
                    if last and last.kind == "link" and len(settled) > 1 and settled[-2].kind == "motion" and not noun_follows:
                        tag = replace(tag, kind="motion")  # "moves left and right"
                    elif touches and noun_follows and tag.value in ROOM_PHRASES:
                        tag = replace(tag, kind="room")  # "the left ball"
                case "relation" if not noun_follows:
                    if tag.form != "room":
                        continue
                    tag = replace(tag, kind="room")
                case "relation" if tag.form == "room" and not self._is_behind_a_noun(settled):
                    tag = replace(tag, kind="room")
                case _:
                    pass
            settled.append(tag)
        return settled

    @staticmethod
    def _is_behind_a_noun(tags: Sequence[_Tag]) -> bool:
        for tag in reversed(tags):
            if tag.kind in ("link", "shape"):
                return tag.kind == "shape"
        return False


def _count_before(tags: Sequence[_Tag]) -> bool:
    """Do the tags end in "two", or "two" and adjectives?"""
    for tag in reversed(tags):
        if tag.kind not in ("colour", "size"):
            return tag.kind == "count"
    return False


@lru_cache(maxsize=1)
def _grammar() -> _Grammar:
    return _Grammar()


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


def _noun_ahead(tags: Sequence[_Tag]) -> bool:
    for tag in tags:
        if tag.kind in ("shape", "link"):
            return tag.kind == "shape"
    return False


def _parts(tags: Sequence[_Tag]) -> list[_Part]:
    parts = [_Part()]
    for i, tag in enumerate(tags):
        part = parts[-1]
        opens = tag.opened or tag.kind in ("article", "count")
        if tag.kind in (*_NOUN_PHRASE, "motion"):
            if part.shapes and (opens or (tag.kind == "shape" and part.rooms)):
                part = _Part()
                parts.append(part)
            if opens and not part.shapes:
                part.opened, part.definite = True, part.definite or tag.definite
        match tag.kind:
            case "link":
                adjective = bool(i) and tags[i - 1].kind in ("colour", "size") and tags[i - 1].end == tag.start
                part.unfinished = adjective
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
    for part, after in zip(parts, [*parts[1:], None], strict=True):
        joined = after is not None and after.link in ("and", ",") and bool(after.shapes)
        if part.shapes:
            again = [o for o in objects if o.shapes == part.shapes and (not part.colours or o.colours == part.colours or not o.colours)]
            if part.link == "." and part.definite and len(again) == 1:  # "A red ball. The ball bounces."
                again[0].more.append(part)
            else:
                objects.append(part)
        elif objects and objects[-1].two:  # "two balls, one red and one blue"
            objects[-1].more.append(part)
        elif part.colours and part.opened and part.unfinished and joined and after is not None:
            if after.link == "and" and (after.opened or after.plural):  # "a red and a blue ball", "red and blue balls"
                part.shapes = after.shapes
                after.two = part.two = False
                objects.append(part)
            else:  # "a red, shiny ball"
                after.take(part)
                after.opened = True
        elif part.colours and part.opened and not part.unfinished and (after is not None or objects):
            objects.append(part)  # a thing that the tables do not have
        elif objects:
            objects[-1].more.append(part)
        elif after is not None:
            after.take(part)
        else:
            objects.append(part)
    for thing in objects:
        if not thing.two or len(thing.more) != 2:
            for part in thing.more:
                thing.take(part)
            thing.more = []
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


def _background(tags: Sequence[_Tag]) -> str | None:
    """The one place that is named; "sky" beside "night" is the night's, because that has a sky too."""
    found: dict[str, list[Words]] = {}
    for tag in tags:
        if tag.kind == "background":
            found.setdefault(tag.value, []).append(tag.words)
    phrases = _grammar().place_phrases
    for value in list(found):
        own = [words[-1] for words in found[value]]
        others = [v for v in found if v != value]
        if all(len(words) <= 2 or words[0] in _BEFORE_A_PLACE for words in found[value]) and any(
            all(any(last in phrase[1:] for phrase in phrases[v]) for last in own) for v in others
        ):
            del found[value]
    return _one(found)


def asked(prompt: str) -> Asked:
    """Which shapes, colours, motions and background an English or Chinese prompt asks for.

    What is not said, or said twice and differently, is None. Reads the first 2000 characters; never raises.
    """
    tags = _grammar().tags(prompt)
    background = _background(tags)
    objects = _objects(_parts(tags))
    if not objects:
        return Asked(background=background)
    arrangement = _one(tag.value for tag in tags if tag.kind == "together")
    if len(objects) == 1 and objects[0].two:
        (thing,) = objects
        twins = (thing, thing) if not thing.more else (replace(thing), replace(thing))
        return Asked(objects=tuple(_of_twins(thing)), background=background, arrangement=arrangement)
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
    """"Two red balls", and what is said of one and of the other."""
    common = thing.wanted()
    if not thing.more:
        return common, common
    one, other = thing.more
    for part in (one, other):
        part.take(_Part(shapes=thing.shapes, colours=thing.colours, motions=thing.motions))
    return one.wanted(), other.wanted()


def _common(wanted: Sequence[Wanted]) -> Wanted:
    return Wanted(
        shape=_one(w.shape for w in wanted), colour=_one(w.colour for w in wanted), motion=_one(w.motion for w in wanted)
    )
