"""A few minutes of a fast device, none of them wasted: every core renders while the device trains.

python -m opensora_demo.training nano --device cuda --minutes 9

1. The codec, where the recipe has one and nothing of it is there: it trains on clips that are rendered meanwhile.
2. The transformer, to the end: what is rendered is encoded on the device and joins the pool, in which the newest
   `POOL_CLIPS` stay.
3. The averaged weights as they are shipped, in 8 bits.

Everything that is to be kept lies in one folder of less than 60 MB, written every minute: fetch it, and the next call
with it goes on where this one stopped. Rendered clips lie in another, which nobody needs afterwards.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opensora_demo.catalog.spec import Part
from opensora_demo.codecs.dc_ae import DcAeConfig
from opensora_demo.codecs.video_vae import VideoVaeConfig
from opensora_demo.frames import to_video
from opensora_demo.runtime.bundle import build_codec
from opensora_demo.toy.captions import build_tokenizer
from opensora_demo.toy.rendering import RenderConfig, Renderers, Shard, read_shard, waiting
from opensora_demo.training.export import save_shards
from opensora_demo.training.loop import Job, LoopConfig, load_ema, train
from opensora_demo.training.pool import Codec, load_codec, normalisation, raw_latents
from opensora_demo.training.recipes import Recipe, StageNumbers, borrowed
from opensora_demo.training.train_network import NetworkJob, TextToVideo
from opensora_demo.training.train_vae import VaeJob
from opensora_demo.weights.store import asset

POOL_CLIPS = 131_072  # 1.3 GB of latents of nano
ENCODE_BATCH = 64
CODEC_SHARE = 0.3  # of the time, where there is a codec to train
COOLDOWN_SHARE = 0.3
EXPORT_S = 20.0  # for the weights in 8 bits, at the end
MAX_FOLDER_BYTES = 60_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sprint:
    """`folder` is kept, `scratch` is not. `start` is a folder of weights to go on from, laid out as in assets: with a
    codec there, none is trained. `batch` is of the transformer, clips a step; `numbers` are its learning rate and
    EMA's."""

    recipe: Recipe
    folder: Path
    scratch: Path
    device: str
    minutes: float
    numbers: StageNumbers
    workers: int
    start: Path | None = None
    seed: int = 1
    batch: int = 256
    codec_batch: int = 32
    compiled: bool = True
    render_clips: int = 256
    save_every_s: float = 60.0

    @property
    def weights(self) -> Path:
        """What is made, in 8 bits, laid out as in assets."""
        return self.folder / "weights"

    @property
    def codec_files(self) -> tuple[Path, ...]:
        return tuple(self.weights / name for name in self.recipe.files.codec)

    def render(self) -> RenderConfig:
        spec = self.recipe.spec
        return RenderConfig(
            frames=spec.limits.default_frames,
            size_px=spec.limits.size_px[0],
            latent=spec.codec.build().latent_size(spec.limits.default_frames, *spec.limits.size_px),
            pairs=self.recipe.pairs,
            seed=self.seed,
            fps=self.recipe.fps,
            clips=self.render_clips,
        )

    def loop(self, name: str, numbers: StageNumbers, seconds: float) -> LoopConfig:
        """Of `seconds` more than the stage has had."""
        checkpoint = self.folder / name / "checkpoint.pt"
        before = torch.load(checkpoint, weights_only=True, mmap=True)["used_s"] if checkpoint.exists() else 0.0
        return LoopConfig(
            run_dir=self.folder / name,
            steps=0,
            cooldown=0,
            lr=numbers.lr,
            adam_ratio=numbers.adam_ratio,
            ema_decay=numbers.ema_decay,
            seed=self.seed,
            workers=1,
            save_every_s=self.save_every_s,
            budget_s=before + seconds,
            cooldown_s=COOLDOWN_SHARE * seconds,
            clock="wall",
            light=True,
        )


