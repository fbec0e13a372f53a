"""The renderer draws what a scene says; the grammar says it in words that the tokenizer knows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from opensora_demo.bundle import ModelBundle
from opensora_demo.training.captions import caption, vocabulary
from opensora_demo.training.worlds import (
    BACKGROUNDS,
    COLOURS,
    COLOURS_RGB,
    FPS_CHOICES,
    MOTIONS,
    SHAPES,
    SPEED_PX_S,
    Scene,
    is_held_out,
    path,
    render,
    sample_scene,
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


def test_captions_name_everything_in_known_words(nano: ModelBundle) -> None:
    rng = np.random.default_rng(1)
    prompts = [caption(sample_scene(rng), rng) for _ in range(500)]
    _, lengths, unknown, cut = nano.family.text.tokenize(prompts)
    assert not any(unknown)
    assert max(cut) == 0
    assert int(lengths.max()) <= 32
    assert len(set(prompts)) > 495
    assert len(vocabulary()) > 250


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("A RED Ball!", ("!",)),
        ("a red ball, at night.", ()),
        ("two dragons", ("two", "dragons")),
        ("\u7ea2\u7403", ("\u7ea2\u7403",)),
    ],
)
def test_words_that_are_not_known(nano: ModelBundle, prompt: str, expected: tuple[str, ...]) -> None:
    assert nano.family.text.tokenize([prompt])[2] == (expected,)
