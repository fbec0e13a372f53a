"""Read weights: safetensors mapped from disk onto modules built on the meta device, strictly."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from opensora_demo.errors import WeightsError
from opensora_demo.memory import MAPPED

SCALE_SUFFIX = ".int8_scale"
EXACT = "rope.freqs"  # a frequency in bfloat16 is off by whole turns after some hundred positions
M = TypeVar("M", bound=nn.Module)
Rename = Callable[[str], str | None]
"""A published name -> ours; None leaves the tensor out."""


def read_state(files: Sequence[Path]) -> dict[str, Tensor]:
    """All tensors of the shards, mapped from the files; those kept in 8 bits come out as float32.

    A tensor in 8 bits has another beside it, `<name>.int8_scale` (rows), that its rows are multiplied by.
    Raises WeightsError naming the file that is missing, damaged or repeats a name.
    """
    state: dict[str, Tensor] = {}
    for file in files:
        if not file.is_file():
            raise WeightsError(f"the weights file {file.name} is missing from {file.parent.name}")
        for name, value in (_pickled if file.suffix in (".pth", ".pt", ".bin") else _mapped)(file).items():
            if name in state:
                raise WeightsError(f"{file.name} holds {name}, which another file holds too")
            state[name] = value
    for name in [name for name in state if name.endswith(SCALE_SUFFIX)]:
        scale, rows = state.pop(name), state.get(name.removesuffix(SCALE_SUFFIX))
        if rows is None or rows.dtype != torch.int8 or len(rows) != len(scale):
            raise WeightsError(f"{name} of {', '.join(file.name for file in files)} has no 8-bit tensor to scale")
        state[name.removesuffix(SCALE_SUFFIX)] = rows.float() * scale.float().view(-1, *[1] * (rows.ndim - 1))
    return state


def _mapped(file: Path) -> dict[str, Tensor]:
    MAPPED.add(str(file.resolve()))
    try:
        with safe_open(file, framework="pt") as shard:
            return {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise WeightsError(f"the weights file {file.name} is damaged or incomplete ({error}); fetch it again") from None


def _pickled(file: Path) -> dict[str, Tensor]:
    """Tensors only: whatever else a pickle may hold is refused unread. Wrappers of training are taken off."""
    try:
        found: Any = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"the weights file {file.name} is no pickle of tensors, or damaged ({reason})") from None
    for wrapper in ("ema", "state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise WeightsError(f"the weights file {file.name} holds no state dict")
    return {name.removeprefix("module."): value for name, value in found.items()}


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


def load_module(
    build: Callable[[], M],
    files: Sequence[Path],
    what: str,
    *,
    dtype: torch.dtype | None = torch.float32,
    device: torch.device | None = None,
    rename: Rename | None = None,
    aliases: Mapping[str, str] | None = None,
) -> M:
    """Build on meta, read, check, assign; no second copy of the weights is made but for a change of dtype or device,
    and that tensor by tensor.

    `dtype` None keeps numbers as they are stored (float16 becomes bfloat16, whose range T5 needs). `aliases` are names
    of ours that share the tensor of another name where the files have only that one.
    """
    with torch.device("meta"):
        module = build()
    state = read_state(files)
    if rename is not None:
        state = {name: value for old, value in state.items() if (name := rename(old)) is not None}
    for name, other in (aliases or {}).items():
        if name not in state and other in state:
            state[name] = state[other]
        elif other not in state and name in state:
            state[other] = state[name]
    check_fit(what, module.state_dict(), state)
    done: dict[int, Tensor] = {}  # shared tensors stay shared
    for name, value in state.items():
        if id(value) not in done:
            wanted = value.dtype if not value.is_floating_point() else dtype or _stored(value.dtype)
            if name.endswith(EXACT):
                wanted = torch.float32
            done[id(value)] = value.to(device=device, dtype=wanted)
        state[name] = done[id(value)]
    module.load_state_dict(state, assign=True)
    return module.eval().requires_grad_(False)


def _stored(dtype: torch.dtype) -> torch.dtype:
    return torch.bfloat16 if dtype == torch.float16 else dtype


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
