"""Re-create the models in assets from nothing.

python -m opensora_demo.training nano            all stages, each continues where it stopped
python -m opensora_demo.training nano --stages dit,export
python -m opensora_demo.training nano-dit        nano's VAE must be in assets
python -m opensora_demo.training nano --device cuda --minutes 9   by the clock, while all cores render (sprint.py)
python -m opensora_demo.training ladder          what changes to training give, measured (ladder.py)
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from opensora_demo.catalog.spec import Part
from opensora_demo.codecs.dc_ae import DcAe, DcAeConfig
from opensora_demo.codecs.scaling import latent_std
from opensora_demo.codecs.video_vae import VideoVAE, VideoVaeConfig
from opensora_demo.evaluation.card import read_training, write_card
from opensora_demo.evaluation.studies.base import Counts
from opensora_demo.evaluation.study import measure_into
from opensora_demo.preview import fit_matrix
from opensora_demo.request.limits import Limits
from opensora_demo.runtime.bundle import build_bundle, build_codec
from opensora_demo.service.options import CACHE, add_options, read_cache_dir
from opensora_demo.text.t5 import T5Config, T5TextEncoder
from opensora_demo.toy.captions import build_tokenizer
from opensora_demo.toy.reader import READER_FILE, Reader, load_reader
from opensora_demo.training import ladder, sprint
from opensora_demo.training.export import save_shards
from opensora_demo.training.loop import Job, LoopConfig, load_ema, train
from opensora_demo.training.pool import PoolConfig, build_pool, load_codec, load_pool, normalisation, raw_latents
from opensora_demo.training.recipes import PAIRS, RECIPES, STAGES, Recipe, StageNumbers, borrowed
from opensora_demo.training.train_network import TextToVideo
from opensora_demo.training.train_preview import teach
from opensora_demo.training.train_reader import ReaderJob
from opensora_demo.training.train_text import Start, TextJob
from opensora_demo.training.train_vae import DcAeJob, VaeJob, draw_clips
from opensora_demo.weights.reading import read_metadata
from opensora_demo.weights.store import ASSETS, asset

VAE_IMAGE_STEPS, VAE_TEMPORAL_STEPS = 450, 450


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """One model on its way: `runs` holds checkpoints and the pool, `out` gets the finished weights, `start` is a
    folder of earlier weights, laid out as `out`, `image_vae` one of a 2-D VAE as diffusers saves it."""

    recipe: Recipe
    runs: Path
    out: Path
    start: Path | None
    workers: int
    seed: int
    compiled: bool = True
    checkpointing: bool = False
    image_vae: Path | None = None

    @property
    def codec_files(self) -> tuple[Path, ...]:
        """What the pool is encoded with: the codec of this run, else the one that was exported."""
        own = self.runs / "vae.safetensors"
        if own.exists():
            return (own,)
        return tuple(self.out / name for name in self.recipe.files.codec)

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
            budget_s=numbers.budget_s,
            cooldown_s=numbers.budget_s * numbers.cooldown_share,
        )
        train(partial(job, batch=numbers.batch // self.workers), config)

    def finished(self, stage: str) -> bool:
        return (self.runs / stage / "checkpoint.pt").exists()


def codec_job(making: Making, start: tuple[Path, ...], *, decoder_only: bool = False) -> Callable[..., Job]:
    """From nothing the VAE learns frames, latents, then both; from a 2-D VAE the last two of these, from earlier
    weights only the last."""
    match making.recipe.spec.codec:
        case VideoVaeConfig() as config:
            image_vae = None if decoder_only else making.image_vae
            phases = (0, 0) if start else (0 if image_vae else VAE_IMAGE_STEPS, VAE_TEMPORAL_STEPS)
            pool = making.runs / "pool"  # of the latents that stay, where there is one
            latents = pool if decoder_only and pool.exists() else None
            given: dict[str, Any] = {
                "start": start,
                "image_vae": image_vae,
                "decoder_only": decoder_only,
                "pool": latents,
            }
            return partial(VaeJob, config, *phases, pairs=PAIRS, **given)
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
    start = tuple(making.start / name for name in making.recipe.files.codec) if making.start else ()
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
        pairs=making.recipe.pairs,
        fps=making.recipe.fps,
    )
    build_pool(config, making.codec_files, making.runs / "pool", shards=shards, workers=making.workers)


def read_by(making: Making) -> tuple[Path, ...]:
    """An encoder that was trained before, by this run, for its start or for another model, and stays as it is."""
    own = making.runs / "text.safetensors"
    return (own,) if own.exists() else making.recipe.reading(making.start)


def train_text(making: Making) -> None:
    """On captions alone, from an earlier encoder or from nothing; the transformer reads its averaged weights."""
    recipe, tokenizer = making.recipe, making.runs / "tokenizer.json"
    assert recipe.text is not None
    assert recipe.spec.text is not None
    start = None
    if making.start is not None:
        files = tuple(making.start / name for name in recipe.files.text)
        numbers = json.loads(read_metadata(files[0])["config"])
        start = Start(T5Config(**numbers), files, making.start / recipe.files.tokenizer)
    making.train("text", partial(TextJob, recipe.spec.text, tokenizer, start), recipe.text)
    encoder = T5TextEncoder(recipe.spec.text, tokenizer)
    load_ema(making.runs / "text", encoder)
    state = {k: v for k, v in encoder.state_dict().items() if k not in T5TextEncoder.aliases}
    save_file(state, making.runs / "text.safetensors")


def train_dit(making: Making, numbers: StageNumbers) -> None:
    recipe, started = making.recipe, None
    codec = load_codec(recipe.spec.codec, making.codec_files)
    if making.start is not None:
        parts: tuple[Part, ...] = ("network", "clip") if read_by(making) else ("network", "text", "clip")
        started = recipe.started(making.start, parts, making.runs / "tokenizer.json")
    # A VAE that was exported goes on with the shift and scale that it has, and so does what was trained on it.
    fresh = making.finished("vae") or isinstance(codec, DcAe)
    measured = load_pool(making.runs / "pool")[0] if fresh else None
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
        trunk=recipe.begins_with if started is None else None,
        compiled=making.compiled,
        checkpointing=making.checkpointing,
        captions=recipe.captions,
        objective=recipe.objective,
        text_weights=read_by(making),
        lesson=recipe.lesson,
    )
    making.train("dit", job, numbers)


def train_reader(making: Making) -> None:
    assert making.recipe.reader is not None
    making.train(
        "reader", partial(ReaderJob, start=making.start and making.start / READER_FILE.name), making.recipe.reader
    )


def export(making: Making, command: str) -> None:
    """Averaged weights of every finished stage into `out`, with how they came about."""
    recipe, files, out = making.recipe, making.recipe.files, making.out
    provenance = {
        "recipe": "opensora_demo/training/recipes.py; steps and seconds are of this part",
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "data": "opensora_demo.toy.worlds, rendered; no file from outside",
        "license": "Apache-2.0",
    }
    if making.finished("decoder") or (making.finished("vae") and (making.runs / "pool").exists()):
        export_codec(making, provenance)
    if making.finished("dit"):
        tokenizer = making.runs / "tokenizer.json"
        if recipe.own_tokenizer:
            shutil.copy(tokenizer, out / recipe.own_tokenizer)
        both = TextToVideo(recipe.spec, tokenizer)
        info = load_ema(making.runs / "dit", both)
        for name, part in both.parts().items():
            if any(map(borrowed, getattr(files, name))):
                continue
            own = making.recipe.text is not None and name == "text" and making.finished("text")
            if own:
                info = load_ema(making.runs / "text", part)
            config = {"network": recipe.spec.network, "text": recipe.spec.text, "clip": recipe.spec.clip}[name]
            save_shards(
                part.state_dict(), [out / f for f in getattr(files, name)], provenance | header_of(info, config)
            )
    if making.finished("reader"):
        reader = Reader()
        info = load_ema(making.runs / "reader", reader)
        save_shards(reader.state_dict(), [out / READER_FILE.name], provenance | header_of(info))
    print(json.dumps({f.name: f.stat().st_size for f in sorted(out.iterdir())}))


def export_codec(making: Making, provenance: dict[str, str]) -> None:
    spec, files = making.recipe.spec, making.recipe.files
    limits = spec.limits
    codec = build_codec(spec.codec)
    info = load_ema(making.runs / ("decoder" if making.finished("decoder") else "vae"), codec)
    assert isinstance(codec, VideoVAE | DcAe)
    if isinstance(codec, VideoVAE) and making.finished("vae"):  # else the latents are those of the codec it began as
        shift, scale = normalisation(codec, load_pool(making.runs / "pool")[0])
        codec.shift.copy_(shift)
        codec.scale.copy_(scale)
    latents, video = latents_of_clips(codec, limits)
    shift, scale = normalisation(codec, None if isinstance(codec, VideoVAE) else latents.numpy())
    header = provenance | header_of(info, spec.codec) | {"latent_std": f"{latent_std(latents):.4f}"}
    save_shards(codec.state_dict(), [making.out / f for f in files.codec], header)
    if not making.finished("vae"):  # nor need there be another preview of the same latents
        return
    save_shards({"matrix": fit_matrix((latents - shift) / scale, video)}, [making.out / files.preview], provenance)


def latents_of_clips(codec: VideoVAE | DcAe, limits: Limits) -> tuple[Tensor, Tensor]:
    """Raw latents of 96 clips that are always the same ones, and the clips. Their standard deviation is the scaling
    factor that a DC-AE of these weights needs in the catalog."""
    frames, (height_px, width_px) = limits.default_frames, limits.size_px
    video, _ = draw_clips(np.random.default_rng(7), 96, frames, size_px=height_px)
    count = codec.latent_size(frames, height_px, width_px)[0]  # the clip's own, without a lone frame's before them
    return torch.cat([raw_latents(codec, part) for part in video.split(8)])[:, :, -count:], video


def header_of(info: dict[str, float], config: Any = None) -> dict[str, str]:
    """Steps, seconds and the configuration, as text for a file's header."""
    found = {k: str(v) for k, v in info.items()}
    return found if config is None else found | {"config": json.dumps(asdict(config))}


