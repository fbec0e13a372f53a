"""Find, verify and read weights: safetensors mapped from disk onto modules built on the meta device, strictly."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from opensora_demo.catalog import ModelSpec, RandomWeights, WeightFiles
from opensora_demo.errors import WeightsError

SCALE_SUFFIX = ".int8_scale"
ASSETS = Path(__file__).resolve().parent.parent / "assets"
M = TypeVar("M", bound=nn.Module)


def read_state(files: list[Path]) -> dict[str, Tensor]:
    """All tensors of the shards; those kept in 8 bits come out as float32.

    A tensor in 8 bits has another beside it, `<name>.int8_scale` (rows), that its rows are multiplied by.
    Raises WeightsError naming the file that is missing, damaged or repeats a name.
    """
    state: dict[str, Tensor] = {}
    for file in files:
        if not file.is_file():
            raise WeightsError(f"the weights file {file.name} is missing from {file.parent.name}")
        try:
            with safe_open(file, framework="pt") as shard:
                for name in shard.keys():  # noqa: SIM118 - safe_open is not a mapping
                    if name in state:
                        raise WeightsError(f"{file.name} holds {name}, which another file holds too")
                    state[name] = shard.get_tensor(name)
        except SafetensorError as error:
            raise WeightsError(f"the weights file {file.name} is damaged or incomplete ({error})") from None
    for name in [name for name in state if name.endswith(SCALE_SUFFIX)]:
        scale, rows = state.pop(name), state.get(name.removesuffix(SCALE_SUFFIX))
        if rows is None or rows.dtype != torch.int8 or len(rows) != len(scale):
            raise WeightsError(f"{name} of {', '.join(file.name for file in files)} has no 8-bit tensor to scale")
        state[name.removesuffix(SCALE_SUFFIX)] = rows.float() * scale.float().view(-1, *[1] * (rows.ndim - 1))
    return state


def folder_of(files: WeightFiles) -> Path:
    """Embedded models live in `assets`; published ones under `weights` of the working folder, or OPENSORA_WEIGHTS."""
    if files.embedded:
        return ASSETS / files.folder
    return Path(os.environ.get("OPENSORA_WEIGHTS", "weights")) / files.folder


def missing_files(spec: ModelSpec) -> list[str]:
    """Which of a model's files are not there."""
    if isinstance(spec.weights, RandomWeights):
        return []
    folder = folder_of(spec.weights)
    return [name for name in spec.weights.all_files() if not (folder / name).is_file()]


def why_not(spec: ModelSpec) -> str:
    """Why a model cannot be loaded, in a sentence; empty when it can."""
    missing = missing_files(spec)
    if not missing or isinstance(spec.weights, RandomWeights):
        return ""
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return f"{spec.id} needs {', '.join(missing[:3])}{more} in {folder_of(spec.weights)}"


def read_metadata(file: Path) -> dict[str, str]:
    """The text entries of a safetensors header."""
    with safe_open(file, framework="pt") as shard:
        return shard.metadata() or {}


def check_fit(what: str, expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Names and shapes must agree exactly; WeightsError names the first five that do not."""
    wrong = [f"{k} missing" for k in expected if k not in state]
    wrong += [f"{k} unexpected" for k in state if k not in expected]
    wrong += [
        f"{k} is {list(state[k].shape)}, expected {list(expected[k].shape)}"
        for k in expected
        if k in state and state[k].shape != expected[k].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise WeightsError(f"the weights of {what} do not fit: {'; '.join(wrong[:5])}{more}")


def load_module(build: Callable[[], M], files: list[Path], what: str, dtype: torch.dtype = torch.float32) -> M:
    """Build on meta, read, check, assign; no second copy of the weights is made but for a change of dtype."""
    with torch.device("meta"):
        module = build()
    state = read_state(files)
    check_fit(what, module.state_dict(), state)
    module.load_state_dict({k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}, assign=True)
    return module.eval().requires_grad_(False)


def random_module(build: Callable[[], M], seed: int) -> M:
    """Built with values that depend on `seed` only: zero biases, normal matrices that keep activations near one."""
    module = build()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict(keep_vars=True).items():
            if name.endswith("bias"):
                value.zero_()
            elif value.ndim > 1 and (isinstance(value, nn.Parameter) or name.endswith("y_embedding")):
                value.normal_(std=value[0].numel() ** -0.5, generator=generator)
    return module.eval().requires_grad_(False)
