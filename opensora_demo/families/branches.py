"""Evaluating the branches of guidance: as many (clip, branch) pairs as fit go through the network in one batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Call = Callable[[list[int], list[int]], Tensor]
"""(rows, branches), one entry each for a batch -> the network's output (n, ...)."""


def evaluate(call: Call, wanted: Tensor, *, shared: bool = False, max_batch: int | None = None) -> list[Tensor | None]:
    """Predictions of each branch, (rows, ...) or None where no row wants it; `wanted` is boolean (rows, branches).

    With `shared` all rows hold the same latent (the first step of a comparison): each branch is evaluated once.
    """
    rows, branches = wanted.shape
    pairs = [
        (row, k)
        for k in range(branches)
        for row in range(1 if shared else rows)
        if (wanted[:, k].any() if shared else wanted[row, k])
    ]
    size = max_batch or len(pairs)
    parts = [pairs[at : at + size] for at in range(0, len(pairs), size)]
    out = torch.cat([call([row for row, _ in part], [k for _, k in part]) for part in parts])
    predictions: list[Tensor | None] = []
    for k in range(branches):
        found = [i for i, (_, branch) in enumerate(pairs) if branch == k]
        if not found:
            predictions.append(None)
        elif shared:
            predictions.append(out[found].expand(rows, *out.shape[1:]))
        elif len(found) == rows:
            predictions.append(out[found[0] : found[-1] + 1])
        else:
            full = out.new_zeros(rows, *out.shape[1:])
            full[[pairs[i][0] for i in found]] = out[found]
            predictions.append(full)
    return predictions
