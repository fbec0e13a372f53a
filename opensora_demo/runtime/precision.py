"""In which numbers a model's network and codec compute: as their files have them, or in bfloat16 where that is faster.

Half the digits change a clip a little (cards say by how much), so a processor must have the instructions and be seen to
gain by them (`runtime.fitted`).
"""

from __future__ import annotations

import logging
import math
import platform
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import torch
from torch import Tensor, nn

from opensora_demo.catalog.spec import ModelSpec
from opensora_demo.families.base import ConditioningFrames
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.weights.options import Precision
from opensora_demo.weights.reading import EXACT

if TYPE_CHECKING:
    from opensora_demo.runtime.bundle import ModelBundle

M = TypeVar("M", bound=nn.Module)
log = logging.getLogger(__name__)
Half = Literal["network", "codec"]
"""A part of a model that may compute in half precision. Text encoders are called once a run and stay as they are."""

Work = Callable[[], object]
GAIN = 1.1  # float32's time over bfloat16's: less is not worth the digits
SLOW_S = 0.02  # a small product that takes longer is all that is timed
_ROUNDS = 3
_DTYPES: Mapping[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def has_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16 by itself (AVX-512 BF16, AMX, or Arm's BF16)."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def processor() -> str:
    """Its name, as the system says it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or "unknown"
    named = next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")), "")
    return named or platform.processor() or "unknown"


@cache
def product_rate(kind: str, dtype: torch.dtype) -> float:
    """FLOP/s of a product of 1024 x 1152 by 1152 x 4608 on a kind of device, the best of four; of a 64th of it where
    that one takes more than SLOW_S, as it does where a processor has no instructions for the type."""
    rate = 0.0
    for rows, columns, tries in ((128, 576, 1), (1024, 4608, 4)):
        a, b = torch.randn(rows, 1152, device=kind, dtype=dtype), torch.randn(1152, columns, device=kind, dtype=dtype)
        best = min(_product_s(a, b, kind) for _ in range(tries))
        rate = 2 * rows * 1152 * columns / best
        if best > SLOW_S:
            break
    return rate


def _product_s(a: Tensor, b: Tensor, kind: str) -> float:
    begin = time.perf_counter()
    a @ b
    if kind == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def stored_dtype(device: torch.device) -> torch.dtype | None:
    """What published weights are held in: bfloat16 on a GPU, as upstream runs them; on a CPU as they are stored."""
    return None if device.type == "cpu" else torch.bfloat16


def wide_dtype(spec: ModelSpec, device: torch.device, wish: Precision) -> torch.dtype | None:
    """What network and codec of an entry are loaded in; None is as their files have them. "auto" is bfloat16 for
    published ones where this device multiplies wide matrices faster in it: upstream runs them so. What small ones gain
    is known when they are there (`runtime.fitted`)."""
    if (dtype := _DTYPES.get(wish)) is not None:
        return dtype
    if spec.published is None:
        return torch.float32
    if wish == "auto" and device.type == "cpu" and has_bfloat16():
        wins = product_rate("cpu", torch.bfloat16) > GAIN * product_rate("cpu", torch.float32)
        return torch.bfloat16 if wins else None
    return stored_dtype(device)


def halve(module: M) -> M:
    """The module itself, in bfloat16."""
    _assign(module, halved(module.state_dict()))
    return module


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in bfloat16, but for what must be exact; shared ones stay shared."""
    done: dict[int, Tensor] = {}
    for name, value in state.items():
        if id(value) not in done:
            exact = not value.is_floating_point() or name.endswith(EXACT)
            done[id(value)] = value if exact else value.to(torch.bfloat16)
    return {name: done[id(value)] for name, value in state.items()}


def _assign(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    module.load_state_dict(state, assign=True)
    module.requires_grad_(False)


def precision_of(bundle: ModelBundle) -> dict[str, str]:
    """The names of the numbers that a model's parts compute in, such as {"network": "bfloat16", "codec": "float32"}."""
    return {part: str(_dtype_of(module)).removeprefix("torch.") for part, module in modules_of(bundle).items()}


def _dtype_of(module: nn.Module) -> torch.dtype:
    """Of its largest parameter: what must be exact is small."""
    largest = max(module.parameters(), key=Tensor.numel, default=None)
    return torch.float32 if largest is None else largest.dtype


def modules_of(bundle: ModelBundle) -> dict[Half, nn.Module]:
    return {"network": bundle.family.network, "codec": bundle.codec}


def gain(bundle: ModelBundle, part: Half, rounds: int = _ROUNDS) -> float:
    """The time that a part's work takes in float32 over that in bfloat16, each the least of some rounds in turn; the
    part is left as it was. On one thread, by what that computes: others on the machine would decide else."""
    module, make = modules_of(bundle)[part], step if part == "network" else _decoding
    full, threads = module.state_dict(), torch.get_num_threads()
    states, works, least = (full, halved(full)), [], [math.inf, math.inf]
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for state in states:
                _assign(module, state)
                works.append(make(bundle))  # of the part as it is now
                works[-1]()  # what is made at the first call does not count
            for _ in range(rounds):
                for kind, state in enumerate(states):
                    _assign(module, state)
                    begin = time.thread_time()
                    works[kind]()
                    least[kind] = min(least[kind], time.thread_time() - begin)
    finally:
        torch.set_num_threads(threads)
        _assign(module, full)
    return least[0] / least[1]


def _usual(bundle: ModelBundle) -> tuple[GenerationRequest, Tensor]:
    """A clip at the defaults, and noise like its latents."""
    spec, codec = bundle.spec, bundle.codec
    request = parse_request({"prompt": next(iter(dict(spec.labels)), "a ball")}, model_id=spec.id, limits=spec.limits)
    shape = request.shape
    size = codec.latent_size(shape.frames, shape.height_px, shape.width_px)
    return request, torch.randn(1, codec.latent_channels, *size, generator=torch.Generator().manual_seed(0))


def step(bundle: ModelBundle) -> Work:
    """A step of a usual clip, with both branches of guidance."""
    request, x = _usual(bundle)
    family = bundle.family
    condition = family.condition(request, ConditioningFrames(), (x.shape[2], x.shape[3], x.shape[4]))
    return lambda: family.call(x, 0.5 * family.time_scale, condition, [0, 0], [0, 1])


def _decoding(bundle: ModelBundle) -> Work:
    request, x = _usual(bundle)
    x = x.to(bundle.codec_dtype)
    return lambda: bundle.codec.decode(x, request.shape.frames)
