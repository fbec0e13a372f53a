"""A chip and the sentence are one state: a value of a kind replaces the word of its kind in a prompt, or joins it; it
goes again, and nothing else that was typed changes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from opensora_demo.messages import Language
from opensora_demo.toy.captions import plural
from opensora_demo.toy.chips import Kind, compose, motion_in_form, place_name, word
from opensora_demo.toy.prompt_words import PromptWord, language_of_prompt

_ARTICLE = re.compile(r"\b(a|an)(\s+)$", re.IGNORECASE)
_VOWEL = re.compile(r"[aeio]|u(?!n[ie]|s|k)", re.IGNORECASE)
_THING = re.compile(
    r"\b(?:shape|thing|object)(s?)\b|形[体體]|[东東]西|物[体體]", re.IGNORECASE
)  # a noun that leaves the shape open
_NOTHING_LEFT = re.compile(r"(?:an?|the|shapes?|一?[个颗只]|形体|[\s,.，。的])*", re.IGNORECASE)
_BEFORE_PLACE = re.compile(
    r"(?:,?\s*\b(?:in|on|at|over|by|under|among|with|against|before|above|across|near)\s+)?(?:\b(?:an?|the)\s+)?$",
    re.IGNORECASE,
)
Words = Sequence[PromptWord]


def with_value(prompt: str, words: Words, kind: Kind, value: str, language: Language, caret: int = 0) -> str:
    """The prompt with a value. Of several words of the kind the one at `caret` is replaced, else the first; an unknown
    word counts where what is near it is of the kind. Where there is none, the word joins: a colour before its noun, a
    motion behind it, a place at the end. `language` is that of an empty prompt."""
    if not prompt.strip():
        return compose({kind: word(kind, value, language)}, language)
    own = [w for w in words if w.kind == kind] or [w for w in words if w.kind == "unknown" and w.near_kind == kind]
    if own:
        old = next((w for w in own if w.start <= caret <= w.end), own[0])
        return replaced(prompt, old.start, old.end, _in_place_of(prompt, old, kind, value))
    if kind == "shape" and (thing := _THING.search(prompt)):
        new = word("shape", value, language_of_prompt(thing[0]))
        return replaced(prompt, *thing.span(), plural(new) if thing[1] else new)
    return _joined(prompt, words, kind, value)


def without_value(prompt: str, words: Words, kind: Kind, value: str) -> str:
    """The prompt without the words for a value; the noun of a shape becomes one that leaves it open."""
    for old in reversed([w for w in words if (w.kind, w.value) == (kind, value)]):
        prompt = _without(prompt, old, kind)
    return "" if _NOTHING_LEFT.fullmatch(prompt) else prompt


def with_near(prompt: str, words: Words, start: int) -> str:
    """The prompt with what is near the unknown word that starts at `start`; unchanged where there is none."""
    for old in words:
        if old.kind == "unknown" and old.start == start and old.near:
            return replaced(prompt, old.start, old.end, old.near)
    return prompt


def replaced(prompt: str, start: int, end: int, new: str) -> str:
    """Characters [start, end) replaced, and an article before them that fits."""
    before, after = prompt[:start], prompt[end:]
    follows = new or after.lstrip()
    if (article := _ARTICLE.search(before)) and follows:
        fitting = "an" if _VOWEL.match(follows) else "a"
        fitting = fitting.capitalize() if article[1][0].isupper() else fitting
        before = before[: article.start()] + fitting + article[2]
    return before + new + after


def _in_place_of(prompt: str, old: PromptWord, kind: Kind, value: str) -> str:
    """The word for a value as it stands where the old word stood."""
    typed = prompt[old.start : old.end]
    language = language_of_prompt(typed, language_of_prompt(prompt))
    if kind == "place" and (old.form == "bare" or (old.kind == "unknown" and _preposition(prompt[: old.start]))):
        return place_name(value, language)
    if kind == "shape" and language == "en":
        name = word(kind, value, language)
        return plural(name) if old.form == "plural" or (old.kind == "unknown" and typed.endswith("s")) else name
    if kind == "motion" and language == "en":
        inner = [w for w in typed.split() if w.endswith("ly")]  # "moving slowly to the left" stays slow
        return " ".join([motion_in_form(value, typed.split()[0].lower()), *inner])
    return word(kind, value, language)


def _preposition(before: str) -> bool:
    found = _BEFORE_PLACE.search(before)
    return bool(found and len(found[0].split()) > ("the" in found[0].split() or "a" in found[0].split()))


def _joined(prompt: str, words: Words, kind: Kind, value: str) -> str:
    language = language_of_prompt(prompt)
    new = word(kind, value, language)
    nouns = [w for w in words if w.kind == "shape" or (w.kind == "unknown" and w.near_kind == "shape")]
    thing = _THING.search(prompt)
    noun = (nouns[0].start, nouns[0].end) if nouns else thing.span() if thing else None
    chinese = language == "zh"
    match kind:
        case "colour" if noun:
            return replaced(prompt, noun[0], noun[0], new + ("色的" if chinese else " "))
        case "colour":
            subject = compose({"colour": new}, language)
            return subject + ("" if chinese else " ") + prompt
        case "shape":
            return _with_noun(prompt, words, new, chinese)
        case "motion" if noun and not chinese:
            return _put(prompt, noun[1], new)
        case "place" if noun and chinese:
            return prompt[: noun[1]] + new + prompt[noun[1] :]
        case _:
            end = len(prompt.rstrip().rstrip(".。!！"))
            return prompt[:end] + new + prompt[end:] if chinese else _put(prompt, end, new)


def _with_noun(prompt: str, words: Words, new: str, chinese: bool) -> str:
    """A noun behind the colours and sizes, or else in front."""
    colours = [w for w in words if w.kind == "colour"]
    if chinese:
        if not colours:
            return "一个" + new + prompt
        tail = re.compile("色?的?").match(prompt, colours[0].end)
        at = tail.end() if tail else colours[0].end
        return prompt[:at] + new + prompt[at:]
    if colours:
        return _put(prompt, colours[0].end, new)
    article = re.match(r"\s*(?:an?|the)\b(?:\s+(?:tiny|small|little|big|large|huge|giant))*", prompt, re.IGNORECASE)
    return _put(prompt, article.end(), new) if article else compose({"shape": new}) + " " + prompt


def _put(prompt: str, at: int, new: str) -> str:
    """A word of its own at a place between two words."""
    before, after = prompt[:at], prompt[at:]
    if before.endswith(("a ", "A ", "an ", "An ")):
        return replaced(prompt, at, at, new)
    return before.rstrip() + " " + new + (after if not after or after[0] in " ,.;!?" else " " + after)


def _without(prompt: str, old: PromptWord, kind: Kind) -> str:
    before, after = prompt[: old.start], prompt[old.end :]
    typed = prompt[old.start : old.end]
    if language_of_prompt(typed, language_of_prompt(prompt)) == "zh":
        if kind == "shape":
            return before + "形体" + after
        if kind == "place" and old.form == "bare":
            before, after = before.removesuffix("在"), re.sub("^[上中里时下]", "", after)
        return before + (re.sub("^色?的?", "", after) if kind == "colour" else after)
    if kind == "shape":
        return replaced(prompt, old.start, old.end, "shapes" if old.form == "plural" else "shape")
    if kind == "place" and old.form == "bare":
        before = _BEFORE_PLACE.sub("", before)
    if kind == "motion":
        before = re.sub(r"\b(?:is|are)\s+$", "", before)
    if before.endswith((" ", "\n")) or not before:
        after = after.lstrip(" ")
    if after[:1] in tuple(",.;!?"):
        before = before.rstrip()
    left = replaced(before + after, len(before), len(before), "")
    return left.rstrip() if not after.strip() else left
