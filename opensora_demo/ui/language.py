"""The page in English and Chinese: one table of words, chosen by the visitor's browser.

Gradio translates marked texts of its own components; `assets/ui/shared.js` does the same for ours. A text that is not
in the table stays English.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import gradio as gr

from opensora_demo.catalog import MODELS, ModelSpec
from opensora_demo.ui.components import UI_ASSETS
from opensora_demo.ui.controls import compare_note, frame_hint, listed_title, model_note
from opensora_demo.ui.words import Language

NUMBER = r"\d+(?:\.\d+)?"
WRITTEN = (gr.Button, gr.Markdown, gr.UploadButton)  # whose value is a text of ours
_SPOKEN = ("label", "info", "placeholder", "value")


PIECE = 8  # a text this long also counts inside a longer one


@cache
def words_zh() -> dict[str, str]:
    """English -> Chinese; a # stands for a number, {} for anything, which is translated by itself."""
    words: dict[str, str] = json.loads((UI_ASSETS / "words_zh.json").read_text("utf-8"))
    return words


@cache
def chinese() -> dict[str, str]:
    """The same, and what the page says of every model."""
    return words_zh() | {text: _say(text) for spec in MODELS.values() for text in texts_of(spec)}


def texts_of(spec: ModelSpec) -> tuple[str, ...]:
    """What the page says of a model."""
    return model_note(spec), compare_note(spec), frame_hint(spec.limits), listed_title(spec)


def in_pieces(text: str, words: dict[str, str]) -> str:
    """A composed text, its parts translated one by one."""
    for part in sorted((word for word in words if len(word) >= PIECE and "#" not in word), key=len, reverse=True):
        text = text.replace(part, words[part])
    return text


@cache
def languages() -> gr.I18n:
    words = chinese()
    return gr.I18n(en={text: text for text in words}, zh=words, **{"zh-CN": words})


def marked(text: Any) -> Any:
    """A text as Gradio's pages translate it; anything else as it is."""
    return str(languages()(text)) if isinstance(text, str) and text in chinese() else text


def language_of(accepted: str) -> Language:
    """The first language of an Accept-Language header, where the page speaks it."""
    return "zh" if accepted.lower().startswith("zh") else "en"


def say(text: str, accepted: str) -> str:
    """A text in the first language of an Accept-Language header; numbers keep their order."""
    return text if language_of(accepted) == "en" else _say(text)


def _say(text: str) -> str:
    words = words_zh()
    if text in words:
        return words[text]
    if "\n\n" in text:
        return "\n\n".join(map(_say, text.split("\n\n")))
    numbers = iter(re.findall(NUMBER, text))
    if found := words.get(re.sub(NUMBER, "#", text)):
        return re.sub("#", lambda _: next(numbers), found)
    field, colon, rest = text.partition(": ")  # an error names its field
    if colon and re.fullmatch(r"\w+", field):
        return f"{_say(field)}：{_say(rest)}"
    return _from_template(text) or in_pieces(text, words)


def _from_template(text: str, *, of_several: bool = False) -> str | None:
    """What stands between a template's fixed words is said by itself: as one sentence of several parts if there is a
    template for that (`of_several`), else part by part."""
    for pattern, found in templates():
        if (";" in pattern.pattern or not of_several) and (match := pattern.fullmatch(text)):
            return found.format(*map(_said_inside, match.groups()))
    return None


def _said_inside(text: str) -> str:
    whole = _from_template(text, of_several=True) if "; " in text else None
    return whole or "；".join(map(_say, text.split("; ")))


@cache
def templates() -> list[tuple[re.Pattern[str], str]]:
    """The texts with {} in them, the longest first."""
    found = sorted((text for text in words_zh() if "{}" in text), key=len, reverse=True)
    return [(re.compile(re.escape(text).replace(r"\{\}", "(.+?)"), re.DOTALL), words_zh()[text]) for text in found]


def translate(page: gr.Blocks) -> None:
    """Mark every label, hint, placeholder, button and choice of a page that has been built."""
    for block in page.blocks.values():
        for name in _SPOKEN:
            text = getattr(block, name, None)
            if isinstance(text, str) and (name != "value" or isinstance(block, WRITTEN)):
                setattr(block, name, marked(text))
        if isinstance(choices := getattr(block, "choices", None), list):
            block.choices = [(marked(title), value) for title, value in choices]


def translated(update: Any) -> Any:
    """An update of a component in the same way."""
    if not isinstance(update, dict):
        return update
    spoken = {name: marked(update[name]) for name in ("label", "info", "placeholder") if name in update}
    if "choices" in update:
        pairs = [choice if isinstance(choice, tuple) else (str(choice), choice) for choice in update["choices"]]
        spoken["choices"] = [(marked(title), value) for title, value in pairs]
    return update | spoken


def head() -> str:
    """The script that speaks for our own components."""
    words = json.dumps(chinese(), ensure_ascii=False).replace("<", "\\u003c")
    return "<script>" + (UI_ASSETS / "shared.js").read_text("utf-8").replace("WORDS", words, 1) + "</script>"
