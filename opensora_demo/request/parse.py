"""Input from outside -> a `GenerationRequest`. Page, API and command line all come through here, so that they accept
the same values and refuse them with the same sentences."""

from __future__ import annotations

import math
import re
import secrets
import unicodedata
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from opensora_demo.errors import RequestError
from opensora_demo.messages import Param, message
from opensora_demo.request import settings as table
from opensora_demo.request.curve import parse_curve
from opensora_demo.request.limits import FRAME_RULES, MAX_COMPARED, MAX_SEED, MAX_TOTAL_FRAMES, Limits, Range, Size
from opensora_demo.request.request import Branch, GenerationRequest
from opensora_demo.request.scenes import named_scenes, split_scenes
from opensora_demo.request.settings import Choice, Choices, Drawn, Given, Model, Number, Seed, Setting, Text
from opensora_demo.request.video import Frames, VideoShape

RANDOM_SEEDS = ("-1", "-1.0")  # beside nothing at all


def _number(name: str, value: Any, kind: str = "number") -> float:
    """`kind` is "number" or "whole", as the messages are called."""
    if isinstance(value, str):
        try:
            value = float(value.strip())
        except ValueError:
            raise RequestError(name, message(f"request.{kind}")) from None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise RequestError(name, message(f"request.{kind}"))
    try:
        number = float(value)
    except OverflowError:
        raise RequestError(name, message(f"request.{kind}_ordinary")) from None
    if not math.isfinite(number):
        raise RequestError(name, message(f"request.{kind}_not", got=number))
    return number + 0.0  # -0.0 becomes 0.0


def _whole(name: str, value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value  # exact, however large
    number = _number(name, value, "whole")
    if number != int(number):
        raise RequestError(name, message("request.whole_not", got=number))
    return int(number)


def _within(name: str, value: float, span: Range, refusal: str) -> None:
    if not span.low <= value <= span.high:
        got = value if abs(value) < 1e15 else message("request.that")
        raise RequestError(name, message(refusal, low=span.low, high=span.high, got=got))


# Flags of England, Scotland and Wales: a black flag, letters of tags, and their end. Source: Unicode UTS 51, C.1.
_TAGGED_FLAG = re.compile("(\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f)")
_JOINERS = "\u200c\u200d"  # without them words of Persian and Hindi, and emoji, are others
# Format characters that are seen: signs that stand around numbers. Source: Unicode, Prepended_Concatenation_Mark.
_SEEN = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"

_BLANK = "\u115f\u1160\u2800\u3164\uffa0"  # letters and signs without ink
_MOST_TYPED = 4  # times the characters that a text may have: with more it is not looked at


def clean_text(text: str) -> str:
    """NFC, without control and other invisible format characters, white space folded. Of its own result it changes
    nothing."""
    parts = _TAGGED_FLAG.split(text)  # every second is a flag
    text = "".join(part if i % 2 else "".join(filter(_is_text, part)) for i, part in enumerate(parts))
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).strip(" " + _JOINERS)


def _is_text(c: str) -> bool:
    return c in "\t\n\r" or c in _JOINERS or c in _SEEN or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co")


def _is_seen(text: str) -> bool:
    """Whether there is anything to be seen of it: marks alone have nothing to stand on."""
    return any(c not in _BLANK and unicodedata.category(c)[0] not in "MZC" for c in text)


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _text(name: str, kind: Text, value: Any, limits: Limits) -> str:
    if value is None and not kind.required:
        return ""
    if not isinstance(value, str):
        raise RequestError(name, message("request.text"))
    text = clean_text(value) if len(value) <= _MOST_TYPED * limits.prompt_chars else value
    if len(text) > limits.prompt_chars:  # as it is kept, so that it is accepted again
        raise RequestError(name, message("request.long", most=limits.prompt_chars, got=len(text)))
    if kind.required and not _is_seen(text):
        raise RequestError(name, message("request.empty_prompt"))
    if kind.required:
        _check_scenes(name, text, limits)
    return text


