"""Reading recorded cases of the reference implementation; their format and weights: tests/reference/README.md."""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

FOLDER = Path(os.environ.get("OPENSORA_REFERENCE", Path(__file__).resolve().parent.parent / "reference"))


def weight(seed: int, gain: float, name: str, shape: list[int]) -> Tensor:
    """The value of a random entry: a pure function of the network's seed and the entry's name."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One recorded computation: `inputs` and `expected` by their names without `in.` and `out.`."""

    name: str
    system: str
    config: dict[str, Any]
    networks: dict[str, dict[str, Any]]
    inputs: dict[str, Tensor]
    expected: dict[str, Tensor]
    tolerance: float

    def draws(self) -> list[Tensor]:
        """The recorded random draws, in the order in which the reference made them."""
        return [self.inputs[name] for name in sorted(self.inputs) if name.startswith("randn_")]

    def fill(self, module: nn.Module, role: str = "model") -> None:
        """Give `module` the recorded weights; names must agree exactly, `fixed` entries keep their own value."""
        network = self.networks[role]
        own = module.state_dict()
        named = {k: weight(network["seed"], network["gain"], k, s) for k, s in network["names"].items()}
        fixed = set(network["fixed"])
        assert set(own) == set(named) | fixed, sorted(set(own) ^ (set(named) | fixed))[:8]
        for name, value in (network.get("overrides") or {}).items():
            named[name] = torch.as_tensor(value, dtype=own[name].dtype).expand(own[name].shape)
        module.load_state_dict({**own, **named})
        module.eval().requires_grad_(False)


def load_case(folder: Path) -> Case:
    case = json.loads((folder / "case.json").read_text())
    io = load_file(folder / "io.safetensors")
    return Case(
        name=folder.name,
        system=case["system"],
        config=case["config"],
        networks=case["networks"],
        inputs={k.removeprefix("in."): v for k, v in io.items() if k.startswith("in.")},
        expected={k.removeprefix("out."): v for k, v in io.items() if k.startswith("out.")},
        tolerance=max(float(case["tolerance"]), 1e-4),
    )


def relative_error(ours: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected magnitude; integers must agree exactly."""
    assert ours.shape == expected.shape, f"{tuple(ours.shape)}, expected {tuple(expected.shape)}"
    if not expected.is_floating_point():
        return 0.0 if torch.equal(ours.to(expected.dtype), expected) else float("inf")
    if torch.equal(torch.isnan(ours), torch.isnan(expected)):
        ours, expected = ours.nan_to_num(), expected.nan_to_num()
    return float((ours.double() - expected.double()).abs().max() / expected.double().abs().max().clamp(min=1e-12))


def manifest(name: str) -> dict[str, list[int]]:
    return json.loads((FOLDER / "manifests" / f"{name}.json").read_text())
