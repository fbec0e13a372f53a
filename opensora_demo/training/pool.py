"""A pool of encoded clips on disk: latents (n, c, t, h, w) in half precision and the scenes they show."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from opensora_demo.codecs.video_vae import VideoVAE, VideoVaeConfig
from opensora_demo.training.train_vae import to_video
from opensora_demo.training.worlds import Scene, render, sample_scene, scene_from

SHARD = 1024


def encode_scenes(vae: VideoVAE, scenes: list[Scene], batch: int = 8) -> torch.Tensor:
    """Raw posterior means (n, c, t, h, w), before shift and scale, in bfloat16 convolutions."""
    out = []
    for at in range(0, len(scenes), batch):
        video = to_video(np.stack([render(s)[0] for s in scenes[at : at + batch]]))
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            mean, _ = vae.temporal_vae.encode(vae.spatial_vae.encode(video))
        out.append(mean.float())
    return torch.cat(out)


def fingerprint(weights: Path) -> str:
    """SHA-256 of a state dict's names and numbers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(torch.load(weights, map_location="cpu", weights_only=True).items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.ndim else b"")
    return digest.hexdigest()


def _shard(cfg: VideoVaeConfig, weights: Path, folder: Path, seed: int, pairs: float, index: int) -> int:
    """Write one shard, unless it is there. Each shard draws its scenes from its own seed."""
    file = folder / f"{index:04d}.npy"
    if not file.exists():
        torch.set_num_threads(1)
        vae = VideoVAE(cfg)
        vae.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        vae.eval().spatial_vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        rng = np.random.default_rng((seed, index))
        scenes = [sample_scene(rng, pairs=pairs) for _ in range(SHARD)]
        latents = encode_scenes(vae, scenes).half().numpy()
        (folder / f"{index:04d}.json").write_text(json.dumps([asdict(s) for s in scenes]))
        part = file.with_suffix(".part.npy")
        np.save(part, latents)
        os.replace(part, file)
    return index


def build_pool(
    cfg: VideoVaeConfig, weights: Path, folder: Path, *, shards: int, seed: int, pairs: float = 0.0, workers: int = 2
) -> None:
    """Render and encode `shards` x 1024 clips; continues where it stopped. `weights` is a VideoVAE state dict,
    `pairs` the share of clips with two objects; `workers` 0 stays in this process.

    Raises ValueError where the folder holds clips of another VAE, seed or share.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made_by, ours = folder / "made_by.json", {"vae": fingerprint(weights), "seed": seed, "pairs": pairs}
    if made_by.exists() and json.loads(made_by.read_text()) != ours:
        raise ValueError(f"{folder} was encoded by another VAE or drawn from another seed; delete it first")
    made_by.write_text(json.dumps(ours))
    work = partial(_shard, cfg, weights, folder, seed, pairs)
    if workers == 0:  # in this process
        for index in range(shards):
            work(index)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        for index in executor.map(work, range(shards)):
            print(f"pool: shard {index + 1} of {shards}", flush=True)


def load_pool(folder: Path) -> tuple[np.ndarray, list[Scene]]:
    """All finished shards: latents (n, c, t, h, w) float16 and their scenes."""
    files = [f for f in sorted(folder.glob("[0-9]*.npy")) if ".part" not in f.name]
    scenes = [scene_from(s) for f in files for s in json.loads(f.with_suffix(".json").read_text())]
    return np.concatenate([np.load(f) for f in files]), scenes


def latent_statistics(latents: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Per-channel mean and standard deviation, each (1, c, 1, 1, 1): the codec's `shift` and `scale`."""
    x = torch.from_numpy(latents[:4096]).float()
    return x.mean((0, 2, 3, 4), keepdim=True), x.std((0, 2, 3, 4), keepdim=True)
