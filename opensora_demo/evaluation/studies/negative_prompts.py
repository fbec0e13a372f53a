"""Prompts that leave colour or background open, and a negative prompt that names what came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from opensora_demo.catalog import ModelSpec
from opensora_demo.evaluation.adherence import EVAL_SEED
from opensora_demo.evaluation.markdown import percent, table
from opensora_demo.evaluation.studies.base import Measurement, Setup, mean
from opensora_demo.request.video import Frames
from opensora_demo.toy.captions import BACKGROUND_PHRASES, COLOUR_WORDS, SHAPE_WORDS, caption
from opensora_demo.toy.reader import Reading, read_clips
from opensora_demo.toy.worlds import Scene, sample_scene

if TYPE_CHECKING:
    from opensora_demo.evaluation.study import Study

SEED = EVAL_SEED + 2
OPEN = ("colour", "background")
WAYS = {"without": "no negative prompt", "word": "the value's name", "caption": "a caption with it"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Share of clips that show the value named in the negative prompt, and of those that show the prompt's shape."""

    still_there: float | None
    shape: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """Without a negative prompt, with the value's bare name in it, and with a caption that has it."""

    without: Shown
    word: Shown
    caption: Shown

    def all(self) -> tuple[Shown, Shown, Shown]:
        return self.without, self.word, self.caption


@dataclass(frozen=True, slots=True, kw_only=True)
class Noises:
    """With the noise that brought the value, where it was always there without the negative prompt, and with another
    noise, which is the fair comparison ("without" is then the share of clips that show the value anyway)."""

    same_noise: Ways
    other_noise: Ways


@dataclass(frozen=True, slots=True, kw_only=True)
class NegativePrompts(Measurement):
    """`prompts` for each attribute that they leave open."""

    name: ClassVar[str] = "negative"
    prompts: int
    colour: Noises
    background: Noises

    @classmethod
    def measure(cls, setup: Setup) -> Self:
        prompts = setup.counts.negative
        return cls(
            prompts=prompts,
            colour=_forbidden(setup, prompts, "colour"),
            background=_forbidden(setup, prompts, "background"),
        )

    def chapter(self, spec: ModelSpec, study: Study, pictures: Sequence[str]) -> list[str]:
        rows = [
            (
                f"{attribute}, {noise}",
                *(percent(shown.still_there) for shown in ways.all()),
                *(percent(shown.shape) for shown in ways.all()),
            )
            for attribute, noises in (("colour", self.colour), ("background", self.background))
            for noise, ways in (("same noise", noises.same_noise), ("other noise", noises.other_noise))
        ]
        return [
            "## Negative prompts",
            "",
            f"{self.prompts} prompts each that leave colour or background open; the negative prompt names what came "
            "out without it. How often that is there, and how often the prompt's shape is. With the same noise it was "
            "there by choice of the value, so the other noise is the fair comparison.",
            "",
            *table(("", *WAYS.values(), *(f"shape: {name}" for name in WAYS.values())), rows),
        ]

    def limits(self, spec: ModelSpec, study: Study) -> list[str]:
        sentences = []
        for attribute, noises in (("colour", self.colour), ("background", self.background)):
            without, word, said = (percent(shown.still_there) for shown in noises.other_noise.all())
            sentences.append(
                f"A {attribute} named in the negative prompt is there in {word} (its name) or {said} (a "
                f"caption) of clips, against {without} without."
            )
        return sentences


def _without(text: str, phrases: Sequence[str]) -> str:
    """The text without these phrases, as words between single spaces."""
    words = f" {text.replace(',', ' ')} "
    for phrase in sorted(phrases, key=len, reverse=True):
        words = words.replace(f" {phrase} ", " ")
    return " ".join(words.split())


def open_caption(scene: Scene, rng: np.random.Generator, attribute: str) -> str:
    """A caption that leaves out `attribute` (one of OPEN) and says the other; the motion may be left out too."""
    while True:
        text = caption(scene, rng, omit=0.5)
        bare = " ".join(text.replace(",", " ").split())
        rest = _without(text, BACKGROUND_PHRASES[scene.background])  # a white background is no white object
        placed, coloured = rest != bare, _without(rest, COLOUR_WORDS[scene.colour]) != rest
        if (placed, coloured) == (attribute == "colour", attribute == "background"):
            return text


def negative_words(scene: Scene, attribute: str, value: str) -> dict[str, str]:
    """Two ways to forbid a value: a bare phrase, and a caption as the model was trained on."""
    shape = SHAPE_WORDS[scene.shape][0]
    if attribute == "colour":
        word = COLOUR_WORDS[value][0]
        return {"word": word, "caption": f"{'an' if word[0] in 'aeiou' else 'a'} {word} {shape}"}
    phrase = BACKGROUND_PHRASES[value][0]
    return {"word": phrase, "caption": f"a {shape} {phrase}"}


def _value(reading: Reading, attribute: str) -> str:
    return reading.background if attribute == "background" else reading.objects[0].colour


def _forbidden(setup: Setup, prompts: int, attribute: str) -> Noises:
    """What came of prompts that leave the attribute open, with and without its value in the negative prompt."""
    rng = np.random.default_rng((SEED, OPEN.index(attribute)))
    scenes: list[Scene] = []
    values: list[str] = []
    clips: dict[tuple[str, str], list[Frames]] = {(n, way): [] for n in ("same noise", "other noise") for way in WAYS}
    for index in range(prompts):
        scene = sample_scene(rng, held_out=None, fps=setup.fps)
        raw: dict[str, Any] = {"prompt": open_caption(scene, rng, attribute), "fps": scene.fps}
        if setup.spec.limits.refines:
            raw["refine"] = "off"  # the network is to choose the place, not the seed
        seeds = {"same noise": index, "other noise": prompts + index}
        first = setup.made(raw | {"seed": index})
        (reading,) = read_clips(setup.reader, [first])
        scenes.append(scene)
        values.append(_value(reading, attribute))
        clips["same noise", "without"].append(first)
        clips["other noise", "without"].append(setup.made(raw | {"seed": seeds["other noise"]}))
        for way, words in negative_words(scene, attribute, values[-1]).items():
            for noise, seed in seeds.items():
                clips[noise, way].append(setup.made(raw | {"seed": seed, "negative": words}))

    def shown(noise: str, way: str) -> Shown:
        readings = read_clips(setup.reader, clips[noise, way])
        return Shown(
            still_there=mean([_value(r, attribute) == value for r, value in zip(readings, values, strict=True)]),
            shape=mean([r.objects[0].shape == s.shape for r, s in zip(readings, scenes, strict=True)]),
        )

    def ways(noise: str) -> Ways:
        return Ways(without=shown(noise, "without"), word=shown(noise, "word"), caption=shown(noise, "caption"))

    return Noises(same_noise=ways("same noise"), other_noise=ways("other noise"))
