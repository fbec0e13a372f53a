"""What fills the form and follows from it, and runs nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, Literal

import gradio as gr
import numpy as np

from opensora_demo.catalog import MODELS, find_model
from opensora_demo.errors import RequestError, WeightsError
from opensora_demo.media import read_settings, read_video, write_png
from opensora_demo.messages import Language, Message, language_of, message, render
from opensora_demo.messages import sentences as sentences_of
from opensora_demo.pictures import MIN_SIDE_PX, read_reference
from opensora_demo.request import settings as table
from opensora_demo.request.limits import Limits
from opensora_demo.request.scenes import scene_spans
from opensora_demo.sampling.guidance_notes import GUIDANCE_NOTES
from opensora_demo.service.forms import (
    MAX_TYPED,
    cost_names,
    example_of_form,
    given_names,
    read_frames,
    seen_names,
    size_names,
    size_of_form,
)
from opensora_demo.service.links import checked_comparison, checked_settings
from opensora_demo.toy.chips import VALUES, kinds_of, knows_words, roll
from opensora_demo.toy.prompt_edit import with_near, with_value, without_value
from opensora_demo.toy.prompt_words import PromptWord, prompt_words, unknown_spans
from opensora_demo.toy.tagger import Span
from opensora_demo.ui.context import (
    PageContext,
    payload,
    user_errors,
)
from opensora_demo.ui.controls import (
    Updates,
    limit_updates,
    pick_updates,
    preset_updates,
    restored_names,
    stage_props,
    updated_names,
)
from opensora_demo.ui.language import accepted, mark
from opensora_demo.ui.shown_error import ShownError
from opensora_demo.ui.values.common import PromptValue, prompt_value, said

IGNORED = {"file": "note.ignored_file", "link": "note.ignored_link", "page": "note.ignored_page"}
OPENED = {"file": "ui.compare.from_file", "link": "ui.compare.from_link", "page": "ui.compare.from_link"}


class FormActions:
    """Updates of the form's controls, by name."""

    def __init__(self, context: PageContext) -> None:
        self.context = context

    def choose_model(self, model: Any, before: Any, *values: Any) -> list[Any]:
        """Another model was chosen: the updates of `updated_names`. `values` is the form as the model before had it."""
        with user_errors():
            updates = limit_updates(model, dict(zip(table.names(), values, strict=True)), before, self.context.options)
        return [updates[name] for name in updated_names()]

    def preset(self, name: Any, model: Any) -> tuple[Any, Any]:
        """Updates of steps and guidance."""
        with user_errors():
            return preset_updates(name, model)

    def pick(self, event: gr.EventData) -> list[Any]:
        """A clip was picked on the stage: its model and settings go into the form, the updates of `updated_names`."""
        updates = pick_updates(payload(event), self.context.options)
        return [updates[name] for name in updated_names()]

    def open(self, request: gr.Request, file: Any, model: Any = None) -> list[Any]:
        """The settings inside a clip, a picture or a table of this demo go into the forms; a photo or film without any
        is given to the model: the updates of `restored_names`."""
        try:
            found = read_settings(Path(file), MODELS) if isinstance(file, str) else None
        except RequestError as error:
            raise ShownError(message("ui.error.not_opened"), error.problem) from error
        if found is not None:
            return list(self.take(found, "file", request).values())
        with user_errors():
            name = given_by(file, find_model(model).limits) if isinstance(file, str) else None
        if name is None:
            raise ShownError(message("ui.error.not_opened"), message("run.no_settings"))
        language = language_of(accepted(request))
        gr.Info(render(message("note.taken_as", field=message(f"label.{name}")), language), title="")
        updates: Updates = dict.fromkeys(restored_names(), gr.skip())
        updates |= {name: gr.update(value=file), "extras": gr.update(open=True)}
        return list(updates.values())

    def take(
        self,
        found: Mapping[str, Any],
        source: Literal["file", "link", "page"],
        request: gr.Request,
        lost: Sequence[Message] = (),
    ) -> Updates:
        """Settings from outside: the updates of `restored_names`, and a warning of what is not accepted and what is
        `lost`. Those of a comparison fill its form too, which is then turned to and says where they are from."""
        options = self.context.options
        settings, ignored = checked_settings(found, options=options)
        updates: Updates = dict.fromkeys(restored_names(), gr.skip())
        updates |= pick_updates(settings, options) if settings else {}
        spec = find_model(settings.get("model"))
        fields, refused = checked_comparison(found, spec.limits)
        for name, value in fields.items():
            updates[name] = updates[name] | gr.update(value=value)
        if fields:
            said_so = {"phase": "idle", "text": said(message(OPENED[source]))}
            updates["grid"] = gr.update(**stage_props("grid", spec, options=options), value=said_so)
            updates["tabs"] = gr.update(selected="compare")
        if reasons := [*ignored, *refused, *lost]:
            language = language_of(accepted(request))
            warning = render(message(IGNORED[source], reasons=sentences_of(*reasons)), language)
            title = render(message("ui.error.not_all"), language)
            gr.Warning(escape(warning, quote=False), title=title)  # Gradio draws it as HTML
        return updates

    def crop(self, model: Any, *values: Any) -> Any:
        """The given frames as the model will see them, side by side: scaled, cropped, and no finer."""
        with user_errors():
            form = dict(zip(seen_names(), values, strict=True))
            frames = read_frames(form, find_model(model).limits)
        if not frames:
            return gr.update(value=None, visible=False)
        file = self.context.files.new_picture()
        write_png(file, np.concatenate([frame[0] for frame in frames], axis=1), {})
        return gr.update(value=str(file), visible=True)

    def without_unreadable(self, *files: Any) -> list[Any]:
        """A given file that cannot be read is taken out again: updates of the fields of `given_names`."""
        updates: list[Any] = []
        for name, file in zip(given_names(), files, strict=True):
            read = partial(read_video, fps=1) if name == "video" else read_reference
            unread = bool(file) and not _readable(read, Path(str(file)))
            updates.append(gr.update(value=None) if unread else gr.skip())
        return updates

    def size(self, model: Any, *values: Any) -> tuple[Any, Any]:
        """The empty stages take the shape of the clip that is asked for."""
        with user_errors():
            spec = find_model(model)
            size = size_of_form(dict(zip(size_names(), values, strict=True)), spec.limits)
        stage, grid = (stage_props(name, spec, size, self.context.options) for name in ("stage", "grid"))
        return gr.update(**stage), gr.update(**grid)

    def scenes(self, fps: Any, *values: Any) -> Message | str:
        """The scenes of the form's clip and when they begin, in a sentence; what is wrong with them in another; nothing
        where there is one. `values` are of `cost_names`."""
        form = dict(zip(cost_names(), values, strict=True))
        try:
            _, wanted = example_of_form(form | {"fps": fps}, self.context.options)
        except RequestError as error:
            said = form.get("prompt") or form.get("scenes")
            return message("note.not_yet", reason=error.message) if said else ""
        if wanted.scenes == 1:
            return ""
        starts = tuple(f"{first / wanted.fps:.1f}" for first, _ in wanted.scene_frames)
        frames = wanted.total_frames
        seconds = f"{frames / wanted.fps:.1f}"
        return message("note.scenes", scenes=wanted.scenes, frames=frames, seconds=seconds, starts=starts)

    def understand(self, event: gr.EventData, model: Any) -> PromptValue:
        """A prompt while it is typed: its words, as the model reads them."""
        asked = payload(event)
        text, turn = _text(asked), _number(asked.get("turn"))
        return prompt_value(text, self._words(text, model), turn)

    def edit(self, event: gr.EventData, model: Any) -> PromptValue:
        """A chip was pressed or released, or the nearest word taken for an unknown one: the prompt with it."""
        asked = payload(event)
        before, turn, at = _text(asked), _number(asked.get("turn")), _number(asked.get("at"))
        words, kind, value = self._words(before, model), asked.get("kind"), asked.get("value")
        text = before
        if isinstance(kind, str) and kind in VALUES and value in VALUES[kind]:
            if asked.get("pressed"):
                text = without_value(before, words, kind, value)
            else:
                language: Language = "zh" if asked.get("language") == "zh" else "en"
                spans = scene_spans(before)
                start, end = next((span for span in spans if span[0] <= at <= span[1]), spans[0])  # the caret's scene
                part = with_value(
                    before[start:end], self._words(before[start:end], model), kind, value, language, at - start
                )
                text = before[:start] + part + before[end:]
        elif kind is None:
            text = with_near(before, words, at)
        return prompt_value(text, self._words(text, model), turn, before)

    @staticmethod
    def _words(text: str, model: Any) -> list[PromptWord]:
        with user_errors():
            spec = find_model(model)
        if not knows_words(spec.id):
            return []
        words = []
        for start, end in scene_spans(text):
            part, unknown = text[start:end], list[Span]()
            with suppress(WeightsError):  # of which a run says more
                unknown = unknown_spans(spec, part)
            found = prompt_words(part, unknown)
            words += [replace(word, start=start + word.start, end=start + word.end) for word in found]
        return words

    def draw(self, event: gr.EventData) -> str:
        """The text of the curve that was drawn."""
        return str(payload(event).get("curve", ""))[:MAX_TYPED]

    def rule_note(self, rule: object) -> str:
        """What the chosen rule is for, in a sentence."""
        note = next((note for name, note in GUIDANCE_NOTES.items() if name == rule), None)
        return "" if note is None else mark(note.purpose)

    def roll(self, request: gr.Request, model: Any) -> str:
        with user_errors():
            kinds = kinds_of(find_model(model))
        return roll(random.Random(), language_of(accepted(request)), kinds)


def given_by(file: str, limits: Limits) -> str | None:
    """The field of a form that a file without settings is for; None where the model takes none of its kind."""
    if limits.reference and _readable(read_reference, file):
        return "reference"
    if limits.video_uses and _readable(partial(read_video, fps=1), Path(file)):
        return "video"
    return None


def _readable(read: Callable[..., Any], file: str | Path) -> bool:
    try:
        read(file, MIN_SIDE_PX, MIN_SIDE_PX)
    except RequestError:
        return False
    return True


def _text(asked: Mapping[str, Any]) -> str:
    text = asked.get("text")
    return text if isinstance(text, str) else ""


def _number(asked: Any) -> int:
    return asked if isinstance(asked, int) else 0
