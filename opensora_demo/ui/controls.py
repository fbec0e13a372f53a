"""The form as Gradio's controls: made from the table of settings, as the chosen model allows them, and filled from a
clip's settings. Updates go by the name of the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import reduce
from typing import Any

import gradio as gr

from opensora_demo.catalog import MODELS, NANO, ElsewhereWeights, ModelSpec, TextMode, find_model
from opensora_demo.errors import RequestError
from opensora_demo.media import MAX_VIDEO_BYTES, MAX_VIDEO_FRAMES
from opensora_demo.messages import Message, Param, in_a_row, message, paragraphs, plain
from opensora_demo.request import settings as table
from opensora_demo.request.limits import Limits, Range, Size
from opensora_demo.request.parse import split_list
from opensora_demo.request.settings import (
    Choice,
    Choices,
    Drawn,
    Given,
    Model,
    Number,
    Picture,
    Seed,
    Setting,
    Text,
    VideoFile,
)
from opensora_demo.runtime.cost.words import bytes_words
from opensora_demo.service.forms import AXES, COMPARISON, MAX_ROWS, Form, checked_field, fit_to_model
from opensora_demo.toy.chips import knows_words
from opensora_demo.ui.components import GivenVideo, PlainDropdown, PlainRadio, PlainSlider, PlainText, ReferenceImage
from opensora_demo.ui.language import mark
from opensora_demo.ui.values.stage import cell_px
from opensora_demo.weights.lora import lora_names
from opensora_demo.weights.options import DEFAULT_OPTIONS, WeightOptions
from opensora_demo.weights.store import (
    checklist,
    download_bytes,
    download_command,
    free_bytes,
    unavailable_reason,
)

Updates = dict[str, Any]

# What changes with the model beside the controls of its settings.
PARTS = (
    "composer", "die", "go", "note", "instead", "extras", "loop", "hint", "branch", "rules", "compare", "compare_note",
    "stage", "grid", "model_before", "explain_prompt",
)  # fmt: skip


def updated_names() -> tuple[str, ...]:
    """What the chosen model, or a picked clip, changes on the page."""
    return (*table.names(), *PARTS)


def restored_names() -> tuple[str, ...]:
    """The same, the comparison's own fields and the tab that is shown: what a page that is opened fills in."""
    return tuple(dict.fromkeys((*updated_names(), *COMPARISON, "tabs")))


# --- making them


def make_control(setting: Setting, spec: ModelSpec, models: Sequence[tuple[str, str]], **look: Any) -> Any:
    """The control of one setting, not yet placed (`render`). `look` is how it stands there: min_width, placeholder."""
    limits = spec.limits
    limit, hint = setting.limit(limits), setting.hint_for(limits)
    words: dict[str, Any] = {"label": mark(setting.title), "elem_id": _place(setting), "render": False}
    words |= {} if hint is None else {"info": mark(hint)}
    visible = {"visible": setting.shown(limits)}
    match setting.kind:
        case Text() as kind:
            return PlainText(lines=1, max_lines=kind.max_lines, **words, **visible, **look)
        case Seed() | Drawn() | Number(optional=True):
            return PlainText("", lines=1, max_lines=1, **words, **visible, **look)
        case Model():
            return PlainDropdown(models, value=spec.id, **words, **look)
        case Picture():
            return ReferenceImage(
                sources=["upload"], type="filepath", height=200, buttons=[], min_width=140, **words, **visible, **look
            )
        case VideoFile():
            return GivenVideo(
                file_types=[".mp4", ".mov", ".m4v", ".webm", ".gif", ".webp"], height=120, **words, **visible, **look
            )
        case Number():
            span = limit if isinstance(limit, Range) else Range(low=0, high=1, default=0)
            return PlainSlider(
                span.low, span.high, value=span.default, step=span.step, buttons=[], **words, **visible, **look
            )
        case Choice(whole=whole):
            choices = limit if isinstance(limit, Choices) else Choices((), None)  # the model has no such setting
            control = PlainRadio if whole else PlainDropdown
            value = "" if setting.optional else choices.default
            return control(listed_choices(setting, choices), value=value, **words, **visible, **look)


def _place(setting: Setting) -> str:
    """The id of its control on the page."""
    return setting.name.replace("_", "-")


def rule_choices(limits: Limits) -> Choices:
    """The guidance rules: the comparison takes several of them, in a control of its own."""
    rules = table.find("rule").limit(limits)
    assert isinstance(rules, Choices)
    return rules


