"""LoRA files for Open-Sora 2.0: what a fine-tune adds to linear layers, as two thin matrices for each of them.

Applied live: a layer's output gains strength * alpha / rank * B(A(x)), and the published weights stay as they are,
mapped from their file. Hu et al., "LoRA", 2021.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from opensora_demo.catalog import ModelSpec
from opensora_demo.catalog.spec import HubWeights
from opensora_demo.errors import WeightsError
from opensora_demo.models.mmdit import MMDiTConfig
from opensora_demo.weights import read_state

_PREFIXES = ("base_model.model.", "module.", "transformer.", "diffusion_model.", "model.")
_PEFT = "adapter_model.safetensors"
_SIDES = {
    ".lora_A.weight": "a", ".lora_B.weight": "b", ".lora_A.default.weight": "a", ".lora_B.default.weight": "b",
    ".lora_down.weight": "a", ".lora_up.weight": "b", ".alpha": "alpha",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A file, or peft's folder of two, and how much of it is added: 1 as it was trained."""

    path: Path
    strength: float = 1.0

    @property
    def name(self) -> str:
        return f"{self.path.stem} x {self.strength:g}" if self.strength != 1 else self.path.stem


def wanted_loras(spec: ModelSpec) -> tuple[LoraFile, ...]:
    """OPENSORA_LORA (or --lora): PATH or PATH=STRENGTH, several with the system's path separator between them. For 2.0
    alone. Raises WeightsError for a strength that is no number."""
    if not (isinstance(spec.weights, HubWeights) and isinstance(spec.network, MMDiTConfig)):
        return ()
    return _told()


def lora_names(spec: ModelSpec) -> tuple[str, ...]:
    """As a clip's settings say them."""
    return tuple(lora.name for lora in wanted_loras(spec))


def check_loras() -> None:
    """Raises WeightsError for a strength that is no number and for a file that is not there."""
    for lora in _told():
        _files(lora)


def _told() -> tuple[LoraFile, ...]:
    found: list[LoraFile] = []
    for text in filter(None, os.environ.get("OPENSORA_LORA", "").split(os.pathsep)):
        path, _, strength = text.partition("=")
        try:
            number = float(strength or 1)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise WeightsError(f"the strength of a LoRA must be a number, not {strength!r}")
        found.append(LoraFile(Path(path), number))
    return tuple(found)


def _files(lora: LoraFile) -> tuple[Path, Path]:
    """The tensors, and where peft's configuration would be."""
    file = lora.path / _PEFT if lora.path.is_dir() else lora.path
    if not file.is_file():
        raise WeightsError(f"there is no LoRA file {file}")
    if file.suffix != ".safetensors":
        raise WeightsError(f"the LoRA {file.name} is no safetensors file")
    return file, file.with_name("adapter_config.json")


def _config(file: Path) -> dict[str, Any]:
    """peft's, where it belongs to a file of peft's."""
    if not file.is_file():
        return {}
    try:
        told = json.loads(file.read_text())
        return {
            "alpha": None if told.get("lora_alpha") is None else float(told["lora_alpha"]),
            "alphas": [(re.compile(rf"(.*\.)?({k})$"), float(v)) for k, v in (told.get("alpha_pattern") or {}).items()],
            "root": bool(told.get("use_rslora")),
        }
    except (OSError, ValueError, TypeError, AttributeError, re.error):
        raise WeightsError(f"{file} is no configuration of a LoRA") from None


def add_lora(network: nn.Module, lora: LoraFile) -> int:
    """Add a file to the linear layers it names; returns how many. Raises WeightsError naming what does not fit."""
    file, config = _files(lora)
    told = _config(config) if file.name == _PEFT else {}
    linears = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    layers, unknown = _by_layer(read_state((file,)), linears)
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise WeightsError(f"the LoRA {file.name} is not for this model: it names {', '.join(unknown[:3])}{more}")
    for name, parts in layers.items():
        linear = linears[name]
        rank = len(parts["a"]) if "a" in parts else 0
        shapes = {side: list(value.shape) for side, value in parts.items() if side != "alpha"}
        odd = "alpha" in parts and parts["alpha"].numel() != 1
        if odd or not rank or shapes != {"a": [rank, linear.in_features], "b": [linear.out_features, rank]}:
            raise WeightsError(f"the LoRA {file.name} does not fit {name}: it has {shapes}")
        own = (
            [float(parts["alpha"])] if "alpha" in parts else [a for key, a in told.get("alphas", ()) if key.match(name)]
        )
        alpha = own[0] if own else told.get("alpha")
        scale = lora.strength * (rank if alpha is None else alpha) / (math.sqrt(rank) if told.get("root") else rank)
        _add(linear, parts["a"], parts["b"], scale)
    return len(layers)


def _by_layer(
    state: Mapping[str, Tensor], linears: Mapping[str, nn.Linear]
) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """The tensors of each linear layer, and names that are of none."""
    layers: dict[str, dict[str, Tensor]] = {}
    unknown: list[str] = []
    for full, value in state.items():
        ending = next((e for e in _SIDES if full.endswith(e)), None)
        name = full.removesuffix(ending or "")
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        if ending is None or name not in linears:
            unknown.append(full)
        else:
            layers.setdefault(name, {})[_SIDES[ending]] = value
    return layers, unknown


def _add(linear: nn.Linear, a: Tensor, b: Tensor, scale: float) -> None:
    held: dict[str, Tensor] = {"a": a, "b": b * scale}

    def add(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
        for side, value in held.items():  # they are small: where the layer computes, there they stay
            held[side] = value.to(out.device, out.dtype)
        return out + F.linear(F.linear(given[0].to(out), held["a"]), held["b"])

    linear.register_forward_hook(add)
