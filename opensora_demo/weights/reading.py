"""Read weights: safetensors mapped from disk onto modules built on the meta device, strictly."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from opensora_demo.errors import WeightsError
from opensora_demo.memory import MAPPED
from opensora_demo.messages import Param, message, sentences, shortened

SCALE_SUFFIX = ".int8_scale"
EXACT = "rope.freqs"  # a frequency in bfloat16 is off by whole turns after some hundred positions
# What training adds to names: DDP, torch.compile, FSDP, activation checkpointing.
_WRAPPED = re.compile(r"^module\.|(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_WRAPPERS = ("ema", "model_ema", "ema_state_dict", "state_dict", "model_state_dict", "model", "module")
# Tables that other versions of a network keep in their files; upstream leaves them out too.
# Source: Open-Sora v1.0.0 opensora/utils/ckpt_utils.py (find_model).
_TABLE = re.compile(r"(?:^|\.)(?:pos_embed(?:_temporal|_spatial)?|inv_freq|freqs|cached_freqs|position_ids)$")
MAX_REASON = 120  # characters of another library's words
M = TypeVar("M", bound=nn.Module)


@runtime_checkable
class _Renamed(Protocol):
    """A module whose published files have other names."""

    @staticmethod
    def published_name(name: str) -> str | None:
        """A published name -> ours; None leaves the tensor out."""
        ...


@runtime_checkable
class _Computes(Protocol):
    """A module some of whose tensors are computed of its numbers, and not learned."""

    def fixed_tables(self) -> dict[str, Tensor]:
        """These tensors by name."""
        ...


def read_state(files: Sequence[Path]) -> dict[str, Tensor]:
    """All tensors of the shards, mapped from the files; those kept in 8 bits come out as float32.

    A tensor in 8 bits has another beside it, `<name>.int8_scale` (rows), that its rows are multiplied by.
    Raises WeightsError naming the file that is missing, damaged or repeats a name.
    """
    state: dict[str, Tensor] = {}
    for file in files:
        if not file.is_file():
            raise WeightsError(message("weights.missing_file", file=file.name, folder=file.parent.name))
        for name, value in (_pickled if file.suffix in (".pth", ".pt", ".bin") else _mapped)(file).items():
            if name in state:
                raise WeightsError(message("weights.twice", file=file.name, tensor=name))
            state[name] = value
    for name in [name for name in state if name.endswith(SCALE_SUFFIX)]:
        scale, rows = state.pop(name), state.get(name.removesuffix(SCALE_SUFFIX))
        if rows is None or rows.dtype != torch.int8 or len(rows) != len(scale):
            raise WeightsError(message("weights.no_int8", tensor=name, files=tuple(file.name for file in files)))
        state[name.removesuffix(SCALE_SUFFIX)] = rows.float() * scale.float().view(-1, *[1] * (rows.ndim - 1))
    return state


def _mapped(file: Path) -> dict[str, Tensor]:
    MAPPED.add(str(file.resolve()))
    try:
        with safe_open(file, framework="pt") as shard:
            return {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: Exception) -> WeightsError:
    """A file that is not all there, or that may not be read."""
    if isinstance(error, PermissionError):
        return WeightsError(message("weights.no_read", file=file.name))
    return WeightsError(message("weights.damaged", file=file.name, reason=_reason(error)))


def _reason(error: Exception) -> str:
    """The beginning of what a library says, without colours of a terminal and without its advice."""
    said = re.sub(r"\x1b\[[0-9;]*m", "", (error.strerror if isinstance(error, OSError) else None) or str(error))
    first = re.split(r"\n|(?<=\w)\. |, you have two options", said.strip() or type(error).__name__)[0]
    return first[:MAX_REASON].rstrip(" .,")


def _pickled(file: Path) -> dict[str, Tensor]:
    """Tensors only: whatever else a pickle may hold is refused unread. Wrappers of training are taken off."""
    found = _unpickled(file)
    for wrapper in _WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise WeightsError(message("weights.no_state", file=file.name))
    return {_WRAPPED.sub("", str(name)): value for name, value in found.items()}


def _unpickled(file: Path) -> Any:
    """Mapped from disk; a file of torch before 1.6, which cannot be, is read as a whole."""
    for mapped in (zipfile.is_zipfile(file), False):
        try:
            return torch.load(file, map_location="cpu", mmap=mapped, weights_only=True)
        except pickle.UnpicklingError as error:
            if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
                raise WeightsError(message("weights.pickled_other", file=file.name, found=found[1])) from None
            if _starts(file, b"PK"):  # the zip archive that torch writes, without its end
                raise _unreadable(file, error) from None
            raise WeightsError(message("weights.no_pickle", file=file.name, reason=_reason(error))) from None
        except (OSError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError) as error:
            if not mapped:
                raise _unreadable(file, error) from None
    raise AssertionError


def _starts(file: Path, signature: bytes) -> bool:
    with file.open("rb") as data:
        return data.read(len(signature)) == signature


def read_metadata(file: Path) -> dict[str, str]:
    """The text entries of a safetensors header."""
    with safe_open(file, framework="pt") as shard:
        return shard.metadata() or {}


def check_fit(what: Param, expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Names and shapes must agree exactly; WeightsError names the first five that do not."""
    wrong = [message("weights.tensor_missing", tensor=k) for k in expected if k not in state]
    wrong += [message("weights.tensor_unexpected", tensor=k) for k in state if k not in expected]
    wrong += [
        message("weights.tensor_shape", tensor=k, got=str(list(state[k].shape)), expected=str(list(expected[k].shape)))
        for k in expected
        if k in state and state[k].shape != expected[k].shape
    ]
    if wrong:
        raise WeightsError(message("weights.misfit", what=what, wrong=shortened(sentences(*wrong[:5]), len(wrong) - 5)))


def load_module(
    build: Callable[[], M],
    files: Sequence[Path],
    what: Param,
    *,
    dtype: torch.dtype | None = torch.float32,
    device: torch.device | None = None,
    published: bool = False,
    aliases: Mapping[str, str] | None = None,
) -> M:
    """Build on meta, read, check, assign; no second copy of the weights is made but for a change of dtype or device,
    and that tensor by tensor.

    `published` files have the names that `published_name` of the module translates, where it has one; tables that are
    computed are not read from them, since files lack them or have them for another size.
    `dtype` None keeps numbers as they are stored (float16 becomes bfloat16, whose range T5 needs). `aliases` are names
    of ours that share the tensor of another name where the files have only that one.
    """
    with torch.device("meta"):
        module = build()
    state = read_state(files)
    if published and isinstance(module, _Renamed):
        state = {name: value for old, value in state.items() if (name := module.published_name(old)) is not None}
    for name, other in (aliases or {}).items():
        if name not in state and other in state:
            state[name] = state[other]
        elif other not in state and name in state:
            state[other] = state[name]
    tables = _tables(module) if published else {}
    if published:
        own = module.state_dict()
        state = {k: value for k, value in state.items() if k not in tables and (k in own or not _TABLE.search(k))}
        like = next((value.dtype for value in state.values() if value.is_floating_point()), torch.float32)
        state |= {name: table.to(like) if not name.endswith(EXACT) else table for name, table in tables.items()}
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


def _tables(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of a module and its parts that are computed and not learned, by their full names."""
    return {
        f"{path}.{name}" if path else name: table
        for path, part in module.named_modules()
        if isinstance(part, _Computes)
        for name, table in part.fixed_tables().items()
    }


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
