"""Re-create the models in assets from nothing.

python -m opensora_demo.training nano            all stages, each continues where it stopped
python -m opensora_demo.training nano --stages dit,export
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import torch

from opensora_demo.bundle import build_bundle
from opensora_demo.catalog.nano import CODEC, FILES, NANO, NETWORK, TEXT
from opensora_demo.codecs.video_vae import VideoVAE
from opensora_demo.preview import fit_matrix
from opensora_demo.training.adherence import adherence_table, format_table, reader_table, run_trials
from opensora_demo.training.captions import build_tokenizer
from opensora_demo.training.export import add_metadata, save_shards
from opensora_demo.training.loop import LoopConfig, load_ema, train
from opensora_demo.training.pool import build_pool, latent_statistics, load_pool
from opensora_demo.training.reader import READER_FILE, Reader, load_reader
from opensora_demo.training.train_dit import DitJob, Started, TextToVideo
from opensora_demo.training.train_reader import ReaderJob
from opensora_demo.training.train_vae import VaeJob, draw_clips
from opensora_demo.weights import ASSETS, read_state

STAGES = ("vae", "pool", "dit", "reader", "export", "score")
VAE_IMAGE_STEPS, VAE_TEMPORAL_STEPS = 450, 450
FOLDER = ASSETS / FILES.folder


def train_vae(runs: Path, workers: int, seed: int) -> None:
    train(
        partial(VaeJob, CODEC, VAE_IMAGE_STEPS, VAE_TEMPORAL_STEPS),
        LoopConfig(
            run_dir=runs / "vae",
            steps=2200,
            cooldown=600,
            lr=1.5e-3,
            drops=((1120, 1 / 3),),
            ema_decay=0.995,
            workers=workers,
            seed=seed,
        ),
    )


def asset_files(names: tuple[str, ...]) -> tuple[Path, ...]:
    return tuple(FOLDER / name for name in names)


def encode_pool(runs: Path, workers: int, seed: int, shards: int) -> None:
    """With the VAE of this run; without one, with the VAE in assets."""
    weights = runs / "vae.pt"
    vae = VideoVAE(CODEC)
    if (runs / "vae" / "checkpoint.pt").exists():
        load_ema(runs / "vae", vae)
    else:
        vae.load_state_dict(read_state(list(asset_files(FILES.codec))))
    torch.save(vae.state_dict(), weights)
    build_pool(CODEC, weights, runs / "pool", shards=shards, seed=seed, workers=workers)


def train_dit(runs: Path, workers: int, seed: int, steps: int, cooldown: int, go_on: bool) -> None:
    files = FILES
    start = Started(network=asset_files(files.network), text=asset_files(files.text), codec=asset_files(files.codec))
    train(
        partial(
            DitJob,
            NETWORK,
            TEXT,
            FOLDER / FILES.tokenizer,
            runs / "pool",
            batch=64 // workers,
            start=start if go_on else None,
        ),
        LoopConfig(
            run_dir=runs / "dit", steps=steps, cooldown=cooldown, lr=4e-3, ema_decay=0.998, workers=workers, seed=seed
        ),
    )


def train_reader(runs: Path, workers: int, seed: int) -> None:
    train(
        partial(ReaderJob, batch=16 // workers),
        LoopConfig(
            run_dir=runs / "reader", steps=820, cooldown=300, lr=2.5e-3, ema_decay=0.99, workers=workers, seed=seed
        ),
    )


def export(runs: Path, command: str) -> None:
    """Averaged weights of every finished stage into assets/nano, with how they came about."""
    story = {
        "recipe": "opensora_demo/training/__main__.py; steps and seconds are of this part",
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "data": "opensora_demo.training.worlds, rendered; no file from outside",
        "license": "Apache-2.0",
    }
    files = FILES
    if (runs / "vae" / "checkpoint.pt").exists() and (runs / "pool").exists():
        vae = VideoVAE(CODEC)
        info = load_ema(runs / "vae", vae)
        latents, _ = load_pool(runs / "pool")
        shift, scale = latent_statistics(latents)
        vae.shift.copy_(shift)
        vae.scale.copy_(scale)
        save_shards(vae.state_dict(), [FOLDER / f for f in files.codec], story | told(info, CODEC))
        video, _ = draw_clips(np.random.default_rng(7), 96)
        with torch.inference_mode():
            matrix = fit_matrix(vae.eval().encode(video), video)
        save_shards({"matrix": matrix}, [FOLDER / files.preview], story)
    if (runs / "dit" / "checkpoint.pt").exists():
        both = TextToVideo(NETWORK, TEXT, FOLDER / files.tokenizer)
        info = load_ema(runs / "dit", both)
        both.dit.y_embedder.y_embedding.copy_(both.null.detach())
        save_shards(both.dit.state_dict(), [FOLDER / f for f in files.network], story | told(info, NETWORK))
        save_shards(both.text.state_dict(), [FOLDER / f for f in files.text], story | told(info, TEXT))
    if (runs / "reader" / "checkpoint.pt").exists():
        reader = Reader()
        info = load_ema(runs / "reader", reader)
        save_shards(reader.state_dict(), [READER_FILE], story | told(info))
    print(json.dumps({f.name: f.stat().st_size for f in sorted(FOLDER.iterdir())}))


def told(info: dict[str, float], config: object = None) -> dict[str, str]:
    """Steps, seconds and the configuration, as text for a file's header."""
    found = {k: str(v) for k, v in info.items()}
    return found if config is None else found | {"config": json.dumps(asdict(config))}  # type: ignore[call-overload]


