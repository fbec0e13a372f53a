"""Reading recorded cases of the reference implementation; their format and weights: tests/reference/README.md."""

from __future__ import annotations

import json
import os
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from .options import Options, UnknownOption

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
    """One recorded computation: `inputs` and `expected` by their names without `in.` and `out.`, `meaning` what the
    case says of them (`inputs.x`, `outputs.y`). Whoever computes it asks for every option and input there is, or
    `unread` names the others."""

    name: str
    system: str
    config: Options
    networks: dict[str, dict[str, Any]]
    inputs: Options
    expected: dict[str, Tensor]
    meaning: dict[str, str]
    tolerance: float
    filled: set[str] = field(default_factory=set)

    def named(self, prefix: str) -> dict[str, Tensor]:
        """The inputs whose names begin so, in the order of their names."""
        return {name: self.inputs[name] for name in sorted(self.inputs) if name.startswith(prefix)}

    def draws(self) -> list[Tensor]:
        """The recorded random draws, in the order in which the reference made them."""
        return list(self.named("randn_").values())

    def network(self, role: str = "model") -> dict[str, Any]:
        self.filled.add(role)
        return self.networks[role]

    def fill(self, module: nn.Module, role: str = "model") -> None:
        """Give `module` the recorded weights; names must agree exactly, `fixed` entries keep their own value."""
        network = self.network(role)
        own = module.state_dict()
        named = {k: weight(network["seed"], network["gain"], k, s) for k, s in network["names"].items()}
        fixed = set(network["fixed"])
        assert set(own) == set(named) | fixed, sorted(set(own) ^ (set(named) | fixed))[:8]
        for name, shape in network["fixed"].items():
            assert list(own[name].shape) == shape, name
        for name, value in (network.get("overrides") or {}).items():
            named[name] = torch.as_tensor(value, dtype=own[name].dtype).expand(own[name].shape)
        module.load_state_dict({**own, **named})
        module.eval().requires_grad_(False)

    def asked_size(self, output: str, video: Tensor) -> tuple[int, int, int]:
        """(frames, height, width) whose latent size an output is, as its meaning says: `get_latent_size` of the clip
        `video` (b, c, t, h, w), or of `[frames,64,96]`, where a word stands for the clip's own."""
        own = tuple(video.shape[2:])
        said = self.meaning[f"outputs.{output}"]
        if said == "get_latent_size of the clip":
            return own
        if found := re.fullmatch(r"get_latent_size\(\[(\w+), ?(\w+), ?(\w+)\]\)", said):
            t, h, w = (int(word) if word.isdigit() else size for word, size in zip(found.groups(), own, strict=True))
            return t, h, w
        raise UnknownOption(f"outputs.{output}: no size in {said!r}")

    def asked_frames(self, latent: str) -> int:
        """How many frames an input is to be decoded into, as its meaning says."""
        said = self.meaning[f"inputs.{latent}"]
        if found := re.search(r"\binto (\d+) frames\b", said):
            return int(found[1])
        raise UnknownOption(f"inputs.{latent}: no number of frames in {said!r}")

    def unread(self) -> list[str]:
        """Options, inputs and networks that were not asked for."""
        roles = [f"networks.{role}" for role in self.networks if role not in self.filled]
        return self.config.unread() + self.inputs.unread() + roles


KEYS = {"system", "reference", "what", "config", "networks", "inputs", "outputs", "tolerance"}
NETWORK_KEYS = {"seed", "gain", "names", "fixed", "overrides"}


def load_case(folder: Path) -> Case:
    """Raises UnknownOption for a key of the case or of a network that the format does not have."""
    case = json.loads((folder / "case.json").read_text())
    unknown = sorted(set(case) - KEYS)
    for role, network in case["networks"].items():
        unknown += [f"networks.{role}.{key}" for key in sorted(set(network) - NETWORK_KEYS)]
    if unknown:
        raise UnknownOption(", ".join(unknown))
    io = load_file(folder / "io.safetensors")
    return Case(
        name=folder.name,
        system=case["system"],
        config=Options(case["config"], "config."),
        networks=case["networks"],
        inputs=Options({k.removeprefix("in."): v for k, v in io.items() if k.startswith("in.")}, "inputs."),
        expected={k.removeprefix("out."): v for k, v in io.items() if k.startswith("out.")},
        meaning={f"{side}.{name}": it["meaning"] for side in ("inputs", "outputs") for name, it in case[side].items()},
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