def measure(making: Making, share: float) -> None:
    """The study and the card of what was exported, beside it."""
    out, spec = making.out, making.recipe.spec
    reader = load_reader(READER_FILE if making.recipe.reader is None else out / READER_FILE.name)
    spec = replace(spec, weights=replace(making.recipe.files, folder=str(out.resolve())))
    study = measure_into(out / "study.json", build_bundle(spec), reader, Counts().times(share))
    names = {"vae": "VAE", "decoder": "VAE decoder", "dit": "transformer", "reader": "reader"}
    logs = {name: making.runs / stage / "log.jsonl" for stage, name in names.items()}
    write_card(spec, out, study, read_training(spec, out), {k: v for k, v in logs.items() if v.exists()})


def sprint_of(recipe: Recipe, args: argparse.Namespace) -> sprint.Sprint:
    folder = args.runs or read_cache_dir(args, os.environ) / f"{args.model}-sprint"
    return sprint.Sprint(
        recipe=recipe,
        folder=folder,
        scratch=folder.with_name(folder.name + "-scratch"),
        device=args.device,
        minutes=args.minutes,
        numbers=recipe.dit,
        workers=args.workers,
        start=args.start,
        seed=args.seed,
    )


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m opensora_demo.training", description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=tuple(RECIPES))
    parser.add_argument("--stages", help="comma-separated, of " + ", ".join(STAGES) + "; all that the model has")
    parser.add_argument("--runs", type=Path, help="where checkpoints and the pool are kept; by default in the cache")
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 8))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, help="steps of the dit stage, 64 clips each")
    parser.add_argument("--cooldown", type=int, help="how many of them lower the learning rate to zero")
    parser.add_argument("--cpu-minutes", type=float, help="of the dit stage, for each worker, in place of its steps")
    parser.add_argument("--lr", type=float, help="of the dit stage")
    parser.add_argument("--batch", type=int, help="of the dit stage")
    parser.add_argument("--no-compile", action="store_true", help="for a dit stage of a few minutes")
    parser.add_argument("--checkpointing", action="store_true", help="less memory in the dit stage, for more time")
    parser.add_argument("--shards", type=int, default=28, help="size of the pool, 1024 clips each")
    parser.add_argument("--start", type=Path, help="folder of earlier weights to go on from, laid out as in assets")
    parser.add_argument("--image-vae", type=Path, help="folder of a 2-D VAE, saved by diffusers, for the vae stage")
    parser.add_argument("--out", type=Path, help="where the finished weights go (assets)")
    parser.add_argument("--share", type=float, default=1.0, help="share of the usual number of clips to measure")
    parser.add_argument("--device", default="cpu", help="with --minutes: where to train (cuda)")
    parser.add_argument("--minutes", type=float, help="train by the clock, all in one (sprint.py)")
    add_options(parser, (CACHE,))
    return parser


