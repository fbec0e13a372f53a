"""Which cases stand for a kind, with which tests are always run; the others are left to the thorough ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

# Each has the network, the sampler and the codec of another debug entry.
VARIANTS = ("debug-1.0-class", "debug-1.0-latte", "debug-1.0-pixart", "debug-1.2-both-sides", "debug-1.2-first-frame")


def by_kind(names: Iterable[str], *, variants: Iterable[str] = VARIANTS) -> list[Any]:
    """Parameters of a test, of which the variants are thorough."""
    found, others = list(names), set(variants)
    return sampled(found, *(name for name in found if name not in others))


def sampled(cases: Iterable[Any], *always: str) -> list[Any]:
    """Parameters of a test that takes long: all cases are thorough but those that are named, by `id` or as they are.
    Raises ValueError for a name that is none of theirs."""
    by_name = {str(getattr(case, "id", case)): case for case in cases}
    if unknown := set(always) - set(by_name):
        raise ValueError(f"no cases: {', '.join(sorted(unknown))}")
    return [
        pytest.param(case, id=name, marks=() if name in always else pytest.mark.thorough)
        for name, case in by_name.items()
    ]
