"""Settings that come back from outside: a link, a file, a page that was loaded anew."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from opensora_demo.catalog import ModelSpec, find_model
from opensora_demo.errors import RequestError
from opensora_demo.messages import Message, message, plain, written_number
from opensora_demo.request import settings as table
from opensora_demo.request.limits import Limits
from opensora_demo.request.parse import RANDOM_SEEDS, parse_request
from opensora_demo.request.settings import Choice, Given, Number, Seed, Setting, VideoFile
from opensora_demo.service.forms import COMPARISON, EXAMPLE, Axis, checked_field
from opensora_demo.weights.lora import lora_names
from opensora_demo.weights.options import DEFAULT_OPTIONS, WeightOptions

# What else a file says of its clip, and what a host of the page writes into an address.
RECORDED = ("version", "seconds", "unknown", "refined", "reused_steps", "peak_gb", "precision", "lora", "total_frames")
OF_THE_HOST = ("view", "logs")
OF_THE_PAGE = ("lesson",)  # which step of the lesson is open
TRUE = (True, "true", "True", "1")
MAX_NAMED = 4  # unknown names that are read out


def link_query(settings: Mapping[str, Any]) -> str:
    """The query of an address that opens the form with a clip's settings: the model, the seed, and whatever is not what
    the address would mean without it, be it the model's default or what a file leaves out. Of given files and LoRAs it
    says that there were some, so that whoever opens it is told. The settings of a comparison
    (`forms.Comparison.settings`) open its form with all of it."""
    fields = comparison_fields(settings)
    if fields is None:
        return urlencode(_linked(settings))
    own = {name for name in ("guidance", "rule", fields["axis"]) if name not in ("model", "seed")}
    query = {name: value for name, value in _linked(settings).items() if name not in own}
    usual = {"rules": find_model(settings["model"]).limits.rules[:1], "axis": "none", "rows": "", "seeds": 1}
    named = {name: value for name, value in fields.items() if value != usual.get(name)}
    return urlencode(query | {name: LIST.join(v) if isinstance(v, tuple) else v for name, v in named.items()})


def _linked(settings: Mapping[str, Any]) -> dict[str, str]:
    limits = find_model(settings["model"]).limits
    left_out = table.left_out(limits)
    query: dict[str, str] = {}
    for setting in table.SETTINGS:
        value = settings.get(setting.name, left_out.get(setting.name))
        if not setting.in_link or value is None or value == "":
            continue
        if isinstance(setting.kind, Number | Choice):
            usual = setting.default(limits)
            if not setting.shown(limits) or value == usual == left_out.get(setting.name, usual):
                continue
        query[setting.name] = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    query |= {s.name: "true" for s in table.SETTINGS if isinstance(s.kind, Given) and settings.get(s.name)}
    return query | ({"lora": LIST.join(settings["lora"])} if settings.get("lora") else {})


LIST = ", "  # between the parts of a list in a link


def comparison_fields(found: Mapping[str, Any]) -> dict[str, Any] | None:
    """The fields of a comparison's form that a file or a link speaks of; None where it is of a single clip.

    A file has lists: several scales or rules, the settings of all rows. A link names the fields as they are typed; one
    whose guidance is a list means their scales. Nothing is checked but the kinds of the values.
    """
    rows = found.get("rows")
    if isinstance(rows, list) or isinstance(found.get("guidance"), list) or isinstance(found.get("rule"), list):
        return _fields_of_file(
            found, [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
        )
    fields: dict[str, Any] = {name: str(found[name]) for name in COMPARISON if found.get(name) not in (None, "")}
    if "scales" not in fields and isinstance(found.get("guidance"), str) and "," in found["guidance"]:
        fields["scales"] = found["guidance"]
    if "rules" in fields:
        fields["rules"] = tuple(part.strip() for part in re.split("[,，、]", fields["rules"]))
    return fields or None


def _fields_of_file(found: Mapping[str, Any], rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    axis, text = _axis_of(rows)
    scales, rules = (_several(found.get(name)) for name in ("guidance", "rule"))
    fields: dict[str, Any] = {"scales": LIST.join(_typed(scale) for scale in scales), "axis": axis, "rows": text}
    fields["rules"] = tuple(map(str, rules)) or ("plain",)
    return fields | ({"seeds": found["seeds"]} if "seeds" in found else {})


def _axis_of(rows: list[Mapping[str, Any]]) -> tuple[Axis, str]:
    """What tells the rows apart, and its values as they are typed."""
    for axis in ("model", "seed", "steps", "fps", "negative") if len(rows) > 1 else ():
        values = [str(row.get(axis, "")) for row in rows]
        if len(set(values)) == len(rows):
            name: Axis = axis
            return name, ("; " if axis in ("model", "negative") else LIST).join(values)
    return "none", ""


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _typed(number: Any) -> str:
    return written_number(number) if isinstance(number, int | float) else str(number)


def checked_comparison(found: Mapping[str, Any], limits: Limits) -> tuple[dict[str, Any], list[Message]]:
    """Those of a comparison's fields from outside that its form can hold, and what is to be said of the others. What
    their values mean is said by the form's plan, as of anything typed."""
    fields: dict[str, Any] = {}
    ignored: list[Message] = []
    for name, value in (comparison_fields(found) or {}).items():
        try:
            fields[name] = checked_field(name, value, limits)
        except RequestError as error:
            ignored.append(error.message)
    return fields, ignored