def _check_scenes(name: str, text: str, limits: Limits) -> None:
    """Raises RequestError where a prompt in scenes is not written as one, or names more than the model makes."""
    try:
        texts, starts = split_scenes(text)
    except ValueError:
        raise RequestError(name, message("request.scene_number")) from None
    if starts is None:
        return
    if len(texts) < len(starts) or not all(texts):
        empty = starts[len(texts)] if all(texts) else starts[texts.index("")]
        raise RequestError(name, message("request.scene_empty", scene=empty))
    if any(after <= before for before, after in pairwise(starts)):
        raise RequestError(name, message("request.scenes_rise"))
    if (named := starts[-1] + 1) > limits.scenes:
        refusal = message("request.scenes_most", most=limits.scenes, got=named)
        raise RequestError(name, refusal if limits.scenes > 1 else message("request.no_scenes"))


def _in_range(name: str, kind: Number, value: Any, span: Range) -> Any:
    """One number; or a tuple of them, all different, where a comparison takes several."""
    values = list(value) if kind.several and isinstance(value, (list, tuple)) else [value]
    if not 1 <= len(values) <= MAX_COMPARED:
        raise RequestError(name, message("request.count", least=1, most=MAX_COMPARED, got=len(values)))
    numbers = tuple(_whole(name, v) if kind.whole else _number(name, v) for v in values)
    for number in numbers:
        _within(name, number, span, kind.refusal)
    if len(set(numbers)) != len(numbers):
        raise RequestError(name, message("request.twice"))
    return numbers if kind.several else numbers[0]


def _chosen(name: str, kind: Choice, value: Any, choices: Choices) -> Any:
    """One of the choices; or a tuple of them, all different, where a comparison takes several."""
    values = list(value) if kind.several and isinstance(value, (list, tuple)) else [value]
    values = [_whole(name, v) for v in values] if kind.whole else values
    for chosen in values:
        if chosen not in choices.values:
            got: Param = repr(str(chosen)[:20])
            if kind.whole:
                got = chosen if abs(chosen) < 10**9 else message("request.that")
            raise RequestError(name, message("request.one_of", choices=choices.values, got=got))
    if not values or len(set(values)) != len(values):
        raise RequestError(name, message("request.rules"))
    return tuple(values) if kind.several else values[0]


def _seed(name: str, value: Any) -> int:
    if _empty(value) or str(value).strip() in RANDOM_SEEDS:
        return secrets.randbelow(MAX_SEED + 1)
    seed = _whole(name, value)
    if not 0 <= seed <= MAX_SEED:
        raise RequestError(name, message("request.seed_between", low=0, high=MAX_SEED))
    return seed


def _not_there(setting: Setting, value: Any) -> Any:
    """The value of a setting that the model does not have: as a file means it that does not name it, which may be
    given too."""
    if not _empty(value) and value != setting.left_out:
        try:
            same = _number(setting.name, value) == setting.left_out
        except RequestError:
            same = False
        if not same:
            raise RequestError(setting.name, message("request.not_of_model"))
    return setting.left_out


def parse_value(setting: Setting, value: Any, limits: Limits) -> Any:
    """One setting as a request holds it; nothing, or an empty text, is the model's default, or None where it is
    optional. Raises RequestError with the setting's name."""
    limit, name = setting.limit(limits), setting.name
    if setting.optional and _empty(value):
        return None
    match setting.kind:
        case Text() as kind:
            return _text(name, kind, value, limits)
        case Seed():
            return _seed(name, value)
        case Drawn():
            return parse_curve(name, value)
        case Number() as kind if isinstance(limit, Range):
            return _in_range(name, kind, limit.default if _empty(value) else value, limit)
        case Choice() as kind if isinstance(limit, Choices):
            return _chosen(name, kind, limit.default if _empty(value) else value, limit)
        case Number() | Choice() if not limit:
            return _not_there(setting, value)
        case kind:
            raise TypeError(f"{name}: {kind} does not go with {limit}")


