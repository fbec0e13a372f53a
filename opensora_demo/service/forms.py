"""A form that somebody filled in -> the request it means; a comparison's form -> the requests of its rows.

A form is a value for each setting of the table by name (pictures as files), a comparison's form has `COMPARISON` too.
Page, API and command line all come through here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from opensora_demo.catalog import ModelSpec, find_model
from opensora_demo.errors import RequestError, WeightsError
from opensora_demo.media import read_video
from opensora_demo.messages import Message, message, plain
from opensora_demo.pictures import read_reference
from opensora_demo.request import settings as table
from opensora_demo.request.limits import MAX_SEED, Limits, Size
from opensora_demo.request.parse import (
    give_frames,
    parse_guidance_list,
    parse_request,
    parse_size,
    parse_value,
    split_list,
)
from opensora_demo.request.request import GenerationRequest
from opensora_demo.request.scenes import has_scenes
from opensora_demo.request.settings import Choice, Given, Number, Picture
from opensora_demo.request.video import Frames, VideoShape
from opensora_demo.runtime.cost.estimator import Estimator
from opensora_demo.weights.lora import lora_names
from opensora_demo.weights.options import DEFAULT_OPTIONS, WeightOptions
from opensora_demo.weights.store import unavailable_reason

Form = Mapping[str, Any]

DEFAULT_SCALES = "1, 2, 4, 7"
MAX_TYPED = 4000  # characters of a list of scales or rows
EXAMPLE = {"prompt": "a ball"}  # stands in where only the rest of a form is asked about

COMPARISON = ("scales", "rules", "axis", "rows", "seeds")
Axis = Literal["none", "seed", "steps", "fps", "negative", "model"]
AXES: tuple[Axis, ...] = get_args(Axis)
MAX_ROWS = 4
MAX_SEEDS = 16  # clips a cell
_NUMBERS = {"seed": 3, "steps": 0, "fps": 0}  # how many are taken when none is typed

Row = tuple[Message | None, dict[str, Any]]  # what tells it from the others, settings that differ from the form's


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A row of clips for each request, a label for each row (None of a single one), and how many seeds a cell."""

    axis: Axis
    labels: tuple[Message | None, ...]
    requests: tuple[GenerationRequest, ...]
    seeds: int = 1

    def runs(self) -> Iterator[tuple[int, int, GenerationRequest]]:
        """What is to be run: (row, which of the seeds, request), all rows of the first seed first."""
        for k in range(self.seeds):
            for row, request in enumerate(self.requests):
                yield row, k, replace(request, seed=(request.seed + k) % (MAX_SEED + 1))

    def settings(self) -> dict[str, Any]:
        """The whole comparison, as it is written into files: the first row's settings and those of all rows."""
        rows = {"rows": [request.settings() for request in self.requests]}
        return self.requests[0].settings() | rows | ({"seeds": self.seeds} if self.seeds > 1 else {})


def compare_names() -> tuple[str, ...]:
    """The fields of a comparison's form."""
    return (*table.names(), *COMPARISON)


def cost_names() -> tuple[str, ...]:
    """The settings that a run's time and memory depend on."""
    return tuple(setting.name for setting in table.SETTINGS if setting.costs)


def given_names() -> tuple[str, ...]:
    """What is given as a file: frames, or a video."""
    return tuple(setting.name for setting in table.SETTINGS if isinstance(setting.kind, Given))


def frame_names() -> tuple[str, ...]:
    """The given frames."""
    return tuple(setting.name for setting in table.SETTINGS if isinstance(setting.kind, Picture))


def seen_names() -> tuple[str, ...]:
    """What the frames that a model will see depend on (`read_frames`)."""
    return (*given_names(), *size_names(), "video_use", "video_frames", "fps")


def size_names() -> tuple[str, str]:
    """What names the size of the clip (`parse_size`)."""
    return "resolution", "aspect"


# --- one request


def read_request(form: Form, options: WeightOptions = DEFAULT_OPTIONS) -> tuple[ModelSpec, GenerationRequest]:
    """The request of a form or call whose every value is meant, with its files read. Raises RequestError."""
    spec = options.find_model(form.get("model"))
    files = {name: form.get(name) for name in given_names()}
    raw = {name: value for name, value in form.items() if name != "model" and name not in files}
    request = parse_request(raw, model_id=spec.id, limits=spec.limits)  # cheap checks before a file is opened
    frames = {name: _read_frame(name, files[name], request.shape) for name in frame_names()}
    video = _read_video(files["video"], request.shape, request.fps)
    request = give_frames(request, spec.limits, **frames, video=video)
    return spec, replace(request, loras=lora_names(spec, options.loras))


def open_request(form: Form, estimator: Estimator) -> tuple[ModelSpec, GenerationRequest]:
    """The same for a run that is about to begin here. Raises WeightsError where the model cannot be loaded and
    DeviceError where the run does not fit, too."""
    spec = estimator.options.find_model(form.get("model"))
    if why := unavailable_reason(spec, estimator.options):
        raise WeightsError(message("run.cannot", model=spec.title, reason=why))
    spec, request = read_request(form, estimator.options)
    if spec.published:  # the others fit everywhere
        estimator.check_fits(spec, request)
    return spec, request


