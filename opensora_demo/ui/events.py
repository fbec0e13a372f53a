"""How the page's events are queued: options of Gradio's listeners, by what the event does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
