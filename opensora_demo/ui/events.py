"""How the page's events are queued: options of Gradio's listeners, by what the event does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.events import Dependency

QUIET: Mapping[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
RUNS = "runs"  # what Gradio calls the queue of events that begin a run
RUN: Mapping[str, Any] = {**QUIET, "concurrency_limit": None, "concurrency_id": RUNS, "trigger_mode": "once"}
"""A run that is watched to its end. It waits for the device in the engine's line, where it can be stopped, never in
Gradio's queue."""
WATCH: Mapping[str, Any] = {**QUIET, "concurrency_limit": None, "trigger_mode": "once"}
"""A run that goes on is watched again."""
QUICK: Mapping[str, Any] = {**QUIET, "queue": False}
"""An answer at once, past the queue."""
QUEUED: Mapping[str, Any] = {**QUIET, "concurrency_limit": None}
"""An answer at once that may warn: only through the queue do warnings reach the page."""
COUNTED: Mapping[str, Any] = {**QUIET, "concurrency_limit": 1, "concurrency_id": "cost"}
"""Counting what a run takes: one at a time."""


def on_last(triggers: Sequence[Any], fn: Callable[..., Any], inputs: Any, outputs: Any, **options: Any) -> Dependency:
    """Listen to events of which the last one counts: while an answer is on its way others wait, and one answer serves
    them all.

    Gradio has `trigger_mode="always_last"` for that, but once an answer has come its page (6.31) repeats the *event*
    that waited, not the function: where two functions listen so to one event they wake each other for ever, several
    requests a second. So the events lead to a step of their own, which does nothing, and the function follows it.
    """
    step = gr.on([*triggers], None, None, None, js="() => []", **QUICK)
    return step.then(fn, inputs, outputs, trigger_mode="always_last", **options)
