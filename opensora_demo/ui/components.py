"""Gradio components that pass what they are given straight on, and our own that draw.

Gradio's components check and change values before a function sees them (a slider enforces its bounds but lets NaN and
2.5 through; an image is decoded with every plugin there is). Here one schema decides, `types.parse_request`, so these
let everything pass. User text never meets an `html_template`: Gradio evaluates templates, so ours are fixed, and the
browser sets text with `textContent`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio import component_meta
from gradio.data_classes import ImageData

from opensora_demo.errors import RequestError

UI_ASSETS = Path(__file__).resolve().parents[2] / "assets" / "ui"

# Gradio writes a .pyi stub beside the source of every component class as it is defined; nothing is written at import.
component_meta.create_or_modify_pyi = lambda *_: None


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
    """An uploaded file as a path, not opened here: `media.read_reference` looks at the header first.

    Gradio has checked that the path lies in its upload folder whenever the value says it is a file; anything that does
    not say so is turned away, since its path was not checked.
    """

    is_template = True
    data_model = None

    def preprocess(self, payload: Any) -> Any:
        if payload is None:
            return None
        meta = payload.get("meta") if isinstance(payload, dict) else None
        path = payload.get("path") if isinstance(payload, dict) else None
        if not isinstance(meta, dict) or meta.get("_type") != "gradio.FileData" or not isinstance(path, str):
            raise gr.Error(str(RequestError("reference", "must be an uploaded PNG, JPEG or WebP image")))
        return path

    def api_info(self) -> dict[str, Any]:
        return ImageData.model_json_schema()


class _Drawn(gr.HTML):
    """A component drawn from a JSON value by a script of ours over a template of ours, both called `script`."""

    script = ""

    def __init__(self, value: Any = None, **kwargs: Any) -> None:
        super().__init__(
            value,
            html_template=(UI_ASSETS / f"{self.script}.html").read_text("utf-8"),
            js_on_load=(UI_ASSETS / f"{self.script}.js").read_text("utf-8"),
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

    `about` is the chosen model: {model, cell, runs}.
    """

    script = "stage"

    def __init__(self, value: Any = None, *, name: str, about: dict[str, Any] | None = None, **kwargs: Any) -> None:
        # As attributes too: gr.HTML takes any word in its script for an event, and an update asks for them by name.
        self.name, self.about = name, about
        super().__init__(value, elem_id=name, name=name, about=about, **kwargs)


class Compare(Stage):
    """A table of clips under one transport, with marks, chart, wipe and difference."""

    script = "compare"


class Scope(_Drawn):
    """The latent scope: what every step of a run was made of, from the value of `ui.scope.ScopeView`."""

    script = "scope"


class Composer(_Drawn):
    """Rows of chips that make a sentence."""

    script = "composer"


class Explain(_Drawn):
    """Five figures about one run: what `explained.ExplainView` says of it."""

    script = "explain"
