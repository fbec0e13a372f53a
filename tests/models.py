"""Models that stand for a kind, with which tests are run, and their variants, which are left to the thorough ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

# Each has the network, the sampler and the codec of another debug entry.
VARIANTS = ("debug-1.0-class", "debug-1.0-latte", "debug-1.0-pixart", "debug-1.2-both-sides", "debug-1.2-first-frame")


def by_kind(names: Iterable[str], *, variants: Iterable[str] = VARIANTS) -> list[Any]:
    """Parameters of a test, of which the variants are thorough."""
    others = set(variants)
    return [pytest.param(name, marks=pytest.mark.thorough) if name in others else pytest.param(name) for name in names]
