"""What the measurements share: how many clips, of which model, and what a result can do."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from opensora_demo.catalog import ModelSpec
from opensora_demo.evaluation.adherence import clips_at
from opensora_demo.frames import to_frames, to_video
from opensora_demo.request.video import Frames
from opensora_demo.runtime.bundle import ModelBundle
from opensora_demo.sampling.config import SamplerConfig
from opensora_demo.toy.reader import Reader
from opensora_demo.toy.worlds import Scene, render

if TYPE_CHECKING:
    from opensora_demo.evaluation.study import Study

ATTRIBUTES = ("shape", "colour", "motion", "background")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many clips each measurement makes.

    adherence: at the default scale; unseen: likewise, all of combinations kept out of training; pairs and chinese: of
    two objects, and in Chinese. prompts: for each guidance scale.
    diverse, seeds: prompts made again from other noises, and how many clips of each that gives.
    negative: prompts for each open attribute, six clips each. speed: clips for each motion, speed and FPS.
    half: prompts, in float32 and in bfloat16. references: two clips each. codec: rendered clips. step_prompts: for each
    sampler and number of steps.
    """

    adherence: int = 512
    unseen: int = 256
    pairs: int = 128
    chinese: int = 128
    prompts: int = 96
    diverse: int = 16
    seeds: int = 4
    scales: tuple[float, ...] = (1, 1.5, 2, 3, 4, 5.5, 7, 10)
    negative: int = 48
    speed: int = 4
    rates: tuple[int, ...] = (4, 8, 12, 16, 24)
    half: int = 128
    references: int = 48
    flicker: int = 48
    codec: int = 128
    step_prompts: int = 48
    steps: tuple[int, ...] = (6, 8, 12, 16, 24, 30)
    fine_steps: int = 200
    photos: int = 8

    def times(self, share: float) -> Counts:
        """The same scales, rates and steps with a share of the clips, two at least (one for each direction)."""
        numbers = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("seeds", "fine_steps")}
        fewer: dict[str, Any] = {
            name: max(1 if name == "speed" else 2, round(share * value))
            for name, value in numbers.items()
            if isinstance(value, int)
        }
        return replace(self, **fewer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is measured, with what, and how often. `samplers` for the steps: the usual ones of the model without."""

    bundle: ModelBundle
    reader: Reader
    counts: Counts
    samplers: tuple[SamplerConfig, ...] = ()

    @property
    def spec(self) -> ModelSpec:
        return self.bundle.spec

    @property
    def fps(self) -> int:
        return int(self.spec.limits.fps.default)

    @property
    def scale(self) -> float:
        return float(self.spec.limits.guidance.default)

    def made(self, raw: Mapping[str, Any], reference: Frames | None = None) -> Frames:
        """The clip of a request at the default guidance."""
        return clips_at(self.bundle, raw, (self.scale,), reference)[self.scale]

    def drawn(self, scene: Scene) -> Frames:
        """A scene rendered as the model's clips are, (t, h, h, 3)."""
        return draw(self.spec, scene)[0]

    @torch.inference_mode()
    def round_trip(self, clip: Frames) -> Frames:
        """A clip (t, h, w, 3) encoded and decoded."""
        codec = self.bundle.codec
        latents = codec.encode(to_video(clip[None]).to(self.bundle.device))
        return np.concatenate([to_frames(part[0]) for part in codec.decode_chunks(latents, len(clip))])


class Measurement(ABC):
    """A result, a frozen dataclass of numbers; shares are in 0..1, and None is a number that could not be measured.

    Each is one part of study.json, under its `name`, and one chapter of the card.
    """

    __slots__ = ()
    name: ClassVar[str]
    picture: ClassVar[str] = ""
    of_prompts: ClassVar[bool] = True  # which a model of class labels cannot read
    of_instrument: ClassVar[bool] = False  # of what measures, rather than of the model

    @classmethod
    def applies(cls, spec: ModelSpec) -> bool:
        """Has the model what is measured?"""
        return not (cls.of_prompts and spec.labels)

    @classmethod
    @abstractmethod
    def measure(cls, setup: Setup) -> Self: ...

    def plot(self, file: Path) -> bool:
        """Draw the result into `file`; False where it has no picture. Raises ImportError without matplotlib."""
        return False

    @abstractmethod
    def chapter(self, spec: ModelSpec, study: Study, pictures: Sequence[str]) -> list[str]:
        """Markdown lines; `pictures` names those beside the card."""

    def limits(self, spec: ModelSpec, study: Study) -> list[str]:
        """What does not work, in sentences."""
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Share of objects whose shape, colour and motion are right, of clips with the right background (and arrangement,
    of two objects), of clips with all of that right, and of those among combinations never trained on."""

    shape: float
    colour: float
    motion: float
    background: float
    arrangement: float | None = None
    all_right: float
    all_right_unseen: float | None = None

    @classmethod
    def of(cls, row: Mapping[str, float]) -> Scores:
        """From a row of `adherence.score` or `adherence.adherence_table`."""
        whole = "everything" if "arrangement" in row else "all four"
        return cls(
            shape=row["shape"],
            colour=row["colour"],
            motion=row["motion"],
            background=row["background"],
            arrangement=row.get("arrangement"),
            all_right=row[whole],
            all_right_unseen=row.get(f"{whole}, unseen"),
        )

    @property
    def attributes(self) -> dict[str, float]:
        return {"shape": self.shape, "colour": self.colour, "motion": self.motion, "background": self.background}

    @property
    def weakest(self) -> str:
        """The attribute that is right least often."""
        shares = self.attributes
        return min(shares, key=shares.__getitem__)


def clip_size(spec: ModelSpec) -> tuple[int, int]:
    """(frames, side in px) of the clips to measure: the model's defaults. Raises ValueError where they are no squares,
    which is all that the renderer draws."""
    height_px, width_px = spec.limits.size_px
    if height_px != width_px:
        raise ValueError(f"{spec.id} makes clips of {height_px} x {width_px}; only squares can be measured")
    return spec.limits.default_frames, height_px


def draw(spec: ModelSpec, scene: Scene) -> tuple[Frames, NDArray[np.uint8]]:
    """A scene rendered as the model's clips are: frames (t, h, h, 3) and alpha (t, h, h), both uint8."""
    frames, size_px = clip_size(spec)
    return render(scene, frames, size_px)


def mean(values: Sequence[float | None]) -> float:
    """Of those that were measured and are finite; NaN of none."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return float(np.mean(finite)) if finite else math.nan


def median(values: Sequence[float]) -> float:
    """Of the finite ones; NaN of none."""
    finite = [value for value in values if math.isfinite(value)]
    return float(np.median(finite)) if finite else math.nan
