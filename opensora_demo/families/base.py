"""What every family offers the pipeline: conditions from a request, and the steps of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from opensora_demo.sampling.guidance import Guidance
from opensora_demo.sampling.step import Step
from opensora_demo.text.clip import PooledText
from opensora_demo.text.t5 import TextFeatures
from opensora_demo.types import GenerationRequest, Stage

TokenEncoder = Callable[[list[str]], TextFeatures]
PooledEncoder = Callable[[list[str]], PooledText]
Use = Callable[[Stage], None]
"""Puts what a stage needs on the device; called before each."""


def unmoved(stage: Stage) -> None:
    """For models whose parts are all where they compute."""


Draw = Callable[[], Tensor]
"""The next standard normal draw (1, c, t, h, w) of the run, the same for all clips compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Latents (c, 1, h, w) of the frames a visitor gave; the codec made them, so their scale is the network's."""

    first: Tensor | None = None
    last: Tensor | None = None

    def __bool__(self) -> bool:
        return self.first is not None or self.last is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditioning:
    """What the network is told, and how its branches are weighed. Each family adds its own.

    unknown: words of the prompt that the text encoder does not know; cut_tokens: tokens beyond its length.
    """

    guidance: Guidance
    unknown: tuple[str, ...] = ()
    cut_tokens: int = 0


class Family(Protocol):
    def condition(self, request: GenerationRequest, given: Given, size: tuple[int, int, int]) -> Any:
        """Conditions for latents of `size` (t, h, w); `steps` takes them back."""
        ...

    def steps(self, noise: Tensor, condition: Any, request: GenerationRequest, draw: Draw) -> Iterator[Step]:
        """Sample from noise (rows, c, t, h, w), one Step at a time, as many rows as the request has columns."""
        ...
