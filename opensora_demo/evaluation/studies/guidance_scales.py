"""Adherence, diversity and colour at each guidance scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from opensora_demo.catalog import ModelSpec
from opensora_demo.evaluation import plots
from opensora_demo.evaluation.adherence import Trial, adherence_table, clips_at, run_trials
from opensora_demo.evaluation.markdown import margin, number, percent, picture, ratio, table
from opensora_demo.evaluation.studies.base import ATTRIBUTES, Measurement, Scores, Setup, mean
from opensora_demo.metrics import pairwise_rms
from opensora_demo.request.video import Frames
from opensora_demo.toy.reader import Detection, Reader, at_reading_size, read_clips
from opensora_demo.toy.worlds import is_held_out

if TYPE_CHECKING:
    from opensora_demo.evaluation.study import Study


@dataclass(frozen=True, slots=True, kw_only=True)
class Colours:
    """Of a clip's pixels, all in 0..1. saturation: mean of HSV's S, which dark noise raises too; chroma: mean distance
    of the largest from the smallest channel, which it does not; contrast: standard deviation of the brightness;
    clipped: share of values at either end of the range."""

    saturation: float
    chroma: float
    contrast: float
    clipped: float

    @classmethod
    def of(cls, clip: Frames) -> Colours:
        values = clip.astype(np.float32) / 255
        high, low = values.max(-1), values.min(-1)
        brightness = values @ np.array([0.299, 0.587, 0.114], np.float32)  # Rec. 601
        return cls(
            saturation=float(np.mean((high - low) / np.maximum(high, 1e-6))),
            chroma=float(np.mean(high - low)),
            contrast=float(brightness.std()),
            clipped=float(np.mean((clip == 0) | (clip == 255))),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Mean distances between clips of one prompt from several noises: diversity, RMS over pixels in 0..1; track, of
    the objects' centres in px."""

    diversity: float | None
    track: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AtScale:
    scale: float
    scores: Scores
    spread: Spread
    colours: Colours


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """What the renderer gives: the distances between scenes that the same words describe, the colours of the same
    scenes."""

    spread: Spread
    colours: Colours


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidanceStudy(Measurement):
    """All scales of a prompt share their noise. `unseen` of the prompts are of combinations kept out of training; the
    first `diverse` are made from `seeds` noises."""

    name: ClassVar[str] = "guidance"
    picture: ClassVar[str] = "guidance.png"
    prompts: int
    unseen: int
    diverse: int
    seeds: int
    scales: tuple[AtScale, ...]
    rendered: Rendered

    @classmethod
    def measure(cls, setup: Setup) -> Self:
        counts, span = setup.counts, setup.spec.limits.guidance
        scales = [float(s) for s in counts.scales if span.low <= s <= span.high]
        trials = list(run_trials(setup.bundle, counts.prompts, scales))
        scores = adherence_table(setup.reader, trials)
        groups, drawn = _from_other_noises(setup, trials[: counts.diverse], scales)
        return cls(
            prompts=counts.prompts,
            unseen=sum(is_held_out(t.scene) for t in trials),
            diverse=min(counts.diverse, counts.prompts),
            seeds=counts.seeds,
            scales=tuple(
                AtScale(
                    scale=s,
                    scores=Scores.of(scores[f"{s:g}"]),
                    spread=_spread(setup.reader, groups[s]),
                    colours=_colours([t.clips[s] for t in trials]),
                )
                for s in scales
            ),
            rendered=Rendered(
                spread=_spread(setup.reader, drawn), colours=_colours([setup.drawn(t.scene) for t in trials])
            ),
        )

    def chapter(self, spec: ModelSpec, study: Study, pictures: Sequence[str]) -> list[str]:
        shares = (*ATTRIBUTES, "all four", "all four, unseen")
        head = ("guidance", *shares, "diversity", "track, px", "saturation", "chroma", "contrast", "clipped")
        rows = [
            (
                f"{row.scale:g}",
                *map(percent, (*row.scores.attributes.values(), row.scores.all_right, row.scores.all_right_unseen)),
                *_numbers(row.spread, row.colours),
            )
            for row in self.scales
        ]
        rows.append(("rendered", *("" for _ in shares), *_numbers(self.rendered.spread, self.rendered.colours)))
        return [
            "## Guidance",
            "",
            f"The default is {spec.limits.guidance.default:g}. {self.prompts} prompts that training never saw, the "
            "same noise at every scale; shares are uncertain by "
            f"{margin(self.prompts)} points (95 %). Unseen: the {self.unseen} of them whose combination of shape, "
            "colour and motion was kept out of training.",
            f"Diversity is the mean RMS distance (0..1) between clips of one prompt from {self.seeds} noises, over "
            f"{self.diverse} prompts, track the same of the object's position; rendered is the same of training's "
            "renderer.",
            "",
            *table(head, rows),
            *picture("Adherence, diversity and saturation over guidance", self.picture, pictures),
        ]

    def limits(self, spec: ModelSpec, study: Study) -> list[str]:
        default = [row for row in self.scales if row.scale == spec.limits.guidance.default]
        return [
            f"Clips of one prompt are {number(ratio(row.spread.diversity, self.rendered.spread.diversity))} "
            "times as far apart as rendered ones of the same words."
            for row in default
        ]

    def plot(self, file: Path) -> bool:
        """Adherence, diversity and saturation over the scale."""
        scales = [row.scale for row in self.scales]
        with plots.figure(file, (1.5, 1, 1)) as (left, middle, right):
            ends = []
            for name, colour in (
                ("all four", plots.BLUE),
                ("motion", plots.PURPLE),
                ("shape", plots.ORANGE),
                ("colour", plots.SKY),
                ("background", plots.GREEN),
            ):
                wide = name == "all four"  # below the others, and seen where one of them covers it
                shares = [row.scores.all_right if wide else row.scores.attributes[name] for row in self.scales]
                values = [100 * share for share in shares]
                width, size = (3.2, 6.0) if wide else (1.4, 3.5)
                left.plot(scales, values, "o-", color=colour, linewidth=width, markersize=size)
                ends.append((name, values[-1], colour))
            left.set_title("right, % of clips")
            left.set_ylim(min(*left.get_ylim(), 80), 102)
            plots.label_ends(left, ends)
            for axes, title, values, drawn in (
                (
                    middle,
                    "diversity (RMS distance)",
                    plots.column([row.spread.diversity for row in self.scales]),
                    self.rendered.spread.diversity,
                ),
                (
                    right,
                    "saturation",
                    [row.colours.saturation for row in self.scales],
                    self.rendered.colours.saturation,
                ),
            ):
                axes.plot(scales, values, "o-", color=plots.BLUE)
                axes.set_title(title)
                ends = [("model", values[-1], plots.BLUE)]
                if drawn is not None:
                    axes.axhline(drawn, color=plots.GREY, linestyle="--", linewidth=1.2)
                    ends.append(("rendered", drawn, plots.GREY))
                plots.not_too_close(axes)
                plots.label_ends(axes, ends)
            for axes in (left, middle, right):
                axes.set_xlabel("guidance scale")
                plots.ticks(axes, [s for s in scales if s == int(s)])
        return True


