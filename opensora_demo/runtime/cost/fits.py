"""What fits a device: for every size of a model the longest clip that its memory holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from opensora_demo.catalog import ModelSpec
from opensora_demo.messages import Message, message
from opensora_demo.request.limits import Limits, Size
from opensora_demo.request.parse import parse_request
from opensora_demo.request.video import VideoShape
from opensora_demo.runtime.cost.estimator import Estimator


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """`frames`: of the longest clip of a size that fits, 0 where none does; `most`: of the longest there is."""

    size: Size
    frames: int
    most: int


def what_fits(spec: ModelSpec, estimator: Estimator) -> list[Fit]:
    """One size for each resolution, its first, the smallest first. A larger or longer clip never needs less: so only
    clips along the border are counted, each of which takes up to seconds."""
    limits, lengths = spec.limits, sorted(spec.limits.frames)
    usual = parse_request({"prompt": "a ball"}, model_id=spec.id, limits=limits)

    def fits(size: Size, frames: int) -> bool:
        shape = VideoShape(frames=frames, height_px=size.height_px, width_px=size.width_px)
        request = replace(usual, shape=shape, size=size if usual.size is not None else None)
        return estimator.estimate(spec, request).fits

    sizes = sorted(first_sizes(limits), key=lambda size: size.height_px * size.width_px)
    if fits(sizes[-1], lengths[-1]):
        return [Fit(size=size, frames=lengths[-1], most=lengths[-1]) for size in sizes]
    if not fits(sizes[0], lengths[0]):
        return [Fit(size=size, frames=0, most=lengths[-1]) for size in sizes]
    found: list[Fit] = []
    held = 0  # lengths that fit the size before, a larger one
    for size in reversed(sizes):
        if found and held < len(lengths) and fits(size, lengths[-1]):
            held = len(lengths)
        while held < len(lengths) - 1 and fits(size, lengths[held]):
            held += 1
        found.append(Fit(size=size, frames=lengths[held - 1] if held else 0, most=lengths[-1]))
    return found[::-1]


def first_sizes(limits: Limits) -> list[Size]:
    """The first size of every resolution."""
    first: dict[str, Size] = {}
    for size in limits.sizes:
        first.setdefault(size.resolution, size)
    return list(first.values())


def fit_lines(found: Sequence[Fit]) -> list[Message]:
    """The same in words, sizes with the same answer together."""
    lines = []
    for (frames, most), group in groupby(found, key=lambda fit: (fit.frames, fit.most)):
        names = tuple(fit.size.resolution for fit in group)
        code = "note.fits.none" if not frames else "note.fits.all" if frames == most else "note.fits.some"
        lines.append(message(code, sizes=names, frames=frames))
    return lines