@dataclass
class ClipSource:
    """Clips for the codec from what is rendered: a shard stays for `uses` draws, then the newest takes its place."""

    renderers: Renderers
    uses: int = 16
    _left: int = 0
    _shard: Shard | None = None
    _shares: Tensor | None = None

    def __call__(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        if self._shard is None or self._left == 0:
            files = self.renderers.wait()
            self._shard, self._left = read_shard(files[int(rng.integers(len(files)))]), self.uses
            if len(files) >= self.renderers.limit:  # room for fresh ones
                files[0].unlink()
        self._left -= 1
        shard = self._shard
        chosen = rng.integers(len(shard.scenes), size=count)
        video = to_video(shard.clips[chosen])  # (b, 3, t, h, w)
        covered = torch.from_numpy(shard.shares[chosen]).float().amax(1, keepdim=True) / 255  # (b, 1, t', h', w')
        return video, torch.nn.functional.interpolate(covered, size=video.shape[2:], mode="nearest")


@dataclass
class FreshPool:
    """Latents, scenes and masks as a NetworkJob reads them, which grow while it trains."""

    codec: Codec
    device: str
    scratch: Path
    limit: int = POOL_CLIPS
    latents: np.ndarray = field(default_factory=lambda: np.zeros((0,), np.float16))
    masks: np.ndarray = field(default_factory=lambda: np.zeros((0,), np.uint8))
    scenes: list[Any] = field(default_factory=list)
    seen: int = 0

    def take(self, most: int = 1) -> int:
        """Encode up to `most` rendered shards and delete them; answers how many clips came."""
        came = 0
        for file in waiting(self.scratch)[:most]:
            shard = read_shard(file)
            parts = [
                raw_latents(self.codec, to_video(shard.clips[at : at + ENCODE_BATCH]).to(self.device)).half().cpu()
                for at in range(0, len(shard.clips), ENCODE_BATCH)
            ]
            file.unlink()
            latents = torch.cat(parts).numpy()
            first = max(len(self.scenes) + len(latents) - self.limit, 0)
            older = self.latents[first:] if len(self.scenes) else latents[:0]
            older_masks = self.masks[first:] if len(self.scenes) else shard.shares[:0]
            self.latents = np.concatenate([older, latents])
            self.masks = np.concatenate([older_masks, shard.shares])
            self.scenes = [*self.scenes[first:], *shard.scenes]
            came += len(latents)
        self.seen += came
        return came


class FreshJob:
    """A NetworkJob whose pool takes in what is rendered, every `every` steps. Encoding has to be quicker than
    training for this to pay, as it is on a GPU."""

    def __init__(self, job: NetworkJob, pool: FreshPool, every: int = 20) -> None:
        self.job, self.pool, self.every = job, pool, every
        self.model = job.model

    def loss(self, rng: np.random.Generator, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        if step % self.every == 0 and self.pool.take():
            self.attach()
        loss, metrics = self.job.loss(rng, generator, step)
        return loss, metrics | {"clips": float(self.pool.seen)}

    def attach(self) -> None:
        self.job.latents, self.job.scenes = self.pool.latents, self.pool.scenes
        self.job.masks = self.pool.masks if self.job.objective.grounding else None


def train_codec(sprint: Sprint, renderers: Renderers, seconds: float) -> None:
    """From nothing, on what is rendered; leaves the averaged weights, with shift and scale, in `codec_files`."""
    config = sprint.recipe.spec.codec
    if not isinstance(config, VideoVaeConfig) or sprint.recipe.vae is None:
        raise ValueError(f"{sprint.recipe.spec.id} has no codec to train here; give a folder of weights to start from")
    source = ClipSource(renderers)

    def job() -> Job:
        options: dict[str, Any] = {"batch": sprint.codec_batch, "device": sprint.device, "source": source}
        return VaeJob(config, 0, 0, pairs=sprint.recipe.pairs, **options)

    train(job, sprint.loop("vae", sprint.recipe.vae, seconds))
    codec = build_codec(config)
    load_ema(sprint.folder / "vae", codec)
    codec.to(sprint.device)
    shard = read_shard(renderers.wait()[-1])
    parts = [
        raw_latents(codec, to_video(shard.clips[at : at + ENCODE_BATCH]).to(sprint.device))  # type: ignore[arg-type]
        for at in range(0, len(shard.clips), ENCODE_BATCH)
    ]
    shift, scale = normalisation(codec, torch.cat(parts).half().cpu().numpy())  # type: ignore[arg-type]
    save_shards(codec.state_dict() | {"shift": shift, "scale": scale}, list(sprint.codec_files), {})
    shutil.rmtree(sprint.folder / "vae")  # its checkpoint is twice what is needed of it


def codec_weights(sprint: Sprint) -> tuple[Path, ...]:
    """Of this sprint, of the folder it starts from, or nano's for a recipe without a codec of its own; none where the
    codec is still to be trained."""
    if not sprint.recipe.own_codec:
        return tuple(asset(sprint.recipe.files, name) for name in sprint.recipe.files.codec)
    if all(file.exists() for file in sprint.codec_files):
        return sprint.codec_files
    return () if sprint.start is None else tuple(sprint.start / name for name in sprint.recipe.files.codec)


def network_job(sprint: Sprint, codec: Codec, pool: FreshPool) -> FreshJob:
    recipe, started, reading = sprint.recipe, None, sprint.recipe.reading(sprint.start)
    if sprint.start is not None:
        parts: tuple[Part, ...] = ("network", "clip") if reading else ("network", "text", "clip")
        started = recipe.started(sprint.start, parts, sprint.folder / "tokenizer.json")
    empty = sprint.scratch / "pool"  # a job reads a pool when it is made; the first shard stands in for it
    empty.mkdir(parents=True, exist_ok=True)
    np.save(empty / "0000.npy", pool.latents[:1])
    np.save(empty / "0000.masks.npy", pool.masks[:1])
    (empty / "0000.json").write_text("[]")
    shift, scale = normalisation(codec)
    job = recipe.job(
        recipe.spec,
        sprint.folder / "tokenizer.json",
        empty,
        shift.cpu(),
        scale.cpu(),
        batch=sprint.batch,
        lone=isinstance(recipe.spec.codec, DcAeConfig),
        trunk=recipe.begins_with if started is None else None,
        captions=recipe.captions,
        objective=recipe.objective,
        lesson=recipe.lesson,
        compiled=sprint.compiled,
        device=sprint.device,
        start=started,
        text_weights=reading,
    )
    fresh = FreshJob(job, pool)
    fresh.attach()
    return fresh


def run(sprint: Sprint) -> dict[str, float]:
    """Train until the minutes are over; answers the transformer's steps, and the clips that were encoded.

    Raises ValueError where the codec would have to be trained and cannot be.
    """
    ends = time.monotonic() + 60 * sprint.minutes
    sprint.folder.mkdir(parents=True, exist_ok=True)
    raw = sprint.scratch / "rendered"
    shutil.rmtree(raw, ignore_errors=True)
    if not (sprint.folder / "tokenizer.json").exists():
        build_tokenizer(str(sprint.folder / "tokenizer.json"), sprint.recipe.extra_words)
    rounds = sprint.folder / "rounds.txt"  # a call goes on with other scenes than the one before
    before = int(rounds.read_text()) if rounds.exists() else 0
    rounds.write_text(str(before + 1))
    with Renderers(sprint.render(), raw, sprint.workers, first=100_000 * before) as renderers:
        if not codec_weights(sprint):
            train_codec(sprint, renderers, CODEC_SHARE * 60 * sprint.minutes)
        codec = load_codec(sprint.recipe.spec.codec, codec_weights(sprint))
        codec.to(sprint.device)
        pool = FreshPool(codec, sprint.device, raw)
        while len(pool.scenes) < sprint.batch:
            renderers.wait()
            pool.take(len(waiting(raw)))
        left = max(ends - time.monotonic() - min(EXPORT_S, 0.1 * 60 * sprint.minutes), 1.0)
        train(lambda: network_job(sprint, codec, pool), sprint.loop("dit", sprint.numbers, left))
    found = export(sprint)
    size = sum(file.stat().st_size for file in sprint.folder.rglob("*") if file.is_file())
    if size > MAX_FOLDER_BYTES:
        raise ValueError(f"{sprint.folder} has {size / 1e6:.1f} MB, more than {MAX_FOLDER_BYTES / 1e6:.0f}")
    return found | {"clips": float(pool.seen), "bytes": float(size)}


def export(sprint: Sprint) -> dict[str, float]:
    """The transformer and its text encoders, beside the codec if that was trained here."""
    out = sprint.weights
    out.mkdir(exist_ok=True)
    both = TextToVideo(sprint.recipe.spec, sprint.folder / "tokenizer.json")
    found = load_ema(sprint.folder / "dit", both)
    for name, part in both.parts().items():
        files = getattr(sprint.recipe.files, name)
        if not any(map(borrowed, files)):
            save_shards(part.state_dict(), [out / file for file in files], {})
    if sprint.recipe.own_tokenizer:
        shutil.copy(sprint.folder / "tokenizer.json", out / sprint.recipe.own_tokenizer)
    return {"step": found["step"], "seconds": found["seconds"]}
