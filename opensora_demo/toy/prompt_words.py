"""What a prompt says, word by word, for a page that shows it while somebody types: the words of each kind, those that
a model cannot read, and for each of these the nearest that it can."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Literal

from tokenizers import Tokenizer

from opensora_demo.catalog import ModelSpec
from opensora_demo.catalog.spec import WeightFiles
from opensora_demo.locations import assets_dir
from opensora_demo.messages import Language
from opensora_demo.text.labels import Labels, says_something
from opensora_demo.text.spelling import plain_characters
from opensora_demo.text.tokens import reading_tokenizer
from opensora_demo.toy.captions import plural
from opensora_demo.toy.chips import VALUES, Kind, motion_in_form, place_name, word
from opensora_demo.toy.near_words import NEAR
from opensora_demo.toy.tagger import MAX_CHARACTERS, PREPOSITIONS, Span, Tag, grammar

WordKind = Literal["colour", "shape", "motion", "place", "more", "unknown"]
_KINDS: dict[str, Kind] = {"colour": "colour", "shape": "shape", "motion": "motion", "background": "place"}
_MORE = frozenset(("size", "count", "room", "relation", "together"))
_CLOSE = 0.81  # of 1: how alike two spellings are; "line" is no "lime"
_AT_A_PLACE = re.compile(r"\b(?:in|on|at|over|under|across|near|through) (?:an?|the) $")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptWord:
    """Characters [start, end) of a prompt and what they say.

    `value` is one of the toy worlds' for a colour, shape, motion or place; "more" are size, speed, number and order.
    `form` is "plural" of nouns and verbs, "bare" of a place without its preposition. Of an unknown word, `near` is what
    could stand in its place (empty where nothing is near), of the kind `near_kind`.
    """

    start: int
    end: int
    kind: WordKind
    value: str = ""
    form: str = ""
    near: str = ""
    near_kind: Kind | None = None


def language_of_prompt(prompt: str, otherwise: Language = "en") -> Language:
    """Chinese if there is a character of it, English if there is a Latin letter."""
    if re.search("[\u3400-\u9fff]", prompt):
        return "zh"
    return "en" if re.search("[A-Za-z]", prompt) else otherwise


@lru_cache(maxsize=8)
def _tokenizer(file: Path) -> Tokenizer:
    with reading_tokenizer(file):
        return Tokenizer.from_file(str(file))


def tokenizer_of(spec: ModelSpec) -> Tokenizer:
    """The tokenizer of an embedded model's text encoder, its only one or the first of two. Raises WeightsError."""
    assert isinstance(spec.weights, WeightFiles)
    return _tokenizer(assets_dir() / spec.weights.folder / (spec.weights.tokenizer or spec.weights.clip_tokenizer))


def unknown_spans(spec: ModelSpec, prompt: str) -> list[Span]:
    """Where an embedded model's text encoder has no token for what is typed. Nothing for any other model."""
    text = prompt[:MAX_CHARACTERS]
    if spec.labels:
        return Labels(dict(spec.labels)).read(text)[1]
    if not isinstance(spec.weights, WeightFiles):
        return []
    encoded = tokenizer_of(spec).encode(text, add_special_tokens=False)
    spans: list[Span] = []
    for token, (start, end) in zip(encoded.tokens, encoded.offsets, strict=True):
        if token != "<unk>":
            continue
        if spans and spans[-1][1] == start:  # Chinese, character by character
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return [span for span in spans if says_something(text[slice(*span)])]


def prompt_words(prompt: str, unknown: Sequence[Span] = ()) -> list[PromptWord]:
    """The words of a prompt that mean something, in order and without overlap; `unknown` are the characters that the
    model cannot read. Reads the first 4000 characters; never raises."""
    words = list(_known(prompt))
    unread = {span: [w for w in words if span[0] < w.end and w.start < span[1]] for span in unknown}
    read = [w for w in words if not any(w in over for over in unread.values())]
    found = [*read, *(_near(prompt, span, over, read) for span, over in unread.items())]
    return list(_apart(sorted(found, key=lambda one: one.start)))


def _known(prompt: str) -> Iterator[PromptWord]:
    tags = grammar().tags(prompt)
    places: list[Tag] = []
    for tag in tags:
        if tag.kind == "background" and places and not prompt[places[-1].span[1] : tag.span[0]].strip():
            places.append(tag)
            continue
        yield from _place(places)
        places = [tag] if tag.kind == "background" else []
        start, end = tag.span
        if tag.kind in _MORE and tag.value != "medium":
            yield PromptWord(start=start, end=end, kind="more")
        elif tag.kind in _KINDS and tag.kind != "background":
            yield PromptWord(start=start, end=end, kind=_KINDS[tag.kind], value=tag.value, form=tag.form)
    yield from _place(places)
    for start, end in grammar().speeds_of(prompt):
        yield PromptWord(start=start, end=end, kind="more")


