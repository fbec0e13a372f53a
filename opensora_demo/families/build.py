"""Which adapter holds which network: the one list of them."""

from __future__ import annotations

from typing import Any

from torch import nn

from opensora_demo.catalog.spec import ModelSpec
from opensora_demo.families.adapters.base import Adapter
from opensora_demo.families.adapters.dit import DiTAdapter
from opensora_demo.families.adapters.mmdit import MMDiTAdapter
from opensora_demo.families.adapters.stdit import STDiTAdapter
from opensora_demo.families.adapters.stdit2 import STDiT2Adapter
from opensora_demo.families.adapters.stdit3 import STDiT3Adapter
from opensora_demo.families.adapters.stdit3_v13 import STDiT3V13Adapter
from opensora_demo.families.base import Encoders, Family
from opensora_demo.models.base import NetworkConfig

ADAPTERS: tuple[type[Adapter[Any, Any]], ...] = (
    DiTAdapter,
    STDiTAdapter,
    STDiT2Adapter,
    STDiT3Adapter,
    STDiT3V13Adapter,
    MMDiTAdapter,
)


def adapter_for(config: NetworkConfig) -> type[Adapter[Any, Any]]:
    """Raises LookupError for numbers of a network that has no adapter."""
    for adapter in ADAPTERS:
        if adapter.config is type(config):
            return adapter
    raise LookupError(f"no adapter holds the network of a {type(config).__name__}")


def build_family(spec: ModelSpec, network: nn.Module, encoders: Encoders) -> Family[Any]:
    """The conventions of a network's version around it. Raises WeightsError where the entry lacks an encoder."""
    return adapter_for(spec.network)(network).family(spec, encoders)
