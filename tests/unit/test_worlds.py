"""The renderer draws what a scene says; the grammar says it in words that the tokenizer knows."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
from tokenizers import Tokenizer

from opensora_demo.runtime.bundle import ModelBundle
from opensora_demo.toy import captions_zh
from opensora_demo.toy.captions import (
    RELATION_PHRASES,
    build_tokenizer,
    caption,
    look_alikes,
    plural,
    vocabulary,
)
from opensora_demo.toy.worlds import (
    BACKGROUNDS,
    COLOURS,
    COLOURS_RGB,
    FPS_CHOICES,
    MOTIONS,
    MOTIONS_IN_ROOM,
    SHAPES,
    SPEED_PX_S,
    Scene,
    is_held_out,
    path,
    render,
    render_objects,
    sample_scene,
    scene_from,
)

BASE = Scene(shape="ball", colour="red", motion="right", background="black", seed=4)


def centres(scene: Scene) -> np.ndarray:
    _, mask = render(scene)
    weight = mask.astype(float)
    axis = np.arange(64) + 0.5
    return (
        np.stack([(weight * axis).sum((1, 2)), (weight * axis[:, None]).sum((1, 2))], 1) / weight.sum((1, 2))[:, None]
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_every_shape_on_every_background(shape: str, background: str) -> None:
    clip, mask = render(replace(BASE, shape=shape, background=background, motion="spin"))
    assert clip.shape == (17, 64, 64, 3)
    assert clip.dtype == mask.dtype == np.uint8
    assert mask[0].max() == 255
    assert 60 < (mask[0] > 127).sum() < 900


@pytest.mark.parametrize("colour", COLOURS)
def test_objects_have_their_colour(colour: str) -> None:
    clip, mask = render(replace(BASE, colour=colour, shape="square", motion="still"))
    mean = clip[0][mask[0] == 255].mean(0)
    nearest = min(COLOURS_RGB, key=lambda c: float(np.abs(mean - COLOURS_RGB[c]).sum()))
    assert nearest == colour


@pytest.mark.parametrize(("motion", "axis", "sign"), [("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1)])
@pytest.mark.parametrize("fps", FPS_CHOICES)
def test_speed_in_px_per_second_is_the_same_at_every_frame_rate(motion: str, axis: int, sign: int, fps: int) -> None:
    track = path(replace(BASE, motion=motion, fps=fps, speed="slow")).centre_px
    speed = sign * np.diff(track[:, axis]) * fps
    assert speed == pytest.approx(SPEED_PX_S["slow"], rel=0.07)
    assert np.ptp(track[:, 1 - axis]) == 0


def test_masks_follow_the_path() -> None:
    for seed in range(5):
        scene = replace(BASE, seed=seed, motion="circle", speed="fast")
        np.testing.assert_allclose(centres(scene), path(scene).centre_px, atol=0.6)


def test_growing_grows_and_shrinking_shrinks() -> None:
    for seed in range(5):
        area = {
            m: (render(replace(BASE, motion=m, seed=seed))[1] > 127).sum((1, 2)) for m in ("grow", "shrink", "still")
        }
        assert area["grow"][-1] > 1.3 * area["grow"][0]
        assert area["shrink"][-1] < 0.8 * area["shrink"][0]
        assert np.ptp(area["still"]) == 0


def test_backgrounds_stand_still() -> None:
    clip, mask = render(replace(BASE, background="night", motion="left"))
    near = np.zeros((64, 64), bool)
    ys, xs = np.nonzero(mask.max(0))
    near[max(ys.min() - 9, 0) : ys.max() + 9, max(xs.min() - 9, 0) : xs.max() + 9] = True  # the object and its shadow
    assert (clip[:, ~near] == clip[0][~near]).all()


def test_a_scene_is_a_pure_function() -> None:
    scene = sample_scene(np.random.default_rng(0))
    assert np.array_equal(render(scene)[0], render(scene)[0])
    assert not np.array_equal(render(scene)[0], render(replace(scene, seed=scene.seed + 1))[0])


def test_some_frames_are_those_of_the_whole_clip() -> None:
    scene = sample_scene(np.random.default_rng(5), pairs=1.0)
    clip, masks = render(scene)
    some, theirs = render(scene, only=(2, 11))
    assert np.array_equal(some, clip[[2, 11]])
    assert np.array_equal(theirs, masks[[2, 11]])


def test_edges_are_anti_aliased() -> None:
    mask = render(BASE)[1][0]
    assert ((mask > 20) & (mask < 235)).sum() > 15


def test_a_tenth_of_the_triples_is_never_drawn_for_training() -> None:
    triples = [replace(BASE, shape=s, colour=c, motion=m) for s in SHAPES for c in COLOURS for m in MOTIONS]
    share = np.mean([is_held_out(t) for t in triples])
    assert 0.08 < share < 0.12
    rng = np.random.default_rng(0)
    assert not any(is_held_out(sample_scene(rng)) for _ in range(300))
    assert all(is_held_out(sample_scene(rng, held_out=True)) for _ in range(50))


def pairs(count: int, seed: int = 0) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [sample_scene(rng, pairs=1.0) for _ in range(count)]


def test_two_objects_keep_to_their_halves() -> None:
    for scene in pairs(20):
        clip, masks = render_objects(scene)
        assert masks.shape == (2, *clip.shape[:3])
        axis = 2 if scene.arrangement == "side by side" else 1
        near = masks.sum((1, 3 if axis == 1 else 2), dtype=np.int64)  # (2, 64) along the axis that divides them
        assert near[0, :32].sum() > 0.93 * near[0].sum() > 0
        assert near[1, 32:].sum() > 0.93 * near[1].sum() > 0
        assert np.array_equal(render(scene)[1], masks.max(0))


def test_the_left_or_upper_object_comes_first() -> None:
    for scene in pairs(40):
        first, second = scene.objects
        assert (first.room, second.room) in (("left", "right"), ("top", "bottom"))
        assert first.companion is second.companion is None
        assert first.background == second.background == scene.background
        assert first.fps == second.fps == scene.fps
        assert all(o.motion in MOTIONS_IN_ROOM[o.room] for o in (first, second))
    assert BASE.objects == (BASE,)
    assert BASE.arrangement == "alone"


def test_a_companion_is_in_the_other_half() -> None:
    with pytest.raises(ValueError, match="cannot be in 'top'"):
        replace(BASE, room="left", companion=replace(BASE, room="top"))
    with pytest.raises(ValueError, match="room 'all'"):
        replace(BASE, companion=BASE)


def test_scenes_survive_json() -> None:
    for scene in [BASE, *pairs(5)]:
        assert scene_from(json.loads(json.dumps(asdict(scene)))) == scene


def test_neither_of_two_objects_is_a_triple_held_out() -> None:
    rng = np.random.default_rng(3)
    assert not any(is_held_out(o) for _ in range(200) for o in sample_scene(rng, pairs=1.0).objects)
    assert all(any(map(is_held_out, sample_scene(rng, held_out=True, pairs=1.0).objects)) for _ in range(30))


def test_the_share_of_pairs_leaves_single_scenes_as_they_were() -> None:
    assert sample_scene(np.random.default_rng(5)) == sample_scene(np.random.default_rng(5), pairs=0.0)
    rng = np.random.default_rng(1)
    share = np.mean([sample_scene(rng, pairs=0.25).companion is not None for _ in range(600)])
    assert 0.2 < share < 0.3


def test_captions_say_who_is_where() -> None:
    ball = replace(BASE, shape="ball", colour="red", motion="still", room="left")
    star = replace(BASE, shape="star", colour="blue", motion="still", room="right")
    scene, rng = replace(ball, companion=star), np.random.default_rng(0)
    for _ in range(200):
        text = caption(scene, rng)
        places = [(text.find(phrase), room) for room in ("left", "right") for phrase in RELATION_PHRASES[room]]
        found = [(at, room) for at, room in places if at >= 0]
        if found:
            ball_at = re.search(r"\b(red|crimson|scarlet|ruby|cherry)\b", text)
            assert ball_at is not None
            at, room = min(found)
            assert (ball_at.start() < at) == (room == "left"), text
        else:
            assert " left" in text
            assert " right" in text


def test_plural_captions_are_said_of_twins_only() -> None:
    for scene in pairs(300, seed=4):
        text = caption(scene, np.random.default_rng(0))
        first, second = scene.objects
        if text.startswith("two "):
            assert first.triple == second.triple
    assert plural("box") == "boxes"
    assert plural("valentine") == "valentines"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    build_tokenizer(str(file))
    return Tokenizer.from_file(str(file))


@pytest.mark.parametrize(("share_of_pairs", "chinese"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_the_tokenizer_knows_every_caption(tokenizer: Tokenizer, share_of_pairs: float, chinese: float) -> None:
    rng = np.random.default_rng(2)
    for _ in range(400):
        text = caption(sample_scene(rng, pairs=share_of_pairs), rng, omit=0.1, chinese=chinese)
        ids = tokenizer.encode(text).ids
        assert 2 not in ids, text
        assert len(ids) < 60, text


@pytest.mark.parametrize(
    "prompt",
    [
        "A red ball moves to the left.",
        "two red balls bouncing side by side at night",
        "a ball of red colour, a ball of red color",
        "show me a very big golden star that spins quickly with a sunset in the background",
        "a blue coloured box on the left and a pink colored heart on the right",
        "travelling or traveling around the centre or the center",
        "一个红色的小球在夜空中向左移动。",
        "左边一个蓝色的星星旋转，右边一个绿色的方块弹跳",
    ],
)
def test_ordinary_phrasing_is_known(tokenizer: Tokenizer, prompt: str) -> None:
    tokens = tokenizer.encode(prompt).tokens
    assert set(tokens) & {"<unk>", "or"} <= ({"<unk>"} if " or " in prompt else set())


def test_chinese_is_read_by_the_character(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("红球").tokens == ["红", "球"]
    assert tokenizer.encode("red红球ball").tokens == ["red", "红", "球", "ball"]


def test_new_words_start_from_words_that_the_grammar_has() -> None:
    known = set(vocabulary())
    assert all(new in known and old in known for new, old in look_alikes().items())
    assert set("红蓝左右球星") <= set(captions_zh.MEANINGS)


def test_captions_name_everything_in_known_words(nano: ModelBundle) -> None:
    rng = np.random.default_rng(1)
    prompts = [caption(sample_scene(rng), rng) for _ in range(500)]
    _, lengths, unknown, cut = nano.family.text.tokenize(prompts)
    assert not any(unknown)
    assert max(cut) == 0
    assert int(lengths.max()) <= 48
    assert len(set(prompts)) > 495
    assert len(vocabulary()) > 250


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("A RED Ball!", ("!",)),
        ("a red ball, at night.", ()),
        ("two dragons", ("dragons",)),
        ("\u7ea2\u7403", ()),
        ("\u7ea2\u9f99", ("\u9f99",)),
    ],
)
def test_words_that_are_not_known(nano: ModelBundle, prompt: str, expected: tuple[str, ...]) -> None:
    assert nano.family.text.tokenize([prompt])[2] == (expected,)
