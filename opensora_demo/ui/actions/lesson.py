"""What the lesson does: it fills the real form, starts the real runs, and has the reader look at what came of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr

from opensora_demo.catalog import find_model
from opensora_demo.media import read_mp4
from opensora_demo.request import settings as table
from opensora_demo.request.events import Clip
from opensora_demo.request.parse import parse_request
from opensora_demo.service.forms import compare_names, given_names
from opensora_demo.service.outputs import marks_of
from opensora_demo.toy.exercises import EXERCISES
from opensora_demo.toy.prompt_intent import Mark
from opensora_demo.ui.actions.clips import ClipActions
from opensora_demo.ui.actions.comparison import ComparisonActions
from opensora_demo.ui.actions.form import FormActions
from opensora_demo.ui.context import PageContext, Shown, known_ids, payload, user_errors
from opensora_demo.ui.controls import comparison_updates, restored_names
from opensora_demo.ui.values.compare import CompareValue, mark_values
from opensora_demo.ui.values.lesson import LessonValue, Seen, lesson_value


class LessonActions:
    """A step of the lesson sends the settings it is about; they are checked as those of any other form are."""

    def __init__(
        self, context: PageContext, form: FormActions, clips: ClipActions, comparison: ComparisonActions
    ) -> None:
        self.context = context
        self.form = form
        self.clips = clips
        self.comparison = comparison

    def fill(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        """The step's settings go into both forms: the updates of `restored_names`."""
        found = payload(event)
        settings = {name: value for name, value in found.items() if name in table.names()}
        with user_errors():
            spec = find_model(settings.get("model"))
        updates = dict.fromkeys(restored_names(), gr.skip()) | self.form.take(settings, "link", request)
        for name, update in comparison_updates(found, spec.limits).items():
            updates[name] = updates[name] | update
        return list(updates.values())

    def clip(self, request: gr.Request, event: gr.EventData) -> Iterator[Shown]:
        """Values of stage and scope of the step's clip. It does not read the form, which is being filled meanwhile."""
        form = dict.fromkeys(table.names()) | self._known(event)
        yield from self.clips.make_clip(request, *(form[name] for name in table.names()))

    def compare_step(self, request: gr.Request, event: gr.EventData) -> Iterator[CompareValue]:
        """Values of the step's comparison, likewise. (As `compare` it would take the API's name from it.)"""
        form = dict.fromkeys(compare_names()) | {"axis": "none", "rows": ""} | self._known(event)
        yield from self.comparison.make_comparison(request, *(form[name] for name in compare_names()))

    def _known(self, event: gr.EventData) -> dict[str, Any]:
        """What a step says of the form. A file is no word of it: a page names none by where it lies."""
        names = [name for name in compare_names() if name not in given_names()]
        return {name: value for name, value in payload(event).items() if name in names}

    def check(self, request: gr.Request, event: gr.EventData) -> LessonValue:
        """Whether the visitor's clips solve an exercise: those of the runs whose secret ids the page names, and of a
        prompt of their own; what the lesson itself has run solves nothing."""
        data = payload(event)
        exercise = str(data.get("exercise"))
        if exercise not in EXERCISES:
            exercise = next(iter(EXERCISES))
        with user_errors():
            clips = [*self._clips(data, request), *self._cells(data, request)]
        clips = [clip for clip in clips if clip[0]["prompt"] != data.get("prompt")]
        return lesson_value(next(self.context.numbers), exercise, clips)

    def _clips(self, data: Mapping[str, Any], request: gr.Request) -> Iterator[Seen]:
        for run in self.context.runs.adopt(known_ids(data), request.session_hash, "clip"):
            clip = run.value[0]["clip"] if run.value else None
            if clip is None or not self.context.here(clip["file"]):
                continue
            settings = clip["settings"]
            marks = read_file(
                self.context.files.path / clip["file"]["orig_name"], settings["model"], settings["prompt"]
            )
            if marks is not None:
                yield settings, mark_values(marks)

    def _cells(self, data: Mapping[str, Any], request: gr.Request) -> Iterator[Seen]:
        for run in self.context.runs.adopt(known_ids(data), request.session_hash, "comparison"):
            for cell in (cell for row in (run.value["cells"] if run.value else ()) for cell in row):
                if cell["state"] == "done" and cell["marks"] is not None:
                    yield cell["settings"], cell["marks"]


@lru_cache(maxsize=64)
def read_file(file: Path, model: str, prompt: str) -> dict[str, Mark] | None:
    """What the reader sees in a clip's file of what its prompt asks for; None where it cannot tell. The name of a file
    is given once."""
    request = parse_request({"prompt": prompt}, model_id=model, limits=find_model(model).limits)
    return marks_of(Clip(frames=read_mp4(file)[0], request=request))