def listed_choices(setting: Setting, choices: Choices) -> list[Any]:
    """The same, with nothing as the first choice of an optional setting: `label.NAME.same`."""
    nothing = [(mark(message(f"label.{setting.name}.same")), "")] if setting.optional else []
    return [*nothing, *titled(choices)]


def titled(choices: Choices) -> list[Any]:
    """The choices as a control lists them: (title, value) where they have titles."""
    if choices.titles is None:
        return list(choices.values)
    return [(mark(choices.titles[value]), value) for value in choices.values]


# --- as the model allows


def setting_update(setting: Setting, limits: Limits, value: Any = None) -> Updates:
    """A control as the model allows it: its range or choices with `value` or the model's default, or hidden where the
    model has no such setting. What was typed and given stays: a text, a seed, files that it does not take."""
    limit, visible = setting.limit(limits), setting.shown(limits)
    chosen = setting.default(limits) if value is None else value
    hint = setting.hint_for(limits)
    info = {} if setting.hint is None or hint is None else {"info": mark(hint)}
    match limit:
        case _ if setting.optional and not isinstance(setting.kind, Choice):
            return gr.update(value="" if value is None else str(value), visible=visible)
        case Range(low=low, high=high, step=step):
            return gr.update(minimum=low, maximum=high, value=chosen, step=step, visible=True, **info)
        case Choices():
            chosen = "" if chosen is None else chosen
            return gr.update(choices=listed_choices(setting, limit), value=chosen, visible=visible, **info)
        case _ if isinstance(setting.kind, Number | Choice | Given):
            return gr.update(visible=visible)
        case _:
            return gr.skip()


def limit_updates(
    model: object, form: Form | None = None, before: object = None, options: WeightOptions = DEFAULT_OPTIONS
) -> Updates:
    """The page as the chosen model allows it. What was set by hand in `form`, for the model `before`, stays where this
    one accepts it; everything else takes its default. Raises RequestError."""
    spec = options.find_model(model)
    limits, toy, runs = spec.limits, knows_words(spec.id), not unavailable_reason(spec, options)
    kept = fit_to_model(form, find_model(before), spec) if form is not None else {}
    updates = {setting.name: setting_update(setting, limits, kept.get(setting.name)) for setting in table.SETTINGS}
    rules = rule_choices(limits)
    return updates | {
        "prompt": gr.update(placeholder=mark(example_prompt(spec))),
        "explain_prompt": gr.update(placeholder=mark(example_prompt(spec))),
        "composer": gr.update(visible=toy),
        "die": gr.update(visible=toy),
        "go": gr.update(interactive=runs),
        "note": gr.update(value=mark(model_note(spec, options))),
        "instead": gr.update(visible=not runs),
        "rules": gr.update(choices=titled(rules), value=[rules.default], visible=len(rules.values) > 1),
        "extras": gr.update(label=mark(extras_label(limits))),
        "loop": gr.update(visible=limits.last_frame),
        "hint": gr.update(value=mark(frame_hint(limits))),
        "branch": gr.skip(),
        "compare": gr.update(interactive=runs),
        "compare_note": gr.update(value=mark(compare_note(spec, options))),
        "stage": gr.update(**stage_props("stage", spec, options=options)),
        "grid": gr.update(**stage_props("grid", spec, options=options)),
        "model_before": spec.id,
    }


def pick_updates(settings: Mapping[str, Any], options: WeightOptions = DEFAULT_OPTIONS) -> Updates:
    """The form as the settings of a clip say: its model with that model's controls, then every value.

    A missing seed is a random one. Files cannot be brought back; where the clip had none the form's are taken out.
    """
    updates: Updates = {name: gr.skip() for name in updated_names()}
    model = settings.get("model")
    if isinstance(model, str) and model in MODELS:
        updates |= limit_updates(model, options=options) | {"model": gr.update(value=model)}
        settings = table.left_out(MODELS[model].limits) | dict(settings)
    seed = settings.get("seed")
    if settings:
        updates["branch"] = gr.update(open=any(settings.get(name) for name in ("branch_step", "stop_step")))
    of_a_clip = any(isinstance(setting.kind, Given) and setting.name in settings for setting in table.SETTINGS)
    for setting in table.SETTINGS:
        name, value = setting.name, settings.get(setting.name)
        match setting.kind:
            case _ if setting.section == "branch":  # of a clip without one it is nothing
                if settings:
                    written = value if isinstance(value, str) else "" if value is None else str(value)
                    updates[name] = gr.update(value=written)
            case Seed():
                updates[name] = gr.update(value="" if seed is None else str(seed))
            case Given() if of_a_clip and not value:
                updates[name] = updates[name] | gr.update(value=None)
            case Text() | Number() | Choice() | Drawn() if value is not None and not isinstance(value, list | dict):
                if updates[name].get("visible", True):
                    updates[name] = updates[name] | gr.update(value=value)
            case _:
                pass
    return updates