def parse_form(form: Form, estimator: Estimator, **changes: Any) -> tuple[ModelSpec, GenerationRequest]:
    """The request of the page's form with some settings changed; what the model does not have is left out of the form.
    Raises RequestError, WeightsError and DeviceError."""
    limits = estimator.options.find_model(changes.get("model", form["model"])).limits
    return open_request(_typed(of_model(form, limits)) | changes, estimator)


def of_model(form: Form, limits: Limits) -> dict[str, Any]:
    """The form without what the model does not have: a hidden control keeps the value it had for another model."""
    shown = {setting.name: setting.shown(limits) for setting in table.SETTINGS}
    return {name: value if shown[name] else None for name, value in form.items() if name in shown}


def _typed(form: Form) -> dict[str, Any]:
    """An empty prompt is no missing one."""
    return {**form, "prompt": "" if form.get("prompt") is None else form["prompt"]}


def example_of_form(form: Form, options: WeightOptions = DEFAULT_OPTIONS) -> tuple[ModelSpec, GenerationRequest]:
    """What the form would run, whatever its prompt, which counts for its scenes alone. Choices that the model before
    left in the form become its own model's defaults, since that has just changed. Raises RequestError."""
    spec = options.find_model(form.get("model"))
    prompt = form.get("prompt")
    scenes = isinstance(prompt, str) and has_scenes(prompt.lstrip())
    offered = _offered(of_model(form, spec.limits), spec.limits)
    return read_request(offered if scenes else offered | EXAMPLE, options)


def size_of_form(form: Form, limits: Limits) -> Size:
    """The size of the clip of a form, likewise. Raises RequestError."""
    return parse_size(_offered(of_model(form, limits), limits), limits)


def _offered(form: Form, limits: Limits) -> dict[str, Any]:
    choices = {setting.name: setting for setting in table.SETTINGS if isinstance(setting.kind, Choice)}
    return {name: value for name, value in form.items() if name not in choices or choices[name].accepts(value, limits)}


def fit_to_model(form: Form, own: ModelSpec, spec: ModelSpec) -> dict[str, Any]:
    """The form of one model as another takes it: what was set by hand stays where it is accepted, the rest is None, the
    other model's default. Texts, pictures and the seed stay as they are."""
    fitted = dict(form)
    for setting in table.SETTINGS:
        if setting.name in fitted and isinstance(setting.kind, Number | Choice) and not setting.optional:
            value = fitted[setting.name]
            by_hand = setting.shown(own.limits) and value != setting.default(own.limits)
            if not (by_hand and setting.shown(spec.limits) and setting.accepts(value, spec.limits)):
                fitted[setting.name] = None
    return fitted


def with_frames_of_form(settings: Mapping[str, Any], form: Form) -> dict[str, Any]:
    """The form of a clip's settings: the form's files stand in for those that the clip had."""
    limits = find_model(settings.get("model")).limits
    chosen = table.left_out(limits) | dict(settings)
    values = {name: chosen.get(name) for name in table.names()}
    return values | {name: form.get(name) if chosen.get(name) else None for name in given_names()}


SEEN_OF_VIDEO = 5  # frames that are shown of a given video


def read_frames(form: Form, limits: Limits) -> list[Frames]:
    """The given frames that the model takes, as it will see them, (1, h, w, 3) each, of a video some of those that it
    keeps. Raises RequestError."""
    size = size_of_form(form, limits)
    shape = VideoShape(frames=1, height_px=size.height_px, width_px=size.width_px)
    if limits.video_uses and form.get("video"):
        use, count, fps = (
            parse_value(table.find(n), form.get(n), limits) for n in ("video_use", "video_frames", "fps")
        )
        video = _read_video(form["video"], shape, fps)
        assert video is not None
        if len(video) < count:
            raise RequestError("video", message("request.video_short", least=count, fps=fps, got=len(video)))
        part = video[:count] if use == "head" else video[-count:]
        shown = sorted({round(k * (count - 1) / (SEEN_OF_VIDEO - 1)) for k in range(SEEN_OF_VIDEO)})
        return [part[k : k + 1] for k in shown]
    frames = [
        _read_frame(setting.name, form.get(setting.name), shape)
        for setting in table.SETTINGS
        if isinstance(setting.kind, Picture) and setting.shown(limits)
    ]
    return [frame for frame in frames if frame is not None]


def _read_frame(field: str, file: Any, shape: VideoShape) -> Frames | None:
    """A picture at the clip's size. Raises RequestError with the name of the field."""
    if not file:
        return None
    try:
        return _read_picture(str(file), shape.height_px, shape.width_px)
    except RequestError as error:
        raise RequestError(field, error.problem) from error


def _read_video(file: Any, shape: VideoShape, fps: int) -> Frames | None:
    """All frames of a video at the clip's size and rate. Raises RequestError."""
    return _read_film(str(file), shape.height_px, shape.width_px, fps) if file else None


