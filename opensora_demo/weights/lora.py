"""LoRA files for Open-Sora 2.0: what a fine-tune adds to linear layers, as two thin matrices for each of them.

Applied live: a layer's output gains strength * alpha / rank * B(A(x)), and the published weights stay as they are,
mapped from their file. Hu et al., "LoRA", 2021.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opensora_demo.catalog import ModelSpec
from opensora_demo.errors import WeightsError
from opensora_demo.messages import message, shortened
from opensora_demo.weights.reading import read_state

_PREFIXES = ("base_model.model.", "module.", "transformer.", "diffusion_model.", "model.")
_PEFT = "adapter_model.safetensors"
_KOHYA = ("lora_unet_", "lora_transformer_", "lycoris_")  # then the layer's name, its dots written as _
# peft's, with the name of an adapter or without; diffusers' older one; kohya's.
_SIDE = re.compile(r"\.(?:lora_(?P<peft>[AB])(?:\.\w+)??|lora[._](?P<side>down|up))(?:\.weight)?$|\.(?P<alpha>alpha)$")
_FLOAT8 = (
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
)


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A file, or peft's folder of two, and how much of it is added: 1 as it was trained."""

    path: Path
    strength: float = 1.0

    @property
    def name(self) -> str:
        return f"{self.path.stem} x {self.strength:g}" if self.strength != 1 else self.path.stem


def loras_for(spec: ModelSpec, loras: Sequence[LoraFile]) -> tuple[LoraFile, ...]:
    """Those that are added to a model: all of them to 2.0, none to others."""
    fits = spec.published and spec.network.takes_loras
    return tuple(loras) if fits else ()


def lora_names(spec: ModelSpec, loras: Sequence[LoraFile]) -> tuple[str, ...]:
    """As a clip's settings say them."""
    return tuple(lora.name for lora in loras_for(spec, loras))


def lora_files(lora: LoraFile) -> tuple[Path, Path]:
    """The tensors, and where peft's configuration would be. Raises WeightsError for a file that is not there."""
    file = lora.path / _PEFT if lora.path.is_dir() else lora.path
    if not file.is_file():
        raise WeightsError(message("weights.lora_missing", file=str(file)))
    if file.suffix != ".safetensors":
        raise WeightsError(message("weights.lora_kind", file=file.name))
    return file, file.with_name("adapter_config.json")


def _config(file: Path) -> dict[str, Any]:
    """peft's, where it belongs to a file of peft's."""
    if not file.is_file():
        return {}
    try:
        told = json.loads(file.read_text("utf-8"))
        return {
            "alpha": None if told.get("lora_alpha") is None else float(told["lora_alpha"]),
            "alphas": [(re.compile(rf"(.*\.)?({k})$"), float(v)) for k, v in (told.get("alpha_pattern") or {}).items()],
            "root": bool(told.get("use_rslora")),
        }
    except (OSError, ValueError, TypeError, AttributeError, re.error):
        raise WeightsError(message("weights.lora_config", file=str(file))) from None


def add_lora(network: nn.Module, lora: LoraFile) -> int:
    """Add a file to the linear layers it names; returns how many. Raises WeightsError naming what does not fit."""
    file, config = lora_files(lora)
    told = _config(config) if file.name == _PEFT else {}
    linears = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    layers, unknown = _by_layer(read_state((file,)), linears)
    if unknown:
        names = shortened(tuple(unknown[:3]), len(unknown) - 3)
        raise WeightsError(message("weights.lora_names", file=file.name, names=names))
    for name, parts in layers.items():
        linear = linears[name]
        rank = len(parts["a"]) if "a" in parts else 0
        shapes = {side: list(value.shape) for side, value in parts.items() if side != "alpha"}
        odd = "alpha" in parts and parts["alpha"].numel() != 1
        if odd or not rank or shapes != {"a": [rank, linear.in_features], "b": [linear.out_features, rank]}:
            raise WeightsError(message("weights.lora_fit", file=file.name, layer=name, shapes=str(shapes)))
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
    flat = {name.replace(".", "_"): name for name in linears}
    layers: dict[str, dict[str, Tensor]] = {}
    unknown: list[str] = []
    for full, value in state.items():
        found = _SIDE.search(full)
        name = _layer(full[: found.start()], flat) if found else ""
        if found is None or name not in linears:
            unknown.append(full)
        else:
            side = "alpha" if found["alpha"] else "a" if (found["peft"] or found["side"]) in ("A", "down") else "b"
            layers.setdefault(name, {})[side] = value.bfloat16() if value.dtype in _FLOAT8 else value
    return layers, unknown


def _layer(name: str, flat: Mapping[str, str]) -> str:
    """The name of a layer as the network has it."""
    for prefix in _KOHYA:
        if name.startswith(prefix):
            return flat.get(name.removeprefix(prefix), "")
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _add(linear: nn.Linear, a: Tensor, b: Tensor, scale: float) -> None:
    held: dict[str, Tensor] = {"a": a, "b": b * scale}

    def add(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
        for side, value in held.items():  # they are small: where the layer computes, there they stay
            held[side] = value.to(out.device, out.dtype)
        return out + F.linear(F.linear(given[0].to(out), held["a"]), held["b"])

    linear.register_forward_hook(add)
