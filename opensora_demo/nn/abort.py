"""Ending a computation inside a forward pass: before each block of a network it is asked whether it is to go on.

A step of a large model takes up to a minute on a CPU, its blocks a second each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)
Check = Callable[[], None]
_check: ContextVar[Check | None] = ContextVar("check", default=None)


def abortable(module: M) -> M:
    """The module, whose blocks (what its lists of modules hold) ask `checking`'s question from now on."""
    for part in module.modules():
        if isinstance(part, nn.ModuleList):
            for block in filter(None, part):  # a list may have gaps
                block.register_forward_pre_hook(_ask)
    return module


def _ask(_block: nn.Module, _arguments: Any) -> None:
    if (check := _check.get()) is not None:
        check()


@contextmanager
def checking(check: Check) -> Iterator[None]:
    """While it lasts `check` is called before each block that this thread computes; what it raises ends the forward
    pass. Nothing may be yielded inside."""
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)
