"""Would a network run faster with a thread for each branch of guidance than with all threads in every operation?

    python -m benchmarks.threads                one step of nano, on an idle machine
    python -m benchmarks.threads --busy 1       beside a process that computes all the time

A step of one clip (its prompt and the null prompt) and of four (eight pairs), in three ways that take turns: one batch
on one thread; one batch on all threads, which wait asleep as the page's do; the batch in two halves, each on a thread
of its own that computes alone, so that no operation has a barrier.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `opensora_demo.__main__` sets it, before torch is loaded

import argparse
import multiprocessing
import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from benchmarks.pairs import alternate, ratio
from opensora_demo.catalog import find_model
from opensora_demo.families.base import ConditioningFrames
from opensora_demo.request.parse import parse_request
from opensora_demo.runtime.bundle import build_bundle, fit_threads

ROUNDS, LIMIT_S, CALLS = 15, 60.0, 4
PROMPT = "a red ball bouncing over a meadow"
ONE, ALL, APART = "one batch, one thread", "one batch, all threads", "two halves, a thread each"


def spin() -> None:
    while True:
        pass


def ways(model: str, clips: int, threads: int) -> dict[str, Callable[[], None]]:
    """A step of so many clips in each of the three ways."""
    spec = find_model(model)
    bundle = build_bundle(spec, torch.device("cpu"))
    scales = [float(scale) for scale in range(2, 2 + clips)]
    request = parse_request({"prompt": PROMPT, "seed": 3, "guidance": scales}, model_id=model, limits=spec.limits)
    shape = request.shape
    size = bundle.codec.latent_size(shape.frames, shape.height_px, shape.width_px)
    x = torch.randn(clips, bundle.codec.latent_channels, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        condition = bundle.family.condition(request, ConditioningFrames(), size)
    time = 0.5 * bundle.family.time_scale
    pairs = [(row, branch) for branch in (0, 1) for row in range(clips)]
    pool = ThreadPoolExecutor(2, initializer=lambda: torch.set_num_threads(1))

    def call(some: list[tuple[int, int]]) -> None:
        with torch.inference_mode():
            bundle.family.call(x, time, condition, [row for row, _ in some], [branch for _, branch in some])

    def batch(count: int) -> None:
        torch.set_num_threads(count)
        for _ in range(CALLS):
            call(pairs)

    def apart() -> None:
        torch.set_num_threads(1)  # MKL's number is that of the process
        for _ in range(CALLS):
            list(pool.map(call, (pairs[:clips], pairs[clips:])))

    return {ONE: lambda: batch(1), ALL: lambda: batch(threads), APART: apart}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.threads", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", default="nano")
    parser.add_argument("--busy", type=int, default=0, help="processes that compute meanwhile")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    args = parser.parse_args()
    neighbours = [multiprocessing.get_context("spawn").Process(target=spin, daemon=True) for _ in range(args.busy)]
    for neighbour in neighbours:
        neighbour.start()
    print("| pairs | way | median, ms | of one batch on all threads | range |\n|---:|---|---:|---:|---:|")
    threads = fit_threads()
    for clips in (1, 4):
        runs = ways(args.model, clips, threads)
        for run in runs.values():
            run()  # what is made at the first call
        took = alternate(runs, rounds=args.rounds, limit_s=LIMIT_S)
        for name, seconds in took.items():
            of = ratio(seconds, took[ALL])
            median = statistics.median(one.wall for one in seconds) / CALLS * 1e3
            print(
                f"| {2 * clips} | {name} | {median:.0f} | {of.median:.2f} | {of.low:.2f} to {of.high:.2f} |", flush=True
            )
    for neighbour in neighbours:
        neighbour.terminate()


if __name__ == "__main__":
    main()
