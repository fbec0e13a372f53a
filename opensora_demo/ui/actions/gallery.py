"""The tab "Gallery": kept clips, and the queue of runs. Only for whoever may see them."""

from __future__ import annotations

from typing import Any

import gradio as gr

from opensora_demo.errors import RequestError
from opensora_demo.messages import message
from opensora_demo.request import settings as table
from opensora_demo.service.run_queue import given_of, parse_batch, parse_each
from opensora_demo.service.storage import Storage
from opensora_demo.ui.actions.form import FormActions
from opensora_demo.ui.context import PageContext, payload, user_errors
from opensora_demo.ui.values.gallery import GalleryValue, gallery_value

PAGE = 24  # clips that are asked for at once
MAX_CHARS = 200_000  # of a text with a prompt a line


class GalleryActions:
    """Each answers with the whole tab."""

    def __init__(self, context: PageContext, form: FormActions) -> None:
        self.context, self.form = context, form

    def look(self, request: gr.Request, event: gr.EventData) -> GalleryValue:
        with user_errors():
            return self._value(request, payload(event))

    def enqueue(self, request: gr.Request, event: gr.EventData, *values: Any) -> GalleryValue:
        """Several prompts at once, with the settings of the form."""
        asked = payload(event)
        form = dict(zip(table.names(), values, strict=True))
        with user_errors():
            storage = self._storage(request)
            text = asked.get("prompts")
            if not isinstance(text, str) or len(text) > MAX_CHARS:
                raise RequestError("prompts", message("request.prompts_text", most=MAX_CHARS))
            requests = parse_batch(form, text, parse_each(asked.get("each")), self.context.estimator)
            storage.queue.add(requests, given_of(form))
            return self._value(request, asked, added=len(requests))

    def stop(self, request: gr.Request, event: gr.EventData) -> GalleryValue:
        """The queue stops, or goes on again."""
        with user_errors():
            queue = self._storage(request).queue
            if payload(event).get("stop"):
                queue.pause()
            else:
                queue.go_on()
            return self._value(request, payload(event))

    def remove(self, request: gr.Request, event: gr.EventData) -> GalleryValue:
        """Take a run out of the queue, all that wait, or all that have ended."""
        asked = payload(event)
        with user_errors():
            queue = self._storage(request).queue
            which = asked.get("which")
            ids = [run.id for run in queue.runs() if which == ("ended" if run.over else "waiting") or which == run.id]
            queue.remove(ids)
            return self._value(request, asked)

    def retry(self, request: gr.Request, event: gr.EventData) -> GalleryValue:
        """Put a run that has failed back into the line."""
        with user_errors():
            self._storage(request).queue.again(str(payload(event).get("id", "")))
            return self._value(request, payload(event))

    def discard(self, request: gr.Request, event: gr.EventData) -> GalleryValue:
        """Delete a clip."""
        with user_errors():
            self._storage(request).gallery.delete([payload(event).get("name")])
            return self._value(request, payload(event))

    def use(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        """A clip's settings go into the forms, whose tab is turned to: the updates of `restored_names`."""
        with user_errors():
            found = self._storage(request).gallery.kept([str(payload(event).get("name", ""))])
            if not found:
                raise RequestError("gallery", message("request.clip_gone"))
        updates = self.form.take(found[0].settings, "file", request)
        if updates["tabs"] == gr.skip():
            updates["tabs"] = gr.update(selected="generate")
        return list(updates.values())

    def _storage(self, request: gr.Request) -> Storage:
        storage = self.context.storage_of(request)
        if storage is None:
            raise RequestError("gallery", message("request.not_yours"))
        return storage

    def _value(self, request: gr.Request, asked: dict[str, Any], added: int = 0) -> GalleryValue:
        most = asked.get("clips")
        count = most if isinstance(most, int) and PAGE <= most <= 100_000 else PAGE
        return gallery_value(self._storage(request), count, added)