def _place(tags: Sequence[Tag]) -> Iterator[PromptWord]:
    """ "starry" and "sky" side by side are one place."""
    if tags:
        value = grammar().place(tags) or tags[-1].value
        whole = tags[0].words[0] in PREPOSITIONS or tags[0].words[0] == "在"
        start, end = tags[0].span[0], tags[-1].span[1]
        yield PromptWord(start=start, end=end, kind="place", value=value, form="" if whole else "bare")


def _apart(words: Sequence[PromptWord]) -> Iterator[PromptWord]:
    """A speed inside of a motion, "moving slowly to the left", belongs to it."""
    end = 0
    for one in words:
        if one.start >= end:
            yield one
            end = one.end


# --- the nearest


def _near(prompt: str, span: Span, over: Sequence[PromptWord], known: Sequence[PromptWord]) -> PromptWord:
    """An unknown word; `over` are words of the grammar there, which captions happen not to have ("jumped")."""
    text = plain_characters(prompt[slice(*span)].lower()).removesuffix("'s")
    unknown = PromptWord(start=span[0], end=span[1], kind="unknown")
    before = prompt[: span[0]].lower()
    for one in over:
        if one.value and one.kind in VALUES:
            return _offered(unknown, one.kind, one.value, text, before)
    for name in (text, text.removesuffix("s"), text.removesuffix("es")):
        if name in NEAR:
            return _offered(unknown, *NEAR[name], text, before)
    if text.isascii():
        if spelled := get_close_matches(text, _spellings(), n=1, cutoff=_CLOSE):
            return replace(unknown, near=spelled[0], near_kind=_spellings()[spelled[0]])
        kind = _guess(text, before, known)
        return unknown if kind is None else _offered(unknown, kind, _unused(kind, known), text, before)
    for name, sense in NEAR.items():
        if not name.isascii() and name in text:
            return _offered(unknown, *sense, text, before)
    return (
        replace(unknown, near=words, near_kind="shape")
        if (words := _drawn(text, language_of_prompt(prompt)))
        else unknown
    )


def _offered(unknown: PromptWord, kind: Kind, value: str, text: str, before: str) -> PromptWord:
    """The word for a value, in the form that fits where it shall stand."""
    language = language_of_prompt(text)
    match kind:
        case "place":
            preposition = before.split()[-2:] if before.endswith(" ") else []
            inside = language == "zh" or any(w in PREPOSITIONS for w in preposition)
            near = place_name(value, language) if inside else word("place", value, language)
        case "motion" if language == "en":
            near = motion_in_form(value, text)
        case "shape" if language == "en" and text.endswith("s") and not text.endswith("ss"):
            near = plural(word("shape", value, language))
        case _:
            near = word(kind, value, language)
    return replace(unknown, near=near, near_kind=kind)


def _guess(text: str, before: str, known: Sequence[PromptWord]) -> Kind | None:
    """The kind of a word that nothing is known of, by where it stands; None where that says nothing, as it does of
    "fluffy" in "a fluffy ball"."""
    if text.endswith("ing"):
        return "motion"
    if _AT_A_PLACE.search(before):
        return "place"
    after_adjective = any(one.end == len(before.rstrip()) for one in known if one.kind in ("colour", "more"))
    noun = after_adjective or re.search(r"(?:^|\b(?:an?|the|one) )$", before)
    return "shape" if noun and not any(one.kind == "shape" for one in known) else None


def _unused(kind: Kind, known: Sequence[PromptWord]) -> str:
    said = {one.value for one in known if one.kind == kind}
    usual = {"motion": "bounce", "place": "meadow"}.get(kind, VALUES[kind][0])
    return usual if usual not in said else next(value for value in VALUES[kind] if value not in said)


@lru_cache(maxsize=1)
def _spellings() -> dict[str, Kind]:
    """Single English words that mean something, and their kind."""
    found: dict[str, Kind] = {}
    for words, senses in grammar().senses.items():
        kind = _KINDS.get(senses[0].kind)
        past = kind == "motion" and words[0].endswith("ed")  # captions are in the present tense
        if kind and not past and len(words) == 1 and words[0].isascii() and len(words[0]) > 2:
            found[words[0]] = kind
    return found


def _drawn(text: str, language: Language) -> str:
    """What an emoji shows, by its name in Unicode: "blue heart" of U+1F499; empty where that says no shape."""
    for character in text:
        name = unicodedata.name(character, "").lower()
        if "heavy" in name or "star" in name:
            name = re.sub("black|white", "", name)  # there they mean filled and outlined
        tags = [tag for tag in grammar().tags(name.replace("circle", "ball")) if tag.kind in ("colour", "shape")]
        said = {tag.kind: word(_KINDS[tag.kind], tag.value, language) for tag in tags}
        if "shape" in said:
            colour = said.get("colour", "")
            joint = "" if not colour else "色的" if language == "zh" else " "
            return colour + joint + said["shape"]
    return ""
