"""What does a change to training give? One model trained again and again for equal CPU time, one change each.

python -m opensora_demo.training ladder --minutes 8                     every rung, from the weights in assets
python -m opensora_demo.training ladder --minutes 8 --only grounding    one of them
python -m opensora_demo.training ladder --minutes 20 --scratch          a smaller network, from nothing
python -m opensora_demo.training ladder --table                         the table of what was measured

All rungs share the weights they start from (or none), the pool, the seed and the budget, which is CPU time of the one
process: what else the machine does changes nothing. Scores are the reader's on prompts that training never saw, and the
velocity's error on clips of a pool of its own, at fixed times and noises, so that small differences show.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opensora_demo.catalog import ModelSpec
from opensora_demo.catalog.nano import NANO, NETWORK
from opensora_demo.catalog.spec import WeightFiles
from opensora_demo.evaluation.adherence import run_trials, score
from opensora_demo.models.stdit3 import STDiT3, STDiT3Config
from opensora_demo.runtime.bundle import build_bundle
from opensora_demo.sampling.rectified_flow import noised, velocity_to
from opensora_demo.service.options import CACHE, add_options, read_cache_dir
from opensora_demo.toy.captions import caption
from opensora_demo.toy.reader import load_reader
from opensora_demo.training.export import save_shards
from opensora_demo.training.loop import LoopConfig, load_ema, train
from opensora_demo.training.pool import PoolConfig, build_pool, load_codec, load_pool, normalisation
from opensora_demo.training.train_network import Captions, Objective, Started, STDiT3Job, TextToVideo
from opensora_demo.weights.store import ASSETS

POOL_SEED, CHECK_SEED = 101, 202
PAIRS = 0.5  # two objects are what the model is worst at
SMALL = replace(NANO, network=replace(NETWORK, width=128, depth=3))  # learns enough from nothing within a rung
CHECK_CLIPS = 256
CHECK_TIMES = (0.3, 0.6, 0.8, 0.95)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One change: what is asked of the network, its captions, its optimiser or what it predicts. `fresh_head` starts
    the last layer from zeros, which a network that is to predict something else has to and its control has to match."""

    title: str
    objective: Objective = field(default_factory=Objective)
    captions: Captions = field(default_factory=Captions)
    muon_only: str = ""
    network: Mapping[str, Any] = field(default_factory=dict)
    fresh_head: bool = False