def split_list(text: str) -> list[str]:
    """What is typed with spaces, commas or semicolons between, of Chinese and Japanese keyboards too. With semicolons
    between, a comma that touches two digits is a decimal comma."""
    text = unicodedata.normalize("NFKC", text)
    if ";" in text:
        text = re.sub(r"(?<=\d),(?=\d)", ".", text)
    return [part for part in re.split(r"[,;、､\s]+", text) if part]


def parse_guidance_list(text: str) -> list[float]:
    """'1, 2, 4, 7' or '1, 2, .., 7' -> numbers; '..' continues the step before it up to the number after it."""
    parts = split_list(text)
    values: list[float] = []
    for i, part in enumerate(parts):
        if re.fullmatch(r"\.{2,6}|⋯+", part):
            try:
                step, end = values[-1] - values[-2], float(parts[i + 1])
            except (IndexError, ValueError):
                raise RequestError("guidance", message("request.dots_two")) from None
            if not step > 0 or not math.isfinite(end):
                raise RequestError("guidance", message("request.dots_rising"))
            while len(values) <= MAX_COMPARED and values[-1] + step < end - 1e-9:
                values.append(values[-1] + step)
            continue
        try:
            values.append(float(part))
        except ValueError:
            raise RequestError("guidance", message("request.numbers_not", got=repr(part[:20]))) from None
    if not values:
        raise RequestError("guidance", message("request.numbers"))
    return values


