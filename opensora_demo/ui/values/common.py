"""What the values of all components share.

Every value is JSON: typed dictionaries with whole words as keys, which `python -m opensora_demo.ui.values.types` writes
down for the scripts as `assets/ui/types.d.ts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from opensora_demo.catalog import MODELS
from opensora_demo.messages import Message, Param, to_json
from opensora_demo.toy.chips import VALUES, kinds_of, word
from opensora_demo.toy.prompt_words import PromptWord

Phase = Literal["idle", "loading", "waiting", "encoding", "denoising", "decoding", "done", "stopped", "failed"]

ChipKind = Literal["colour", "shape", "motion", "place"]
PromptWordKind = Literal["colour", "shape", "motion", "place", "more", "unknown"]


class MessageValue(TypedDict):
    """A message for the reader: `lib/i18n.js` puts it into words."""

    code: str
    params: dict[str, Any]


class FileValue(TypedDict):
    """A file: its name, and its address relative to the page's base."""

    orig_name: str
    url: str


class ModelValue(TypedDict):
    """The chosen model, for the stages: `cell` is width and height of its clips, `runs` whether it can be used here,
    `extends` whether it goes on from a given video, `defaults` what its sliders stand at, by their ids."""

    model: str
    cell: tuple[int, int]
    runs: bool
    extends: bool
    defaults: dict[str, float]


class ChipsValue(TypedDict):
    """The values worth a button, by kind, each with its words; `fewer` are the models that read only some kinds."""

    chips: dict[ChipKind, dict[str, WordValue]]
    fewer: dict[str, list[ChipKind]]


class PromptWordValue(TypedDict):
    """Characters [start, end) of a prompt, in UTF-16 as scripts count, and what they say: `value` is one of the toy
    worlds' for a colour, shape, motion or place, `near` what could stand in the place of an unknown word."""

    start: int
    end: int
    kind: PromptWordKind
    value: str
    near: str


class PromptValue(TypedDict):
    """A prompt as it is understood. `turn` is that of the question; `before` is the text that it edited, None where it
    only asked."""

    turn: int
    text: str
    before: str | None
    words: list[PromptWordValue]


class GuidanceCurveValue(TypedDict):
    """The text of a curve over the steps, and the guidance scale whose pull it shares out."""

    curve: str
    guidance: float


class WordValue(TypedDict):
    """A word of the toy worlds as its chip has it."""

    en: str
    zh: str


class RunValue(TypedDict):
    """What every run says: `run` rises from one to the next, `job` is the secret by which a page asks for it again;
    `elapsed` and `left` in seconds. `kept`: it goes on, though nobody watches it."""

    run: int
    job: str
    phase: Phase
    text: MessageValue
    prompt: str
    elapsed: float
    left: float | None
    kept: bool


class IdleValue(TypedDict):
    """Nothing has run yet; `text` says where the settings in the form are from, or what has become of a run."""

    phase: Literal["idle"]
    text: NotRequired[MessageValue]


def word_value(kind: ChipKind, value: str) -> WordValue:
    """Raises ValueError for a value that the toy worlds do not have."""
    return {"en": word(kind, value, "en"), "zh": word(kind, value, "zh")}


def chips_value() -> ChipsValue:
    return {
        "chips": {kind: {value: word_value(kind, value) for value in values} for kind, values in VALUES.items()},
        "fewer": {spec.id: list(kinds_of(spec)) for spec in MODELS.values() if spec.labels},
    }


def prompt_value(text: str, words: Sequence[PromptWord], turn: int, before: str | None = None) -> PromptValue:
    def at(character: int) -> int:
        return len(text[:character].encode("utf-16-le", "surrogatepass")) // 2

    return {
        "turn": turn,
        "text": text,
        "before": before,
        "words": [
            {"start": at(w.start), "end": at(w.end), "kind": w.kind, "value": w.value, "near": w.near} for w in words
        ],
    }


PLACES = ("folder", "file", "files")  # parameters of messages that may name a place on the server


def without_places(message: Message) -> Message:
    """A message as a visitor may read it: of a whole path on the server its last part."""

    def shown(name: str, value: Param) -> Param:
        if isinstance(value, Message):
            return without_places(value)
        if isinstance(value, tuple):
            return tuple(shown(name, part) for part in value)
        if name in PLACES and isinstance(value, str) and Path(value).is_absolute():
            return Path(value).name
        return value

    return Message(message.code, {name: shown(name, value) for name, value in message.params.items()})


def said(message: Message) -> MessageValue:
    """A message as the browser is told it."""
    value = to_json(without_places(message))
    return {"code": value["code"], "params": value["params"]}


def said_or_none(message: Message | None) -> MessageValue | None:
    return None if message is None else said(message)
