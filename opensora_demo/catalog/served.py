"""Models that another server runs: an entry of ours that it has too, or one of which no more is known than its name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, NoReturn

from opensora_demo.catalog import MODELS
from opensora_demo.catalog.spec import ElsewhereWeights, ModelSpec
from opensora_demo.errors import WeightsError
from opensora_demo.messages import Message, message
from opensora_demo.models.base import TextMode
from opensora_demo.request.limits import Limits
from opensora_demo.sampling.config import RectifiedFlowConfig


@dataclass(frozen=True, slots=True)
class UnknownPart:
    """A network or a codec of which nothing is known here, and nothing is built."""

    text_mode: TextMode = "unknown"
    reads_fps: ClassVar[bool] = False
    takes_loras: ClassVar[bool] = False

    def build(self) -> NoReturn:
        raise WeightsError(message("weights.elsewhere"))


def served_model(
    model_id: str, limits: Limits, *, own_limits: bool, title: str = "", summary: Message | None = None
) -> ModelSpec:
    """The entry of a model that another server runs. What the demo knows of a model of its own (its words, its
    examples) holds there too; `own_limits`: the server has said them."""
    elsewhere = ElsewhereWeights(own_limits=own_limits)
    if own_limits and (own := MODELS.get(model_id)) is not None:
        return replace(own, limits=limits, weights=elsewhere, weaker="")
    return ModelSpec(
        id=model_id,
        title=title or model_id,
        summary=summary or message("note.served_model"),
        network=UnknownPart(),
        codec=UnknownPart(),
        sampler=RectifiedFlowConfig(),  # which nobody asks for
        weights=elsewhere,
        limits=limits,
    )
