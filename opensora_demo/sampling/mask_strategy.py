"""Mask strategies of Open-Sora 1.1 and 1.2: which latent frames are given, from which reference, and how firmly.

A strategy is text such as "0,1,0,-1,1;0,0,-5,0,5,0.3": entries of loop, reference, first frame of the reference,
first frame of the clip, length, edit. The edit says from which time a frame may change: 0 keeps it.
Source: Open-Sora v1.2.0 opensora/utils/inference_utils.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Strategy:
    """One entry; negative starts count from the end."""

    loop: int = 0
    reference: int = 0
    reference_start: int = 0
    target_start: int = 0
    length: int = 1
    edit: float = 0.0


def parse_strategy(text: str) -> list[Strategy]:
    """The entries of a strategy; missing values take those of `Strategy`. Raises ValueError for a malformed one."""
    entries = []
    for part in filter(None, text.split(";")):
        values = part.split(",")
        if len(values) > 6:
            raise ValueError(f"a mask strategy has at most 6 numbers, not {len(values)}: {part!r}")
        whole = [int(v) for v in values[:5]]
        entries.append(Strategy(*whole, *[float(v) for v in values[5:]]))
    return entries


def nearest_multiple(value: int, point: int, end: int) -> int:
    """The multiple of `point` nearest to value, ties going up, but none beyond the last whole one before `end`."""
    low = value // point
    if value % point > point / 2 and low < end // point - 1:
        low += 1
    return low * point


def apply_strategy(
    z: Tensor,
    references: Sequence[Tensor],
    strategy: str | Sequence[Strategy],
    loop: int = 0,
    align: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Write references (c, t', h, w) into a clip's latent z (c, t, h, w): the new latent, and its frame mask (t).

    The mask is 1 where a frame is generated. With `align` starts snap to its multiples. Entries of other loops are
    passed over. Lengths are cut to what the reference and the clip have.
    """
    z, mask = z.clone(), torch.ones(z.shape[1], dtype=torch.float32, device=z.device)
    for entry in parse_strategy(strategy) if isinstance(strategy, str) else strategy:
        if entry.loop != loop:
            continue
        source = references[entry.reference]
        start, target = entry.reference_start, entry.target_start
        start = start if start >= 0 else source.shape[1] + start
        target = target if target >= 0 else z.shape[1] + target
        if align is not None:
            start = nearest_multiple(start, align, source.shape[1])
            target = nearest_multiple(target, align, z.shape[1])
        length = min(entry.length, z.shape[1] - target, source.shape[1] - start)
        z[:, target : target + length] = source[:, start : start + length]
        mask[target : target + length] = entry.edit
    return z, mask
