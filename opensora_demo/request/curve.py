"""A curve over the steps, drawn by hand: how much of guidance's pull is in force at each step.

Points (fraction, share), fractions rising from 0, the first step, to 1, the last: straight lines between them, level
before the first and after the last. Share 1 is the guidance scale as it was set, 0 no pull, 2 twice the pull. As text:
"0:0, 0.3:1, 1:0.5".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from opensora_demo.errors import RequestError
from opensora_demo.messages import message

Curve = tuple[tuple[float, float], ...]
MOST_POINTS = 12
MOST_SHARE = 2.0


def parse_curve(name: str, value: Any) -> Curve:
    """A text, or a list of pairs; nothing is no curve. Raises RequestError with this name."""
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        text = unicodedata.normalize("NFKC", value)  # a Chinese keyboard has full-width signs
        pairs: Sequence[Any] = [part.split(":") for part in re.split(r"[,;、\s]+", text) if part]
    elif isinstance(value, list | tuple):
        pairs = value
    else:
        pairs = [value]
    if len(pairs) > MOST_POINTS:
        raise RequestError(name, message("request.curve_points", most=MOST_POINTS, got=len(pairs)))
    curve = tuple(_point(name, pair) for pair in pairs)
    if any(a >= b for (a, _), (b, _) in pairwise(curve)):
        raise RequestError(name, message("request.curve_rising"))
    return curve


def _point(name: str, pair: Any) -> tuple[float, float]:
    try:
        fraction, share = (float(number) for number in pair)
    except (TypeError, ValueError):
        said = ":".join(pair) if isinstance(pair, list) and all(isinstance(p, str) for p in pair) else str(pair)
        raise RequestError(name, message("request.curve", got=repr(said[:20]))) from None
    if not (0 <= fraction <= 1 and 0 <= share <= MOST_SHARE):  # not a number is in no range
        raise RequestError(name, message("request.curve_between", most=MOST_SHARE, got=curve_text([(fraction, share)])))
    return fraction + 0.0, share + 0.0


def curve_text(curve: Sequence[tuple[float, float]]) -> str:
    """As it is written."""
    return ", ".join(f"{fraction:g}:{share:g}" for fraction, share in curve)


def share_at(curve: Curve, fraction: float) -> float:
    """The share at a fraction of the steps; 1 without a curve."""
    if not curve:
        return 1.0
    if fraction <= curve[0][0]:
        return curve[0][1]
    for (a, low), (b, high) in pairwise(curve):
        if fraction <= b:
            return low + (high - low) * (fraction - a) / (b - a)
    return curve[-1][1]


def shares(curve: Curve, steps: int) -> tuple[float, ...]:
    """The share of each step; none without a curve."""
    if not curve:
        return ()
    return tuple(share_at(curve, step / max(steps - 1, 1)) for step in range(steps))
