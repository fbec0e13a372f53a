"""Guidance as a weight per branch.

A guided prediction is a weighted sum of the predictions of its branches (prompt, null or negative prompt), with
weights that sum to one. Classifier-free guidance (Ho & Salimans, 2022) at scale s is u + s (c - u) = s c + (1 - s) u,
so the weights are (s, 1 - s); at scale 1 the null branch weighs nothing and is not computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ClassifierFree:
    """Plain guidance; one row of weights (conditional, null) for each scale compared."""

    scales: tuple[float, ...]

    def weights(self, step: int) -> Tensor:
        """(rows, 2) in float32. Plain guidance is the same at every step."""
        s = torch.tensor(self.scales, dtype=torch.float32)
        return torch.stack([s, 1 - s], dim=1)


def needed(weights: Tensor) -> Tensor:
    """Which (row, branch) pairs have to be evaluated: those whose weight is not zero."""
    return weights != 0


def combine(predictions: Sequence[Tensor | None], weights: Tensor) -> Tensor:
    """Weighted sum over branches, in float32: predictions[k] is (rows, ...) or None where no row needs branch k.

    weights (rows, branches) -> (rows, ...).
    """
    out: Tensor | None = None
    for k, prediction in enumerate(predictions):
        if prediction is None:
            continue
        w = weights[:, k].to(prediction.device).view(-1, *[1] * (prediction.ndim - 1))
        out = w * prediction.float() if out is None else torch.addcmul(out, w, prediction.float())
    if out is None:
        raise ValueError("no branch was evaluated")
    return out
