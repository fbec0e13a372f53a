"""The few words the page offers as chips, and sentences made of them: the language of nano's toy worlds.

That model knows many more (its tokenizer has them all); these are the ones worth a button.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Literal

from opensora_demo.catalog.nano import NANO, NANO_DIT, NANO_MMDIT
from opensora_demo.types import Rule

Language = Literal["en", "zh"]
CHIPS: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {
        "colour": ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "white"),
        "shape": ("ball", "square", "triangle", "star", "heart", "ring", "diamond"),
        "motion": (
            "moving left",
            "moving right",
            "rising",
            "falling",
            "bouncing",
            "moving in a circle",
            "spinning",
            "growing",
            "shrinking",
            "zigzagging",
            "staying still",
        ),
        "place": (
            "on black",
            "on white",
            "in the sky",
            "over a meadow",
            "at night",
            "at sunset",
            "over the sea",
            "in the desert",
            "on a checkerboard",
        ),
    },
    "zh": {
        "colour": ("红", "橙", "黄", "绿", "青", "蓝", "紫", "粉", "白"),
        "shape": ("球", "方块", "三角形", "星星", "爱心", "圆环", "菱形"),
        "motion": (
            "向左移动",
            "向右移动",
            "上升",
            "下降",
            "弹跳",
            "转圈",
            "旋转",
            "变大",
            "变小",
            "走之字形",
            "静止不动",
        ),
        "place": (
            "在黑色背景上",
            "在白色背景上",
            "在天空中",
            "在草地上",
            "在夜空中",
            "在日落时",
            "在大海上",
            "在沙漠里",
            "在棋盘上",
        ),
    },
}
SUMMARY = "one coloured shape (or two) moving in front of a painted background"


# Rule -> formula, what it is for, source. c, u: predictions of the prompt and the null branch; s: the scale.
RULE_NOTES: dict[Rule, tuple[str, str, str]] = {
    "plain": ("u + s (c − u)", "The same pull at every step.", "Ho & Salimans 2022"),
    "interval": (
        "plain where 0.28 < σ/α ≤ 5.42, else c",
        "No pull while there is only noise, none at the end: more variety.",
        "Kynkäänniemi et al. 2024",
    ),
    "oscillating": (
        "plain for ten steps, then at every other one",
        "Open-Sora 1.3 and 2.0: strong pull without burnt colours.",
        "Open-Sora 2.0",
    ),
    "rescale": (
        "plain × (0.7 std(c) / std(plain) + 0.3)",
        "Draws the spread back to that of c: less burnt.",
        "Lin et al. 2023",
    ),
    "apg": (
        "c + (s − 1) (Δ − its part along x₀), Δ with momentum −0.5",
        "Only what is at right angles to the picture; here without the paper's limit on its length.",
        "Sadat et al. 2024",
    ),
    "cfg-zero": (
        "z u + s (c − z u), z = ⟨c, u⟩ / ‖u‖²",
        "The null branch at its best length first.",
        "Fan et al. 2025",
    ),
}


TOY_MODELS = (NANO.id, NANO_DIT.id, NANO_MMDIT.id)


def knows_words(model_id: str) -> bool:
    """Whether chips, sentences made of them and `SUMMARY` are about this model."""
    return model_id in TOY_MODELS


def compose(choice: Mapping[str, object], language: Language = "en") -> str:
    """The sentence of a choice of chips, "a red ball bouncing over a meadow"; words that are no chips are dropped."""
    words = {kind: str(word) if (word := choice.get(kind)) in known else "" for kind, known in CHIPS[language].items()}
    if language == "zh":
        colour = words["colour"] and words["colour"] + "色的"
        return "一个" + colour + (words["shape"] or "形体") + words["place"] + words["motion"]
    subject = f"{words['colour']} {words['shape'] or 'shape'}".strip()
    article = "an" if subject[0] in "aeiou" else "a"
    return " ".join(word for word in (article, subject, words["motion"], words["place"]) if word)


def roll(rng: random.Random, language: Language = "en") -> str:
    """A random sentence with all four kinds of words."""
    return compose({kind: rng.choice(known) for kind, known in CHIPS[language].items()}, language)
