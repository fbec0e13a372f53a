"""Tables that only depend on sizes, made once for a run."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


class LastValue(Generic[T]):
    """The table made last, by what it was made for. All steps of a run ask for the same one."""

    def __init__(self) -> None:
        self._found: tuple[Hashable, T] | None = None

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """`make()`, or what it gave the last time for this key. Tensors of inference mode are kept apart: autograd
        does not take them."""
        key = (key, torch.is_inference_mode_enabled())
        found = self._found
        if found is None or found[0] != key:
            found = self._found = (key, make())
        return found[1]
