"""Speed of straight motions at each frame rate, against what the words meant in training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from opensora_demo.catalog import ModelSpec
from opensora_demo.evaluation import plots
from opensora_demo.evaluation.adherence import EVAL_SEED, clips_at
from opensora_demo.evaluation.markdown import number, percent, picture, ratio, table
from opensora_demo.evaluation.studies.base import Measurement, Setup, mean, median
from opensora_demo.request.video import Frames
from opensora_demo.toy.captions import caption
from opensora_demo.toy.reader import Detection, Reader, read_clips
from opensora_demo.toy.worlds import SIZE_PX, SPEED_PX_S, SPEEDS, Scene, sample_scene

if TYPE_CHECKING:
    from opensora_demo.evaluation.study import Study

SEED = EVAL_SEED + 3
STRAIGHT = {"left": (0, -1), "right": (0, 1), "up": (1, -1), "down": (1, 1)}  # motion -> axis (x, y) and sign


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Mean, median and standard deviation, px a second, over the clips that move the way they were asked to,
    `right_way` of the `measured`, so that a wrong direction does not pass for a wrong speed; `ratio` is of the mean to
    what the word means. `mean_of_all` has the others too, with their sign."""

    mean: float | None
    median: float | None
    std: float | None
    ratio: float | None
    mean_of_all: float | None
    right_way: int
    measured: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedsAtRate:
    """Of one FPS: the speeds by word, of generated and of rendered clips, and means over the words of their ratios;
    `unguided_ratio` is that of the same clips at guidance 1."""

    fps: int
    generated: dict[str, Speed]
    rendered: dict[str, Speed]
    ratio: float | None
    ratio_of_medians: float | None
    rendered_ratio: float | None
    unguided_ratio: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedStudy(Measurement):
    """`clips` for each speed word and FPS, their words' speeds in training (`nominal`, px a second).

    A model that is not told the FPS is measured at its own. The rendered clips are the renderer's: how far their ratio
    is from 1 is the measurement's own error.
    """

    name: ClassVar[str] = "fps"
    picture: ClassVar[str] = "fps.png"
    clips: int
    knows_fps: bool
    nominal: dict[str, float]
    rates: tuple[SpeedsAtRate, ...]

    @classmethod
    def measure(cls, setup: Setup) -> Self:
        rng = np.random.default_rng(SEED)
        bases = [
            replace(sample_scene(rng, held_out=None), motion=motion, size=str(rng.choice(("small", "medium"))))
            for motion in STRAIGHT
            for _ in range(setup.counts.speed)
        ]
        return cls(
            clips=len(bases),
            knows_fps=knows_fps(setup.spec),
            nominal=dict(SPEED_PX_S),
            rates=tuple(_at_rate(setup, bases, fps) for fps in rates_of(setup.spec, setup.counts.rates)),
        )

    def chapter(self, spec: ModelSpec, study: Study, pictures: Sequence[str]) -> list[str]:
        plain = any(rate.unguided_ratio is not None for rate in self.rates)  # a study of before has not looked
        head = (
            "FPS",
            *(f"{word} ({speed:g} px/s)" for word, speed in self.nominal.items()),
            "ratio",
            *(("at guidance 1",) if plain else ()),
            "rendered",
            "right way",
        )
        rows = [
            (
                str(rate.fps),
                *(
                    f"{number(rate.generated[word].mean, 1)} (median {number(rate.generated[word].median, 1)})"
                    for word in self.nominal
                ),
                number(rate.ratio),
                *((number(rate.unguided_ratio),) if plain else ()),
                number(rate.rendered_ratio),
                _right_way([rate.generated[word] for word in self.nominal]),
            )
            for rate in self.rates
        ]
        own = "" if self.knows_fps else "This model is not told the frame rate; it is measured at its own. "
        guided = "What is more at the default guidance than at 1 is guidance's doing. " if plain else ""
        return [
            "## Speed and FPS",
            "",
            f"Speed of straight motions, px (64ths of the side) a second, against what the words meant in training. "
            f"{own}Means and medians are of clips that move the way they were asked to (right way, of those that show "
            f"the object long enough). {guided}Rendered is the ratio of the renderer's own clips: how far it is from 1 "
            "is the error of measuring.",
            "",
            *table(head, rows),
            *picture("Measured speed over FPS", self.picture, pictures),
        ]

    def limits(self, spec: ModelSpec, study: Study) -> list[str]:
        sentences = []
        ratios = {rate.fps: rate.ratio for rate in self.rates if rate.ratio is not None}
        if ratios:
            low, high = min(ratios, key=ratios.__getitem__), max(ratios, key=ratios.__getitem__)
            span = f"{number(ratios[low])} (at {low} FPS) to {number(ratios[high])} (at {high} FPS)"
            sentences.append(f"Speed is {span if low != high else number(ratios[low])} times what the words mean.")
        if not self.knows_fps:
            sentences.append(
                "The frame rate is not told to the model; another rate plays the same frames faster or slower."
            )
        return sentences

    def plot(self, file: Path) -> bool:
        """Measured speed over FPS for each speed word; dashed: what the word meant in training."""
        if len(self.rates) < 2:
            return False
        rates = [rate.fps for rate in self.rates]
        with plots.figure(file, (1.25, 1)) as (left, right):
            ends = []
            colours = (plots.GREEN, plots.BLUE, plots.ORANGE)
            for word, colour, aside in zip(SPEEDS, colours, (-0.15, 0.0, 0.15), strict=True):
                speeds = [rate.generated[word] for rate in self.rates]
                nominal, means = self.nominal[word], plots.column([s.mean for s in speeds])
                left.axhline(nominal, color=colour, linestyle="--", linewidth=1)
                beside = [r + aside for r in rates]  # so that bars do not cover each other
                bars = plots.column([s.std for s in speeds])
                left.errorbar(beside, means, bars, fmt="o-", color=colour, elinewidth=1, capsize=2)
                ends.append((f"{word} ({nominal:g})", nominal, colour))
            left.set_title("speed, px a second, with standard deviation")
            left.set_ylim(0, max(1.3 * max(self.nominal.values()), 1.05 * left.dataLim.y1))
            plots.label_ends(left, ends)
            ends = []
            for name, ratios, colour in (
                ("model", [rate.ratio for rate in self.rates], plots.BLUE),
                ("at guidance 1", [rate.unguided_ratio for rate in self.rates], plots.ORANGE),
                ("rendered", [rate.rendered_ratio for rate in self.rates], plots.GREY),
            ):
                if not any(ratios):  # a study of before
                    continue
                values = plots.column(ratios)
                right.plot(rates, values, "o-", color=colour)
                ends.append((name, values[-1], colour))
            right.axhline(1, color=plots.GREY, linestyle="--", linewidth=1)
            right.set_title("measured / asked, mean of three speeds")
            right.set_ylim(0, max(1.2, *right.get_ylim()))
            plots.label_ends(right, ends)
            for axes in (left, right):
                axes.set_xlabel("frames a second")
                plots.ticks(axes, rates)
        return True


