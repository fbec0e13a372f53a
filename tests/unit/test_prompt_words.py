"""A prompt as the page shows it while somebody types: its words by kind, what is near an unknown one, and chips that
change one word and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer, normalizers

from opensora_demo.catalog import find_model
from opensora_demo.catalog.nano import NANO
from opensora_demo.toy.captions import caption
from opensora_demo.toy.chips import TOY_MODELS, VALUES, Kind, word
from opensora_demo.toy.near_words import NEAR
from opensora_demo.toy.prompt_edit import with_near, with_value, without_value
from opensora_demo.toy.prompt_intent import ObjectIntent, prompt_intent
from opensora_demo.toy.prompt_words import PromptWord, prompt_words, says_something, tokenizer_of, unknown_spans
from opensora_demo.toy.worlds import sample_scene


def words_of(prompt: str) -> list[PromptWord]:
    return prompt_words(prompt, unknown_spans(NANO, prompt))


def read(prompt: str) -> list[tuple[str, str, str]]:
    """(characters, kind, value or what is near) of every word."""
    return [(prompt[w.start : w.end], w.kind, w.value or w.near) for w in words_of(prompt)]


def test_words_by_kind() -> None:
    assert read("A tiny Red ball  bouncing over the meadow, slowly") == [
        ("tiny", "more", ""),
        ("Red", "colour", "red"),
        ("ball", "shape", "ball"),
        ("bouncing", "motion", "bounce"),
        ("over the meadow", "place", "meadow"),
        ("slowly", "more", ""),
    ]
    assert read("moving slowly to the left") == [("moving slowly to the left", "motion", "left")]
    assert read("a starry sky, ＲＥＤ star's") == [
        ("starry sky", "place", "night"),
        ("ＲＥＤ", "colour", "red"),
        ("star", "shape", "star"),
    ]
    assert read("一个紫色的方块在夜空中向右移动") == [
        ("紫", "colour", "purple"),
        ("方块", "shape", "square"),
        ("在夜空中", "place", "night"),
        ("向右移动", "motion", "right"),
    ]
    assert read("") == []
    assert read("a " * 3000) == []


def test_what_is_near_an_unknown_word() -> None:
    assert read("a red elephant dancing") == [
        ("red", "colour", "red"),
        ("elephant", "unknown", "ball"),
        ("dancing", "unknown", "bouncing"),
    ]
    near = {
        "a bal": "ball",  # by its letters
        "a ball in the forest": "meadow",  # by its meaning, after the preposition that is there
        "forest": "over a meadow",
        "cats": "balls",
        "the ball dances": "bounces",
        "a ball jumped": "bouncing",  # the grammar has it, the captions do not
        "a wug": "ball",  # by its place in the sentence
        "a red ball glorping": "bouncing",
        "a ball at the qux": "meadow",
        "💙": "blue heart",
        "🔴": "red ball",
        "红 💙": "蓝色的爱心",
        "象": "球",
    }
    for prompt, expected in near.items():
        assert [w.near for w in words_of(prompt) if w.kind == "unknown"][-1] == expected, prompt
    assert read("a fluffy ball")[0] == ("fluffy", "unknown", "")  # nothing says what it could be


SPELLINGS = (
    "a 'green' star spinning", "a ‘green’ star spinning", "a `green` star spinning", "a green-star spinning",
    "a green_star spinning", "a green star's spinning", "a GREEN star’s spinning", "a green‑star spinning",
    "a ''green'' star -- spinning", "a green\u200bstar spinning".replace("\u200b", "_"), "_green_ star, spinning",
    "a green star' spinning", "a ﻿green star spinning",
)  # fmt: skip
CHINESE = {
    "一個綠色的星星在旋轉": "一个绿色的星星在旋转",
    "紅色的圓球向左移動，在藍天上": "红色的圆球向左移动，在蓝天上",
    "黃色愛心變大，紫色鑽石縮小": "黄色爱心变大，紫色钻石缩小",
    "視頻裡兩個圓環並排，畫面靜止": "视频里两个圆环并排，画面静止",
    "夕陽下飛快地彈跳的三角形": "夕阳下飞快地弹跳的三角形",
}


@pytest.mark.parametrize("model", [model for model in TOY_MODELS if not find_model(model).labels])
@pytest.mark.parametrize("prompt", SPELLINGS)
def test_known_words_are_found_however_they_are_written(model: str, prompt: str) -> None:
    """By the model, by the page and by the reader alike."""
    spec = find_model(model)
    assert unknown_spans(spec, prompt) == []
    intent = prompt_intent(prompt)
    assert intent.objects == (ObjectIntent(shape="star", colour="green", motion="spin"),)
    tokens = tokenizer_of(spec).encode(prompt, add_special_tokens=False).tokens
    assert [token for token in tokens if token in ("green", "star", "spinning")] == ["green", "star", "spinning"]


@pytest.mark.parametrize("traditional", CHINESE)
def test_traditional_characters_are_read_as_simplified_ones(traditional: str) -> None:
    simplified = CHINESE[traditional]
    encode = tokenizer_of(NANO).encode
    assert encode(traditional, add_special_tokens=False).ids == encode(simplified, add_special_tokens=False).ids
    assert unknown_spans(NANO, traditional) == unknown_spans(NANO, simplified) == []
    assert prompt_intent(traditional) == prompt_intent(simplified)
    assert [w.value for w in words_of(traditional)] == [w.value for w in words_of(simplified)]
    assert words_of("一隻貓")[-1].near == words_of("一只猫")[-1].near != ""


def test_spelling_changes_nothing_that_was_learned() -> None:
    """The ids of captions are those that the models were trained with."""
    tokenizer, plain = tokenizer_of(NANO), Tokenizer.from_str(tokenizer_of(NANO).to_str())
    plain.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace("。", "."), normalizers.Replace("、", ",")]
    )
    rng = np.random.default_rng(0)
    for i in range(300):
        text = caption(sample_scene(rng, pairs=0.5), rng, omit=0.1, chinese=i % 2)
        assert tokenizer.encode(text).ids == plain.encode(text).ids


@pytest.mark.parametrize("model", [*TOY_MODELS, "debug-1.0-class"])
def test_the_tokenizer_of_each_model_says_what_is_unknown(model: str) -> None:
    prompt = "a red ball, a wug and 🔴🔴 “!” 象"
    assert [prompt[a:b] for a, b in unknown_spans(find_model(model), prompt)] == (
        ["red", "wug", "and", "🔴🔴", "象"] if find_model(model).labels else ["wug", "🔴🔴", "象"]
    )


def test_punctuation_says_nothing_and_symbols_do() -> None:
    assert all(map(says_something, ("a", "7", "象", "🔴", "♥", "→", "+", "$", "/")))
    assert not any(map(says_something, ("!", "“", "  ", "(", "-", "")))


def test_what_is_near_is_of_the_toy_worlds() -> None:
    assert all(value in VALUES[kind] for kind, value in NEAR.values())


EDITS: tuple[tuple[str, Kind, str, str], ...] = (
    # Nothing typed is lost: only the word of the kind changes.
    ("a red elephant dancing", "colour", "blue", "a blue elephant dancing"),
    ("a tiny yellow heart shrinking fast", "place", "night", "a tiny yellow heart shrinking fast at night"),
    ("a tiny yellow heart shrinking fast", "motion", "spin", "a tiny yellow heart spinning fast"),
    ("", "colour", "orange", "an orange shape"),
    ("an orange shape", "shape", "ball", "an orange ball"),
    ("an orange ball at night", "motion", "left", "an orange ball moving left at night"),
    ("a ball at night", "colour", "orange", "an orange ball at night"),
    ("An orange ball", "colour", "red", "A red ball"),
    ("a ball bounces slowly over a meadow", "motion", "left", "a ball moves left slowly over a meadow"),
    ("a ball moving slowly to the left", "motion", "bounce", "a ball bouncing slowly"),
    ("two red balls spin", "shape", "star", "two red stars spin"),
    ("two red balls spin", "motion", "bounce", "two red balls bounce"),
    ("bouncing over a meadow", "colour", "red", "a red shape bouncing over a meadow"),
    ("bouncing over a meadow", "shape", "star", "a star bouncing over a meadow"),
    ("a big", "shape", "ball", "a big ball"),
    ("a ball across the meadow", "place", "sea", "a ball across the sea"),
    ("a ball in the forest", "place", "sea", "a ball in the sea"),  # the word that the model cannot read
    ("A red ball.", "place", "sea", "A red ball over the sea."),
    ("", "shape", "star", "a star"),
    ("一个紫色的方块", "motion", "right", "一个紫色的方块向右移动"),
    ("一个方块", "colour", "blue", "一个蓝色的方块"),
    ("一个方块弹跳", "place", "night", "一个方块在夜空中弹跳"),
    ("一个方块在草地飞", "place", "night", "一个方块在夜空飞"),
    ("一个紫色的", "shape", "ball", "一个紫色的球"),
    ("象在跳舞", "colour", "red", "红色的象在跳舞"),
)


@pytest.mark.parametrize(("prompt", "kind", "value", "expected"), EDITS, ids=[f"{e[0]}+{e[2]}" for e in EDITS])
def test_a_chip_replaces_the_word_of_its_kind_or_joins(prompt: str, kind: Kind, value: str, expected: str) -> None:
    edited = with_value(prompt, words_of(prompt), kind, value, "en")
    assert edited == expected
    assert value in {w.value for w in words_of(edited) if w.kind == kind}  # and lights its chip


def test_every_chip_joins_every_sentence_and_goes_again() -> None:
    for prompt in ("", "a ball", "a wug glorping", "red", "at night", "一个球", "hello, world", "弹跳"):
        for kind, values in VALUES.items():
            for value in values:
                edited = with_value(prompt, words_of(prompt), kind, value, "en")
                assert value in {w.value for w in words_of(edited) if w.kind == kind}, (prompt, value, edited)
                left = without_value(edited, words_of(edited), kind, value)
                assert value not in {w.value for w in words_of(left) if w.kind == kind}, (edited, value, left)


def test_of_two_words_of_a_kind_the_one_at_the_caret() -> None:
    prompt = "a red ball and a blue star"
    assert with_value(prompt, words_of(prompt), "colour", "green", "en", 19) == "a red ball and a green star"
    assert with_value(prompt, words_of(prompt), "colour", "green", "en", 0) == "a green ball and a blue star"


def test_a_chip_goes_again() -> None:
    cases: tuple[tuple[str, Kind, str, str], ...] = (
        ("a red ball bouncing over a meadow", "colour", "red", "a ball bouncing over a meadow"),
        ("a red orange ball", "colour", "red", "an orange ball"),
        ("a red ball bouncing over a meadow", "shape", "ball", "a red shape bouncing over a meadow"),
        ("a red ball bouncing over a meadow", "place", "meadow", "a red ball bouncing"),
        ("the ball is bouncing, at night", "motion", "bounce", "the ball, at night"),
        ("an orange shape", "colour", "orange", ""),
        ("一个紫色的方块在夜空中向右移动", "colour", "purple", "一个方块在夜空中向右移动"),
        ("一个紫色的方块在夜空中向右移动", "place", "night", "一个紫色的方块向右移动"),
        ("一个形体在夜空中", "place", "night", ""),
    )
    for prompt, kind, value, expected in cases:
        assert without_value(prompt, words_of(prompt), kind, value) == expected


def test_the_nearest_word_takes_the_place_of_an_unknown_one() -> None:
    prompt = "an elephant dancing"
    assert with_near(prompt, words_of(prompt), 3) == "a ball dancing"
    assert with_near(prompt, words_of(prompt), 12) == "an elephant bouncing"
    assert with_near(prompt, words_of(prompt), 5) == prompt
    assert word("motion", "bounce", "en") == "bouncing"
