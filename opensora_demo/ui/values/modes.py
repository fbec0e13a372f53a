"""What is known of the three ways in which text reaches one small STDiT: see `ui.make_modes`."""

from __future__ import annotations

from typing import Literal, TypedDict

from opensora_demo.ui.values.verdict import VerdictValue

ModeName = Literal["cross-attention", "concatenation", "replacement"]


class ModeClip(TypedDict):
    """A clip's address beside modes.json, and what the reader sees in it."""

    url: str
    verdict: VerdictValue


class ModeValue(TypedDict):
    """One network, by the fingerprint of its `weights`.

    `gflop` and `ms` are of one call of it with both branches of guidance: arithmetic and the median time; `mb` the most
    that a training step of `batch` clips holds. `right` is the share of `prompts` clips with all four right, `two` of
    those of two objects with everything right. A network that is not trained yet has costs alone.
    """

    model: str
    weights: str | None
    title: str
    mode: ModeName
    parameters: int
    gflop: float
    ms: float
    mb: float
    right: float | None
    two: float | None
    clips: list[ModeClip]


class ModesValue(TypedDict):
    """The networks, the prompts of their clips in order, and how they were measured; `minutes` of CPU time trained
    each, and `prompts` and `two_prompts` were measured of each."""

    modes: list[ModeValue]
    shown: list[str]
    seed: int
    batch: int
    minutes: float | None
    prompts: int | None
    two_prompts: int | None
    date: str
