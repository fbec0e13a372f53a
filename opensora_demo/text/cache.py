"""Encoded prompts, kept: a prompt that was encoded before costs no call, so a large encoder can leave the device.

In memory the last few, and on disk more of them, under names that say nothing of the prompt.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from opensora_demo.text.clip import PooledText
from opensora_demo.text.t5 import TextFeatures

IN_MEMORY = 32
ON_DISK = 256

F = TypeVar("F", TextFeatures, PooledText)


class EmbeddingCache(Generic[F]):
    """An encoder of prompts, called as the encoder is. Every prompt is encoded by itself, so that what it becomes does
    not depend on what else was asked for. Safe in one thread at a time, as a run is."""

    def __init__(
        self,
        encoder: Callable[[list[str]], F],
        identity: str,
        *,
        device: torch.device,
        before: Callable[[], None] = lambda: None,
        folder: Path | None = None,
    ) -> None:
        """`identity` tells encoders apart (files and settings); `before` runs before the encoder is called; without a
        `folder` nothing is kept on disk."""
        self.encoder: Callable[[list[str]], F] = encoder
        self.device = device
        self.calls = 0
        self._identity = identity
        self._before = before
        self._folder = folder
        self._kept: OrderedDict[str, F] = OrderedDict()

    def __call__(self, prompts: list[str]) -> F:
        return _joined([self._one(prompt) for prompt in prompts], self.device)

    def _one(self, prompt: str) -> F:
        key = hashlib.sha256(f"{self._identity}\n{prompt}".encode()).hexdigest()
        found = self._kept.pop(key, None) or self._read(key)
        if found is None:
            self._before()
            self.calls += 1
            found = _on_cpu(self.encoder([prompt]))
            self._write(key, found)
        self._kept[key] = found
        while len(self._kept) > IN_MEMORY:
            self._kept.popitem(last=False)
        return found

    def _read(self, key: str) -> F | None:
        if self._folder is None:
            return None
        file = self._folder / f"{key}.safetensors"
        try:
            with safe_open(file, framework="pt") as stored:
                facts = json.loads((stored.metadata() or {})["told"])
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a mapping
        except (OSError, KeyError, ValueError, SafetensorError):  # not there, or not whole
            return None
        with suppress(OSError):  # a read-only cache serves all the same
            os.utime(file)
        unknown = (tuple(facts["unknown"]),)
        if "y" in tensors:
            return TextFeatures(tensors["y"], tensors["lengths"], unknown, (facts["cut"],))  # type: ignore[return-value]
        return PooledText(tensors["pooled"], unknown, (facts["cut"],))  # type: ignore[return-value]

    def _write(self, key: str, found: F) -> None:
        if self._folder is None:
            return
        tensors = (
            {"y": found.y, "lengths": found.lengths} if isinstance(found, TextFeatures) else {"pooled": found.pooled}
        )
        facts = json.dumps({"unknown": found.unknown[0], "cut": found.cut_tokens[0]})
        with suppress(OSError, SafetensorError):  # a full or read-only disk: it is only a cache
            self._folder.mkdir(parents=True, exist_ok=True)
            half = self._folder / f"{key}.{os.getpid()}.part"
            try:
                save_file({name: value.contiguous() for name, value in tensors.items()}, half, {"told": facts})
                half.replace(self._folder / f"{key}.safetensors")
            finally:
                half.unlink(missing_ok=True)
            files = sorted(self._folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)
            for old in files[:-ON_DISK]:
                old.unlink(missing_ok=True)


def _on_cpu(found: F) -> F:
    if isinstance(found, TextFeatures):
        return TextFeatures(found.y.cpu(), found.lengths.cpu(), found.unknown, found.cut_tokens)
    return PooledText(found.pooled.cpu(), found.unknown, found.cut_tokens)


def _joined(found: list[F], device: torch.device) -> F:
    """One batch; features are padded with zeros to the longest, and their lengths say so."""
    unknown, cut = tuple(f.unknown[0] for f in found), tuple(f.cut_tokens[0] for f in found)
    if isinstance(found[0], PooledText):
        pooled = torch.cat([f.pooled for f in found])
        return PooledText(pooled.to(device), unknown, cut)
    rows: list[Tensor] = [f.y[0] for f in found]
    y = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.cat([f.lengths for f in found])
    return TextFeatures(y.to(device), lengths.to(device), unknown, cut)
