"""Parts of one computation, each on a thread of its own that computes alone.

A small network spends much of its time on waking all threads for each operation and waiting for the last of them; where
a batch falls into as many parts as there are threads, nothing waits before the end (benchmarks/threads.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache
from typing import TypeVar

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

P = TypeVar("P")
T = TypeVar("T")


@cache
def _pool(size: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(size, "part", torch.set_num_threads, (1,))


_all = 0  # threads of a run, where `use_threads` has said it


def use_threads(count: int) -> None:
    """From now on runs of this process compute with so many threads."""
    global _all
    torch.set_num_threads(count)
    _all = count


def use_all_threads() -> None:
    """Before a run: torch has a number for each thread, and one that began to compute while another's parts did, each
    alone, has kept theirs."""
    if _all and torch.get_num_threads() != _all:
        torch.set_num_threads(_all)


@contextmanager
def one_thread() -> Iterator[None]:
    """What is computed meanwhile is computed by this thread alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _forget() -> None:
    """Threads are not forked."""
    global _all
    _pool.cache_clear()
    _all = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def side_by_side(run: Callable[[P], T], parts: Sequence[P]) -> list[T]:
    """`run` of each part, in order, all at once, with the caller's context variables and kind of gradient; a single one
    with all threads, and one after the other where somebody counts operations, who sees this thread's alone. The first
    that raises does so here, when all have ended."""
    if len(parts) == 1 or _get_current_dispatch_mode() is not None:
        return [run(part) for part in parts]
    threads, inference, gradient = torch.get_num_threads(), torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def alone(part: P) -> T:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradient):
            return run(part)

    torch.set_num_threads(1)  # MKL has one number for all of the process
    try:
        futures = [_pool(len(parts)).submit(copy_context().run, alone, part) for part in parts]
        wait(futures)
    finally:
        torch.set_num_threads(threads)
    return [future.result() for future in futures]
