"""How weights are found, held, placed and computed with, as one value, read once at the edge and passed on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from opensora_demo.catalog import MODELS, ModelSpec, find_model
from opensora_demo.errors import RequestError
from opensora_demo.messages import message
from opensora_demo.nn.attention import AttentionKernel
from opensora_demo.text.quantized import Bits
from opensora_demo.weights.lora import LoraFile

PlacementWish = Literal["auto", "together", "in turn", "streamed"]
Precision = Literal["auto", "stored", "float32", "bfloat16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightOptions:
    """Two values may be in use in one process: nothing here is looked up elsewhere.

    weights_dir: where published weights are looked for first, and put. cache_dir: where encoded prompts are kept
    between runs of the program; None keeps them in memory only. offline: the hub is not asked. allow_pickle: .pth and
    .bin files are opened too, for their tensors only. t5_bits: of T5's numbers, 16 as published. loras: added to
    Open-Sora 2.0. placement: of a published model's parts on a GPU; "auto" goes by the memory there is. attention: how
    the network's is computed. precision: in which numbers network and codec compute; "stored" as their files have them
    (published ones on a GPU in bfloat16), "auto" in bfloat16 where that is faster (`runtime.precision`). models: ids of
    those that may be used; None is all there are.
    public: what is said about weights may be read by others, so it names no folder above them.
    """

    weights_dir: Path = Path("weights")
    cache_dir: Path | None = None
    offline: bool = False
    allow_pickle: bool = False
    t5_bits: Bits = 16
    loras: tuple[LoraFile, ...] = ()
    placement: PlacementWish = "auto"
    attention: AttentionKernel = "auto"
    precision: Precision = "stored"
    models: frozenset[str] | None = None
    public: bool = False

    @property
    def weights_name(self) -> str:
        """The folder of weights as it is named in a sentence."""
        return self.weights_dir.name if self.public else str(self.weights_dir)

    def listed(self) -> tuple[ModelSpec, ...]:
        """The models that a person is shown to choose from."""
        return tuple(s for s in MODELS.values() if (not s.hidden if self.models is None else s.id in self.models))

    def find_model(self, model_id: object) -> ModelSpec:
        """The entry called `model_id`, as in `catalog.find_model`. Raises RequestError("model") where it may not be
        used, too."""
        spec = find_model(model_id, self.listed())
        if self.models is not None and spec.id not in self.models:
            raise RequestError("model", message("request.not_offered", model=spec.id))
        return spec


DEFAULT_OPTIONS = WeightOptions()