def score(prompts: int = 128) -> None:
    """Measure what was exported; into assets/nano/scores.json and the header of the transformer's files."""
    reader = load_reader()
    trials = list(run_trials(build_bundle(NANO), prompts, (1.0, 2.0, 3.0, 4.0, 7.0)))
    rows = adherence_table(reader, trials)
    scores = {
        "date": datetime.now(UTC).date().isoformat(),
        "prompts": prompts,
        "steps": int(NANO.limits.steps.default),
        "reader": reader_table(reader, 512),
        "guidance": rows,
    }
    (FOLDER / "scores.json").write_text(json.dumps(scores, indent=1) + "\n")
    for file in FOLDER.glob("*.safetensors"):
        add_metadata(file, {"scores": json.dumps(scores)})
    print(format_table(rows))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m opensora_demo.training", description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=("nano",))
    parser.add_argument("--stages", default=",".join(STAGES), help="comma-separated, of " + ", ".join(STAGES))
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path.home() / ".cache" / "opensora-demo" / "nano",
        help="where checkpoints and the pool are kept",
    )
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 8))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4930, help="steps of the dit stage, 64 clips each")
    parser.add_argument("--cooldown", type=int, default=1500, help="how many of them lower the learning rate to zero")
    parser.add_argument("--shards", type=int, default=28, help="size of the pool, 1024 clips each")
    parser.add_argument("--go-on", action="store_true", help="start the dit stage from the weights in assets")
    args = parser.parse_args()
    command = f"python -m opensora_demo.training {args.model} --steps {args.steps} --cooldown {args.cooldown}"
    command += f" --seed {args.seed} --workers {args.workers}" + (" --go-on" if args.go_on else "")
    stages = args.stages.split(",")
    if unknown := set(stages) - set(STAGES):
        parser.error(f"no stage called {', '.join(sorted(unknown))}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not (FOLDER / FILES.tokenizer).exists():
        build_tokenizer(str(FOLDER / FILES.tokenizer))
    args.runs.mkdir(parents=True, exist_ok=True)
    for stage in STAGES:
        if stage not in stages:
            continue
        print(f"stage {stage}", flush=True)
        match stage:
            case "vae":
                train_vae(args.runs, args.workers, args.seed)
            case "pool":
                encode_pool(args.runs, args.workers, args.seed, args.shards)
            case "dit":
                train_dit(args.runs, args.workers, args.seed, args.steps, args.cooldown, args.go_on)
            case "reader":
                train_reader(args.runs, args.workers, args.seed)
            case "export":
                export(args.runs, command)
            case "score":
                score()


if __name__ == "__main__":
    main()
