"""The tab "Gallery": what was made, and the queue of runs. Only where they are kept on disk."""

from __future__ import annotations

from typing import Any

from opensora_demo.request import settings as table
from opensora_demo.ui.actions.all import Actions
from opensora_demo.ui.components import Gallery
from opensora_demo.ui.controls import restored_names
from opensora_demo.ui.events import QUEUED, QUICK


def build() -> Gallery:
    return Gallery(None, elem_id="gallery")


def wire(gallery: Gallery, everything: dict[str, Any], actions: Actions) -> None:
    """`everything` has the components of both forms by name."""
    form = [everything[name] for name in table.names()]
    for event, action in (
        (gallery.look, actions.gallery.look),
        (gallery.stop, actions.gallery.stop),
        (gallery.remove, actions.gallery.remove),
        (gallery.retry, actions.gallery.retry),
        (gallery.discard, actions.gallery.discard),
    ):
        event(action, None, gallery, **QUICK)
    gallery.enqueue(actions.gallery.enqueue, form, gallery, **QUEUED)
    gallery.use(actions.gallery.use, None, [everything[name] for name in restored_names()], **QUEUED)
