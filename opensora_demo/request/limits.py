"""What one model accepts: ranges, sizes, guidance rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

MAX_SEED = 2**32 - 1


MAX_COMPARED = 6

MAX_TOTAL_FRAMES = 1200  # of a clip of several scenes, all held until it is written


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """An inclusive range of numbers and where a control starts."""

    low: float
    high: float
    default: float
    step: float = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A picture size by the names of its number of pixels and of its shape, width to height: "480p", "16:9"."""

    resolution: str
    aspect: str
    height_px: int
    width_px: int


Rule = Literal[
    "plain", "interval", "oscillating", "rescale", "apg", "cfg-zero", "mambo-g", "tcfg", "fdg", "skip-layer",
    "autoguidance",
]  # fmt: skip
"""How a guidance scale is applied (formulas and sources in `sampling.guidance` and `sampling.bends`).

plain: the same at every step; interval: at middle noise only; oscillating: full for ten steps, then at every other one
(1.3 and 2.0); rescale: the spread drawn back to the prompt's; apg: without the part along the clean estimate, and no
longer than a limit; cfg-zero: from the null branch at its best length; mambo-g: damped where the branches are far
apart; tcfg: without what only the null branch says; fdg: coarse structure half as hard as detail; skip-layer: away
from the network with a layer left out too; autoguidance: away from a weaker model instead of from the null prompt.
"""

ALL_RULES: tuple[Rule, ...] = get_args(Rule)

RULES = tuple(rule for rule in ALL_RULES if rule != "autoguidance")  # that one needs a weaker model

DIFFUSION_RULES = tuple(rule for rule in RULES if rule != "cfg-zero")  # that one is about flows

VideoUse = Literal["extend", "head", "tail"]
"""What of a given video the clip keeps. extend: its end, and the clip follows the whole video; head: its first frames;
tail: its last frames."""

VIDEO_USES: tuple[VideoUse, ...] = get_args(VideoUse)

Refinement = Literal["seed", "off"]
"""What becomes of a prompt that names no place. seed: the seed draws one (`toy.place`); off: it stays as typed."""

REFINEMENTS: tuple[Refinement, ...] = get_args(Refinement)

StepCaching = Literal["off", "mild", "strong"]
"""Whether steps take the prediction of the step before where it would hardly change (`sampling.step_cache`)."""

STEP_CACHINGS: tuple[StepCaching, ...] = get_args(StepCaching)

LINEAR_RULES: tuple[Rule, ...] = ("plain", "interval", "oscillating", "skip-layer", "autoguidance")
"""A weighted sum of branches."""

FRAME_RULES: tuple[Rule, ...] = (*LINEAR_RULES, "fdg")
"""Rules that work with given frames: what they do to one frame does not depend on the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one model accepts. The page's controls, the API's checks and `parse_request` all read this."""

    steps: Range
    guidance: Range
    fps: Range
    frames: tuple[int, ...]
    default_frames: int
    sizes: tuple[Size, ...]  # every resolution in every aspect; the first is the default
    prompt_chars: int = 4000  # 512 tokens of T5 are about 2500; what is beyond a model's tokens is cut, and said
    reference: bool = True  # a first frame may be given
    last_frame: bool = False  # a last frame may be given, alone or with the first (both the same: a loop)
    video_uses: tuple[VideoUse, ...] = ()  # of a given video; the first is the default; none takes no video
    video_frames: tuple[int, ...] = ()  # how many frames of it may be kept; the first is the default
    scenes: int = 1  # the most that a clip has, each going on from `video_frames` of the one before
    edit: bool = False  # given frames may be kept in part
    rules: tuple[Rule, ...] = RULES  # the first is the default
    image_guidance: Range | None = None
    motion_score: Range | None = None
    refines: bool = False  # a place may be drawn for a prompt that names none, of which training had next to none
    caches_steps: bool = False  # steps may take the prediction of the step before; flows alone, which draw no new noise

    @property
    def resolutions(self) -> tuple[str, ...]:
        """From the smallest to the largest."""
        by_area = sorted(self.sizes, key=lambda size: size.height_px * size.width_px)
        return tuple(dict.fromkeys(size.resolution for size in by_area))

    @property
    def aspects(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(size.aspect for size in self.sizes))

    @property
    def choices(self) -> dict[str, tuple[Any, ...]]:
        """What each setting that is chosen from a list may be."""
        return {"frames": self.frames, "resolution": self.resolutions, "aspect": self.aspects}

    @property
    def size_px(self) -> tuple[int, int]:
        """(height, width) of the default."""
        return self.sizes[0].height_px, self.sizes[0].width_px

    def size(self, resolution: str | None = None, aspect: str | None = None) -> Size:
        """The size of these names; without one of them the default's."""
        resolution, aspect = resolution or self.sizes[0].resolution, aspect or self.sizes[0].aspect
        return next(s for s in self.sizes if (s.resolution, s.aspect) == (resolution, aspect))
