"""Re-create the models in assets from nothing.

python -m opensora_demo.training nano            all stages, each continues where it stopped
python -m opensora_demo.training nano --stages dit,export
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

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

STAGES = ("vae", "pool", "decoder", "dit", "reader", "export", "score")
VAE_IMAGE_STEPS, VAE_TEMPORAL_STEPS = 450, 450
PAIRS = 0.25  # share of training clips with two objects
FOLDER = ASSETS / FILES.folder


def train_vae(runs: Path, workers: int, seed: int, start: Path | None) -> None:
    """From nothing: frames, latents, then both; from earlier weights only the last of these."""
    phases = (0, 0) if start else (VAE_IMAGE_STEPS, VAE_TEMPORAL_STEPS)
    files = files_in(start, FILES.codec) if start else ()
    cfg = LoopConfig(
        run_dir=runs / "vae", steps=3000, cooldown=2300, lr=7e-4, ema_decay=0.995, workers=workers, seed=seed
    )
    if not start:
        cfg = replace(cfg, steps=4400, cooldown=2300, lr=1.5e-3, drops=((1120, 1 / 2),))
    train(partial(VaeJob, CODEC, *phases, start=files, pairs=PAIRS), cfg)


def train_decoder(runs: Path, workers: int, seed: int) -> None:
    """More of the VAE's decoder alone; the latents of the pool stay valid."""
    train(
        partial(VaeJob, CODEC, 0, 0, start=(runs / "vae.safetensors",), decoder_only=True, pairs=PAIRS),
        LoopConfig(
            run_dir=runs / "decoder", steps=3000, cooldown=2600, lr=7e-4, ema_decay=0.995, workers=workers, seed=seed
        ),
    )


def files_in(folder: Path, names: tuple[str, ...]) -> tuple[Path, ...]:
    return tuple(folder / name for name in names)


def encode_pool(runs: Path, workers: int, seed: int, shards: int, out: Path) -> None:
    """With the VAE of this run; without one, with the exported one."""
    weights = runs / "vae.pt"
    vae = VideoVAE(CODEC)
    if (runs / "vae" / "checkpoint.pt").exists():
        load_ema(runs / "vae", vae)
    else:
        vae.load_state_dict(read_state(list(files_in(out, FILES.codec))))
    torch.save(vae.state_dict(), weights)
    save_file({k: v.contiguous() for k, v in vae.state_dict().items()}, runs / "vae.safetensors")
    build_pool(CODEC, weights, runs / "pool", shards=shards, seed=seed, pairs=PAIRS, workers=workers)


def train_dit(runs: Path, workers: int, seed: int, steps: int, cooldown: int, start: Path | None) -> None:
    started = None
    if start is not None:
        network, text = files_in(start, FILES.network), files_in(start, FILES.text)
        started = Started(network=network, text=text, tokenizer=start / FILES.tokenizer)
    train(
        partial(
            DitJob,
            NETWORK,
            TEXT,
            runs / FILES.tokenizer,
            runs / "pool",
            batch=64 // workers,
            start=started,
            compiled=True,
        ),
        LoopConfig(
            run_dir=runs / "dit", steps=steps, cooldown=cooldown, lr=4e-3, ema_decay=0.998, workers=workers, seed=seed
        ),
    )


