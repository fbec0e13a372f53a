"""What a prompt asks for, in the grammar's own sentences and as people type them, and how clips are marked by it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from opensora_demo.messages import Language
from opensora_demo.toy.captions import caption
from opensora_demo.toy.chips import CHIPS, compose
from opensora_demo.toy.prompt_intent import ObjectIntent, PromptIntent, mark_clips, marks, prompt_intent
from opensora_demo.toy.reader import ATTRIBUTES, OF_OBJECTS, Detection, Reader, Reading, load_reader, read_clips
from opensora_demo.toy.worlds import Scene, render, sample_scene

RED_BALL = ObjectIntent(shape="ball", colour="red")
BLUE_STAR = ObjectIntent(shape="star", colour="blue")


def expected(scene: Scene) -> PromptIntent:
    """What an answer that leaves nothing out says of a scene."""
    objects = tuple(ObjectIntent(shape=o.shape, colour=o.colour, motion=o.motion) for o in scene.objects)
    return PromptIntent(
        objects=objects,
        background=scene.background,
        arrangement=None if scene.companion is None else scene.arrangement,
        ordered=scene.companion is not None,
    )


def agrees(answer: PromptIntent, scene: Scene) -> bool:
    whole = expected(scene)
    if not answer.ordered and len(set(whole.objects)) == 1:  # of two that are the same nobody says which is where
        whole = replace(whole, ordered=False)
    return answer == whole


@pytest.mark.parametrize(
    ("pairs", "chinese", "count", "share"), [(0, 0, 2000, 1.0), (0, 1, 1000, 1.0), (1, 0, 500, 0.99), (1, 1, 500, 0.99)]
)
@pytest.mark.slow
def test_the_sentences_of_the_grammar_are_read_right(pairs: float, chinese: float, count: int, share: float) -> None:
    rng = np.random.default_rng(11)
    right = 0
    for _ in range(count):
        scene = sample_scene(rng, held_out=None, pairs=pairs)
        right += agrees(prompt_intent(caption(scene, rng, chinese=chinese)), scene)
    assert right / count >= share


@pytest.mark.parametrize("chinese", [0, 1])
def test_what_a_sentence_leaves_out_is_left_open_and_never_wrong(chinese: float) -> None:
    rng = np.random.default_rng(12)
    left_open = 0
    for _ in range(800):
        scene = sample_scene(rng, held_out=None)
        text = caption(scene, rng, omit=0.3, chinese=chinese)
        answer = prompt_intent(text)
        (wanted,) = answer.objects
        assert wanted.shape == scene.shape, text
        for said, true in ((wanted.colour, scene.colour), (wanted.motion, scene.motion)):
            assert said in (None, true), text
            left_open += said is None
        assert answer.background in (None, scene.background), text
    assert 0.25 < left_open / 1600 < 0.35


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_chip_of_the_page_is_understood(language: Language) -> None:
    chips = CHIPS[language]
    for colour, c in zip(chips["colour"], ATTRIBUTES["colour"], strict=True):
        for shape, s in zip(chips["shape"], ATTRIBUTES["shape"], strict=True):
            found = prompt_intent(compose({"colour": colour, "shape": shape}, language))
            assert found.objects == (ObjectIntent(shape=s, colour=c),)
    for motion, m in zip(chips["motion"], ATTRIBUTES["motion"], strict=True):
        for place, p in zip(chips["place"], ATTRIBUTES["background"], strict=True):
            text = compose({"colour": chips["colour"][0], "motion": motion, "place": place}, language)
            intent = PromptIntent(objects=(ObjectIntent(colour="red", motion=m),), background=p)
            assert prompt_intent(text) == intent, text


@pytest.mark.parametrize(
    ("prompt", "shape", "colour", "motion", "background"),
    [
        ("A RED Ball!!!", "ball", "red", None, None),
        ("Light-blue cubes, bouncing.", "square", "cyan", "bounce", None),
        ("an orange", None, "orange", None, None),
        ("an orange ball is bouncing in the evening", "ball", "orange", "bounce", "sunset"),
        ("a circle circles in the sky", "ball", None, "circle", "sky"),
        ("the circle moves in a circle on a white background", "ball", None, "circle", "white"),
        ("a star under the stars", "star", None, None, "night"),
        ("a ring in a white room", "ring", None, None, "white"),
        ("a blue sky with a white ring", "ring", "white", None, "sky"),
        ("a green heart in a green meadow", "heart", "green", None, "meadow"),
        ("a rose heart", "heart", "pink", None, None),
        ("The ball rose", "ball", None, "up", None),
        ("a black ball on white", "ball", None, None, "white"),
        ("a sky-blue star", "star", None, None, None),
        ("a red ball on a green background", "ball", "red", None, None),
        ("a red ball in the dark blue sky", "ball", "red", None, "sky"),
        ("a ball on a black and white checkerboard", "ball", None, None, "checkerboard"),
        ("a ball under a starry sky", "ball", None, None, "night"),
        ("blue ball, black background", "ball", "blue", None, "black"),
        ("a zig-zagging golden star over the chequerboard", "star", "yellow", "zigzag", "checkerboard"),
        ("a ball moving slowly to the left", "ball", None, "left", None),
        ("in a field, a lavender hoop is rolling to the right", "ring", "purple", "right", "meadow"),
        ("a ball moves up and down", "ball", None, "bounce", None),
        ("a heart, still spinning", "heart", None, "spin", None),
        ("a still heart", "heart", None, "still", None),
        ("A ball. It is red. It bounces on the beach.", "ball", "red", "bounce", "sea"),
        ("A red ball in the sky. The ball bounces.", "ball", "red", "bounce", "sky"),
        ("a red, shiny ball", "ball", "red", None, None),
        ("three red balls", "ball", "red", None, None),
        ("静止的红球", "ball", "red", "still", None),
        ("红色的心形往左慢慢移动，背景是星空", "heart", "red", "left", "night"),
        ("草地上升起一个浅蓝色气球", "ball", "cyan", "up", "meadow"),
        ("在中心旋转的红球", "ball", "red", "spin", None),
        ("red 球 在夜空中", "ball", "red", None, "night"),
        # contradictory: not asked for
        ("a red and blue ball", "ball", None, None, None),
        ("红蓝球", "ball", None, None, None),
        ("a ball moves left and right", "ball", None, None, None),
        ("a ball grows, then shrinks", "ball", None, None, None),
        ("a ball at sunset over the sea", "ball", None, None, None),
        ("", None, None, None, None),
        ("?! ... 7 \U0001f534 \x00", None, None, None, None),
        ("a dragon on the moon " * 500, None, None, None, "night"),
    ],
)
def test_one_object_as_people_type_it(
    prompt: str, shape: str | None, colour: str | None, motion: str | None, background: str | None
) -> None:
    assert prompt_intent(prompt) == PromptIntent(
        objects=(ObjectIntent(shape=shape, colour=colour, motion=motion),), background=background
    )


@pytest.mark.parametrize(
    ("prompt", "objects", "arrangement", "ordered"),
    [
        ("a red ball left of a blue star", (RED_BALL, BLUE_STAR), "side by side", True),
        ("a blue star to the right of a red ball", (RED_BALL, BLUE_STAR), "side by side", True),
        ("to the right of the red ball is a blue star", (RED_BALL, BLUE_STAR), "side by side", True),
        ("a red ball on top of a blue star", (RED_BALL, BLUE_STAR), "one above the other", True),
        ("a blue star below, a red ball above", (RED_BALL, BLUE_STAR), "one above the other", True),
        ("two red balls side by side", (RED_BALL, RED_BALL), "side by side", False),
        ("a red ball and a blue star", (RED_BALL, BLUE_STAR), None, False),
        ("red ball, blue star, side by side", (RED_BALL, BLUE_STAR), "side by side", False),
        ("a red ball on the left and a blue star on the left", (RED_BALL, BLUE_STAR), None, False),
        ("a red dragon and a blue star", (ObjectIntent(colour="red"), BLUE_STAR), None, False),
        ("a red and a blue ball", (RED_BALL, replace(RED_BALL, colour="blue")), None, False),
        ("two balls, one red and one blue", (RED_BALL, replace(RED_BALL, colour="blue")), None, False),
        (
            "two stars: a blue one that falls and a red one that rises",
            (replace(BLUE_STAR, motion="down"), ObjectIntent(shape="star", colour="red", motion="up")),
            None,
            False,
        ),
        (
            "a spinning red ball and a blue star that grows",
            (replace(RED_BALL, motion="spin"), replace(BLUE_STAR, motion="grow")),
            None,
            False,
        ),
        (
            "a red ball and a blue star are spinning",
            (replace(RED_BALL, motion="spin"), replace(BLUE_STAR, motion="spin")),
            None,
            False,
        ),
        ("a red ball and a blue star spinning", (RED_BALL, replace(BLUE_STAR, motion="spin")), None, False),
        ("红球在蓝色星星左边", (RED_BALL, BLUE_STAR), "side by side", True),
        ("蓝色星星的左边有一个红球", (RED_BALL, BLUE_STAR), "side by side", True),
        ("两个红球上下排列", (RED_BALL, RED_BALL), "one above the other", False),
    ],
)
def test_two_objects_as_people_type_them(
    prompt: str, objects: tuple[ObjectIntent, ObjectIntent], arrangement: str | None, ordered: bool
) -> None:
    assert prompt_intent(prompt) == PromptIntent(objects=objects, arrangement=arrangement, ordered=ordered)


def test_of_three_objects_what_they_share_is_asked() -> None:
    assert prompt_intent("a red ball, a red star and a red ring at night") == PromptIntent(
        objects=(ObjectIntent(colour="red"),), background="night"
    )


# --- marks


def detection(shape: str, colour: str, motion: str = "still", sure: float = 0.9) -> Detection:
    said = {"shape": shape, "colour": colour, "motion": motion}
    probabilities = {
        name: {v: sure if v == said[name] else (1 - sure) / (len(ATTRIBUTES[name]) - 1) for v in ATTRIBUTES[name]}
        for name in OF_OBJECTS
    }
    return Detection(
        **said,
        confidence=dict.fromkeys(said, sure),
        probabilities=probabilities,
        centre_px=np.zeros((9, 2)),
        area=np.ones(9),
    )


def reading(*objects: Detection, arrangement: str = "alone") -> Reading:
    probabilities = {b: 0.6 if b == "night" else 0.05 for b in ATTRIBUTES["background"]}
    return Reading(background="night", arrangement=arrangement, objects=objects, probabilities=probabilities)


def test_one_object_is_marked() -> None:
    table = marks(prompt_intent("a red ball at sunset"), reading(detection("ball", "blue")))
    assert table["shape"] == {
        "asked": "ball",
        "seen": "ball",
        "right": True,
        "confidence": pytest.approx(0.9),
        "certainty": 0.9,
    }
    assert table["colour"] == {
        "asked": "red",
        "seen": "blue",
        "right": False,
        "confidence": pytest.approx(0.1 / 8),
        "certainty": 0.9,
    }
    assert table["motion"] == {"asked": None, "seen": "still", "right": None, "confidence": None, "certainty": 0.9}
    assert table["background"] == {
        "asked": "sunset",
        "seen": "night",
        "right": False,
        "confidence": 0.05,
        "certainty": 0.6,
    }
    json.dumps(table)


def test_two_objects_are_right_when_both_are() -> None:
    seen = reading(detection("star", "blue"), detection("ball", "red", "spin"), arrangement="side by side")
    wanted = prompt_intent("a spinning red ball and a blue star")
    table = marks(wanted, seen)  # nobody said who is where
    assert table["shape"]["seen"] == ("ball", "star")
    assert table["shape"]["right"]
    assert table["colour"]["right"]
    assert table["colour"]["confidence"] == pytest.approx(0.81)
    assert table["motion"] == {
        "asked": ("spin", None), "seen": ("spin", "still"), "right": True, "confidence": pytest.approx(0.9),
        "certainty": 0.9,
    }  # fmt: skip
    placed = marks(prompt_intent("a spinning red ball left of a blue star"), seen)
    assert not placed["shape"]["right"]
    swapped = marks(wanted, reading(detection("star", "red"), detection("ball", "blue"), arrangement="side by side"))
    assert [swapped[name]["right"] for name in ("shape", "colour")].count(True) == 1


def test_one_object_where_two_are_asked_and_the_other_way_round() -> None:
    alone = marks(prompt_intent("two red balls"), reading(detection("ball", "red")))
    assert alone["shape"] == {
        "asked": ("ball", "ball"),
        "seen": "ball",
        "right": False,
        "confidence": 0.0,
        "certainty": 0.9,
    }
    assert alone["motion"]["right"] is None
    two = reading(detection("ball", "red"), detection("star", "red"), arrangement="side by side")
    both = marks(prompt_intent("a red ball"), two)
    assert both["colour"]["right"]
    assert not both["shape"]["right"]
    assert both["shape"]["seen"] == ("ball", "star")


@pytest.fixture(scope="module")
def reader() -> Reader:
    return load_reader()


def test_probabilities_add_up_and_the_likeliest_is_what_is_said(reader: Reader) -> None:
    rng = np.random.default_rng(4)
    for found in read_clips(reader, [render(sample_scene(rng, pairs=0.5))[0] for _ in range(6)]):
        for name, probabilities in [("background", found.probabilities), *found.objects[0].probabilities.items()]:
            assert tuple(probabilities) == ATTRIBUTES[name]
            assert sum(probabilities.values()) == pytest.approx(1, abs=1e-4)
        assert max(found.probabilities, key=found.probabilities.__getitem__) == found.background
        for seen in found.objects:
            assert seen.confidence == {name: seen.probabilities[name][getattr(seen, name)] for name in OF_OBJECTS}


def test_rendered_clips_are_marked_right(reader: Reader) -> None:
    rng = np.random.default_rng(5)
    scenes = [sample_scene(rng, pairs=0.5) for _ in range(24)]
    right = []
    for scene in scenes:
        (table,) = mark_clips(reader, caption(scene, rng), [render(scene)[0]])
        right += [mark["right"] for mark in table.values()]
        assert all(0 <= mark["confidence"] <= 1 for mark in table.values() if mark["confidence"] is not None)
    assert np.mean(right) > 0.95
    scene = Scene(shape="ball", colour="red", motion="left", background="night")
    first, second = mark_clips(
        reader, "a red ball at night", [render(scene)[0], render(replace(scene, colour="blue"))[0]]
    )
    assert first["colour"]["right"]
    assert not second["colour"]["right"]
    assert mark_clips(reader, "a red ball", []) == []
