"""What a thread for each part of a batch saves, beside all threads in every operation (`opensora_demo.nn.threads`).

    python -m benchmarks.threads                nano, on an idle machine
    python -m benchmarks.threads --busy 1       beside a process that computes all the time

A step of one clip (its prompt and the null prompt) and of four (eight pairs), in three ways that take turns: one batch
on one thread; one batch on all threads, which wait asleep as the page's do; the batch in two halves, each on a thread
of its own that computes alone, so that no operation has a barrier. Then whole runs of one clip and of four, from the
request to frames, with batches split as the demo does it and with none split.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `opensora_demo.__main__` sets it, before torch is loaded

import argparse
import multiprocessing
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.pairs import alternate, ratio
from opensora_demo.catalog import find_model
from opensora_demo.families.base import ConditioningFrames
from opensora_demo.pipeline import run
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.bundle import ModelBundle, build_bundle, fit_threads

ROUNDS, LIMIT_S, CALLS = 15, 60.0, 4
PROMPT = "a red ball bouncing over a meadow"
ONE, ALL, APART = "one batch, one thread", "one batch, all threads", "two halves, a thread each"
SPLIT, WHOLE = "batches split as the demo does", "no batch split"


def spin() -> None:
    while True:
        pass


@contextmanager
def beside(busy: int) -> Iterator[None]:
    """While it lasts so many processes compute all the time."""
    neighbours = [multiprocessing.get_context("spawn").Process(target=spin, daemon=True) for _ in range(busy)]
    for neighbour in neighbours:
        neighbour.start()
    try:
        yield
    finally:
        for neighbour in neighbours:
            neighbour.terminate()


def request_of(bundle: ModelBundle, clips: int) -> GenerationRequest:
    raw = {"prompt": PROMPT, "seed": 3, "guidance": [float(scale) for scale in range(2, 2 + clips)]}
    return parse_request(raw, model_id=bundle.spec.id, limits=bundle.spec.limits)


def ways_of_a_step(bundle: ModelBundle, clips: int, threads: int) -> dict[str, Callable[[], None]]:
    """A step of so many clips in each of the three ways."""
    request = request_of(bundle, clips)
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


def ways_of_a_run(bundle: ModelBundle, clips: int) -> dict[str, Callable[[], None]]:
    """A run of so many clips."""
    request = request_of(bundle, clips)
    parts: list[Any] = [
        bundle.family,
        *(part for part in bundle.codec.modules() if getattr(part, "splits_batches", False)),
    ]

    def made(split: bool) -> None:
        for part in parts:
            part.splits_batches = split
        run(bundle, request)

    return {SPLIT: lambda: made(True), WHOLE: lambda: made(False)}


def print_rows(what: str, runs: dict[str, Callable[[], None]], base: str, calls: int, rounds: int) -> None:
    """A row for each way, beside `base`."""
    for once in runs.values():
        once()  # what is made at the first call
    took = alternate(runs, rounds=rounds, limit_s=LIMIT_S)
    for name, seconds in took.items():
        of = ratio(seconds, took[base])
        median = statistics.median(one.wall for one in seconds) / calls * 1e3
        print(f"| {what} | {name} | {median:.0f} | {of.median:.2f} | {of.low:.2f} to {of.high:.2f} |", flush=True)


def measure(model: str, rounds: int) -> None:
    """All rows of one model."""
    threads = fit_threads()
    bundle = build_bundle(find_model(model), torch.device("cpu"))
    print("| what | way | median, ms | ratio | range |\n|---|---|---:|---:|---:|")
    for clips in (1, 4):
        print_rows(f"a step, {2 * clips} pairs", ways_of_a_step(bundle, clips, threads), ALL, CALLS, rounds)
    torch.set_num_threads(threads)
    for clips in (1, 4):
        print_rows(f"a run, clips: {clips}", ways_of_a_run(bundle, clips), WHOLE, 1, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.threads", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", default="nano")
    parser.add_argument("--busy", type=int, default=0, help="processes that compute meanwhile")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    args = parser.parse_args()
    with beside(args.busy):
        measure(args.model, args.rounds)


if __name__ == "__main__":
    main()
