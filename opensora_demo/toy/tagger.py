"""The grammar's tables as one dictionary: a prompt in English or Chinese becomes tags, each a phrase and its meaning.

The longest phrase that fits counts, so "light blue" is a colour of its own and "under the stars" no shape.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from opensora_demo.text.spelling import plain_characters
from opensora_demo.toy import captions_zh
from opensora_demo.toy.captions import (
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
from opensora_demo.toy.worlds import ARRANGEMENTS

Words = tuple[str, ...]
Span = tuple[int, int]  # characters [start, end) of a prompt
MAX_CHARACTERS = 4000  # of a prompt, as `Limits.prompt_chars`
_ARTICLES = ("a", "an", "the")
_SILENT = ("的", "色")  # 红色的球 is 红球
_LINKS = {"and": "and", "和": "and", "与": "and"}
_LINKS |= dict.fromkeys(("while", "but", "then", "beside", "跟", "而", "、", ",", ":", "(", ")", "–", "—"), ",")
_LINKS |= dict.fromkeys((".", ";", "!", "?", "。"), ".")
# What stands before a place, and "in the background" behind it, say nothing of which place it is.
PREPOSITIONS = frozenset(
    ("in", "on", "at", "over", "by", "under", "among", "with", "against", "before", "above", "front", "of", "high")
)
NOUN_PHRASE = ("shape", "colour", "size", "count", "article")


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
    span: Span = (0, 0)


@dataclass(frozen=True, slots=True)
class Tag:
    """A phrase of the prompt, words `start` to `end`, what it says, and the characters where it stands."""

    kind: str
    value: str = ""
    form: str = ""
    words: Words = ()
    start: int = -1
    end: int = -1
    opened: bool = False
    definite: bool = False
    span: Span = (0, 0)

    @property
    def is_bare_place(self) -> bool:
        return self.kind == "background" and self.form == "bare"


_NOTHING = Tag("")


def _words(text: str) -> list[_Word]:
    """Lower-case words, Chinese characters and marks; articles, 的 and 色 only leave their trace."""
    text, origins = _plain(text[:MAX_CHARACTERS])
    words: list[_Word] = []
    article = before = ""
    for found in re.finditer(r"[a-z]+|[0-9]+|[\u3400-\u9fff]|[,.;:!?()。、–—]", text):
        word = found[0]
        if word in _ARTICLES:
            article = "" if before == "of" else word  # "of a red colour" opens no second noun
        elif word not in _SILENT:
            span = (origins[found.start()], origins[found.end() - 1] + 1)
            words.append(_Word(word, bool(article), article == "the", span))
            article = ""
        before = word
    return words


def _plain(text: str) -> tuple[str, Sequence[int]]:
    """Lower case without full-width forms and possessives, and for each character the place where it was typed."""
    if text.isascii():
        letters = list(zip(text.lower(), range(len(text)), strict=True))
    else:
        letters = [(c, i) for i, typed in enumerate(text) for c in unicodedata.normalize("NFKC", typed).lower()]
    plain = plain_characters("".join(c for c, _ in letters)).replace("\n", ",")
    plain = re.sub(r"'s\b", "  ", plain).replace("chequer", "checker")  # as long as before
    return plain, [i for _, i in letters]


def _key(phrase: str) -> Words:
    return tuple(word.text for word in _words(phrase))


class Tagger:
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
        if not key:
            return
        senses = self.senses.setdefault(key, [])
        if all(sense.kind != kind for sense in senses):
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
        tails = {tail for phrases in MOTION_PHRASES.values() for _, tail in phrases if tail}
        by_verb = {verb: {m for m, phrases in MOTION_PHRASES.items() if verb in dict(phrases)} for verb in VERBS}
        by_tail = {t: {m for m, phrases in MOTION_PHRASES.items() if t in {tail for _, tail in phrases}} for t in tails}
        forms = {verb: self._forms(verb) for verb in VERBS}
        for motion, phrases in MOTION_PHRASES.items():
            for verb, tail in phrases:
                # Verbs that say nothing alone ("move", "roll") go with the tails of one another.
                general = (
                    [v for v, motions in by_verb.items() if len(motions) != 1] if len(by_verb[verb]) != 1 else [verb]
                )
                for one in general:
                    for form, grammatical in forms[one]:
                        self.add(f"{form} {tail}", "motion", motion, grammatical)
                if len(by_verb[verb]) == 1:
                    for form, grammatical in forms[verb]:
                        self.add(form, "motion", motion, grammatical)
                words = _key(tail)
                alone = (len(words) > 1 and words[0] != "to") or tail.endswith(("ward", "wards")) or motion == "still"
                if words and len(by_tail[tail]) == 1 and alone:
                    self.add(tail, "motion", motion, "bare")
        for direction in ("left", "right", "up", "down"):
            self.add(direction, "direction", direction)

    @staticmethod
    def _forms(verb: str) -> list[tuple[str, str]]:
        finite, *participles = VERBS[verb]
        stems = [p.removesuffix("ing") for p in participles]
        return [(verb, "plural"), (finite, ""), *((p, "") for p in participles), *((s + "ed", "") for s in stems)]

    def _chinese_motions(self) -> None:
        self._table("motion", captions_zh.MOTIONS)
        grams = {
            motion: Counter(
                gram for p in set(phrases) for n in (2, 3) for gram in {p[i : i + n] for i in range(len(p) - n + 1)}
            )
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
        tables = (BACKGROUND_PHRASES, captions_zh.BACKGROUNDS)
        self._table("background", *tables)
        named = [(value, _key(phrase)) for table in tables for value, phrases in table.items() for phrase in phrases]
        self.cores = {core: value for value, phrase in named for core in self._cores(phrase)}
        self.adjectives = {core[0] for core in self.cores if core[1:] == ("background",)}  # "black", "dark", "white"
        for core, value in self.cores.items():
            if core not in self.senses and (len(core) > 1 or core[0] not in self.adjectives):
                self.add(core, "background", value, "bare")
        for core in self.cores:  # "green background", 绿背景: neither one of the backgrounds nor an object's colour
            last = core[-1:] if core[-1].isascii() else core[1:] if self._is("colour", core[:1]) else ()
            if len(core) > 1 and last not in self.senses:
                self.add(last, "stage")
        values_of: dict[str, set[str]] = {}
        for value, phrase in named:
            for word in phrase:
                values_of.setdefault(word, set()).add(value)
        for word, values in values_of.items():
            if len(values) == 1 and word.isascii() and (word,) not in self.senses and word not in PREPOSITIONS:
                self.add((word,), "hint", *values)  # "starry" before "sky"

    def place(self, tags: Sequence[Tag]) -> str | None:
        """The one background of `tags`; "sky" beside "night" is the night's, because that has a sky too."""
        cores_of: dict[str, set[Words]] = {}
        for tag in tags:
            if tag.kind == "background":
                cores_of.setdefault(tag.value, set()).update(self._cores(tag.words))
        heads = {v: {core[-1:] for core, value in self.cores.items() if value == v and len(core) > 1} for v in cores_of}
        left = [
            v for v, named in cores_of.items() if not any(named <= heads[other] for other in cores_of if other != v)
        ]
        return left[0] if len(left) == 1 else None

    @staticmethod
    def _cores(words: Words) -> Iterable[Words]:
        """A place without its preposition: "blue sky" of "in a blue sky"; 草地上 and 草地 of 在草地上."""
        if words[-2:] == ("in", "background"):
            words = words[:-2]
        if words[0] == "在":
            yield words[1:]
            if len(words) > 3:
                yield words[1:-1]
            return
        while words[0] in PREPOSITIONS:
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
        for word in ("正在", "中心"):  # hold 在 and 心, and mean neither
            self.add(word, "silent")
        self.add("在", "at")
        self.add("有", "there")
        for word, value in _LINKS.items():
            self.add((word,), "link", value)

    def tags(self, prompt: str) -> list[Tag]:
        """The longest phrase from the left, again and again; words that no table has are passed over."""
        return self._tagged(self._without_speeds(_words(prompt))[0])

    def speeds_of(self, prompt: str) -> list[Span]:
        """Where a prompt says how fast."""
        return self._without_speeds(_words(prompt))[1]

    def _tagged(self, words: list[_Word]) -> list[Tag]:
        words = self._joined(words)
        tags: list[Tag] = []
        noun = anywhere = False  # has this part of the prompt, has any, named a shape?
        at = 0
        while at < len(words):
            key: Words = ()
            for length in range(min(self.longest, len(words) - at), 0, -1):
                key = tuple(word.text for word in words[at : at + length])
                if key in self.senses and not self._goes_on(key, words[at + length : at + length + 2]):
                    break
            else:
                at += 1
                continue
            first = words[at]
            senses = {sense.kind: sense for sense in self.senses[key]}
            sense = self.senses[key][0]
            if {"shape", "motion"} <= senses.keys():  # a circle, they circle; circles, it circles
                if sense.form == "plural":
                    acts = anywhere and not (tags and tags[-1].end == at and _count_before(tags))
                else:
                    acts = noun and not first.opened
                sense = senses["motion" if acts else "shape"]
            elif {"relation", "room"} <= senses.keys():
                sense = replace(sense, form="room")
            span = (first.span[0], words[at + len(key) - 1].span[1])
            tags.append(
                Tag(sense.kind, sense.value, sense.form, key, at, at + len(key), first.opened, first.definite, span)
            )
            noun = sense.kind == "shape" or (noun and sense.kind not in ("link", "relation", "at"))
            anywhere |= sense.kind == "shape"
            at += len(key)
        return self._settled(tags)

    def _goes_on(self, key: Words, rest: Sequence[_Word]) -> bool:
        """Is this the beginning of "on a white ball", "in a dark blue sky", "on a black and white board"?"""
        if len(key) < 2 or key[-1] not in self.adjectives:
            return False
        if len(rest) == 2 and rest[0].text == "and":
            rest = [] if rest[1].opened else rest[1:]
            return bool(rest) and (rest[0].text in self.adjectives or self._is("colour", (rest[0].text,)))
        return bool(rest) and not rest[0].opened and any(self._is(kind, (rest[0].text,)) for kind in NOUN_PHRASE[:3])

    def _without_speeds(self, words: list[_Word]) -> tuple[list[_Word], list[Span]]:
        """What is left says "moving to the left" in one piece; and where the speeds stood."""
        kept: list[_Word] = []
        speeds: list[Span] = []
        at = 0
        while at < len(words):
            for length in range(4, 0, -1):
                if tuple(word.text for word in words[at : at + length]) in self.speeds:
                    last = words[min(at + length, len(words)) - 1]
                    speeds.append((words[at].span[0], last.span[1]))
                    at += length
                    break
            else:
                kept.append(words[at])
                at += 1
        return kept, speeds

    def _joined(self, words: list[_Word]) -> list[_Word]:
        """Words that the tables write as one: "zig zag", "zig-zag", "star fish"."""
        joined: list[_Word] = []
        for word in words:
            last = joined[-1] if joined else None
            if last and last.text + word.text in self.known and not {last.text, word.text} <= self.known:
                joined[-1] = replace(last, text=last.text + word.text, span=(last.span[0], word.span[1]))
            else:
                joined.append(word)
        return joined

    def _settled(self, tags: list[Tag]) -> list[Tag]:
        """Meanings that depend on the neighbours."""
        settled: list[Tag] = []
        for i, tag in enumerate(tags):
            before = tags[i - 1] if i and tags[i - 1].end == tag.start else _NOTHING
            after = tags[i + 1] if i + 1 < len(tags) else _NOTHING
            touching = after if after.start == tag.end else _NOTHING
            noun_follows = after.kind in NOUN_PHRASE or after.opened
            match tag.kind:
                case "background" if tag.form == "bare" and touching.kind == "colour" and not touching.opened:
                    continue  # "sky blue", a colour that the tables do not have
                case "colour" if before.kind == "background" and before.form == "bare" and not tag.opened:
                    continue
                case "colour" if touching.kind == "stage" or touching.is_bare_place:
                    continue  # "green background", "pink sky"
                case "colour" if tag.words == ("rose",) and before.kind == "shape":
                    tag = replace(tag, kind="motion", value="up")  # the one past tense that is a colour too
                case "hint" if touching.is_bare_place:
                    tag = replace(tag, kind="background")
                case "motion" if tag.form == "bare" and touching.kind == "motion":
                    continue  # "still spinning"
                case "direction" if [t.kind for t in settled[-2:]] == ["motion", "link"] and not noun_follows:
                    tag = replace(tag, kind="motion")  # "moves left and right"
                case "direction" if touching.kind in NOUN_PHRASE and tag.value in ROOM_PHRASES:
                    tag = replace(tag, kind="room")  # "the left ball"
                case "relation" if tag.form == "room" and not (noun_follows and _noun_before(settled)):
                    tag = replace(tag, kind="room")  # "a ball above"
                case "relation" if not noun_follows:
                    continue
            settled.append(tag)
        return settled


def _noun_before(tags: Sequence[Tag]) -> bool:
    """Has this part of the prompt named a shape?"""
    for tag in reversed(tags):
        if tag.kind in ("link", "shape"):
            return tag.kind == "shape"
    return False


def _count_before(tags: Sequence[Tag]) -> bool:
    """Do the tags end in "two", or "two" and adjectives?"""
    for tag in reversed(tags):
        if tag.kind not in ("colour", "size"):
            return tag.kind == "count"
    return False


@lru_cache(maxsize=1)
def grammar() -> Tagger:
    """Built at the first prompt."""
    return Tagger()