def dit_numbers(recipe: Recipe, args: argparse.Namespace) -> StageNumbers:
    """The recipe's, with what the command line changes."""
    given = {"steps": args.steps, "cooldown": args.cooldown, "lr": args.lr, "batch": args.batch}
    given["budget_s"] = None if args.cpu_minutes is None else 60 * args.cpu_minutes
    return replace(recipe.dit, **{name: value for name, value in given.items() if value is not None})


def command_of(args: argparse.Namespace, numbers: StageNumbers) -> str:
    """What to type to repeat a training; only where it lay is left out."""
    said = {"seed": args.seed, "workers": args.workers}
    if numbers.budget_s:
        said["cpu-minutes"] = f"{numbers.budget_s / 60:g}"
    else:
        said |= {"steps": numbers.steps, "cooldown": numbers.cooldown}
    said |= {name: value for name, value in (("lr", args.lr), ("batch", args.batch)) if value is not None}
    options = "".join(f" --{name} {value}" for name, value in said.items())
    folders = {"start": args.start, "image-vae": args.image_vae}
    options += "".join(f" --{name} FOLDER" for name, folder in folders.items() if folder)
    return f"python -m opensora_demo.training {args.model}{options}"


def run_stage(stage: str, making: Making, numbers: StageNumbers, args: argparse.Namespace) -> None:
    match stage:
        case "vae":
            train_vae(making)
        case "pool":
            encode_pool(making, args.shards)
        case "decoder":
            assert making.recipe.decoder is not None
            making.train("decoder", codec_job(making, making.codec_files, decoder_only=True), making.recipe.decoder)
        case "text":
            train_text(making)
        case "dit":
            train_dit(making, numbers)
        case "reader":
            train_reader(making)
        case "export":
            export(making, command_of(args, numbers))
        case "preview":
            files = making.recipe.files
            spec = replace(making.recipe.spec, weights=replace(files, folder=str(making.out.resolve())))
            teach([spec], making.runs / "preview", making.out / files.preview)
        case "measure":
            measure(making, args.share)


