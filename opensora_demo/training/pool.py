"""A pool of encoded clips on disk: latents (n, c, t, h, w) in half precision, the scenes they show, and where in the
latents each of their objects is, (n, 2, t, h, w) in 8 bits."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from opensora_demo.codecs.base import CodecConfig
from opensora_demo.codecs.dc_ae import DcAe
from opensora_demo.codecs.scaling import check_factor, latent_std
from opensora_demo.codecs.video_vae import VideoVAE
from opensora_demo.frames import to_video
from opensora_demo.runtime.bundle import build_codec
from opensora_demo.toy.rendering import RenderConfig, draw_scenes, render_scenes
from opensora_demo.toy.worlds import Scene, scene_from
from opensora_demo.training.precision import half_precision
from opensora_demo.weights.reading import load_module, read_state

SHARD = 1024
Codec = VideoVAE | DcAe


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """What the clips of a pool are: `pairs` is the share with two objects, `fps` None draws it for each clip."""

    codec: CodecConfig
    frames: int
    size_px: int
    seed: int
    pairs: float
    fps: int | None = None


def load_codec(cfg: CodecConfig, weights: tuple[Path, ...]) -> Codec:
    codec = load_module(lambda: build_codec(cfg), list(weights), "codec")
    assert isinstance(codec, VideoVAE | DcAe)
    if isinstance(codec, VideoVAE):
        codec.spatial_vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return codec


def raw_latents(codec: Codec, video: Tensor) -> Tensor:
    """Latents (b, c, t', h', w') before the codec's own shift and scale, in half precision where it is faster.

    A codec that is not causal encodes a lone frame otherwise than a clip: the latent of the last frame of the first
    group, by itself, comes first, so that a network can learn to go on from a given frame.
    """
    with torch.inference_mode(), half_precision(video.device):
        if isinstance(codec, VideoVAE):
            return codec.temporal_vae.encode(codec.spatial_vae.encode(video))[0].float()
        at = codec.cfg.time_factor - 1
        return torch.cat([codec.encoder(video[:, :, at : at + 1]), codec.encoder(video)], dim=2).float()


def normalisation(codec: Codec, latents: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
    """Shift and scale, each (1, c or 1, 1, 1, 1): per channel measured on raw `latents`, else what the codec holds.

    A DC-AE has its scaling factor from the catalog; `latents` check it. Raises ValueError where it does not fit them.
    """
    x = None if latents is None else torch.from_numpy(latents[:4096]).float()
    if isinstance(codec, VideoVAE):
        if x is None:
            return codec.shift, codec.scale
        return x.mean((0, 2, 3, 4), keepdim=True), x.std((0, 2, 3, 4), keepdim=True)
    factor = codec.cfg.scaling_factor
    if x is not None and factor is not None:
        check_factor(factor, latent_std(x), "divisor")
    return torch.zeros(1, 1, 1, 1, 1), torch.full((1, 1, 1, 1, 1), factor or 1.0)


_DECODING = ("decoder", "post_quant", "refine")


def fingerprint(weights: tuple[Path, ...]) -> str:
    """SHA-256 of the names and numbers that latents depend on: not the decoder's, nor shift and scale, which come
    after the pool."""
    digest = hashlib.sha256()
    for name, tensor in sorted(read_state(list(weights)).items()):
        if name not in ("shift", "scale") and not any(part in name for part in _DECODING):
            digest.update(name.encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _shard(cfg: PoolConfig, weights: tuple[Path, ...], folder: Path, index: int) -> int:
    """Write one shard, unless it is there. Each shard draws its scenes from its own seed."""
    file = folder / f"{index:04d}.npy"
    if not file.exists():
        torch.set_num_threads(1)
        codec = load_codec(cfg.codec, weights)
        render = RenderConfig(
            frames=cfg.frames,
            size_px=cfg.size_px,
            latent=codec.latent_size(cfg.frames, cfg.size_px, cfg.size_px),
            pairs=cfg.pairs,
            seed=cfg.seed,
            fps=cfg.fps,
            clips=SHARD,
        )
        scenes = draw_scenes(render, index)
        parts, shares = [], []
        for at in range(0, len(scenes), 8):
            shard = render_scenes(render, scenes[at : at + 8])
            parts.append(raw_latents(codec, to_video(shard.clips)))
            shares.append(shard.shares)
        np.save(folder / f"{index:04d}.masks.npy", np.concatenate(shares))
        (folder / f"{index:04d}.json").write_text(json.dumps([asdict(s) for s in scenes]))
        part = file.with_suffix(".part.npy")
        np.save(part, torch.cat(parts).half().numpy())
        part.replace(file)
    return index


def build_pool(cfg: PoolConfig, weights: tuple[Path, ...], folder: Path, *, shards: int, workers: int = 2) -> None:
    """Render and encode `shards` x 1024 clips; continues where it stopped. `weights` are the codec's files; `workers`
    0 stays in this process.

    Raises ValueError where the folder holds clips of another VAE, or others than `cfg` says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made_by = folder / "made_by.json"
    ours = {"vae": fingerprint(weights), "frames": cfg.frames, "size_px": cfg.size_px, "seed": cfg.seed}
    ours |= {"pairs": cfg.pairs, "fps": cfg.fps, "masks": True}
    if made_by.exists() and json.loads(made_by.read_text()) != ours:
        raise ValueError(f"{folder} was encoded by another VAE or drawn from another seed; delete it first")
    made_by.write_text(json.dumps(ours))
    work = partial(_shard, cfg, weights, folder)
    if workers == 0:  # in this process
        for index in range(shards):
            work(index)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        for index in executor.map(work, range(shards)):
            print(f"pool: shard {index + 1} of {shards}", flush=True)


def _finished(folder: Path) -> list[Path]:
    return [f for f in sorted(folder.glob("[0-9]*.npy")) if f.stem.isdigit()]


def load_masks(folder: Path) -> np.ndarray:
    """Of all finished shards how much of each cell the first and the second object cover, (n, 2, t, h, w) uint8."""
    return np.concatenate([np.load(f.with_suffix(".masks.npy")) for f in _finished(folder)])


def load_pool(folder: Path) -> tuple[np.ndarray, list[Scene]]:
    """All finished shards: latents (n, c, t, h, w) float16 and their scenes."""
    files = _finished(folder)
    scenes = [scene_from(s) for f in files for s in json.loads(f.with_suffix(".json").read_text())]
    return np.concatenate([np.load(f) for f in files]), scenes
