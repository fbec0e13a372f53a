"""The few words of the toy worlds that a page offers as chips, and sentences made of them.

The models know many more (their tokenizer has them all); of each colour, shape, motion and background the captions'
first phrase is worth a button, or a shorter one.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Mapping
from typing import Literal

from opensora_demo.catalog import find_model
from opensora_demo.catalog.nano import NANO, NANO_CLASS, NANO_DIT, NANO_MMDIT, SIBLINGS
from opensora_demo.catalog.spec import ModelSpec
from opensora_demo.messages import Language
from opensora_demo.toy import captions_zh
from opensora_demo.toy.captions import BACKGROUND_PHRASES, COLOUR_WORDS, MOTION_PHRASES, SHAPE_WORDS, VERBS
from opensora_demo.toy.worlds import BACKGROUNDS, COLOURS, MOTIONS, SHAPES

Kind = Literal["colour", "shape", "motion", "place"]
VALUES: dict[Kind, tuple[str, ...]] = {"colour": COLOURS, "shape": SHAPES, "motion": MOTIONS, "place": BACKGROUNDS}
TOY_MODELS = (NANO.id, NANO_DIT.id, NANO_MMDIT.id, NANO_CLASS.id, *SIBLINGS)


def phrases(kind: Kind, value: str, language: Language) -> tuple[str, ...]:
    """All that the captions say for a value of the toy worlds, the usual phrase first; motions as participles."""
    if language == "zh":
        tables = {
            "colour": captions_zh.COLOURS,
            "shape": captions_zh.SHAPES,
            "motion": captions_zh.MOTIONS,
            "place": captions_zh.BACKGROUNDS,
        }
        return tables[kind][value]
    if kind == "motion":
        return tuple(f"{VERBS[verb][1]} {tail}".rstrip() for verb, tail in MOTION_PHRASES[value])
    return {"colour": COLOUR_WORDS, "shape": SHAPE_WORDS, "place": BACKGROUND_PHRASES}[kind][value]


# Where another phrase than the first makes the better button.
_PREFERRED: dict[Language, dict[tuple[Kind, str], str]] = {
    "en": {
        ("motion", "up"): "rising",
        ("motion", "down"): "falling",
        ("place", "black"): "on black",
        ("place", "white"): "on white",
    },
    "zh": {
        ("shape", "heart"): "爱心",
        ("motion", "up"): "上升",
        ("motion", "down"): "下降",
        ("place", "sea"): "在大海上",
    },
}


def _chips(language: Language) -> dict[Kind, tuple[str, ...]]:
    preferred = _PREFERRED[language]
    return {
        kind: tuple(preferred.get((kind, value), phrases(kind, value, language)[0]) for value in values)
        for kind, values in VALUES.items()
    }


CHIPS: dict[Language, dict[Kind, tuple[str, ...]]] = {"en": _chips("en"), "zh": _chips("zh")}


def word(kind: Kind, value: str, language: Language) -> str:
    """The word on the chip of a value, "falling" for "down"."""
    return CHIPS[language][kind][VALUES[kind].index(value)]


def motion_in_form(value: str, like: str) -> str:
    """The English words for a motion in the verb form of another word: "bounces" like "spins", "bouncing" like
    "dancing", else "bounce" where `like` ends in none of these but is a verb of the tables."""
    participle = word("motion", value, "en")
    head, _, tail = participle.partition(" ")
    verb = next(verb for verb, forms in VERBS.items() if head in forms)
    form = verb if like in VERBS else VERBS[verb][0] if like.endswith("s") else head
    return f"{form} {tail}".rstrip()


_BEFORE_A_PLACE = re.compile(r"(?:(?:in|on|at|over|by)\s+)?(?:(?:an?|the)\s+)?")


def place_name(value: str, language: Language) -> str:
    """A place without what stands before it: "meadow", "black background", 草地."""
    phrase = phrases("place", value, language)[0]
    return phrase[1:-1] if language == "zh" else _BEFORE_A_PLACE.sub("", phrase, count=1)


def knows_words(model_id: str) -> bool:
    """Whether chips and sentences made of them are about this model."""
    return model_id in TOY_MODELS or bool(find_model(model_id).labels)


def kinds_of(spec: ModelSpec) -> tuple[Kind, ...]:
    """The kinds of words that a model reads: of one with class labels in the place of text, shapes."""
    return ("shape",) if spec.labels else tuple(VALUES)


def compose(choice: Mapping[str, object], language: Language = "en") -> str:
    """The sentence of a choice of chips, "a red ball bouncing over a meadow"; words that are no chips are dropped."""
    words = {kind: str(word) if (word := choice.get(kind)) in known else "" for kind, known in CHIPS[language].items()}
    if language == "zh":
        colour = words["colour"] and words["colour"] + "色的"
        return "一个" + colour + (words["shape"] or "形体") + words["place"] + words["motion"]
    subject = f"{words['colour']} {words['shape'] or 'shape'}".strip()
    article = "an" if subject[0] in "aeiou" else "a"
    return " ".join(word for word in (article, subject, words["motion"], words["place"]) if word)


def roll(rng: random.Random, language: Language = "en", kinds: Collection[Kind] = tuple(VALUES)) -> str:
    """A random sentence with a word of each kind."""
    return compose({kind: rng.choice(known) for kind, known in CHIPS[language].items() if kind in kinds}, language)
