"""Reading recorded cases of the reference implementation; their format and weights: tests/reference/README.md."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

FOLDER = Path(os.environ.get("OPENSORA_REFERENCE", Path(__file__).resolve().parent.parent / "reference"))


def weight(seed: int, gain: float, name: str, shape: list[int]) -> Tensor:
    raw = np.random.PCG64(zlib.crc32(f"{seed}:{name}".encode())).random_raw(int(np.prod(shape)))
    x = ((raw >> 11) * 2.0**-52 - 1).reshape(shape) * 3**0.5
    last = name.split(".")[-1]
    if len(shape) == 1:
        x = 1 + 0.15 * x if last in ("weight", "scale") else 0.1 * x
    elif last == "y_embedding" or "scale_shift_table" in last:
        x = (0.7 if last == "y_embedding" else 0.2) * x
    else:
        x = x * min(max(gain / np.sqrt(np.prod(shape[1:])), 0.05), 0.2)
    return torch.from_numpy(x.astype(np.float32))


def load_case(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return json.loads((FOLDER / name / "case.json").read_text()), load_file(FOLDER / name / "io.safetensors")


def fill(module: nn.Module, network: dict[str, Any]) -> None:
    """Give `module` the weights of a recorded network; names must agree exactly, `fixed` entries stay as they are."""
    own = module.state_dict()
    named = {k: weight(network["seed"], network["gain"], k, s) for k, s in network["names"].items()}
    assert set(own) == set(named) | set(network["fixed"])
    module.load_state_dict({**own, **named})
    module.eval().requires_grad_(False)


def relative_error(ours: Tensor, expected: Tensor) -> float:
    assert ours.shape == expected.shape
    return float((ours - expected).abs().max() / expected.abs().max())


def manifest(name: str) -> dict[str, list[int]]:
    return json.loads((FOLDER / "manifests" / f"{name}.json").read_text())
