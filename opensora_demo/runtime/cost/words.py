"""What a run takes, as one says it."""

from __future__ import annotations

from opensora_demo.messages import Message, message
from opensora_demo.runtime.cost.estimator import Estimate


def in_words(found: Estimate) -> Message:
    """What a run takes, in a sentence."""
    need, have = found.needed_bytes / 1e9, found.machine.total_bytes / 1e9
    return message("note.cost", time=duration(found.seconds), need=short(need), have=short(have))


def duration(seconds: float) -> Message:
    """A length of time as one says it: "0.4 s", "50 s", "7 min", "3 h"."""
    if seconds < 90:
        return message("note.time.s", n=float(f"{seconds:.1g}") if seconds < 1 else round(seconds))
    if seconds < 5400:
        return message("note.time.min", n=round(seconds / 60))
    return message("note.time.h", n=round(seconds / 3600))


def bytes_words(size_bytes: float) -> str:
    """A size as one says it: "0.8 MB", "12 MB", "3.1 GB"."""
    if size_bytes < 1e9:
        return f"{short(size_bytes / 1e6)} MB"
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes < 1e11 else f"{size_bytes / 1e9:.0f} GB"


def short(number: float) -> str:
    """Two figures, whole from 10 on."""
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"
