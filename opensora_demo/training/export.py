"""Write a trained model into assets: 8 bits a weight, files under 10 MB, its training told in the header."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from opensora_demo.weights.reading import SCALE_SUFFIX

MAX_FILE_BYTES = 9_900_000
SMALL = 4096  # numbers; smaller tensors stay in half precision


def compressed(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Each tensor as it is stored: matrices and kernels in 8 bits with a scale for each row (the output channel), which
    costs the VAE 0.03 dB; vectors and small ones in half precision; whole numbers as they are."""
    stored: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        value = value.detach().cpu()
        if not value.is_floating_point():
            stored[name] = {name: value.contiguous()}
        elif value.ndim < 2 or value.numel() < SMALL:
            stored[name] = {name: value.half().contiguous()}
        else:
            rows = value.float()
            scale = (rows.flatten(1).abs().amax(1) / 127).clamp(min=1e-12)
            whole = (rows / scale.view(-1, *[1] * (rows.ndim - 1))).round().to(torch.int8)
            stored[name] = {name: whole.contiguous(), name + SCALE_SUFFIX: scale}
    return stored


def save_shards(state: Mapping[str, Tensor], files: list[Path], metadata: Mapping[str, str]) -> None:
    """Split a state dict over `files` in order of its names. Raises ValueError where a file would exceed 10 MB."""
    parts = compressed(state)
    share = sum(v.nbytes for part in parts.values() for v in part.values()) / len(files)
    shards: list[dict[str, Tensor]] = [{} for _ in files]
    filled, index = 0, 0
    for part in parts.values():
        if filled >= share * (index + 1) and index < len(files) - 1:
            index += 1
        shards[index] |= {name: tensor.clone() for name, tensor in part.items()}
        filled += sum(v.nbytes for v in part.values())
    for file, shard in zip(files, shards, strict=True):
        size = sum(v.nbytes for v in shard.values())
        if size > MAX_FILE_BYTES:
            raise ValueError(f"{file.name} would have {size / 1e6:.1f} MB; add a shard")
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(shard, file, metadata=dict(metadata))
