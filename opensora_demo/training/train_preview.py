"""Teach a small decoder to show what a model's own decoder would, on the way as well as at the end.

    python -m opensora_demo.training.train_preview nano nano-dit --cpu-minutes 4

It learns from clean latents of rendered clips, and from the estimates of the clean latent at every step of real runs:
those are blurred, and are what it is for. The target is what the full decoder makes of the same latents. Models
that are named together share one codec and one file; the linear map in it stays.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from opensora_demo.catalog import ModelSpec, WeightFiles, find_model
from opensora_demo.codecs.preview_decoder import PREFIX, PreviewConfig, PreviewDecoder
from opensora_demo.evaluation.adherence import held_out_prompts
from opensora_demo.families.base import ConditioningFrames
from opensora_demo.pipeline import noise_of
from opensora_demo.preview import shown_frames
from opensora_demo.request.parse import parse_request
from opensora_demo.runtime.bundle import ModelBundle, build_bundle
from opensora_demo.service.options import CACHE, add_options, read_cache_dir
from opensora_demo.training.export import save_shards
from opensora_demo.training.loop import LoopConfig, load_ema, train
from opensora_demo.training.precision import half_precision
from opensora_demo.training.train_vae import draw_clips
from opensora_demo.weights.reading import read_metadata, read_state
from opensora_demo.weights.store import asset

SEED = 303
PAIRS = 0.4  # of the runs and clips
SIDE_PX = 64  # of the pictures: larger ones are averages
ESTIMATES_SHARE = 0.75  # of a batch; the rest are clean


@torch.inference_mode()
def estimates(bundle: ModelBundle, runs: int) -> Iterator[Tensor]:
    """Estimates of the clean latent (steps, c, t, h, w) at every step of runs of new prompts, else by default."""
    limits = bundle.spec.limits
    for index, (scene, prompt) in enumerate(held_out_prompts(runs, int(limits.fps.default), SEED, pairs=PAIRS)):
        raw = {"prompt": prompt, "fps": scene.fps, "seed": index}
        request = parse_request(raw, model_id=bundle.spec.id, limits=limits)
        draw = noise_of(bundle, request)
        noise = draw()
        size = (noise.shape[2], noise.shape[3], noise.shape[4])
        condition = bundle.family.condition(request, ConditioningFrames(), size)
        yield torch.cat([step.x0.float() for step in bundle.family.steps(noise, condition, request, draw)])


@torch.inference_mode()
def clean_latents(bundle: ModelBundle, clips: int) -> Iterator[Tensor]:
    """Latents (n, c, t, h, w) of rendered clips, a few at a time."""
    limits, rng = bundle.spec.limits, np.random.default_rng(SEED)
    for _ in range(0, clips, 8):
        video, _ = draw_clips(rng, 8, limits.default_frames, PAIRS, limits.size_px[0])
        yield bundle.codec.encode(video).float()


@torch.inference_mode()
def pictures(bundle: ModelBundle, latents: Tensor) -> Tensor:
    """What the full decoder shows of latents (n, c, t, h, w): (n, t, 3, 64, 64) uint8, for each latent frame a
    picture."""
    frames = bundle.spec.limits.default_frames
    with half_precision("cpu"):
        video = bundle.codec.decode(latents, frames).float()
    shown = video[:, :, shown_frames(frames, latents.shape[2])].movedim(2, 1).clamp(-1, 1)
    small = F.adaptive_avg_pool2d(shown.flatten(0, 1), SIDE_PX).unflatten(0, shown.shape[:2])
    return ((small + 1) * 127.5).round().to(torch.uint8)


def collect(specs: list[ModelSpec], folder: Path, *, runs: int, every: int = 1) -> None:
    """Latents and pictures into `folder`, unless they are there: `estimates.npz` of the models' runs, every so-manieth
    step, and `clean.npz`."""
    folder.mkdir(parents=True, exist_ok=True)
    bundles = [build_bundle(spec) for spec in specs]
    todo: dict[str, Iterator[tuple[ModelBundle, Tensor]]] = {
        "estimates": ((b, found[::every]) for b in bundles for found in estimates(b, runs)),
        "clean": ((bundles[0], found) for found in clean_latents(bundles[0], 2 * runs)),
    }
    for name, source in todo.items():
        if (file := folder / f"{name}.npz").exists():
            continue
        parts = [(found.half(), pictures(bundle, found)) for bundle, found in source]
        latents, shown = (torch.cat([part[i] for part in parts]).numpy() for i in range(2))
        part = file.with_suffix(".part.npz")
        np.savez(part, latents=latents, pictures=shown)
        part.replace(file)


@dataclass
class PreviewJob:
    """Squared and absolute error of the pictures; `batch` counts latents of whole clips."""

    cfg: PreviewConfig
    folder: Path
    batch: int = 8

    def __post_init__(self) -> None:
        self.model = PreviewDecoder(self.cfg).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.sources = []
        for name in ("estimates", "clean"):
            with np.load(self.folder / f"{name}.npz") as found:
                self.sources.append((found["latents"], found["pictures"]))

    def loss(self, rng: np.random.Generator, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        counts = round(self.batch * ESTIMATES_SHARE), self.batch - round(self.batch * ESTIMATES_SHARE)
        drawn = [rng.integers(len(latents), size=n) for (latents, _), n in zip(self.sources, counts, strict=True)]
        latents, shown = (
            torch.from_numpy(np.concatenate([source[i][at] for source, at in zip(self.sources, drawn, strict=True)]))
            for i in range(2)
        )
        target = shown.float() / 127.5 - 1
        with half_precision("cpu"):
            made = self.model.colours(latents.float())
        difference = made.float() - target
        square = difference.square().mean()
        psnr = float(-10 * torch.log10(square.detach() / 4))
        return difference.abs().mean() + 12 * square, {"psnr": psnr}


def teach(
    specs: list[ModelSpec], runs: Path, file: Path, *, prompts: int = 96, every: int = 2, cpu_minutes: float = 4.0
) -> None:
    """Train the small decoder of `specs`, which share a codec, and put it into `file`, beside the linear map there.
    Latents and checkpoints are kept in `runs`. Raises ValueError for a model that has none."""
    cfg = specs[0].tiny
    if not isinstance(cfg, PreviewConfig):
        raise ValueError(f"{specs[0].id} has no small decoder of its own")
    collect([replace(spec, tiny=None) for spec in specs], runs, runs=prompts, every=every)
    budget = 60 * cpu_minutes
    config = LoopConfig(
        run_dir=runs, steps=0, cooldown=0, lr=2e-3, ema_decay=0.99, workers=1, budget_s=budget, cooldown_s=0.6 * budget
    )
    train(partial(PreviewJob, cfg, runs), config)
    decoder = PreviewDecoder(cfg)
    info = load_ema(runs, decoder)
    state = {"matrix": read_state([file])["matrix"]}
    state |= {PREFIX + name: value for name, value in decoder.state_dict().items()}
    said = json.dumps({"models": [spec.id for spec in specs], **info})
    save_shards(state, [file], read_metadata(file) | {"decoder": said})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="embedded models that share one codec")
    parser.add_argument("--runs", type=Path, help="folder of latents and checkpoints; by default in the cache")
    parser.add_argument("--prompts", type=int, default=96, help="how many runs of each model")
    parser.add_argument("--every", type=int, default=2, help="keep every so-manieth step of a run")
    parser.add_argument("--cpu-minutes", type=float, default=4.0)
    add_options(parser, (CACHE,))
    args = parser.parse_args()
    specs = [find_model(name) for name in args.models]
    weights = specs[0].weights
    if not isinstance(weights, WeightFiles):
        parser.error(f"{specs[0].id} is not embedded")
    runs = args.runs or read_cache_dir(args, os.environ) / "preview" / specs[0].id
    file = asset(weights, weights.preview)
    teach(specs, runs, file, prompts=args.prompts, every=args.every, cpu_minutes=args.cpu_minutes)


if __name__ == "__main__":
    main()