@lru_cache(maxsize=2)
def _read_film(file: str, height_px: int, width_px: int, fps: int) -> Frames:
    """As `_read_picture`; fewer are held, since one may take hundreds of megabytes."""
    frames = read_video(Path(file), height_px, width_px, fps)
    frames.flags.writeable = False
    return frames


@lru_cache(maxsize=8)
def _read_picture(file: str, height_px: int, width_px: int) -> Frames:
    """Read once: every row of a comparison, and its plan at every letter typed, asks for the same. An uploaded file's
    path is its content's."""
    frames = read_reference(Path(file), height_px, width_px)
    frames.flags.writeable = False
    return frames


# --- a comparison


def parse_comparison(form: Form, estimator: Estimator) -> Comparison:
    """What the form of a comparison means. Raises RequestError, WeightsError and DeviceError."""
    scales, rules, axis = form["scales"], form["rules"], str(form["axis"])
    columns = {
        "guidance": parse_guidance_list(scales[:MAX_TYPED]) if isinstance(scales, str) else scales,
        "rule": rules or None,
    }
    _, first = parse_form(form, estimator, **columns)
    labels, requests = [], []
    for label, changes in parse_rows(axis, str(form["rows"] or "")[:MAX_TYPED], first.seed):
        of_row = dict(form) | changes
        if "model" in changes:
            of_row = fit_to_model(form, find_model(form["model"]), find_model(changes["model"])) | changes
        _, request = parse_form(of_row, estimator, **columns, seed=changes.get("seed", first.seed))
        labels.append(label)
        requests.append(request)
    seeds = 1 if axis == "seed" else parse_seeds(form.get("seeds"))
    return Comparison(axis=_axis(axis), labels=tuple(labels), requests=tuple(requests), seeds=seeds)


def checked_field(name: str, value: Any, limits: Limits) -> Any:
    """A field of a comparison's form as the form holds it. Raises RequestError with its name."""
    match name:
        case "axis":
            return _axis(str(value))
        case "seeds":
            return parse_seeds(value)
        case "rules":
            for rule in value if isinstance(value, list | tuple) else [value]:
                if rule not in limits.rules:
                    got = repr(str(rule)[:20])
                    raise RequestError("rule", message("request.one_of", choices=limits.rules, got=got))
            return list(value)
        case _:
            if not isinstance(value, str) or len(value) > MAX_TYPED:
                raise RequestError(name, message("request.text"))
            return value


def parse_seeds(value: Any) -> int:
    """Clips a cell; nothing is one. Raises RequestError("seeds")."""
    text = "1" if value is None else str(value).strip() or "1"
    if not (text.isdecimal() and len(text) <= 4 and 1 <= int(text) <= MAX_SEEDS):
        raise RequestError("seeds", message("request.between", low=1, high=MAX_SEEDS, got=text[:20]))
    return int(text)


def _axis(name: str) -> Axis:
    """Raises RequestError("rows") where it is none."""
    for axis in AXES:
        if axis == name:
            return axis
    raise RequestError("rows", message("request.one_of_these", choices=AXES))


def parse_rows(axis: str, text: str, seed: int) -> list[Row]:
    """The rows of `axis` as typed: numbers "4, 8, .., 20", negative prompts or models separated by semicolons or
    commas; no seeds are `seed` and the next two. Raises RequestError("rows")."""
    if _axis(axis) == "none":
        return [(None, {})]
    rows: list[Row]
    if axis in _NUMBERS:
        numbers = parse_whole_numbers(text) or [(seed + i) % (MAX_SEED + 1) for i in range(_NUMBERS[axis])]
        rows = [(message(f"note.row.{axis}", n=n), {axis: n}) for n in numbers]
    elif axis == "negative":
        prompts = [part.strip() for part in re.split(r"[;|；\n]", text)] if text.strip() else []
        rows = [(_without(prompt), {"negative": prompt}) for prompt in prompts]
    else:
        ids = split_list(text)
        rows = [(plain(find_model(i).title), {"model": i}) for i in ids]
    if not rows:
        raise RequestError("rows", message("request.rows_of", axis=message(f"label.axis.{axis}")))
    if len(rows) > MAX_ROWS:
        raise RequestError("rows", message("request.at_most", most=MAX_ROWS, got=len(rows)))
    if len({str(settings) for _, settings in rows}) != len(rows):
        raise RequestError("rows", message("request.twice"))
    return rows


def _without(negative: str) -> Message:
    return message("note.row.negative", prompt=negative) if negative else message("note.row.no_negative")


def parse_whole_numbers(text: str) -> list[int]:
    """Whole numbers typed as a list of scales is, 4, 8, .., 20, none below zero. Raises RequestError("rows")."""
    if not text.strip():
        return []
    try:
        numbers = parse_guidance_list(text)
    except RequestError:
        if ".." not in text:
            raise RequestError("rows", message("request.wholes")) from None
        raise RequestError("rows", message("request.dots_whole")) from None
    if not all(0 <= number < 1e12 and number == int(number) for number in numbers):
        raise RequestError("rows", message("request.wholes"))
    return [int(number) for number in numbers]
