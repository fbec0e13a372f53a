"""Clips a minute of replicas on a cluster of this machine against those of one process, in turn:

    python -m benchmarks.cluster [--model nano] [--steps 16] [--replicas 2] [--runs 8] [--rounds 5]

One process makes a clip with all cores that it may use, replicas share them. In each round first the one makes so many
clips and then the others, all of them asked for at once; a clip that nobody else waits for is timed by itself. The
order changes with the round, and both are warm. Needs requirements-cluster.txt.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Sequence

from opensora_demo.catalog import find_model
from opensora_demo.cluster.join import join
from opensora_demo.request.events import Finished
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.bundle import Bundles, fit_threads
from opensora_demo.service.engine import Engine
from opensora_demo.service.local import LocalEngine
from opensora_demo.service.options import ClusterOptions
from opensora_demo.weights.options import WeightOptions


def seconds(engine: Engine, requests: Sequence[GenerationRequest], *, look: bool) -> float:
    """Until all of them are done, which are asked for at once, each by a visitor of his own. (What an engine learns of
    a run for its estimates comes after.)"""
    over: list[float] = []

    def read(request: GenerationRequest, owner: str) -> None:
        for event in engine.submit(request, owner, look=look).events():
            if isinstance(event, Finished):
                over.append(time.perf_counter())

    readers = [threading.Thread(target=read, args=(request, str(k))) for k, request in enumerate(requests)]
    began = time.perf_counter()
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    return max(over) - began


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--look", action="store_true", help="with what the page's scope asks for")
    args = parser.parse_args(argv)
    spec = find_model(args.model)
    prompt = "a red ball bouncing over a meadow"
    requests = [
        parse_request({"prompt": prompt, "steps": args.steps, "seed": seed}, model_id=spec.id, limits=spec.limits)
        for seed in range(args.runs)
    ]
    threads = fit_threads()
    weights = WeightOptions(models=frozenset({spec.id}))
    began = time.perf_counter()
    cluster = join(ClusterOptions(least=args.replicas, most=args.replicas), weights)
    start_s = time.perf_counter() - began
    engines: dict[str, Engine] = {
        f"one process, {threads} threads": LocalEngine(Bundles(weights)),
        f"{args.replicas} replicas": cluster,
    }
    alone: dict[str, list[float]] = {name: [] for name in engines}
    all_of_them: dict[str, list[float]] = {name: [] for name in engines}
    try:
        for engine in engines.values():
            seconds(engine, requests[: args.replicas], look=args.look)
        for turn in range(args.rounds):
            for name, engine in list(engines.items())[:: 1 if turn % 2 == 0 else -1]:
                alone[name].append(seconds(engine, requests[:1], look=args.look))
                all_of_them[name].append(seconds(engine, requests, look=args.look))
                print(f"round {turn + 1}, {name}: {alone[name][-1]:.2f} s, {all_of_them[name][-1]:.2f} s", flush=True)
    finally:
        cluster.close()
    print(f"{spec.id}, {args.steps} steps, {args.runs} clips at once, {args.rounds} rounds, look: {args.look}")
    print(f"cluster up after {start_s:.1f} s\n")
    print("| | one clip, s (median) | least, most | clips a minute (median) | least, most |")
    print("|---|---:|---:|---:|---:|")
    for name in engines:
        ones, rates = alone[name], [60 * args.runs / s for s in all_of_them[name]]
        print(
            f"| {name} | {statistics.median(ones):.2f} | {min(ones):.2f}, {max(ones):.2f} | "
            f"{statistics.median(rates):.1f} | {min(rates):.1f}, {max(rates):.1f} |"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
