"""The dialect of /v1/videos: what its fields are called, and what they mean in the words of our settings.

vLLM-Omni and SGLang Diffusion speak it, after an interface of OpenAI's. Fields are vLLM-Omni's
(vllm_omni/entrypoints/openai/protocol/videos.py, 0.30); what it has no name for is called as our setting is. Both sides
of a connection, `video_jobs` that serves and `remote` that asks, read the table here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from opensora_demo.errors import RequestError
from opensora_demo.messages import message, render
from opensora_demo.request import settings as table
from opensora_demo.request.limits import ALL_RULES, VIDEO_USES, Limits, Range, Size
from opensora_demo.request.parse import parse_guidance_list, parse_value, split_list
from opensora_demo.request.request import GenerationRequest
from opensora_demo.request.settings import Choice, Given, Number
from opensora_demo.service.engine import ModelOffer
from opensora_demo.weights.options import WeightOptions

Fields = Mapping[str, Any]

NAMES: Mapping[str, str] = {  # the dialect's -> ours
    "model": "model",
    "prompt": "prompt",
    "negative_prompt": "negative",
    "input_reference": "reference",
    "num_frames": "frames",
    "fps": "fps",
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
    "seed": "seed",
}
_OURS = {own: name for name, own in NAMES.items()}
_SIZE = ("resolution", "aspect")  # of which the dialect makes one field, or two
SIZED = ("size", "width", "height")
OTHERS = (*SIZED, "seconds", "n")
MAX_SHOWN = 40  # characters of a name that is unknown


def own_names() -> tuple[str, ...]:
    """Settings that the dialect has no name for, and are called as they are."""
    return tuple(name for name in table.names() if name not in _OURS and name not in _SIZE)


def known_names() -> tuple[str, ...]:
    """Every field there is."""
    return (*NAMES, *OTHERS, *own_names())


def file_names() -> tuple[str, ...]:
    """The fields that are files."""
    return tuple(_OURS.get(s.name, s.name) for s in table.SETTINGS if isinstance(s.kind, Given))


def field_of(setting: str) -> str:
    """What a setting is called here."""
    return "size" if setting in _SIZE else _OURS.get(setting, setting)


def in_dialect(error: RequestError) -> RequestError:
    """The same error with its field as it is called here."""
    return RequestError(field_of(error.field), error.problem)


def seconds_of(frames: int, fps: int) -> str:
    """How long a clip lasts, as the dialect counts: whole seconds, one at least."""
    return str(max(round(frames / fps), 1))


# --- what is asked for


def read_fields(given: Fields, options: WeightOptions) -> dict[str, Any]:
    """The form (`service.forms`) that the fields of a request mean; files are paths. A field that is not there, and a
    length or a size that the model does not make, are refused. Raises RequestError, with the name that it has here."""
    for name in given:
        if name not in known_names():
            raise RequestError(name[:MAX_SHOWN], message("request.no_field", names=known_names()))
    limits = options.find_model(given.get("model")).limits
    form = {own: given.get(name) for name, own in NAMES.items()} | {name: given.get(name) for name in own_names()}
    for setting in table.SETTINGS:  # lists as text, since a form of the web has nothing else
        value, several = form.get(setting.name), isinstance(setting.kind, Number | Choice) and setting.kind.several
        if several and isinstance(value, str) and "," in value:
            form[setting.name] = (parse_guidance_list if isinstance(setting.kind, Number) else split_list)(value)
    if form["prompt"] is None and "prompt" in given:
        form["prompt"] = ""
    form = {name: value for name, value in form.items() if value is not None}
    if any(given.get(name) is not None for name in SIZED):
        size = _size(given, limits)
        form |= {"resolution": size.resolution, "aspect": size.aspect}
    if given.get("seconds") is not None:
        form["frames"] = _frames(given, limits)
    if given.get("n") is not None and str(given["n"]) != "1":
        raise RequestError("n", message("request.one_of", choices=(1,), got=repr(str(given["n"])[:20])))
    return form


def _size(given: Fields, limits: Limits) -> Size:
    """The size of these fields. Raises RequestError where the model does not make it, or they disagree."""
    fit = list(limits.sizes)
    for name in SIZED:
        if (value := given.get(name)) is None:
            continue
        found = re.fullmatch(r"(\d{1,5})x(\d{1,5})" if name == "size" else r"(\d{1,5})", str(value).strip())
        if found is None:
            raise RequestError(name, message("request.size_text" if name == "size" else "request.whole"))
        wanted = tuple(int(part) for part in found.groups())
        fit = [size for size in fit if _sides(size, name) == wanted]
        if not fit:
            choices = tuple(dict.fromkeys("x".join(map(str, _sides(size, name))) for size in limits.sizes))
            raise RequestError(name, message("request.one_of", choices=choices, got=repr(str(value)[:20])))
    return fit[0]


def _sides(size: Size, field: str) -> tuple[int, ...]:
    """What a field says of a size."""
    return {"size": (size.width_px, size.height_px), "width": (size.width_px,), "height": (size.height_px,)}[field]


def _frames(given: Fields, limits: Limits) -> int:
    """The length nearest to so many seconds. Raises RequestError where the model makes none that is as long when it is
    rounded, or another number of frames was asked for."""
    lengths = limits.frames
    try:
        fps = parse_value(table.find("fps"), given.get("fps"), limits)
        if given.get("num_frames") is not None:
            lengths = (parse_value(table.find("frames"), given["num_frames"], limits),)
    except RequestError as error:
        raise in_dialect(error) from error
    text = str(given["seconds"]).strip()
    fit = [count for count in lengths if seconds_of(count, fps) == text]
    if not fit:
        choices = tuple(dict.fromkeys(int(seconds_of(count, fps)) for count in lengths))
        raise RequestError("seconds", message("request.one_of", choices=choices, got=repr(text[:20])))
    return min(fit, key=lambda count: abs(count - int(text) * fps))


def write_fields(request: GenerationRequest, *, extended: bool) -> dict[str, Any]:
    """The fields that ask for a request of one clip, without its files. Where the other side does not know ours (not
    `extended`), a setting that the dialect has no name for is refused: raises RequestError."""
    shape = request.shape
    asked: dict[str, Any] = {"size": f"{shape.width_px}x{shape.height_px}"}
    for setting in table.SETTINGS:
        name = setting.name
        if name in _SIZE or isinstance(setting.kind, Given):
            continue
        value = setting.of(request)
        if name in _OURS:
            asked[_OURS[name]] = value
        elif value is not None and value != setting.left_out:
            if not extended:
                raise RequestError(name, message("request.not_of_server"))
            asked[name] = value
    if not asked["negative_prompt"]:
        del asked["negative_prompt"]
    return asked


# --- models


def model_object(offer: ModelOffer) -> dict[str, Any]:
    """A model as GET /v1/models lists it; `title`, `summary` and `limits` are ours."""
    spec = offer.spec
    return {
        "id": spec.id,
        "object": "model",
        "created": 0,
        "owned_by": "opensora-demo",
        "title": spec.title,
        "summary": render(spec.summary),
        "limits": asdict(spec.limits),
    }


def read_limits(value: Any) -> Limits:
    """The inverse of `limits` above. What this version does not know is left out. Raises LookupError, TypeError or
    ValueError for what was not written so."""
    known = {f.name for f in fields(Limits)}
    found = {name: part for name, part in dict(value).items() if name in known}
    for name in ("steps", "guidance", "fps"):
        found[name] = _range(found[name])
    for name in ("image_guidance", "motion_score"):
        found[name] = _range(found[name]) if found.get(name) is not None else None
    found["sizes"] = tuple(
        Size(
            resolution=str(s["resolution"]),
            aspect=str(s["aspect"]),
            height_px=int(s["height_px"]),
            width_px=int(s["width_px"]),
        )
        for s in found["sizes"]
    )
    found["frames"] = tuple(map(int, found["frames"]))
    found["video_frames"] = tuple(map(int, found.get("video_frames", ())))
    found["rules"] = tuple(rule for rule in found.get("rules", ()) if rule in ALL_RULES) or ("plain",)
    found["video_uses"] = tuple(use for use in found.get("video_uses", ()) if use in VIDEO_USES)
    for name in ("default_frames", "prompt_chars", "scenes"):
        if name in found:
            found[name] = int(found[name])
    for name in ("reference", "last_frame", "edit", "refines", "caches_steps"):
        if name in found:
            found[name] = bool(found[name])
    limits = Limits(**found)
    if not limits.sizes or limits.default_frames not in limits.frames:
        raise ValueError(value)
    return limits


def _range(value: Any) -> Range:
    numbers = {name: float(value[name]) for name in ("low", "high", "default", "step")}
    span = Range(**{name: int(n) if n.is_integer() else n for name, n in numbers.items()})
    if not span.low <= span.default <= span.high:
        raise ValueError(value)
    return span


DIALECT_LIMITS = Limits(
    steps=Range(low=1, high=200, default=40),
    guidance=Range(low=0, high=20, default=5, step=0.5),
    fps=Range(low=1, high=60, default=16),
    frames=(1, 17, 33, 49, 65, 81, 97, 121),
    default_frames=81,
    sizes=tuple(
        Size(resolution=name, aspect=aspect, height_px=height, width_px=width)
        for name, of_name in (
            ("480p", (("16:9", 480, 832), ("9:16", 832, 480), ("1:1", 640, 640))),
            ("720p", (("16:9", 720, 1280), ("9:16", 1280, 720), ("1:1", 960, 960))),
        )
        for aspect, height, width in of_name
    ),
    rules=("plain",),
)
"""Of a server that does not say its own: vLLM-Omni's ranges, and lengths, sizes and defaults that the models which both
engines serve most (Wan 2.1 and 2.2) take: 4 n + 1 frames, sides that 16 divides."""