def not_in_link(settings: Mapping[str, Any]) -> Message | None:
    """What a clip was made of that an address cannot carry: given frames or a video, a LoRA."""
    parts = [s.title for s in table.SETTINGS if isinstance(s.kind, Given) and settings.get(s.name)]
    parts += [plain("LoRA")] * bool(settings.get("lora"))
    return message("note.link_without", parts=tuple(parts)) if parts else None


def checked_settings(
    found: Mapping[str, Any], *, options: WeightOptions = DEFAULT_OPTIONS
) -> tuple[dict[str, Any], list[Message]]:
    """What this demo accepts of settings from outside, checked by the one parser; and what is to be said of all that it
    does not. A comparison's own fields are not among them (`checked_comparison`). `hidden` models count only where they
    are offered."""
    ignored = _unknown(found)
    compared = {"guidance", "rule"} if comparison_fields(found) is not None else set()
    named = {
        setting.name: value
        for setting in table.SETTINGS
        if setting.name not in compared
        and not isinstance(setting.kind, Given)
        and (value := found.get(setting.name)) not in (None, "")
    }
    drawn = [name for name in named if _is_random(table.find(name), named[name])]  # anew at every run
    named = {name: value for name, value in named.items() if name not in drawn}
    spec, model = _model(named.pop("model", None), ignored, options)
    ignored += _lost(found, spec, options)
    typed = "prompt" in named
    while True:
        try:
            request = parse_request(EXAMPLE | named, model_id=spec.id, limits=spec.limits)
            break
        except RequestError as error:
            ignored.append(error.message)
            typed = typed and error.field != "prompt"
            if named.pop(error.field, None) is None:  # nothing of theirs: the rest cannot be used
                return {}, ignored
    settings = table.left_out(spec.limits) | request.settings()
    kept = {name: settings[name] for name in named if name in settings and (typed or name != "prompt")}
    if model is not None:
        kept["model"] = spec.id
    return (kept | {"seed": kept.get("seed")} if kept else {}), ignored


def _is_random(setting: Setting, value: Any) -> bool:
    """Whether a seed is none, but one for every run."""
    return isinstance(setting.kind, Seed) and str(value).strip() in RANDOM_SEEDS


def _model(model: Any, ignored: list[Message], options: WeightOptions) -> tuple[ModelSpec, Any]:
    """The model that is named, or the default and None; a sentence where it is not offered."""
    try:
        return options.find_model(model), model
    except RequestError as error:
        ignored.append(error.message)
        return find_model(None), None


def _unknown(found: Mapping[str, Any]) -> list[Message]:
    """What is to be said of names that are no settings."""
    known = {*table.names(), *COMPARISON, *RECORDED, *OF_THE_HOST, *OF_THE_PAGE}
    unknown = [str(name)[:20] for name in found if name not in known and not str(name).startswith("__")]
    return [RequestError(name, message("request.unknown")).message for name in unknown[:MAX_NAMED]]


def _lost(found: Mapping[str, Any], spec: ModelSpec, options: WeightOptions) -> list[Message]:
    """What a file was made of that does not come back with it."""
    lost = []
    given = [s.kind for s in table.SETTINGS if isinstance(s.kind, Given) and found.get(s.name) in TRUE]
    if any(not isinstance(kind, VideoFile) for kind in given):
        lost.append(message("note.lost_frame"))
    if any(isinstance(kind, VideoFile) for kind in given):
        lost.append(message("note.lost_video"))
    loras = found.get("lora")  # a list in a file, a text in a link
    here = lora_names(spec, options.loras)
    if isinstance(loras, list | str) and loras and loras not in (list(here), LIST.join(here)):
        lost.append(message("note.lost_lora"))
    return lost
