"""Write a trained model into assets: half precision, files under 10 MB, its training told in the header."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from opensora_demo.weights import read_metadata, read_state

MAX_FILE_BYTES = 9_900_000


def save_shards(state: Mapping[str, Tensor], files: list[Path], metadata: Mapping[str, str]) -> None:
    """Split a state dict over `files` in order of its names. Raises ValueError where a file would exceed 10 MB."""
    half = {k: v.detach().half().contiguous() if v.is_floating_point() else v.contiguous() for k, v in state.items()}
    share = sum(v.nbytes for v in half.values()) / len(files)
    shards: list[dict[str, Tensor]] = [{} for _ in files]
    filled, index = 0, 0
    for name, tensor in half.items():
        if filled >= share * (index + 1) and index < len(files) - 1:
            index += 1
        shards[index][name] = tensor.clone()
        filled += tensor.nbytes
    for file, shard in zip(files, shards, strict=True):
        size = sum(v.nbytes for v in shard.values())
        if size > MAX_FILE_BYTES:
            raise ValueError(f"{file.name} would have {size / 1e6:.1f} MB; add a shard")
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(shard, file, metadata=dict(metadata))


def add_metadata(file: Path, extra: Mapping[str, str]) -> None:
    """Rewrite a file's header with more entries; the tensors stay as they are."""
    save_file(read_state([file]), file, metadata={**read_metadata(file), **extra})
