"""What a clip gains where network and codec compute in bfloat16 (`opensora_demo.runtime.precision`).

    python -m benchmarks.precision              the embedded models, one clip and four guidance scales at once
    python -m benchmarks.precision nano --busy 1

Runs in float32 and in bfloat16 take turns, from the same request to frames; a ratio is float32's time over bfloat16's.
Say it on a processor with instructions for bfloat16; others are many times slower with it.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `opensora_demo.__main__` sets it, before torch is loaded

import argparse
import multiprocessing
from collections.abc import Callable

import torch

from benchmarks.pairs import Took, alternate, median_s, ratio
from benchmarks.threads import request_of, spin
from opensora_demo.catalog import find_model
from opensora_demo.pipeline import run
from opensora_demo.runtime.bundle import ModelBundle, build_bundle, fit_threads
from opensora_demo.runtime.precision import has_bfloat16, processor
from opensora_demo.weights.options import Precision, WeightOptions

MODELS = ("nano", "nano-dit", "nano-mmdit")
KINDS: tuple[Precision, ...] = ("float32", "bfloat16")
ROUNDS, LIMIT_S = 9, 90.0
WHOLE = "click to frames"


def measure(bundles: dict[str, ModelBundle], clips: int, rounds: int) -> dict[str, dict[str, list[Took]]]:
    """Of each stage and of the whole run, the seconds of both kinds in each round."""
    stages: dict[str, dict[str, list[Took]]] = {}

    def of(kind: str) -> Callable[[], None]:
        request = request_of(bundles[kind], clips)

        def once() -> None:
            for stage, seconds in run(bundles[kind], request).seconds.items():
                stages.setdefault(stage, {}).setdefault(kind, []).append(Took(wall=seconds, cpu=0.0))

        return once

    runs = {kind: of(kind) for kind in bundles}
    for once in runs.values():
        once()  # what is made at the first call
    stages.clear()
    whole = alternate(runs, rounds=rounds, limit_s=LIMIT_S)
    return {name: stages[name] for name in ("denoise", "decode")} | {WHOLE: whole}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--busy", type=int, default=0, help="processes that compute meanwhile")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    args = parser.parse_args()
    neighbours = [multiprocessing.get_context("spawn").Process(target=spin, daemon=True) for _ in range(args.busy)]
    for neighbour in neighbours:
        neighbour.start()
    print(f"{processor()}, {fit_threads()} threads, bfloat16 {'by itself' if has_bfloat16() else 'emulated'}\n")
    print("| model | clips | what | float32, s | bfloat16, s | ratio | range |\n|---|---:|---|---:|---:|---:|---:|")
    for model in args.models:
        cpu = torch.device("cpu")
        bundles: dict[str, ModelBundle] = {}
        for kind in KINDS:
            bundles[kind] = build_bundle(find_model(model), cpu, WeightOptions(precision=kind))
        for clips in (1, 4):
            for what, took in measure(bundles, clips, args.rounds).items():
                full, half = (took[kind] for kind in KINDS)
                found = ratio(full, half)
                print(
                    f"| {model} | {clips} | {what} | {median_s(full):.2f} | {median_s(half):.2f} | "
                    f"{found.median:.2f} | {found.low:.2f} to {found.high:.2f} |",
                    flush=True,
                )
    for neighbour in neighbours:
        neighbour.terminate()


if __name__ == "__main__":
    main()
