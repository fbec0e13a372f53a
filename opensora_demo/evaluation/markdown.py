"""Words for numbers, as the model cards write them; what was not measured is a dash."""

from __future__ import annotations

import math
from collections.abc import Sequence

NOTHING = "–"


def percent(share: float | None) -> str:
    """Of a share in 0..1."""
    return NOTHING if share is None else f"{100 * share:.0f} %"


def number(value: float | None, digits: int = 2) -> str:
    return NOTHING if value is None else f"{value:.{digits}f}"


def count(parameters: int) -> str:
    """In millions, or thousands where there are few."""
    return f"{parameters / 1e6:.2f} M" if parameters >= 1e5 else f"{parameters / 1e3:.1f} k"


def duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"


def ratio(a: float | None, b: float | None) -> float | None:
    """a / b, where both were measured and b is not 0."""
    return None if a is None or not b else a / b


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, numbers to the right, with an empty line after it."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def margin(samples: int) -> str:
    """Half of the widest 95 % interval of a share of `samples` (normal approximation, share one half), in points."""
    return f"± {100 * 1.96 * math.sqrt(0.25 / samples):.0f}"


def picture(what: str, file: str, pictures: Sequence[str]) -> list[str]:
    """The lines that show `file`, if it is one of the pictures beside the card."""
    return [f"![{what}]({file})", ""] if file in pictures else []
