"""What both forms hold outlives the page: the tab keeps it at every change (`assets/ui/lib/form.js`) and hands it back
when the page is loaded anew, given files with it. A tab that holds nothing has the form of the run that goes on by
itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from opensora_demo.catalog import MODELS, find_model
from opensora_demo.messages import Message, message
from opensora_demo.request import settings as table
from opensora_demo.service.forms import Form, compare_names, given_names, of_model
from opensora_demo.service.runs import Run
from opensora_demo.ui.actions.all import Actions
from opensora_demo.ui.components import AnyValue, uploaded_path
from opensora_demo.ui.context import known_ids
from opensora_demo.ui.controls import PARTS, Updates, comparison_updates, restored_names
from opensora_demo.ui.events import QUEUED, QUIET
from opensora_demo.ui.scripts import call_js

MAX_NAME = 60  # characters of a file's name that are read out


def keep_js() -> str:
    """What keeps both forms at a change."""
    return call_js("lib/form.js", "keep", compare_names())


def restored(actions: Actions, request: gr.Request, held: Any) -> list[Any]:
    """The page was opened: what its tab holds of the form, or the form of the run that it names, or else the settings
    in its address, go into the form, and nothing runs. The updates of `restored_names`."""
    updates: Updates = dict.fromkeys(restored_names(), gr.skip())
    run = run_of(actions, held)
    if run is not None:
        held = run.form
    if not isinstance(held, dict) or "jobs" in held:
        found = dict(request.query_params) if request.query_params else {}
        updates |= actions.form.take(found, "link", request)
    else:
        model = held.get("model")
        spec = MODELS.get(model if isinstance(model, str) else "", find_model(None))
        own = of_model(held, spec.limits)
        files, lost = given_files(own, uploaded_path if run is None else str)
        updates |= actions.form.take({n: v for n, v in own.items() if n not in given_names()}, "page", request, lost)
        for name, file in files.items():
            updates[name] = updates[name] | gr.update(value=file)
            updates["extras"] = updates["extras"] | gr.update(open=True)
        for name, update in comparison_updates(held, spec.limits).items():
            updates[name] = updates[name] | update
        if run is not None and run.kind == "comparison":
            updates["tabs"] = gr.update(selected="compare")
    if updates["model_before"] == find_model(None).id:  # the page was built for it: what follows it is as it should be
        own_parts = {"rules"} | ({"grid"} if "value" in updates["grid"] else set())
        own_parts |= {"extras"} if updates["extras"].get("open") else set()
        updates |= {name: gr.skip() for name in PARTS if name not in own_parts}
    return list(updates.values())


def run_of(actions: Actions, held: Any) -> Run[Any] | None:
    """The newest run that a page names instead of a form, if it is still known."""
    ids = known_ids(held) if isinstance(held, dict) else []
    runs = [run for run_id in ids if (run := actions.context.runs.find(run_id)) is not None and run.form is not None]
    return next((run for run in runs if not run.over), runs[0] if runs else None)


def given_files(form: Form, path_of: Callable[[Any], str | None]) -> tuple[dict[str, str], list[Message]]:
    """The given files of a form that are still here, by the name of the field, and what is to be said of the others.
    `path_of` reads a value of the form."""
    files: dict[str, str] = {}
    lost: list[Message] = []
    for name in given_names():
        value = form.get(name)
        if isinstance(value, list):  # as a field of files sends it
            value = value[0] if value else None
        if not value:
            continue
        path = path_of(value)
        if path is not None and Path(path).is_file():
            files[name] = path
            continue
        called = value.get("orig_name") if isinstance(value, dict) else path and Path(path).name
        title = table.find(name).title
        if isinstance(called, str) and called:
            lost.append(message("note.lost_file", field=title, file=called[:MAX_NAME]))
        else:
            lost.append(message("note.lost_given", field=title))
    return files, lost


def wire(everything: Mapping[str, Any], actions: Actions, page: gr.Blocks) -> None:
    """`everything` has the components of both forms by name."""
    form = [everything[name] for name in compare_names()]

    def page_restore_form(request: gr.Request, held: Any) -> list[Any]:
        return restored(actions, request, held)

    held, fields = AnyValue(label="held", visible=False), [everything[name] for name in restored_names()]
    page.load(page_restore_form, held, fields, js=call_js("lib/form.js", "recall"), **QUEUED)
    gr.on([box.change for box in form], None, form, None, js=keep_js(), **QUIET)
