"""What a clip gains by what suits this processor (`opensora_demo.runtime.fitted`): bfloat16, one thread for one clip.

    python -m benchmarks.fitted                 the embedded models, one clip and four guidance scales at once
    python -m benchmarks.fitted nano --busy 1   beside a process that computes all the time

Runs as stored (float32, all threads) and as fitted take turns, from the same request to frames; a ratio is the first's
time over the second's.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `opensora_demo.__main__` sets it, before torch is loaded

import argparse
from collections.abc import Callable, Sequence

import torch

from benchmarks.pairs import Took, alternate, median_s, ratio
from benchmarks.threads import beside, request_of
from opensora_demo.catalog import find_model
from opensora_demo.pipeline import run
from opensora_demo.runtime.bundle import ModelBundle, build_bundle, fit_threads
from opensora_demo.runtime.precision import precision_of, processor
from opensora_demo.weights.options import Precision, WeightOptions

MODELS = ("nano", "nano-dit", "nano-mmdit")
KINDS: tuple[Precision, ...] = ("stored", "auto")
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


def print_tables(models: Sequence[str], rounds: int) -> None:
    """The table of each model."""
    print(f"{processor()}, {fit_threads()} threads")
    for model in models:
        cpu = torch.device("cpu")
        bundles: dict[str, ModelBundle] = {}
        for kind in KINDS:
            bundles[kind] = build_bundle(find_model(model), cpu, WeightOptions(precision=kind))
        fitted = bundles["auto"]
        print(f"\n{model}: {precision_of(fitted)}, one thread for one clip: {fitted.family.one_thread}\n")
        print("| clips | what | stored, s | fitted, s | ratio | range |\n|---:|---|---:|---:|---:|---:|")
        for clips in (1, 4):
            for what, took in measure(bundles, clips, rounds).items():
                stored, ours = (took[kind] for kind in KINDS)
                found = ratio(stored, ours)
                print(
                    f"| {clips} | {what} | {median_s(stored):.2f} | {median_s(ours):.2f} | "
                    f"{found.median:.2f} | {found.low:.2f} to {found.high:.2f} |",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fitted", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--busy", type=int, default=0, help="processes that compute meanwhile")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    args = parser.parse_args()
    with beside(args.busy):
        print_tables(args.models, args.rounds)


if __name__ == "__main__":
    main()
