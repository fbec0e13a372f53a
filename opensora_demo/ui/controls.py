"""The form as the chosen model allows it, and as a clip's settings say. Pure: updates by the name of the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from opensora_demo.catalog import MODELS, ModelSpec, find_model
from opensora_demo.errors import RequestError
from opensora_demo.lora import lora_names
from opensora_demo.store import why_not
from opensora_demo.types import RULE_TITLES, Limits, Range, Size, parse_request
from opensora_demo.ui.present import cell_px
from opensora_demo.ui.words import knows_words

Updates = dict[str, Any]

# Whatever changes with the model, in the order in which the page lists it.
FOLLOWS = (
    "prompt", "composer", "die", "go", "note", "steps", "guidance", "fps", "frames", "resolution", "aspect", "rule",
    "image_guidance", "motion_score", "extras", "reference", "last_frame", "loop", "hint", "edit", "rules", "compare",
    "compare_note", "stage", "grid",
)  # fmt: skip
# Whatever a picked clip fills in: values, and with them the model.
PICKED = (*FOLLOWS, "negative", "seed", "model")
_VALUES = (
    "prompt", "negative", "fps", "frames", "resolution", "aspect", "steps", "guidance", "rule", "image_guidance",
    "motion_score", "edit",
)  # fmt: skip
# What a request is without a setting that its file leaves out (`GenerationRequest.settings`).
LEFT_OUT = {"rule": "plain", "image_guidance": 1, "motion_score": 0, "edit": 0}

TOY_PLACEHOLDER = "a red ball bouncing over a meadow"
PLACEHOLDER = "a sailing boat on a calm lake at dawn"


def _span(span: Range | None) -> Updates:
    if span is None:
        return gr.update(visible=False)
    return gr.update(minimum=span.low, maximum=span.high, value=span.default, step=span.step, visible=True)


def _names(names: Sequence[str], value: str) -> Updates:
    return gr.update(choices=list(names), value=value, visible=len(names) > 1)


def limit_updates(model: object) -> Updates:
    """Every control as the chosen model allows it: its range, or hidden where the model has no such setting.

    What was typed and given stays: a prompt, a seed, pictures that a model does not take are only out of sight.
    Raises RequestError.
    """
    spec = find_model(model)
    limits, toy, runs = spec.limits, knows_words(spec.id), not why_not(spec)
    return {
        "prompt": gr.update(placeholder=TOY_PLACEHOLDER if toy else PLACEHOLDER),
        "composer": gr.update(visible=toy),
        "die": gr.update(visible=toy),
        "go": gr.update(interactive=runs),
        "note": gr.update(value=model_note(spec)),
        "steps": _span(limits.steps),
        "guidance": _span(limits.guidance),
        "fps": _span(limits.fps),
        "frames": gr.update(choices=list(limits.frames), value=limits.default_frames),
        "resolution": _names(limits.resolutions, limits.sizes[0].resolution),
        "aspect": _names(limits.aspects, limits.sizes[0].aspect),
        "rule": gr.update(choices=rule_choices(limits), value=limits.rules[0], visible=len(limits.rules) > 1),
        "rules": gr.update(choices=rule_choices(limits), value=[limits.rules[0]], visible=len(limits.rules) > 1),
        "image_guidance": _span(limits.image_guidance),
        "motion_score": _span(limits.motion_score) | {"info": motion_info(limits)},
        "extras": gr.update(label=extras_label(limits)),
        "reference": gr.update(visible=limits.reference),
        "last_frame": gr.update(visible=limits.last_frame),
        "loop": gr.update(visible=limits.last_frame),
        "hint": gr.update(value=frame_hint(limits)),
        "edit": gr.update(visible=limits.edit, value=0),
        "compare": gr.update(interactive=runs),
        "compare_note": gr.update(value=compare_note(spec)),
        "stage": gr.update(**stage_props("stage", spec)),
        "grid": gr.update(**stage_props("grid", spec)),
    }


def pick_updates(settings: Mapping[str, Any]) -> Updates:
    """The form as the settings of a clip say: its model with that model's controls, then every value.

    A missing seed is a random one. Pictures cannot be brought back; where the clip had none the form's are taken out.
    """
    updates: Updates = {name: gr.skip() for name in PICKED}
    model = settings.get("model")
    if isinstance(model, str) and model in MODELS:
        updates |= limit_updates(model) | {"model": gr.update(value=model)}
        settings = LEFT_OUT | dict(settings)
    for name in _VALUES:
        value = settings.get(name)
        if value is not None and not isinstance(value, list | dict) and updates[name].get("visible", True):
            updates[name] = updates[name] | gr.update(value=value)
    if settings.get("reference") is False:
        updates["reference"] = updates["reference"] | gr.update(value=None)
    if "reference" in settings and not settings.get("last_frame"):
        updates["last_frame"] = updates["last_frame"] | gr.update(value=None)
    seed = settings.get("seed")
    return updates | {"seed": gr.update(value="" if seed is None else str(seed))}


# Settings as links and files spell them.
SETTINGS = (
    "prompt", "negative", "fps", "frames", "steps", "guidance", "seed", "rule", "image_guidance", "motion_score",
    "edit", "resolution", "aspect",
)  # fmt: skip


def checked_settings(found: Mapping[str, Any], *, hidden: bool = False) -> tuple[dict[str, Any], list[str]]:
    """What this demo accepts of settings from outside (a link, a file), checked by the one schema; and a sentence for
    each that it does not. Unknown names are passed over; of a comparison's lists the first value counts. `hidden`
    models count only where they are offered."""
    named = {key: found[key] for key in (*SETTINGS, "model") if found.get(key) not in (None, "")}
    if not named:
        return {}, []
    ignored: list[str] = []
    spec = find_model(None)
    model = named.pop("model", None)
    try:
        if (spec := find_model(model)).hidden and not hidden:
            raise RequestError("model", f"{spec.id} is not offered here")
    except RequestError as error:
        ignored.append(str(error))
        spec, model = find_model(None), None
    raw = {key: value[0] if isinstance(value, list) and value else value for key, value in named.items()}
    if found.get("reference") in (True, "true", "True", "1"):
        ignored.append("the given frame, which is not among the settings")
    if isinstance(loras := found.get("lora"), list) and loras and tuple(loras) != lora_names(spec):
        ignored.append("the LoRA, which is not loaded here")
    typed = "prompt" in raw
    while True:
        try:
            request = parse_request({"prompt": "a ball"} | raw, model_id=spec.id, limits=spec.limits)
            break
        except RequestError as error:
            ignored.append(str(error))
            typed = typed and error.field != "prompt"
            if raw.pop(error.field, None) is None:  # nothing of theirs: the rest cannot be used
                return {}, ignored
    settings = LEFT_OUT | request.settings()
    kept = {key: settings[key] for key in raw if key in settings and (typed or key != "prompt")}
    if model is not None:
        kept["model"] = spec.id
    return kept | {"seed": kept.get("seed")}, ignored


PRESETS: Mapping[str, tuple[float, float]] = {
    "Quick": (0.5, 1),
    "Standard": (1, 1),
    "Fine": (2, 1),
    "Strong": (1, 1.75),
}


def preset_updates(name: object, model: object) -> tuple[Any, Any]:
    """Updates of steps and guidance: the model's defaults times the preset's factors. Raises RequestError."""
    limits = find_model(model).limits
    factors = PRESETS.get(str(name), (1, 1))
    values = []
    for span, factor in zip((limits.steps, limits.guidance), factors, strict=True):
        value = round(span.default * factor / span.step) * span.step
        values.append(gr.update(value=min(max(value, span.low), span.high)))
    return values[0], values[1]


def rule_choices(limits: Limits) -> list[tuple[str, str]]:
    return [(RULE_TITLES[rule], rule) for rule in limits.rules]


def stage_props(name: str, spec: ModelSpec, size: Size | None = None) -> dict[str, Any]:
    """What a stage knows of the chosen model: whose examples to show, the shape of what will come (of the model's
    default where no size is given), if it can run.

    Gradio replaces all properties of a drawn component at once, so the fixed ones go along.
    """
    size = size or spec.limits.sizes[0]
    about = {"model": spec.id, "cell": cell_px(size.height_px, size.width_px), "runs": not why_not(spec)}
    return {"name": name, "about": about}


def listed_title(spec: ModelSpec) -> str:
    """A model's title in the list, marked where it cannot run."""
    return spec.title + " · weights not here" * bool(why_not(spec))


