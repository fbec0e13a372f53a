"""A loaded model, and the cache that keeps the last one."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from opensora_demo.catalog import ModelSpec, find_model
from opensora_demo.codecs.video_vae import VideoVAE
from opensora_demo.errors import WeightsError
from opensora_demo.families.stdit import STDiTFamily
from opensora_demo.models.stdit3 import STDiT3
from opensora_demo.text.t5 import T5TextEncoder
from opensora_demo.weights import ASSETS, load_module, missing_files, read_state


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBundle:
    """Everything `pipeline.generate` needs of one model. `lock` is held by the run that uses the device."""

    spec: ModelSpec
    family: STDiTFamily
    codec: VideoVAE
    preview_matrix: Tensor
    device: torch.device
    lock: threading.Lock


def pick_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("cpu")


def fit_threads() -> int:
    """Use as many threads as this process may really run on: its CPU affinity, and a container's CPU quota.

    torch counts the cores of the host; on a shared host more threads than the quota allows run far slower than fewer.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        allowed = min(allowed, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or "max": no quota
        pass
    torch.set_num_threads(min(allowed, torch.get_num_threads()))
    return torch.get_num_threads()


def build_bundle(spec: ModelSpec, device: torch.device | None = None) -> ModelBundle:
    """Load the weights of `spec` (about a second for nano). Raises WeightsError."""
    device = device or pick_device()
    folder = ASSETS / spec.weights.folder
    if missing := missing_files(spec.weights.folder, spec.weights.all_files()):
        raise WeightsError(f"{spec.id} needs {', '.join(missing)} in assets/{spec.weights.folder}")
    text = load_module(
        lambda: T5TextEncoder(spec.text, folder / spec.weights.tokenizer),
        [folder / f for f in spec.weights.text],
        f"{spec.id} text encoder",
    )
    network = load_module(
        lambda: STDiT3(spec.network), [folder / f for f in spec.weights.network], f"{spec.id} transformer"
    )
    codec = load_module(lambda: VideoVAE(spec.codec), [folder / f for f in spec.weights.codec], f"{spec.id} VAE")
    codec.spatial_vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    matrix = read_state([folder / spec.weights.preview])["matrix"].float()
    return ModelBundle(
        spec=spec,
        family=STDiTFamily(text.to(device), network.to(device)),
        codec=codec.to(device),
        preview_matrix=matrix.to(device),
        device=device,
        lock=threading.Lock(),
    )


class Bundles:
    """Keeps the bundle last asked for; the next one replaces it. Safe to call from several threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._loaded: ModelBundle | None = None

    def get(self, model_id: str) -> ModelBundle:
        spec = find_model(model_id)
        with self._guard:
            if self._loaded is None or self._loaded.spec.id != model_id:
                self._loaded = None
                self._loaded = build_bundle(spec)
            return self._loaded
