"""Re-create the models in assets from nothing.

python -m opensora_demo.training nano            all stages, each continues where it stopped
python -m opensora_demo.training nano --stages dit,export
python -m opensora_demo.training nano-dit        nano's VAE must be in assets
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from opensora_demo.bundle import build_bundle, build_codec
from opensora_demo.catalog.spec import WeightFiles
from opensora_demo.codecs.dc_ae import DcAeConfig
from opensora_demo.codecs.video_vae import VideoVAE, VideoVaeConfig
from opensora_demo.preview import fit_matrix
from opensora_demo.store import ASSETS
from opensora_demo.training.captions import build_tokenizer
from opensora_demo.training.card import read_training, write_card
from opensora_demo.training.export import save_shards
from opensora_demo.training.loop import Job, LoopConfig, load_ema, train
from opensora_demo.training.pool import PoolConfig, build_pool, load_codec, load_pool, normalisation, raw_latents
from opensora_demo.training.reader import READER_FILE, Reader, load_reader
from opensora_demo.training.recipes import PAIRS, RECIPES, STAGES, Recipe, StageNumbers
from opensora_demo.training.study import Counts, measure_into
from opensora_demo.training.train_network import Started, TextToVideo
from opensora_demo.training.train_reader import ReaderJob
from opensora_demo.training.train_vae import DcAeJob, VaeJob, draw_clips

VAE_IMAGE_STEPS, VAE_TEMPORAL_STEPS = 450, 450


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """One model on its way: `runs` holds checkpoints and the pool, `out` gets the finished weights, `start` is a
    folder of earlier weights, laid out as `out`."""

    recipe: Recipe
    runs: Path
    out: Path
    start: Path | None
    workers: int
    seed: int

    @property
    def files(self) -> WeightFiles:
        weights = self.recipe.spec.weights
        assert isinstance(weights, WeightFiles)
        return weights

    @property
    def codec_files(self) -> tuple[Path, ...]:
        """What the pool is encoded with: the codec of this run, else the one that was exported."""
        own = self.runs / "vae.safetensors"
        return (own,) if own.exists() else tuple(self.out / name for name in self.files.codec)

    def train(self, stage: str, job: Callable[..., Job], numbers: StageNumbers) -> None:
        config = LoopConfig(
            run_dir=self.runs / stage,
            steps=numbers.steps,
            cooldown=numbers.cooldown,
            lr=numbers.lr,
            adam_ratio=numbers.adam_ratio,
            drops=numbers.drops,
            ema_decay=numbers.ema_decay,
            workers=self.workers,
            seed=self.seed,
        )
        train(partial(job, batch=numbers.batch // self.workers), config)

    def finished(self, stage: str) -> bool:
        return (self.runs / stage / "checkpoint.pt").exists()


def codec_job(making: Making, start: tuple[Path, ...], *, decoder_only: bool = False) -> Callable[..., Job]:
    """From nothing the VAE learns frames, latents, then both; from earlier weights only the last of these."""
    match making.recipe.spec.codec:
        case VideoVaeConfig() as config:
            phases = (0, 0) if start else (VAE_IMAGE_STEPS, VAE_TEMPORAL_STEPS)
            return partial(VaeJob, config, *phases, start=start, decoder_only=decoder_only, pairs=PAIRS)
        case DcAeConfig() as config:
            limits = making.recipe.spec.limits
            size = {"frames": limits.default_frames, "size_px": limits.size_px[0]}
            return partial(DcAeJob, config, **size, start=start, decoder_only=decoder_only, pairs=PAIRS)
        case other:
            raise ValueError(f"no training for the codec {type(other).__name__}")


def train_vae(making: Making) -> None:
    numbers = making.recipe.vae
    assert numbers is not None
    if making.start is not None:
        numbers = replace(numbers, steps=3000, cooldown=2300, lr=7e-4, drops=())
    start = tuple(making.start / name for name in making.files.codec) if making.start else ()
    making.train("vae", codec_job(making, start), numbers)


def encode_pool(making: Making, shards: int) -> None:
    """With the codec of this run; without one, with the exported one."""
    spec = making.recipe.spec
    if making.finished("vae"):
        codec = build_codec(spec.codec)
        load_ema(making.runs / "vae", codec)
        save_file({k: v.contiguous() for k, v in codec.state_dict().items()}, making.runs / "vae.safetensors")
    config = PoolConfig(
        codec=spec.codec,
        frames=spec.limits.default_frames,
        size_px=spec.limits.size_px[0],
        seed=making.seed,
        pairs=PAIRS,
        fps=making.recipe.fps,
    )
    build_pool(config, making.codec_files, making.runs / "pool", shards=shards, workers=making.workers)


def train_dit(making: Making, numbers: StageNumbers) -> None:
    recipe, files, started = making.recipe, making.files, None
    codec = load_codec(recipe.spec.codec, making.codec_files)
    if making.start is not None:
        parts = {name: tuple(making.start / n for n in getattr(files, name)) for name in ("network", "text", "clip")}
        started = Started(parts=parts, tokenizer=making.start / (files.tokenizer or files.clip_tokenizer))
    measured = load_pool(making.runs / "pool")[0] if recipe.own_codec and isinstance(codec, VideoVAE) else None
    shift, scale = normalisation(codec, measured)
    job = partial(
        recipe.job,
        recipe.spec,
        making.runs / "tokenizer.json",
        making.runs / "pool",
        shift,
        scale,
        lone=isinstance(recipe.spec.codec, DcAeConfig),
        start=started,
        compiled=True,
    )
    making.train("dit", job, numbers)


def train_reader(making: Making) -> None:
    assert making.recipe.reader is not None
    making.train(
        "reader", partial(ReaderJob, start=making.start and making.start / READER_FILE.name), making.recipe.reader
    )


def export(making: Making, command: str) -> None:
    """Averaged weights of every finished stage into `out`, with how they came about."""
    recipe, files, out = making.recipe, making.files, making.out
    story = {
        "recipe": "opensora_demo/training/recipes.py; steps and seconds are of this part",
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "data": "opensora_demo.training.worlds, rendered; no file from outside",
        "license": "Apache-2.0",
    }
    if recipe.own_codec and making.finished("vae") and (making.runs / "pool").exists():
        export_codec(making, story)
    if making.finished("dit"):
        tokenizer = out / (files.tokenizer or files.clip_tokenizer)
        shutil.copy(making.runs / "tokenizer.json", tokenizer)
        both = TextToVideo(recipe.spec, tokenizer)
        info = load_ema(making.runs / "dit", both)
        for name, part in both.parts().items():
            config = {"network": recipe.spec.network, "text": recipe.spec.text, "clip": recipe.spec.clip}[name]
            save_shards(part.state_dict(), [out / f for f in getattr(files, name)], story | told(info, config))
    if making.finished("reader"):
        reader = Reader()
        info = load_ema(making.runs / "reader", reader)
        save_shards(reader.state_dict(), [out / READER_FILE.name], story | told(info))
    print(json.dumps({f.name: f.stat().st_size for f in sorted(out.iterdir())}))


def export_codec(making: Making, story: dict[str, str]) -> None:
    spec, files = making.recipe.spec, making.files
    limits = spec.limits
    codec = load_codec(spec.codec, making.codec_files)
    info = load_ema(making.runs / ("decoder" if making.finished("decoder") else "vae"), codec)
    if isinstance(codec, VideoVAE):
        shift, scale = normalisation(codec, load_pool(making.runs / "pool")[0])
        codec.shift.copy_(shift)
        codec.scale.copy_(scale)
    save_shards(codec.state_dict(), [making.out / f for f in files.codec], story | told(info, spec.codec))
    frames, (height_px, width_px) = limits.default_frames, limits.size_px
    video, _ = draw_clips(np.random.default_rng(7), 96, frames, size_px=height_px)
    shift, scale = normalisation(codec)
    count = codec.latent_size(frames, height_px, width_px)[0]  # the clip's own, without a lone frame's before them
    latents = torch.cat([raw_latents(codec, part) for part in video.split(8)])[:, :, -count:]
    save_shards({"matrix": fit_matrix((latents - shift) / scale, video)}, [making.out / files.preview], story)


def told(info: dict[str, float], config: Any = None) -> dict[str, str]:
    """Steps, seconds and the configuration, as text for a file's header."""
    found = {k: str(v) for k, v in info.items()}
    return found if config is None else found | {"config": json.dumps(asdict(config))}