def motion_info(limits: Limits) -> str:
    """What the motion score does; where it may be 0 nothing is said of motion."""
    optional = limits.motion_score is not None and limits.motion_score.low == 0
    return "Told to the model: more is livelier." + " 0 leaves it out." * optional


def extras_label(limits: Limits) -> str:
    """The title of the fold that holds the negative prompt and the given frames."""
    if limits.last_frame:
        return "Negative prompt, first and last frame"
    return "Negative prompt and first frame" if limits.reference else "Negative prompt"


def frame_hint(limits: Limits) -> str:
    """What a given frame does, in the words of the model."""
    height_px, width_px = limits.size_px
    size = f"{width_px} x {height_px}" if len(limits.sizes) == 1 else "the clip's size"
    kinds = f"PNG, JPEG or WebP, cropped to {size}."
    if not limits.reference:
        return "This model draws from text alone."
    if not limits.last_frame:
        return f"The clip starts from this picture. {kinds}"
    return (
        "The clip starts from the first frame and ends on the last. Either may be left out; the same picture twice "
        f"makes a loop. {kinds}"
    )


def model_note(spec: ModelSpec) -> str:
    """What the model is, how it reads text, and whether it can run."""
    sizes = spec.limits.sizes
    first = f"{sizes[0].width_px} x {sizes[0].height_px} px"
    size = first if len(sizes) == 1 else f"{', '.join(spec.limits.resolutions)}; {first} unless asked otherwise"
    added = f" LoRA: {', '.join(names)}." if (names := lora_names(spec)) else ""
    return f"{spec.summary} {size}. Text: {spec.text_mode}.{added}{_cannot(spec)}"


def compare_note(spec: ModelSpec) -> str:
    """What the comparison takes from the first tab."""
    return f"Everything else, and the model ({spec.title}), as set under Generate.{_cannot(spec)}"


def _cannot(spec: ModelSpec) -> str:
    why = why_not(spec)
    return f"\n\n**Cannot run here:** {why}." if why else ""