def knows_fps(spec: ModelSpec) -> bool:
    """Does the network learn the frame rate? 1.0 has no place for it."""
    return spec.limits.fps.low < spec.limits.fps.high and spec.network.reads_fps


def rates_of(spec: ModelSpec, rates: Sequence[int]) -> list[int]:
    """Those of the rates that the model accepts; its own where it is not told the rate."""
    span = spec.limits.fps
    return [r for r in rates if span.low <= r <= span.high] if knows_fps(spec) else [int(span.default)]


def straight_speed(seen: Detection, motion: str, fps: float) -> float:
    """Speed along a straight motion, px a second, negative the other way; NaN where fewer than three frames show the
    whole object.

    The middle one of all slopes between two frames (Theil, 1950; Sen, 1968), so that a bad frame changes nothing. A
    mask cut off by the frame's edge has its centre too far inside: frames in which more than the tip of a star, a
    triangle or a diamond may be cut off are left out.
    """
    axis, sign = STRAIGHT[motion]
    at = seen.centre_px[:, axis]
    if not np.isfinite(at).any():
        return math.nan
    radius = SIZE_PX * math.sqrt(float(seen.area.max()) / math.pi)
    margin = 1.2 * radius + 1
    inside = np.flatnonzero(np.abs(np.nan_to_num(at, nan=-SIZE_PX) - SIZE_PX / 2) < SIZE_PX / 2 - margin)
    runs = np.split(inside, np.flatnonzero(np.diff(inside) > 1) + 1)
    frames = max(runs, key=len)  # what is taken for the object once it has left is another run
    if len(frames) < 3:
        return math.nan
    i, j = np.triu_indices(len(frames), 1)
    slopes = (at[frames[j]] - at[frames[i]]) / (frames[j] - frames[i])
    return sign * float(np.median(slopes)) * fps


def speeds_of(reader: Reader, clips: Sequence[Frames], scenes: Sequence[Scene]) -> list[float]:
    """Measured speed of each clip along its scene's motion, px a second; NaN where it cannot be told or the reader
    sees two objects."""
    readings = read_clips(reader, clips)
    return [
        straight_speed(r.objects[0], s.motion, s.fps) if len(r.objects) == 1 else math.nan
        for r, s in zip(readings, scenes, strict=True)
    ]


def _at_rate(setup: Setup, bases: Sequence[Scene], fps: int) -> SpeedsAtRate:
    generated: dict[str, Speed] = {}
    unguided: dict[str, Speed] = {}
    scales = tuple(dict.fromkeys((1.0, setup.scale)))
    rendered: dict[str, Speed] = {}
    for word, nominal in SPEED_PX_S.items():
        scenes = [replace(s, speed=word, fps=fps) for s in bases]
        clips, plain, drawn = [], [], []
        for index, scene in enumerate(scenes):
            prompt = caption(scene, np.random.default_rng((SEED, index)))
            made = clips_at(setup.bundle, {"prompt": prompt, "fps": fps, "seed": index}, scales)
            clips.append(made[setup.scale])
            plain.append(made[1.0])
            drawn.append(setup.drawn(scene))
        generated[word] = _speed(speeds_of(setup.reader, clips, scenes), nominal)
        unguided[word] = _speed(speeds_of(setup.reader, plain, scenes), nominal)
        rendered[word] = _speed(speeds_of(setup.reader, drawn, scenes), nominal)
    return SpeedsAtRate(
        fps=fps,
        generated=generated,
        rendered=rendered,
        ratio=mean([speed.ratio for speed in generated.values()]),
        ratio_of_medians=mean([ratio(generated[word].median, nominal) for word, nominal in SPEED_PX_S.items()]),
        rendered_ratio=mean([speed.ratio for speed in rendered.values()]),
        unguided_ratio=mean([speed.ratio for speed in unguided.values()]),
    )


def _speed(speeds: Sequence[float], nominal: float) -> Speed:
    finite = [v for v in speeds if math.isfinite(v)]
    forward = [v for v in finite if v > 0]
    return Speed(
        mean=mean(forward),
        median=median(forward),
        std=float(np.std(forward)) if forward else math.nan,
        ratio=mean(forward) / nominal,
        mean_of_all=mean(finite),
        right_way=len(forward),
        measured=len(finite),
    )


def _right_way(speeds: Sequence[Speed]) -> str:
    measured = sum(speed.measured for speed in speeds)
    return f"{percent(ratio(sum(speed.right_way for speed in speeds), measured))} of {measured}"