def parse_values(raw: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    """The settings of `raw` by name, checked in the order of the table; given files and the model are not among them.

    A missing or null number takes the model's default, a missing or null seed a random one.
    Raises RequestError naming the first wrong field and what it must be.
    """
    values: dict[str, Any] = {}
    for setting in table.SETTINGS:
        if isinstance(setting.kind, Given | Model):
            continue
        if isinstance(setting.kind, Text) and setting.kind.required and setting.name not in raw:
            raise RequestError(setting.name, message("request.missing"))
        values[setting.name] = parse_value(setting, raw.get(setting.name), limits)
    for name in raw:
        if name not in values:
            raise RequestError(str(name), message("request.unknown"))
    return values


def parse_size(raw: Mapping[str, Any], limits: Limits) -> Size:
    """The size of the clip, without the rest of the request. Raises RequestError as `parse_request` does."""
    resolution, aspect = (parse_value(table.find(name), raw.get(name), limits) for name in ("resolution", "aspect"))
    return limits.size(resolution, aspect)


def parse_request(
    raw: Mapping[str, Any],
    *,
    model_id: str,
    limits: Limits,
    reference: Frames | None = None,
    last_frame: Frames | None = None,
    video: Frames | None = None,
) -> GenerationRequest:
    """Check `raw`, settings by name (`request.settings`), against `limits`; given frames are at the clip's size, a
    video at its rate too. Raises RequestError naming the first wrong field and what it must be."""
    values = parse_values(raw, limits)
    scales, rules = values["guidance"], values.pop("rule")
    if (clips := len(scales) * len(rules)) > MAX_COMPARED:
        count = message("request.too_many_clips", scales=len(scales), rules=len(rules), clips=clips, most=MAX_COMPARED)
        raise RequestError("guidance", count)
    branch = _branch(values, clips)
    scenes = _scenes(values)
    size = limits.size(values.pop("resolution"), values.pop("aspect"))
    request = GenerationRequest(
        model_id=model_id,
        negative_prompt=values.pop("negative"),
        shape=VideoShape(frames=values.pop("frames"), height_px=size.height_px, width_px=size.width_px),
        rules=rules,
        motion_score=values.pop("motion_score") or None,
        size=size if len(limits.sizes) > 1 else None,
        branch=branch,
        scenes=scenes,
        **values,
    )
    for part in (request.trunk, request.changed):
        if "autoguidance" in part.rules and part.negative_prompt:
            rule = table.RULE_MESSAGES["autoguidance"]
            raise RequestError("negative", message("request.no_negative_rule", rule=rule))
    return give_frames(request, limits, reference, last_frame, video)


def _scenes(values: dict[str, Any]) -> int:
    """Takes how many scenes there are out of the values of a request: as many as are named where nothing else is said.
    Raises RequestError."""
    count, named = values.pop("scenes"), named_scenes(values["prompt"])
    if count is not None and count < named:
        raise RequestError("scenes", message("request.scenes_fewer", named=named, got=count))
    return named if count is None else count


def _check_joins(request: GenerationRequest) -> None:
    """Raises RequestError where the scenes of a request cannot go on from one another."""
    frames, kept = request.shape.frames, request.video_frames
    if kept >= frames:
        raise RequestError("frames", message("request.scene_frames", kept=kept, got=frames))
    if request.video is not None and request.video_use == "tail" and 2 * kept > frames:
        raise RequestError("video_frames", message("request.scene_ends", frames=frames, got=kept))
    if (total := request.total_frames) > MAX_TOTAL_FRAMES:
        raise RequestError("scenes", message("request.scenes_long", most=MAX_TOTAL_FRAMES, got=total))
    for name, early in (("branch_step", request.branch), ("stop_step", request.stop_step)):
        if early is not None:
            raise RequestError(name, message("request.one_scene"))


def _branch(values: dict[str, Any], clips: int) -> Branch | None:
    """Takes the settings of the branch out of the values of a request. Raises RequestError."""
    step, stop = values.pop("branch_step"), values["stop_step"]
    fields = {
        "prompt": values.pop("branch_prompt") or None,
        "negative_prompt": values.pop("branch_negative") or None,
        "guidance": values.pop("branch_guidance"),
        "rule": values.pop("branch_rule"),
        "seed": values.pop("branch_seed"),
    }
    for name, early in (("branch_step", step), ("stop_step", stop)):
        if early is not None and early >= values["steps"]:
            raise RequestError(name, message("request.early_step", steps=values["steps"], got=early))
    if step is None:
        if lonely := next((name for name, value in fields.items() if value is not None), None):
            raise RequestError(f"branch_{lonely.removesuffix('_prompt')}", message("request.branch_without_step"))
        return None
    if clips > 1:
        raise RequestError("branch_step", message("request.branch_of_one"))
    if stop is not None and stop <= step:
        raise RequestError("stop_step", message("request.stop_before_branch", step=step))
    return Branch(step=step, **fields)


def give_frames(
    request: GenerationRequest,
    limits: Limits,
    reference: Frames | None = None,
    last_frame: Frames | None = None,
    video: Frames | None = None,
) -> GenerationRequest:
    """The request with given frames at its size, (1, h, w, 3) each, or a video (t, h, w, 3). Raises RequestError where
    the model takes none, the video is too short, its scenes do not fit together, or the guidance rule is for text
    alone."""
    if reference is not None and not limits.reference:
        raise RequestError("reference", message("request.no_first_frame"))
    if last_frame is not None and not limits.last_frame:
        raise RequestError("last_frame", message("request.no_last_frame"))
    if video is not None:
        _check_video(request, limits, video, alone=reference is None and last_frame is None)
    request = replace(request, reference=reference, last_frame=last_frame, video=video)
    if request.scenes > 1:
        _check_joins(request)
    if request.given or request.scenes > 1:
        for rule in (*request.rules, *request.changed.rules):
            if rule not in FRAME_RULES:  # their predictions mean nothing at given frames, but would count
                scenes = message("request.text_only_rule_scenes", rule=rule)
                raise RequestError("rule", message("request.text_only_rule", rule=rule) if request.given else scenes)
    return request


def _check_video(request: GenerationRequest, limits: Limits, video: Frames, *, alone: bool) -> None:
    """Raises RequestError where the request cannot keep what it is to keep of a given video."""
    if not limits.video_uses:
        raise RequestError("video", message("request.no_video"))
    if not alone:
        raise RequestError("video", message("request.video_alone"))
    if request.video_frames >= request.shape.frames:
        most = message("request.video_frames_all", frames=request.shape.frames, got=request.video_frames)
        raise RequestError("video_frames", most)
    if len(video) < request.video_frames:
        short = message("request.video_short", least=request.video_frames, fps=request.fps, got=len(video))
        raise RequestError("video", short)
