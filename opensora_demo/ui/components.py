"""Gradio components that pass what they are given straight on, and our own that draw.

Gradio's components check and change values before a function sees them (a slider enforces its bounds but lets NaN and
2.5 through; an image is decoded with every plugin there is). Here one schema decides, `parse_request`, so these
let everything pass. User text never meets an `html_template`: Gradio evaluates templates, so ours are fixed, and the
browser sets text with `textContent`.
"""

from __future__ import annotations

from copy import deepcopy
from functools import cache, wraps
from typing import Any

import gradio as gr
from gradio.data_classes import FileData, ImageData

from opensora_demo.errors import RequestError
from opensora_demo.messages import message
from opensora_demo.ui.scripts import UI_ASSETS, start_line


class PlainText(gr.Textbox):
    is_template = True

    def preprocess(self, payload: Any) -> Any:
        return payload


class PlainSlider(gr.Slider):
    is_template = True

    def preprocess(self, payload: Any) -> Any:
        return payload


class PlainRadio(gr.Radio):
    is_template = True

    def preprocess(self, payload: Any) -> Any:
        return payload


class PlainDropdown(gr.Dropdown):
    is_template = True

    def preprocess(self, payload: Any) -> Any:
        return payload


class PlainChecks(gr.CheckboxGroup):
    is_template = True

    def preprocess(self, payload: Any) -> Any:
        return payload


class AnyValue(gr.JSON):
    """A parameter of the API: any JSON value, undisturbed."""

    is_template = True
    data_model = None

    def preprocess(self, payload: Any) -> Any:
        return payload

    def api_info(self) -> dict[str, Any]:
        return {"type": {}, "description": "any JSON value; what is accepted depends on the model"}


class ReferenceImage(gr.Image):
    """An uploaded file as a path, not opened here: `pictures.read_reference` looks at the header first.

    Gradio has checked that the path lies in its upload folder whenever the value says it is a file; anything that does
    not say so is turned away, since its path was not checked.
    """

    is_template = True
    data_model = None

    def preprocess(self, payload: Any) -> Any:
        return _uploaded(payload, "reference", "request.image_upload")

    def api_info(self) -> dict[str, Any]:
        return _schema(ImageData)


class GivenVideo(gr.File):
    """An uploaded file as a path, not opened here: `media.read_video` looks at its first bytes. Paths are checked as
    those of `ReferenceImage` are."""

    is_template = True

    @wraps(gr.File.__init__)  # type: ignore[misc]  # whose parameters Gradio sends to the page
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.data_model = None  # gr.File sets one, whose refusal is no sentence

    def preprocess(self, payload: Any) -> Any:
        if isinstance(payload, list) and len(payload) == 1:  # as the page sends it
            (payload,) = payload
        return _uploaded(payload, "video", "request.video_upload")

    def api_info(self) -> dict[str, Any]:
        return _schema(FileData)


def _schema(model: Any) -> dict[str, Any]:
    """Of a model of Gradio's, which asks for it each time it writes down the page, dozens of times a start."""
    return deepcopy(_made_schema(model))


@cache
def _made_schema(model: Any) -> dict[str, Any]:
    return model.model_json_schema()


def _uploaded(payload: Any, field: str, refusal: str) -> str | None:
    """The path of a file whose place Gradio has checked, since it says that it is one. Raises gr.Error."""
    if payload is None:
        return None
    path = uploaded_path(payload)
    if path is None:
        raise gr.Error(str(RequestError(field, message(refusal))))
    return path


def uploaded_path(payload: Any) -> str | None:
    """The path of a value that says that it is a file, so that Gradio has checked that it is an upload; None of any
    other."""
    meta = payload.get("meta") if isinstance(payload, dict) else None
    path = payload.get("path") if isinstance(payload, dict) else None
    is_file = isinstance(meta, dict) and meta.get("_type") == "gradio.FileData" and isinstance(path, str)
    return path if is_file else None


class _Drawn(gr.HTML):
    """A component drawn from a JSON value by a module of ours over a template of ours, both called `script`.

    `triggers` are the events it sends to Python.
    """

    script = ""
    triggers: tuple[str, ...] = ()

    def __init__(self, value: Any = None, **kwargs: Any) -> None:
        super().__init__(
            value,
            html_template=(UI_ASSETS / self.script / f"{self.script}.html").read_text("utf-8"),
            js_on_load=start_line(self.script, self.triggers, {k: kwargs[k] for k in ("name", "about") if k in kwargs}),
            **kwargs,
        )

    def postprocess(self, value: Any) -> Any:
        return value

    def preprocess(self, payload: Any) -> Any:
        return payload

    def api_info(self) -> dict[str, Any]:
        return {"type": {}, "description": "what the page draws"}


class Stage(_Drawn):
    """The picture: examples, the estimate of every step, the finished clip; its strip of steps, chips and shelf.

    `about` is the chosen model: {model, cell, runs, extends, defaults}.
    """

    script = "stage"
    triggers: tuple[str, ...] = ("pick", "again", "extend", "restore", "keep")

    def __init__(self, value: Any = None, *, name: str, about: dict[str, Any] | None = None, **kwargs: Any) -> None:
        # As attributes too: gr.HTML takes any word in its script for an event, and an update asks for them by name.
        self.name, self.about = name, about
        super().__init__(value, elem_id=name, name=name, about=about, **kwargs)


class Compare(Stage):
    """A table of clips under one transport, with marks, chart, wipe and difference."""

    script = "compare"
    triggers: tuple[str, ...] = ("pick", "restore", "resume", "keep")


class Scope(_Drawn):
    """The latent scope: what every step of a run was made of, from the value of `ui.scope.ScopeView`."""

    script = "scope"


class Composer(_Drawn):
    """The prompt as it is understood: its words by kind, rows of chips that are one state with it, and what could
    stand in the place of unknown words."""

    script = "composer"
    triggers: tuple[str, ...] = ("understand", "edit")


class CurveEditor(_Drawn):
    """The curve of guidance over the steps, as `common.GuidanceCurveValue` has it; it sends the text of its points."""

    script = "curve"
    triggers: tuple[str, ...] = ("draw",)


class Explain(_Drawn):
    """Figures about one run: what `values.explain.ExplainView` says of it. `about` is what the form would explain now:
    {prompt, model}."""

    script = "explain"
    triggers: tuple[str, ...] = ("explain", "glance", "halt", "compare")

    def __init__(self, value: Any = None, *, about: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self.about = about  # as `Stage` has it
        super().__init__(value, about=about, **kwargs)


class Gallery(_Drawn):
    """Kept clips and the queue of runs: what `values.gallery.gallery_value` says of them."""

    script = "gallery"
    triggers: tuple[str, ...] = ("look", "enqueue", "stop", "remove", "retry", "discard", "use")


class Lesson(_Drawn):
    """Six steps that ask before they show, beside all tabs; its value is the answer to an exercise."""

    script = "lesson"
    triggers: tuple[str, ...] = ("fill", "clip", "compare", "check")