def comparison_updates(held: Mapping[str, Any], limits: Limits) -> Updates:
    """The comparison's own fields as a page held them; what they cannot be is left as it is."""
    updates: Updates = {}
    for name in COMPARISON:
        if held.get(name) is not None:
            with suppress(RequestError):
                updates[name] = gr.update(value=checked_field(name, held[name], limits))
    return updates


ROW_FIELDS = ("rows", "row_presets", "row_models", "seeds")


def row_presets(axis: object, spec: ModelSpec) -> list[str]:
    """Values of the rows worth a press, as they are typed; the first stands in the field when the axis is chosen."""
    limits = spec.limits
    match axis:
        case "seed":
            return ["1, 2", "1, 2, 3", "1, 2, 3, 4"]
        case "steps":
            span, factors = limits.steps, (1 / 4, 1 / 2, 1, 2)
            inside = _inside(span, *(span.default * factor for factor in factors))
            return list(dict.fromkeys(", ".join(map(str, part)) for part in (inside, inside[:3], inside[1:3])))
        case "fps":
            span = limits.fps
            inside = _inside(span, span.low, span.default, 2 * span.default, span.high)
            return list(dict.fromkeys(", ".join(map(str, part)) for part in (inside, [inside[0], inside[-1]])))
        case "negative":
            if spec.labels:
                return ["; ball; star"]
            return ["; red; blue", "; ball; star"] if knows_words(spec.id) else ["; blurry, low quality", "; people"]
        case _:
            return []


def _inside(span: Range, *values: float) -> list[int]:
    """Those of the values that the range has, as whole numbers, rising."""
    return sorted({round(value) for value in values if span.low <= round(value) <= span.high})


def row_updates(axis: object, rows: object, model: object, options: WeightOptions, *, fill: bool) -> list[Any]:
    """The updates of `ROW_FIELDS`: what the axis takes is shown, chips for models, presets beside a text for others,
    nothing for a single row. `fill` puts in what is usual. Raises RequestError."""
    spec = find_model(model)
    presets = row_presets(axis, spec)
    here = [s for s in options.listed() if not unavailable_reason(s, options)]
    typed = split_list(rows) if isinstance(rows, str) else []
    if fill:
        usual = dict.fromkeys((spec.id, *(spec.compared_with or NANO.compared_with)))
        typed = [s.id for s in here if s.id in usual][:MAX_ROWS]
    several = axis == "model"
    first = "; ".join(typed) if several else presets[0] if presets else ""
    named = isinstance(axis, str) and axis in AXES and axis != "none"
    hint = message(f"label.rows.hint.{axis}") if named else message("label.rows.hint")
    chips = [s.id for s in here if s.id in typed]
    return [
        gr.update(visible=bool(presets), info=mark(hint), **({"value": first} if fill else {})),
        gr.update(visible=bool(presets), choices=presets, **({"value": first or None} if fill else {})),
        gr.update(visible=several, choices=[(s.title, s.id) for s in here], **({"value": chips} if chips else {})),
        gr.update(visible=axis != "seed"),
    ]