RUNGS: Mapping[str, Rung] = {
    "plain": Rung(title="nothing changed: half of the pool pairs"),
    "grounding": Rung(title="grounding loss, weight 0.1", objective=Objective(grounding=0.1)),
    "nearest": Rung(title="nearest of four noises", objective=Objective(noises=4)),
    "muon-blocks": Rung(title="Muon on the blocks' matrices only", muon_only="_blocks."),
    "alignment": Rung(
        title="middle layer aligned with the clean latent, weight 0.1", objective=Objective(alignment=0.1)
    ),
    "frame-times": Rung(title="half of the clips: a noise level for each frame", objective=Objective(frame_times=0.5)),
    "captions": Rung(
        title="a fifth of the captions of another clip, a fifth incomplete",
        captions=Captions(foreign=0.2, incomplete=0.2),
    ),
    "head": Rung(title="velocity, last layer from zeros", fresh_head=True),
    "clean": Rung(title="clean latent, last layer from zeros", fresh_head=True, network={"prediction": "clean"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where a ladder is climbed: `runs` holds pools, checkpoints and results, `start` the weights (as in assets), of
    which with `scratch` only the codec is taken. Without `prompts` no clips are made to be read."""

    spec: ModelSpec
    runs: Path
    start: Path
    minutes: float
    lr: float
    batch: int
    seed: int = 1
    shards: int = 12
    prompts: int = 128
    scales: tuple[float, ...] = (1.0, 4.0)
    scratch: bool = False

    @property
    def files(self) -> WeightFiles:
        assert isinstance(self.spec.weights, WeightFiles)
        return self.spec.weights

    def weights(self, part: str) -> tuple[Path, ...]:
        return tuple(self.start / name for name in getattr(self.files, part))

    @property
    def tokenizer(self) -> Path:
        return self.start / self.files.tokenizer

    def folder(self, name: str) -> Path:
        found = self.runs / ("from-nothing" if self.scratch else "ladder") / name
        found.mkdir(parents=True, exist_ok=True)
        return found

    def pools(self) -> tuple[Path, Path]:
        """Of training and of checking; both are made where they are not there."""
        limits = self.spec.limits
        cfg = PoolConfig(
            codec=self.spec.codec,
            frames=limits.default_frames,
            size_px=limits.size_px[0],
            seed=POOL_SEED,
            pairs=PAIRS,
        )
        folders = self.runs / "pool", self.runs / "check"
        for folder, seed, shards in zip(folders, (POOL_SEED, CHECK_SEED), (self.shards, 1), strict=True):
            build_pool(replace(cfg, seed=seed), self.weights("codec"), folder, shards=shards, workers=0)
        return folders


def specification(bench: Bench, rung: Rung) -> ModelSpec:
    network = bench.spec.network
    assert isinstance(network, STDiT3Config)
    return replace(bench.spec, network=replace(network, **rung.network))


def make_job(bench: Bench, rung: Rung, pool: Path, batch: int) -> STDiT3Job:
    codec = load_codec(bench.spec.codec, bench.weights("codec"))
    started = Started(parts={name: bench.weights(name) for name in ("network", "text")}, tokenizer=bench.tokenizer)
    job = STDiT3Job(
        specification(bench, rung),
        bench.tokenizer,
        pool,
        *normalisation(codec),
        batch=batch,
        captions=rung.captions,
        objective=rung.objective,
        start=None if bench.scratch else started,
    )
    if rung.fresh_head:
        network = job.model.dit
        assert isinstance(network, STDiT3)
        torch.nn.init.zeros_(network.final_layer.linear.weight)
        torch.nn.init.zeros_(network.final_layer.linear.bias)
    return job


@torch.inference_mode()
def velocity_error(both: TextToVideo, spec: ModelSpec, pool: Path, shift: Tensor, scale: Tensor) -> dict[str, float]:
    """Mean squared error of the velocity on `pool`'s first clips, each at fixed times and noises, with full captions;
    of clips of one object and of two."""
    latents, scenes = load_pool(pool)
    latents, scenes = latents[:CHECK_CLIPS], scenes[:CHECK_CLIPS]
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    network, errors = both.dit, np.zeros(len(scenes))
    assert isinstance(network, STDiT3)
    height_px, width_px = spec.limits.size_px
    for at in range(0, len(scenes), 16):
        chosen = scenes[at : at + 16]
        x0 = (torch.from_numpy(latents[at : at + 16]).float() - shift) / scale
        noise = torch.randn(x0.shape, generator=generator)
        features = both.text([caption(s, rng) for s in chosen])
        text = network.project_text(features.y, features.lengths)
        fps = torch.tensor([float(s.fps) for s in chosen])
        for t in CHECK_TIMES:
            x = noised(x0, noise, t)
            time = torch.full((len(chosen),), 1000 * t)
            out = network(x, time, text, fps=fps, height_px=height_px, width_px=width_px)
            v = velocity_to(out, x, t) if network.cfg.prediction == "clean" else -out
            errors[at : at + 16] += (v - (noise - x0)).square().mean((1, 2, 3, 4)).numpy() / len(CHECK_TIMES)
    two = np.array([s.companion is not None for s in scenes])
    return {"error, one object": float(errors[~two].mean()), "error, two objects": float(errors[two].mean())}


def measure(bench: Bench, rung: Rung, both: TextToVideo, folder: Path, check: Path) -> dict[str, float]:
    """The velocity's error, and how often clips show what their prompts say: half the prompts of one object, half of
    two, at each guidance scale. The weights are measured as they would be shipped, in 8 bits."""
    spec = specification(bench, rung)
    codec = load_codec(spec.codec, bench.weights("codec"))
    row = velocity_error(both.eval(), spec, check, *normalisation(codec))
    if not bench.prompts:
        return row
    for name, part in both.parts().items():
        save_shards(part.state_dict(), [folder / file for file in getattr(bench.files, name)], {})
    files = replace(
        bench.files,
        folder=str(folder.resolve()),
        codec=tuple(str(file.resolve()) for file in bench.weights("codec")),
        tokenizer=str(bench.tokenizer.resolve()),
        preview=str((bench.start / bench.files.preview).resolve()),
    )
    bundle = build_bundle(replace(spec, weights=files))
    reader = load_reader()
    for name, pairs, total in (("one", 0.0, "all four"), ("two", 1.0, "everything")):
        trials = list(run_trials(bundle, bench.prompts, bench.scales, pairs=pairs))
        for scale in bench.scales:
            scores = score(reader, [(trial.scene, trial.clips[scale]) for trial in trials])
            row[f"{name}, guidance {scale:g}"] = scores[total]
            row |= {f"{name}, {key}, {scale:g}": scores[key] for key in ("shape", "colour", "motion")}
    return row


START = "start"  # no rung: what all of them start from
STAGES = ("train", "measure")


def train_rung(bench: Bench, name: str) -> None:
    rung, budget = RUNGS[name], 60 * bench.minutes
    config = LoopConfig(
        run_dir=bench.folder(name),
        steps=0,
        cooldown=0,
        lr=bench.lr,
        warmup=20,
        ema_decay=0.98,
        seed=bench.seed,
        workers=1,
        budget_s=budget,
        cooldown_s=0.6 * budget,
        muon_only=rung.muon_only,
    )
    train(partial(make_job, bench, rung, bench.pools()[0], bench.batch), config)


def measure_rung(bench: Bench, name: str) -> dict[str, Any]:
    """Answers and appends its row to `results.jsonl`."""
    pool, check = bench.pools()
    folder = bench.folder(name)
    row: dict[str, Any] = {"rung": name, "date": datetime.now(UTC).date().isoformat(), "minutes": 0.0, "samples": 0}
    if name == START:
        rung = Rung(title="the weights that all start from")
        both = make_job(bench, rung, pool, bench.batch).model
    else:
        rung = RUNGS[name]
        both = TextToVideo(specification(bench, rung), bench.tokenizer)
        info = load_ema(folder, both)
        used_s = torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True, mmap=True)["used_s"]
        row |= {"minutes": round(used_s / 60, 2), "samples": int(info["step"] * bench.batch)}
        row |= {"lr": bench.lr, "batch": bench.batch, "from": "nothing" if bench.scratch else str(bench.start)}
    row |= {"title": rung.title, "prompts": bench.prompts} | measure(bench, rung, both, folder, check)
    with (bench.runs / "results.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: what was changed, for how long, and what came of it."""
    errors = ("error, one object", "error, two objects")
    shares = [f"{name}, guidance {scale}" for name in ("one", "two") for scale in (1, 4)]
    head = ["date", "change", "CPU minutes", "samples", *errors, *shares]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [row["date"], row["title"], f"{row['minutes']:g}", f"{row['samples']:,}"]
        cells += [f"{row[name]:.4f}" for name in errors]
        cells += [f"{100 * row[name]:.0f} %" if name in row else "–" for name in shares]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m opensora_demo.training ladder", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="CPU minutes of training a rung")
    parser.add_argument("--only", help="comma-separated, of start, " + ", ".join(RUNGS))
    parser.add_argument("--runs", type=Path, help="where pools and checkpoints are kept; by default in the cache")
    parser.add_argument("--start", type=Path, default=ASSETS / "nano", help="weights that all rungs start from")
    parser.add_argument("--shards", type=int, default=12, help="size of the pool, 1024 clips each")
    parser.add_argument("--prompts", type=int, default=128, help="of one object, and as many of two")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 4.0])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="a second process may measure")
    parser.add_argument(
        "--scratch", action="store_true", help="a smaller network from nothing, on the codec of --start"
    )
    parser.add_argument("--table", action="store_true", help="print what was measured, train nothing")
    add_options(parser, (CACHE,))
    args = parser.parse_args(arguments)
    runs = args.runs or read_cache_dir(args, os.environ) / "ladder"
    results = runs / "results.jsonl"
    if not args.table:
        runs.mkdir(parents=True, exist_ok=True)
        bench = Bench(
            spec=SMALL if args.scratch else NANO,
            runs=runs,
            start=args.start,
            minutes=args.minutes,
            lr=args.lr,
            batch=args.batch,
            shards=args.shards,
            prompts=args.prompts,
            scales=tuple(args.guidance),
            scratch=args.scratch,
        )
        usual = list(RUNGS) if args.scratch else [START, *RUNGS]
        names = args.only.split(",") if args.only else usual
        if unknown := set(names) - {START, *RUNGS}:
            parser.error(f"no rung called {', '.join(sorted(unknown))}")
        for name in names:
            if "train" in args.stages and name != START:
                train_rung(bench, name)
            if "measure" in args.stages:
                print(json.dumps(measure_rung(bench, name)), flush=True)
    print(table([json.loads(line) for line in results.read_text().splitlines()]))