def track_distance(a: Detection, b: Detection) -> float:
    """RMS distance of two objects' centres over the frames in which both are seen, px; NaN where there is none."""
    squares = np.sum((a.centre_px - b.centre_px) ** 2, 1)
    return float(np.sqrt(np.nanmean(squares))) if np.isfinite(squares).any() else math.nan


def _from_other_noises(
    setup: Setup, trials: Sequence[Trial], scales: Sequence[float]
) -> tuple[dict[float, list[list[Frames]]], list[list[Frames]]]:
    """Of each scale the clips of each prompt, from as many noises as `Counts.seeds`; and as many rendered ones."""
    counts = setup.counts
    groups: dict[float, list[list[Frames]]] = {s: [] for s in scales}
    drawn: list[list[Frames]] = []
    for trial in trials:
        raw = {"prompt": trial.prompt, "fps": trial.scene.fps}
        more = [clips_at(setup.bundle, raw | {"seed": counts.prompts + k}, scales) for k in range(1, counts.seeds)]
        for s in scales:
            groups[s].append([trial.clips[s], *(clips[s] for clips in more)])
        drawn.append([setup.drawn(replace(trial.scene, seed=trial.scene.seed + k)) for k in range(counts.seeds)])
    return groups, drawn


def _spread(reader: Reader, clips_of_prompts: Sequence[Sequence[Frames]]) -> Spread:
    tracks: list[float] = []
    for clips in clips_of_prompts:
        seen = [reading.objects[0] for reading in read_clips(reader, clips)]
        tracks += [track_distance(a, b) for a, b in combinations(seen, 2)]
    pixels = [pairwise_rms([at_reading_size(c) for c in clips]) for clips in clips_of_prompts]
    return Spread(diversity=mean(pixels), track=mean(tracks))


def _colours(clips: Sequence[Frames]) -> Colours:
    """Means over the clips."""
    each = [Colours.of(at_reading_size(c)) for c in clips]
    return Colours(
        saturation=mean([c.saturation for c in each]),
        chroma=mean([c.chroma for c in each]),
        contrast=mean([c.contrast for c in each]),
        clipped=mean([c.clipped for c in each]),
    )


def _numbers(spread: Spread, colours: Colours) -> list[str]:
    shown = (colours.saturation, colours.chroma, colours.contrast, colours.clipped)
    return [number(spread.diversity, 3), number(spread.track, 1), *(number(value, 3) for value in shown)]