def measure(making: Making, share: float) -> None:
    """The study and the card of what was exported, beside it."""
    out, spec = making.out, making.recipe.spec
    reader = load_reader(READER_FILE if making.recipe.reader is None else out / READER_FILE.name)
    spec = replace(spec, weights=replace(making.files, folder=str(out.resolve())))
    study = measure_into(out / "study.json", build_bundle(spec), reader, Counts().times(share))
    names = {"vae": "VAE", "decoder": "VAE decoder", "dit": "transformer", "reader": "reader"}
    logs = {name: making.runs / stage / "log.jsonl" for stage, name in names.items()}
    write_card(spec, out, study, read_training(spec, out), {k: v for k, v in logs.items() if v.exists()})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m opensora_demo.training", description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=tuple(RECIPES))
    parser.add_argument("--stages", help="comma-separated, of " + ", ".join(STAGES) + "; all that the model has")
    parser.add_argument("--runs", type=Path, help="where checkpoints and the pool are kept (~/.cache/opensora-demo)")
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 8))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, help="steps of the dit stage, 64 clips each")
    parser.add_argument("--cooldown", type=int, help="how many of them lower the learning rate to zero")
    parser.add_argument("--shards", type=int, default=28, help="size of the pool, 1024 clips each")
    parser.add_argument("--start", type=Path, help="folder of earlier weights to go on from, laid out as in assets")
    parser.add_argument("--out", type=Path, help="where the finished weights go (assets)")
    parser.add_argument("--share", type=float, default=1.0, help="share of the usual number of clips to measure")
    args = parser.parse_args()
    recipe = RECIPES[args.model]
    stages = args.stages.split(",") if args.stages else list(recipe.stages)
    if unknown := set(stages) - set(recipe.stages):
        parser.error(f"{args.model} has no stage called {', '.join(sorted(unknown))}")
    making = Making(
        recipe=recipe,
        runs=args.runs or Path.home() / ".cache" / "opensora-demo" / args.model,
        out=args.out or ASSETS / args.model,
        start=args.start,
        workers=args.workers,
        seed=args.seed,
    )
    numbers = replace(
        recipe.dit,
        steps=recipe.dit.steps if args.steps is None else args.steps,
        cooldown=recipe.dit.cooldown if args.cooldown is None else args.cooldown,
    )
    command = f"python -m opensora_demo.training {args.model} --seed {args.seed} --workers {args.workers}"
    command += f" --steps {numbers.steps} --cooldown {numbers.cooldown}"
    command += " --start FOLDER" if args.start else ""
    making.out.mkdir(parents=True, exist_ok=True)
    making.runs.mkdir(parents=True, exist_ok=True)
    if not (making.runs / "tokenizer.json").exists():
        build_tokenizer(str(making.runs / "tokenizer.json"), recipe.extra_words)
    for stage in recipe.stages:
        if stage not in stages:
            continue
        print(f"stage {stage}", flush=True)
        match stage:
            case "vae":
                train_vae(making)
            case "pool":
                encode_pool(making, args.shards)
            case "decoder":
                assert recipe.decoder is not None
                making.train("decoder", codec_job(making, making.codec_files, decoder_only=True), recipe.decoder)
            case "dit":
                train_dit(making, numbers)
            case "reader":
                train_reader(making)
            case "export":
                export(making, command)
            case "measure":
                measure(making, args.share)


if __name__ == "__main__":
    main()
