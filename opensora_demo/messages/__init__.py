"""Whatever the demo says to a person: a code with parameters, written in the reader's language at the last moment.

The catalogs `en.json` and `zh.json` give every code a template: text with plain {name} places, and nothing else (no
plurals, no formats, no escapes). `assets/ui/lib/i18n.js` fills the same templates by the same rules:

- a text stands as it is; braces in it mean nothing
- a whole number is written in full, any other with six significant digits and no zeros at its end
- a message is rendered in the same language
- a sequence is its parts joined by the template `join.words`

A code that no catalog has, or a place without its parameter, is a warning (an error in tests); the reader sees the
code. Codes are grouped: request, weights, device, run (what a run says and why it fails), note (about a model or a
clip), label (settings: title, hint, choices), ui (what the page's scripts say).
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache, reduce
from pathlib import Path
from typing import Any, Literal, Union

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
Param = Union[str, int, float, "Message", tuple["Param", ...]]

PLACE = re.compile(r"\{(\w+)\}")
_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Message:
    """A code of the catalogs, and what stands in its places."""

    code: str
    params: Mapping[str, Param] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.code, tuple(sorted(self.params.items(), key=lambda item: item[0]))))


def message(code: str, /, **params: Param) -> Message:
    """`message("request.between", low=1, high=100, got=999)`."""
    return Message(code, params)


def plain(text: str) -> Message:
    """A text that is the same in every language: a name, or what another program said."""
    return Message("plain", {"text": text})


def listed(*parts: Param) -> Message:
    """Several, as a list in a sentence."""
    return message("plain", text=parts)


def sentences(*said: Message) -> Message:
    """One after the other, as parts of one sentence."""
    return _joined("join.sentences", said)


def paragraphs(*said: Message) -> Message:
    """One below the other."""
    return _joined("join.paragraphs", said)


def in_a_row(*said: Message) -> Message:
    """Whole sentences, one after the other."""
    return _joined("join.row", said)


def _joined(code: str, said: tuple[Message, ...]) -> Message:
    return reduce(lambda first, rest: message(code, first=first, rest=rest), said)


def shortened(first: Param, more: int) -> Param:
    """The first of several, and how many `more` there are, if any."""
    return message("join.more", first=first, more=more) if more > 0 else first


@cache
def catalog(language: Language) -> Mapping[str, str]:
    """Code -> template."""
    templates: dict[str, str] = json.loads((_HERE / f"{language}.json").read_text("utf-8"))
    return templates


def render(said: Message, language: Language = "en") -> str:
    """The sentence."""
    template = catalog(language).get(said.code)
    if template is None:
        warnings.warn(f"no message has the code {said.code}", stacklevel=2)
        return said.code

    def fill(place: re.Match[str]) -> str:
        if place[1] not in said.params:
            warnings.warn(f"the message {said.code} lacks {place[1]}", stacklevel=4)
            return place[0]
        return _written(said.params[place[1]], language)

    return PLACE.sub(fill, template)


def _written(value: Param, language: Language) -> str:
    match value:
        case Message():
            return render(value, language)
        case tuple():
            return catalog(language)["join.words"].join(_written(part, language) for part in value)
        case str():
            return value
        case _:
            return written_number(value)


def written_number(value: float) -> str:
    """As a reader expects it: 4294967295, 7, 2.5, 0.00001, never 1e-05."""
    if isinstance(value, int) or value.is_integer():
        return str(int(value))
    short = f"{value:.6g}"
    return short if short.lstrip("-") in ("nan", "inf") else f"{Decimal(repr(float(short))).normalize():f}"


def to_json(said: Message) -> dict[str, Any]:
    """{code, params} as the page's scripts render it: nested messages alike, sequences as lists."""
    return {"code": said.code, "params": {name: _json(value) for name, value in said.params.items()}}


def from_json(value: Mapping[str, Any]) -> Message:
    """The message that `to_json` wrote."""
    return Message(value["code"], {name: _param(param) for name, param in value["params"].items()})


def _param(value: Any) -> Param:
    if isinstance(value, dict):
        return from_json(value)
    return tuple(_param(part) for part in value) if isinstance(value, list) else value


def _json(value: Param) -> Any:
    if isinstance(value, Message):
        return to_json(value)
    return [_json(part) for part in value] if isinstance(value, tuple) else value


def language_of(accepted: str | None) -> Language:
    """The reader's language, asked once for the whole page: of what an Accept-Language header prefers, or of one tag.

    Chinese for every tag of it (zh, zh-TW, zh-Hans-CN, ZH_cn), English for everything else.
    """
    best, tag = 0.0, ""
    for part in (accepted or "").split(","):
        name, _, weight = part.partition(";")
        try:
            quality = float(weight.strip().removeprefix("q=")) if weight.strip() else 1.0
        except ValueError:
            quality = 0.0
        if quality > best:  # of equals the first
            best, tag = quality, name
    return "zh" if re.fullmatch(r"zh(?:[-_].*)?", tag.strip(), re.IGNORECASE) else "en"