def main() -> None:
    if sys.argv[1:2] == ["ladder"]:
        ladder.main(sys.argv[2:])
        return
    parser = command_line()
    args = parser.parse_args()
    recipe = RECIPES[args.model]
    if args.minutes is not None:
        print(json.dumps(sprint.run(sprint_of(recipe, args))))
        return
    stages = args.stages.split(",") if args.stages else list(recipe.stages)
    if unknown := set(stages) - set(recipe.stages):
        parser.error(f"{args.model} has no stage called {', '.join(sorted(unknown))}")
    making = Making(
        recipe=recipe,
        runs=args.runs or read_cache_dir(args, os.environ) / args.model,
        out=args.out or ASSETS / args.model,
        start=args.start,
        workers=args.workers,
        seed=args.seed,
        compiled=not args.no_compile,
        checkpointing=args.checkpointing,
        image_vae=args.image_vae,
    )
    making.out.mkdir(parents=True, exist_ok=True)
    making.runs.mkdir(parents=True, exist_ok=True)
    if not (tokenizer := making.runs / "tokenizer.json").exists():
        if borrowed(name := recipe.files.tokenizer):
            shutil.copy(asset(recipe.files, name), tokenizer)
        else:
            build_tokenizer(str(tokenizer), recipe.extra_words)
    numbers = dit_numbers(recipe, args)
    for stage in recipe.stages:
        if stage in stages:
            print(f"stage {stage}", flush=True)
            run_stage(stage, making, numbers, args)


if __name__ == "__main__":
    main()