def train_reader(runs: Path, workers: int, seed: int, start: Path | None) -> None:
    train(
        partial(ReaderJob, batch=16 // workers, start=start and start / READER_FILE.name),
        LoopConfig(
            run_dir=runs / "reader", steps=1200, cooldown=700, lr=2.5e-3, ema_decay=0.99, workers=workers, seed=seed
        ),
    )


def export(runs: Path, command: str, out: Path) -> None:
    """Averaged weights of every finished stage into `out`, with how they came about."""
    story = {
        "recipe": "opensora_demo/training/__main__.py; steps and seconds are of this part",
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "data": "opensora_demo.training.worlds, rendered; no file from outside",
        "license": "Apache-2.0",
    }
    if (runs / "vae" / "checkpoint.pt").exists() and (runs / "pool").exists():
        vae = VideoVAE(CODEC)
        decoder = runs / "decoder"
        info = load_ema(decoder if (decoder / "checkpoint.pt").exists() else runs / "vae", vae)
        latents, _ = load_pool(runs / "pool")
        shift, scale = latent_statistics(latents)
        vae.shift.copy_(shift)
        vae.scale.copy_(scale)
        save_shards(vae.state_dict(), [out / f for f in FILES.codec], story | told(info, CODEC))
        video, _ = draw_clips(np.random.default_rng(7), 96)
        with torch.inference_mode():
            matrix = fit_matrix(vae.eval().encode(video), video)
        save_shards({"matrix": matrix}, [out / FILES.preview], story)
    if (runs / "dit" / "checkpoint.pt").exists():
        shutil.copy(runs / FILES.tokenizer, out / FILES.tokenizer)
        both = TextToVideo(NETWORK, TEXT, out / FILES.tokenizer)
        info = load_ema(runs / "dit", both)
        both.dit.y_embedder.y_embedding.copy_(both.null.detach())
        save_shards(both.dit.state_dict(), [out / f for f in FILES.network], story | told(info, NETWORK))
        save_shards(both.text.state_dict(), [out / f for f in FILES.text], story | told(info, TEXT))
    if (runs / "reader" / "checkpoint.pt").exists():
        reader = Reader()
        info = load_ema(runs / "reader", reader)
        save_shards(reader.state_dict(), [out / READER_FILE.name], story | told(info))
    print(json.dumps({f.name: f.stat().st_size for f in sorted(out.iterdir())}))


def told(info: dict[str, float], config: object = None) -> dict[str, str]:
    """Steps, seconds and the configuration, as text for a file's header."""
    found = {k: str(v) for k, v in info.items()}
    return found if config is None else found | {"config": json.dumps(asdict(config))}  # type: ignore[call-overload]


def score(out: Path, prompts: int = 128) -> None:
    """Measure what was exported; into scores.json beside it and the headers of its files."""
    reader = load_reader(out / READER_FILE.name)
    bundle = build_bundle(replace(NANO, weights=replace(FILES, folder=str(out.resolve()))))
    rows = adherence_table(reader, list(run_trials(bundle, prompts, (1.0, 2.0, 3.0, 4.0, 7.0))))
    two = adherence_table(reader, list(run_trials(bundle, prompts, (4.0,), pairs=1.0)))
    chinese = adherence_table(reader, list(run_trials(bundle, prompts, (4.0,), chinese=1.0)))
    scores = {
        "date": datetime.now(UTC).date().isoformat(),
        "prompts": prompts,
        "steps": int(NANO.limits.steps.default),
        "reader": reader_table(reader, 512),
        "reader, two objects": reader_table(reader, 512, pairs=1.0),
        "guidance": rows,
        "two objects": two,
        "Chinese": chinese,
    }
    (out / "scores.json").write_text(json.dumps(scores, indent=1) + "\n")
    for file in out.glob("*.safetensors"):
        add_metadata(file, {"scores": json.dumps(scores)})
    for table in (rows, two, chinese):
        print(format_table(table))


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
    parser.add_argument("--start", type=Path, help="folder of earlier weights to go on from, laid out as assets/nano")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where the finished weights go")
    args = parser.parse_args()
    command = f"python -m opensora_demo.training {args.model} --steps {args.steps} --cooldown {args.cooldown}"
    command += f" --seed {args.seed} --workers {args.workers}" + (" --start FOLDER" if args.start else "")
    stages = args.stages.split(",")
    if unknown := set(stages) - set(STAGES):
        parser.error(f"no stage called {', '.join(sorted(unknown))}")
    args.out.mkdir(parents=True, exist_ok=True)
    args.runs.mkdir(parents=True, exist_ok=True)
    if not (args.runs / FILES.tokenizer).exists():
        build_tokenizer(str(args.runs / FILES.tokenizer))
    for stage in STAGES:
        if stage not in stages:
            continue
        print(f"stage {stage}", flush=True)
        match stage:
            case "vae":
                train_vae(args.runs, args.workers, args.seed, args.start)
            case "pool":
                encode_pool(args.runs, args.workers, args.seed, args.shards, args.out)
            case "decoder":
                train_decoder(args.runs, args.workers, args.seed)
            case "dit":
                train_dit(args.runs, args.workers, args.seed, args.steps, args.cooldown, args.start)
            case "reader":
                train_reader(args.runs, args.workers, args.seed, args.start)
            case "export":
                export(args.runs, command, args.out)
            case "score":
                score(args.out)


if __name__ == "__main__":
    main()
