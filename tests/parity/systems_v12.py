"""See test_cases.py."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from .reference import Case

SYSTEMS: dict[str, Callable[[Case], dict[str, Tensor]]] = {}
