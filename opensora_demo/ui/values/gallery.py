"""What the tab "Gallery" draws: kept clips, and the queue of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from opensora_demo.catalog import MODELS
from opensora_demo.messages import Message, message
from opensora_demo.runtime.cost.words import bytes_words, duration
from opensora_demo.service.gallery import Kept
from opensora_demo.service.run_queue import QueuedRun, left_s
from opensora_demo.service.storage import Storage
from opensora_demo.ui.values.common import MessageValue, said, said_or_none
from opensora_demo.ui.values.stage import ChipValue, chips

MAX_LISTED = 60  # runs of the queue that are drawn

QueueState = Literal["queued", "loading", "running", "done", "cancelled", "failed", "interrupted"]
STATES: Mapping[QueueState, Message] = {
    "queued": message("note.queue.queued"),
    "loading": message("note.queue.running"),
    "running": message("note.queue.running"),
    "done": message("note.queue.done"),
    "cancelled": message("note.queue.cancelled"),
    "failed": message("note.queue.failed"),
    "interrupted": message("note.queue.failed"),
}


class KeptClipValue(TypedDict):
    """A clip of the gallery: its file by name, when it was made in seconds since 1970, and what made it."""

    name: str
    prompt: str
    made: float
    chips: list[ChipValue]


class QueuedRunValue(TypedDict):
    """A run of the queue: `text` says how it stands, `reason` why it failed, `clip` names its file in the gallery once
    it is there."""

    id: str
    state: QueueState
    prompt: str
    about: str
    text: MessageValue
    reason: MessageValue | None
    clip: str


class GalleryValue(TypedDict):
    """`clips`: the newest of `count`; `room` says what they take of what they may, `note` what went wrong. `runs`: what
    of the queue is drawn, and `left_out` the number of others; `going`: how many are not over, `ended`:
    how many are; `queue` says how it stands. `added` is the number of runs that the page has just put into it."""

    clips: list[KeptClipValue]
    count: int
    room: MessageValue
    note: MessageValue | None
    runs: list[QueuedRunValue]
    left_out: int
    going: int
    ended: int
    paused: bool
    queue: MessageValue
    added: int


def gallery_value(storage: Storage, most: int, added: int = 0) -> GalleryValue:
    """The newest `most` clips, and the queue: what goes on first, then what waits, then what has ended, newest
    first."""
    gallery, queue = storage.gallery, storage.queue
    names, runs = gallery.names(), queue.runs()
    going = sorted((run for run in runs if not run.over), key=lambda run: run.state == "queued")
    ended = [run for run in reversed(runs) if run.over]
    shown = [*going[: MAX_LISTED - min(len(ended), MAX_LISTED // 3)], *ended][:MAX_LISTED]
    here = set(names)
    room = message(
        "note.gallery.room",
        used=bytes_words(gallery.used_bytes),
        most=bytes_words(gallery.max_bytes),
        folder=str(gallery.clips),
    )
    return {
        "clips": [_clip(kept) for kept in gallery.kept(names[:most])],
        "count": len(names),
        "room": said(room),
        "note": said_or_none(gallery.trouble),
        "runs": [_run(run, storage, here) for run in shown],
        "left_out": len(runs) - len(shown),
        "going": len(going),
        "ended": len(ended),
        "paused": queue.paused,
        "queue": said(_queue_words(storage, runs)),
        "added": added,
    }


def _clip(kept: Kept) -> KeptClipValue:
    settings = kept.settings
    return {
        "name": kept.name,
        "prompt": str(settings.get("prompt", "")),
        "made": round(kept.made_s, 3),
        "chips": _chips(settings),
    }


def _chips(settings: Mapping[str, Any]) -> list[ChipValue]:
    """None for a file whose settings somebody has written by hand."""
    try:
        return chips(settings)
    except (LookupError, TypeError, ValueError, AttributeError):
        return []


def _run(run: QueuedRun, storage: Storage, here: set[str]) -> QueuedRunValue:
    settings = run.settings
    model = str(settings.get("model", ""))
    title = MODELS[model].title if model in MODELS else model
    text, progress = STATES[run.state], storage.worker.progress
    if run.state == "running" and progress is not None and progress.run_id == run.id and progress.step:
        text = message("note.queue.step", step=progress.step, steps=progress.steps)
    if run.state == "done":
        text = message("note.queue.took", time=duration(run.seconds))
    return {
        "id": run.id,
        "state": run.state,
        "prompt": str(settings.get("prompt", "")),
        "about": f"{title} · {settings.get('seed', '')}",
        "text": said(text),
        "reason": said_or_none(run.failure),
        "clip": run.clip if run.clip in here else "",
    }


def _queue_words(storage: Storage, runs: Sequence[QueuedRun]) -> Message:
    waiting = sum(not run.over for run in runs)
    failed = sum(run.state in ("failed", "interrupted") for run in runs)
    done = sum(run.state == "done" for run in runs)
    if storage.queue.paused and waiting:
        reason = storage.queue.pause_reason
        if reason is not None:
            return message("note.queue.stopped_by", waiting=waiting, reason=reason)
        return message("note.queue.stopped", waiting=waiting)
    if not runs:
        return message("note.queue.empty")
    if not waiting:
        return message("note.queue.all_ended", done=done, failed=failed)
    seconds = left_s(runs, storage.worker.progress)
    if seconds is None:
        return message("note.queue.going", waiting=waiting)
    return message("note.queue.going_left", waiting=waiting, time=duration(seconds))
