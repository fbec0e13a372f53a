"""Half precision in training, where the processor is faster with it."""

from __future__ import annotations

import time
from functools import cache

import torch

_SIZE, _ROUNDS = 384, 5
_GAIN = 1.1  # less is not worth the digits


def _product_s(dtype: torch.dtype) -> float:
    """The least time in seconds of a few products of matrices."""
    a = torch.ones(_SIZE, _SIZE, dtype=dtype)
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return min(times)


@cache
def bfloat16_wins() -> bool:
    """Whether this processor multiplies matrices faster in bfloat16 than in float32, measured once in a process. One
    without the instructions for it is ten times slower in bfloat16."""
    return _product_s(torch.float32) > _GAIN * _product_s(torch.bfloat16)


def half_precision(device: torch.device | str, *, enabled: bool = True) -> torch.autocast:
    """bfloat16 for what a network multiplies: on a GPU always, on a processor where that is faster."""
    kind = torch.device(device).type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=enabled and (kind != "cpu" or bfloat16_wins()))
