"""The words the rest of the package speaks: requests, limits, events.

Everything here is frozen. A `GenerationRequest` is built only by `parse_request` and trusted after that; page, API and
command line all come through it, so that they accept the same values and refuse them with the same sentences.
"""

from __future__ import annotations

import math
import re
import secrets
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from opensora_demo.errors import RequestError

Frames = NDArray[np.uint8]  # (t, h, w, 3)
MAX_SEED = 2**32 - 1
MAX_COMPARED = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoShape:
    frames: int
    height_px: int
    width_px: int


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


Rule = Literal["plain", "interval", "oscillating", "rescale", "apg", "cfg-zero"]
"""How a guidance scale is applied (formulas and sources in `sampling.guidance`).

plain: the same at every step; interval: at middle noise only; oscillating: full for ten steps, then at every other one
(1.3 and 2.0); rescale: the spread drawn back to the prompt's; apg: without the part along the clean estimate; cfg-zero:
from the null branch at its best length.
"""
RULES: tuple[Rule, ...] = ("plain", "interval", "oscillating", "rescale", "apg", "cfg-zero")
DIFFUSION_RULES = tuple(rule for rule in RULES if rule != "cfg-zero")  # that one is about flows
LINEAR_RULES: tuple[Rule, ...] = ("plain", "interval", "oscillating")  # a weighted sum, of any number of branches
RULE_TITLES: Mapping[Rule, str] = {
    "plain": "plain",
    "interval": "interval",
    "oscillating": "oscillating",
    "rescale": "rescaled",
    "apg": "APG",
    "cfg-zero": "CFG-Zero*",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one model accepts. The page's controls, the API's checks and `parse_request` all read this."""

    steps: Range
    guidance: Range
    fps: Range
    frames: tuple[int, ...]
    default_frames: int
    sizes: tuple[Size, ...]  # every resolution in every aspect; the first is the default
    prompt_chars: int = 500
    reference: bool = True  # a first frame may be given
    last_frame: bool = False  # a last frame may be given, alone or with the first (both the same: a loop)
    edit: bool = False  # given frames may be kept in part
    rules: tuple[Rule, ...] = RULES  # the first is the default
    image_guidance: Range | None = None
    motion_score: Range | None = None

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


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One run. Two or more values of `guidance` or `rules` are a comparison: a clip for each pair, from one noise."""

    model_id: str
    prompt: str
    negative_prompt: str
    shape: VideoShape
    fps: int
    steps: int
    guidance: tuple[float, ...]
    seed: int
    reference: Frames | None = None  # first frame (1, h, w, 3), already at the model's size
    last_frame: Frames | None = None  # likewise
    edit: float = 0.0  # 0 keeps given frames (1.1 refines them once), 0.4 redraws them over the last 40 % of the way
    rules: tuple[Rule, ...] = ("plain",)
    image_guidance: float = 1.0  # how strongly given frames pull; only where the model has such a branch
    motion_score: float | None = None  # words at the end of the prompt; None leaves them out, as a 0 does
    size: Size | None = None  # None where the model has only one
    loras: tuple[str, ...] = ()  # files added to the model, as they are recorded

    @property
    def columns(self) -> tuple[tuple[float, Rule], ...]:
        """(scale, rule) of each clip, the scales of the first rule first."""
        return tuple((scale, rule) for rule in self.rules for scale in self.guidance)

    def column(self, index: int) -> GenerationRequest:
        """The request that makes the clip of one column alone."""
        scale, rule = self.columns[index]
        return replace(self, guidance=(scale,), rules=(rule,))

    @property
    def labels(self) -> tuple[str, ...]:
        """What tells the columns apart: "guidance 4", "APG", or "guidance 4, APG"."""
        several, bent = len(self.guidance) > 1, len(self.rules) > 1
        return tuple(
            ", ".join([f"guidance {scale:g}"] * (several or not bent) + [RULE_TITLES[rule]] * bent)
            for scale, rule in self.columns
        )

    def settings(self) -> dict[str, Any]:
        """The request in the words of the API, as it is written into files and shown under a clip."""
        return {
            "model": self.model_id,
            "prompt": self.prompt,
            "negative": self.negative_prompt,
            "fps": self.fps,
            "frames": self.shape.frames,
            "steps": self.steps,
            "guidance": self.guidance[0] if len(self.guidance) == 1 else list(self.guidance),
            "seed": self.seed,
            "reference": self.reference is not None,
            **({"last_frame": True} if self.last_frame is not None else {}),
            **({"edit": self.edit} if self.edit else {}),
            **({} if self.rules == ("plain",) else {"rule": self.rules[0] if len(self.rules) == 1 else [*self.rules]}),
            **({"image_guidance": self.image_guidance} if self.image_guidance != 1 else {}),
            **({"motion_score": self.motion_score} if self.motion_score is not None else {}),
            **({"resolution": self.size.resolution, "aspect": self.size.aspect} if self.size is not None else {}),
            **({"lora": [*self.loras]} if self.loras else {}),
        }


# --- events ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The run has begun; nothing has been computed yet."""

    request: GenerationRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """The prompt has been read. `unknown` words are not in the model's vocabulary."""

    unknown: tuple[str, ...]
    cut_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Inside one step, for the first clip. Pictures are (t', h', w', 3), in the colours of the preview; those of large
    latents are reduced (`preview.look_sizes`).

    noisy: the latent before the step; estimate: the x0 that guidance arrived at; prompt and null: the x0 that each
    branch speaks of, None where it was not evaluated; difference: how far these two are apart (RMS over channels),
    black to white at `peak`, which is the largest at any latent position; channels (c, t', h', w'): each channel of the
    estimate in grey, from -3 to 3 standard deviations. The norms are RMS of what the network predicted, `cosine` is
    between its two branches, and `applied` is the scale s at which u + s (c - u) comes nearest to the guided
    prediction; they are None without the branches they speak of.
    """

    noisy: Frames
    estimate: Frames
    prompt: Frames | None
    null: Frames | None
    difference: Frames | None
    peak: float | None
    channels: NDArray[np.uint8]
    prompt_norm: float | None
    null_norm: float | None
    difference_norm: float | None
    cosine: float | None
    applied: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPreview:
    """One denoising step is done. `previews` holds one (t', h', w', 3) picture of the x0 estimate for each clip.

    `look`, where it was asked for, computes what the step was made of when it is called; it holds the step's tensors.
    """

    index: int
    total: int
    t: float
    previews: tuple[Frames, ...]
    guidance: tuple[float, ...]  # effective at this step, one for each clip
    seconds: float  # of denoising so far
    look: Callable[[], Look] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One finished clip and the request that makes exactly it."""

    frames: Frames
    request: GenerationRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """`done` of `total` clips have been decoded, this one last."""

    done: int
    total: int
    clip: Clip


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    clips: tuple[Clip, ...]
    seconds: Mapping[str, float]  # per stage: text, denoise, decode
    unknown: tuple[str, ...]
    peak_bytes: int | None = None  # the most memory that was in use meanwhile (`memory.PeakMemory`)


Stage = Literal["text", "denoise", "decode"]
"""What a run does, one after the other."""

Event = Started | Encoded | StepPreview | Decoding | Finished


# --- parsing -----------------------------------------------------------------------------------------------------


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or value is None:
        raise ValueError(f"must be {what}")
    if isinstance(value, str):
        try:
            value = float(value.strip())
        except ValueError:
            raise ValueError(f"must be {what}") from None
    if not isinstance(value, (int, float, np.integer, np.floating)):
        raise ValueError(f"must be {what}")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"must be {what} of ordinary size") from None
    if not math.isfinite(number):
        raise ValueError(f"must be {what}, not {number}")
    return number


def _whole(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value  # exact, however large
    number = _number(value, "a whole number")
    if number != int(number):
        raise ValueError(f"must be a whole number, not {number:g}")
    return int(number)


def _within(value: float, span: Range, unit: str = "") -> None:
    if not span.low <= value <= span.high:
        shown = f"{value:g}" if abs(value) < 1e15 else "that"
        raise ValueError(f"must lie between {span.low:g} and {span.high:g}{unit}, not {shown}")


def clean_text(text: str) -> str:
    """NFC, without control and other invisible format characters, white space folded."""
    text = unicodedata.normalize("NFC", text)
    text = "".join(
        " " if c in "\t\n\r" else c
        for c in text
        if c in "\t\n\r\u200d" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co")
    )
    return re.sub(r"\s+", " ", text).strip(" \u200d")


class _Raw(BaseModel):
    """The one schema. Every validator sees the model's limits through the validation context."""

    model_config = ConfigDict(extra="forbid")

    prompt: Any
    negative: Any = ""
    fps: Any = None
    frames: Any = None
    steps: Any = None
    guidance: Any = None
    seed: Any = None
    rule: Any = None
    image_guidance: Any = None
    motion_score: Any = None
    edit: Any = None
    resolution: Any = None
    aspect: Any = None

    @field_validator("prompt", "negative", mode="before")
    @classmethod
    def _text(cls, value: Any, info: ValidationInfo) -> str:
        limits: Limits = info.context  # type: ignore[assignment]
        if value is None and info.field_name == "negative":
            return ""
        if not isinstance(value, str):
            raise ValueError("must be text")
        if len(value) > limits.prompt_chars:
            raise ValueError(f"must have at most {limits.prompt_chars} characters, not {len(value)}")
        text = clean_text(value)
        if not text and info.field_name == "prompt":
            raise ValueError("must say what to draw, for example 'a red ball bouncing on a meadow'")
        return text

    @field_validator("fps", mode="before")
    @classmethod
    def _fps(cls, value: Any, info: ValidationInfo) -> int:
        limits: Limits = info.context  # type: ignore[assignment]
        fps = _whole(limits.fps.default if value is None else value)
        _within(fps, limits.fps, " frames per second")
        return fps

    @field_validator("frames", mode="before")
    @classmethod
    def _frames(cls, value: Any, info: ValidationInfo) -> int:
        limits: Limits = info.context  # type: ignore[assignment]
        frames = _whole(limits.default_frames if value is None else value)
        if frames not in limits.frames:
            raise ValueError(
                f"must be one of {', '.join(map(str, limits.frames))}, not {frames if abs(frames) < 10**9 else 'that'}"
            )
        return frames

    @field_validator("steps", mode="before")
    @classmethod
    def _steps(cls, value: Any, info: ValidationInfo) -> int:
        limits: Limits = info.context  # type: ignore[assignment]
        steps = _whole(limits.steps.default if value is None else value)
        _within(steps, limits.steps)
        return steps

    @field_validator("guidance", mode="before")
    @classmethod
    def _guidance(cls, value: Any, info: ValidationInfo) -> tuple[float, ...]:
        limits: Limits = info.context  # type: ignore[assignment]
        values = (
            list(value) if isinstance(value, (list, tuple)) else [limits.guidance.default if value is None else value]
        )
        if not 1 <= len(values) <= MAX_COMPARED:
            raise ValueError(f"must be 1 to {MAX_COMPARED} numbers, not {len(values)}")
        numbers = tuple(_number(v, "a number") + 0.0 for v in values)  # -0.0 becomes 0.0
        for number in numbers:
            _within(number, limits.guidance)
        if len(set(numbers)) != len(numbers):
            raise ValueError("must not name a value twice")
        return numbers

    @field_validator("rule", mode="before")
    @classmethod
    def _rule(cls, value: Any, info: ValidationInfo) -> tuple[str, ...]:
        limits: Limits = info.context  # type: ignore[assignment]
        if value is None or value == "":
            return limits.rules[:1]
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        for rule in values:
            if rule not in limits.rules:
                raise ValueError(f"must be one of {', '.join(limits.rules)}, not {str(rule)[:20]!r}")
        if not values or len(set(values)) != len(values):
            raise ValueError("must name one rule or several different ones")
        return tuple(values)

    @field_validator("image_guidance", "motion_score", mode="before")
    @classmethod
    def _optional(cls, value: Any, info: ValidationInfo) -> float | None:
        limits: Limits = info.context  # type: ignore[assignment]
        span: Range | None = getattr(limits, str(info.field_name))
        if span is None:
            if value not in (None, ""):
                raise ValueError("is not a setting of this model")
            return None
        number = span.default if value in (None, "") else _number(value, "a number")
        _within(number, span)
        return number

    @field_validator("edit", mode="before")
    @classmethod
    def _edit(cls, value: Any, info: ValidationInfo) -> float:
        limits: Limits = info.context  # type: ignore[assignment]
        number = 0.0 if value in (None, "") else _number(value, "a number")
        if number and not limits.edit:
            raise ValueError("is not a setting of this model")
        _within(number, Range(low=0, high=1, default=0))
        return number

    @field_validator("resolution", "aspect", mode="before")
    @classmethod
    def _named(cls, value: Any, info: ValidationInfo) -> str | None:
        limits: Limits = info.context  # type: ignore[assignment]
        names = limits.choices[str(info.field_name)]
        if value is None or value == "":
            return None
        if value not in names:
            raise ValueError(f"must be one of {', '.join(names)}, not {str(value)[:20]!r}")
        return str(value)

    @field_validator("seed", mode="before")
    @classmethod
    def _seed(cls, value: Any, info: ValidationInfo) -> int:
        if isinstance(value, str):
            value = value.strip()
        if value is None or value in ("", "-1") or (not isinstance(value, bool) and value == -1):
            return secrets.randbelow(MAX_SEED + 1)
        seed = _whole(value)
        if not 0 <= seed <= MAX_SEED:
            raise ValueError(f"must lie between 0 and {MAX_SEED} (or be left empty for a random one)")
        return seed


def parse_guidance_list(text: str) -> list[float]:
    """'1, 2, 4, 7' or '1, 2, .., 7' -> numbers; '..' continues the step before it up to the number after it."""
    parts = [p for p in re.split(r"[,;\s]+", text.strip()) if p]
    values: list[float] = []
    for i, part in enumerate(parts):
        if part in ("..", "..."):
            try:
                step, end = values[-1] - values[-2], float(parts[i + 1])
            except (IndexError, ValueError):
                raise RequestError(
                    "guidance", "'..' needs two numbers before it and one after it, as in 1, 2, .., 7"
                ) from None
            if not step > 0 or not math.isfinite(end):
                raise RequestError("guidance", "'..' needs rising numbers, as in 1, 2, .., 7")
            while len(values) <= MAX_COMPARED and values[-1] + step < end - 1e-9:
                values.append(values[-1] + step)
            continue
        try:
            values.append(float(part))
        except ValueError:
            raise RequestError("guidance", f"must be numbers, as in 1, 2, 4, 7; {part[:20]!r} is none") from None
    if not values:
        raise RequestError("guidance", "must be numbers, as in 1, 2, 4, 7")
    return values


def parse_request(
    raw: Mapping[str, Any],
    *,
    model_id: str,
    limits: Limits,
    reference: Frames | None = None,
    last_frame: Frames | None = None,
) -> GenerationRequest:
    """Check `raw` (prompt, negative, fps, frames, steps, guidance, seed, rule, image_guidance, motion_score, edit,
    resolution, aspect) against `limits`.

    A missing or null number takes the model's default, a missing or null seed a random one.
    Raises RequestError naming the first wrong field and what it must be.
    """
    try:
        parsed = _Raw.model_validate(
            dict.fromkeys(set(_Raw.model_fields) - {"prompt", "negative"}) | dict(raw), context=limits
        )
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else "request"
        if first["type"] == "extra_forbidden":
            raise RequestError(field, "is not a setting of this demo") from None
        if first["type"] == "missing":
            raise RequestError(field, "is missing") from None
        raise RequestError(field, str(first["msg"]).removeprefix("Value error, ")) from None
    if reference is not None and not limits.reference:
        raise RequestError("reference", "this model takes no reference image")
    if last_frame is not None and not limits.last_frame:
        raise RequestError("last_frame", "this model takes no last frame")
    clips = len(parsed.guidance) * len(parsed.rule)
    if clips > MAX_COMPARED:
        raise RequestError(
            "guidance",
            f"{len(parsed.guidance)} scales by {len(parsed.rule)} rules are {clips} clips; at most {MAX_COMPARED} fit",
        )
    if reference is not None or last_frame is not None:  # whose predictions mean nothing, but would count
        for rule in parsed.rule:
            if rule not in LINEAR_RULES:
                raise RequestError("rule", f"{rule} is for text alone; take out the given frames")
    size = limits.size(parsed.resolution, parsed.aspect)
    return GenerationRequest(
        model_id=model_id,
        prompt=parsed.prompt,
        negative_prompt=parsed.negative,
        shape=VideoShape(frames=parsed.frames, height_px=size.height_px, width_px=size.width_px),
        fps=parsed.fps,
        steps=parsed.steps,
        guidance=parsed.guidance,
        seed=parsed.seed,
        reference=reference,
        last_frame=last_frame,
        edit=parsed.edit,
        rules=parsed.rule,
        image_guidance=1.0 if parsed.image_guidance is None else parsed.image_guidance,
        motion_score=parsed.motion_score or None,
        size=size if len(limits.sizes) > 1 else None,
    )