PRESETS: Mapping[str, tuple[float, float]] = {
    "quick": (0.5, 1),
    "standard": (1, 1),
    "fine": (2, 1),
    "strong": (1, 1.75),
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


def stage_props(
    name: str, spec: ModelSpec, size: Size | None = None, options: WeightOptions = DEFAULT_OPTIONS
) -> dict[str, Any]:
    """What a stage knows of the chosen model: whose examples to show, the shape of what will come (of the model's
    default where no size is given), if it can run.

    Gradio replaces all properties of a drawn component at once, so the fixed ones go along.
    """
    size = size or spec.limits.sizes[0]
    runs = not unavailable_reason(spec, options)
    extends = "extend" in spec.limits.video_uses
    about = {
        "model": spec.id,
        "cell": cell_px(size.height_px, size.width_px),
        "runs": runs,
        "extends": extends,
        "defaults": slider_defaults(spec.limits),
    }
    return {"name": name, "about": about}


def slider_defaults(limits: Limits) -> dict[str, float]:
    """What a control of a number stands at, by its place on the page."""
    return {
        _place(setting): limit.default
        for setting in table.SETTINGS
        if isinstance(limit := setting.limit(limits), Range) and not setting.optional
    }


def listed_title(spec: ModelSpec, options: WeightOptions = DEFAULT_OPTIONS) -> Message:
    """A model's title in the list, marked where it cannot run."""
    return message("ui.not_here", title=spec.title) if unavailable_reason(spec, options) else plain(spec.title)


def example_prompt(spec: ModelSpec) -> Message:
    """What stands in an empty field for the prompt."""
    if spec.labels:
        return message("ui.example_label")
    return message("ui.example_toy" if knows_words(spec.id) else "ui.example")


def extras_label(limits: Limits) -> Message:
    """The title of the fold that holds the negative prompt and the given frames."""
    if limits.video_uses:
        return message("ui.extras.video" if limits.reference else "ui.extras.negative_video")
    if limits.last_frame:
        return message("ui.extras.both")
    return message("ui.extras.first" if limits.reference else "ui.extras.negative")


def frame_hint(limits: Limits) -> Message:
    """What a given frame does, in the words of the model."""
    if not limits.reference:
        return message("note.frame.none")
    height_px, width_px = limits.size_px
    size: Param = f"{width_px} x {height_px}" if len(limits.sizes) == 1 else message("note.frame.clip_size")
    frames = message("note.frame.both" if limits.last_frame else "note.frame.first", size=size)
    if not limits.video_uses:
        return frames
    at_most = {"most": MAX_VIDEO_FRAMES, "mb": MAX_VIDEO_BYTES // 1_000_000}
    return paragraphs(frames, message("note.frame.video", **at_most))


TEXT_MODES: Mapping[TextMode, Message] = {
    "cross-attention": message("note.text_mode.cross"),
    "token concatenation": message("note.text_mode.joint"),
    "pooled vector": message("note.text_mode.pooled"),
    "class label": message("note.text_mode.label"),
    "unknown": message("note.text_mode.unknown"),
}


def model_note(spec: ModelSpec, options: WeightOptions = DEFAULT_OPTIONS) -> Message:
    """What the model is, how it reads text, and whether it can run."""
    first, *others = spec.limits.sizes
    size: dict[str, Param] = {"width": first.width_px, "height": first.height_px}
    shown = message("note.model_size", **size)
    if others:
        shown = message("note.model_sizes", names=spec.limits.resolutions, **size)
    parts = [spec.summary, shown, TEXT_MODES[spec.text_mode]]
    if isinstance(spec.weights, ElsewhereWeights) and not spec.weights.own_limits:
        parts.append(message("note.dialect_limits"))
    if names := lora_names(spec, options.loras):
        parts.append(message("note.lora", names=names))
    return _with_parts(in_a_row(*parts), spec, options)


def compare_note(spec: ModelSpec, options: WeightOptions = DEFAULT_OPTIONS) -> Message:
    """What the comparison takes from the first tab."""
    return _with_reason(message("note.compare", model=spec.title), spec, options)


def _with_reason(note: Message, spec: ModelSpec, options: WeightOptions) -> Message:
    """A note, and below it why the model cannot run."""
    why = unavailable_reason(spec, options)
    return note if why is None else paragraphs(note, message("note.cannot_run", reason=why))


def _with_parts(note: Message, spec: ModelSpec, options: WeightOptions) -> Message:
    """The same; of a model whose weights are not here its parts with their sizes, which of them are here, the room on
    the disk, and the command that fetches the others."""
    why, parts = unavailable_reason(spec, options), checklist(spec, options)
    if why is None or why.code != "weights.absent" or not parts:
        return _with_reason(note, spec, options)
    lines = [
        message(
            "note.part_here" if here else "note.part_absent",
            part=part,
            size=bytes_words(files.size_bytes),
            repository=files.repo,
        )
        for part, files, here in parts
    ]
    need, free = download_bytes(spec, options), free_bytes(options.weights_dir)
    room = "note.to_get" if free > need else "note.to_get_no_room"
    sizes = {"size": bytes_words(need), "free": bytes_words(free)}
    command = message(room, folder=options.weights_name, command=download_command(spec), **sizes)
    return paragraphs(note, message("note.lacks", model=spec.title), markdown_list(lines), command)


def markdown_list(lines: Sequence[Message]) -> Message:
    """A list of Markdown, an entry a line."""
    return reduce(lambda first, rest: message("join.lines", first=first, rest=rest), lines)
