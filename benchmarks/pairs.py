"""Comparing what takes turns: each thing to be timed runs once a round, so that noise of the machine hits all alike.

A ratio is the median of the ratios within rounds; its range leaves out the smallest and the largest where there are
five rounds or more.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from opensora_demo.memory import total_bytes
from opensora_demo.runtime.precision import processor

MATMUL = 1024  # the side of the square matrices whose product is the peak
FEW = 5  # rounds from which on the ends of a range are left out

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Two ways of counting seconds: those that go by, and those that this process computes, in all its threads."""

    wall: Clock = time.perf_counter
    cpu: Clock = time.process_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """Seconds of one call, as both clocks say."""

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """The median of the ratios within rounds, the lowest and the highest of most of them, how many rounds, and the
    median once more by the seconds that the process computed, where they are known."""

    median: float
    low: float
    high: float
    rounds: int
    cpu: float | None

    def without_computing(self) -> Ratio:
        """Where other processes, or other threads too, did a part of the computing."""
        return replace(self, cpu=None)


def alternate(
    runs: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    limit_s: float,
    clocks: Clocks | None = None,
) -> dict[str, list[Took]]:
    """Call each of `runs` once a round, every other round in the reverse order; at most `rounds` rounds, and after the
    first none that would not be over within `limit_s` of the beginning if it took as long as the longest so far. What a
    call returns is called in its turn, where it can be, and is not timed."""
    clocks = clocks or Clocks()
    found: dict[str, list[Took]] = {name: [] for name in runs}
    began, longest = clocks.wall(), 0.0
    for number in range(rounds):
        at = clocks.wall()
        if number and at - began + longest > limit_s:
            break
        for name in reversed([*runs]) if number % 2 else [*runs]:
            wall, cpu = clocks.wall(), clocks.cpu()
            after = runs[name]()
            found[name].append(Took(wall=clocks.wall() - wall, cpu=clocks.cpu() - cpu))
            if callable(after):
                after()
        longest = max(longest, clocks.wall() - at)
    return found


def ratio(above: Sequence[Took], below: Sequence[Took]) -> Ratio:
    """How much longer each call of `above` took than the one of `below` in its round."""
    each = sorted(a.wall / b.wall for a, b in zip(above, below, strict=True))
    computed = [a.cpu / b.cpu for a, b in zip(above, below, strict=True) if b.cpu]
    inner = each[1:-1] if len(each) >= FEW else each
    return Ratio(
        median=statistics.median(each),
        low=inner[0],
        high=inner[-1],
        rounds=len(each),
        cpu=statistics.median(computed) if computed else None,
    )


def median_s(times: Sequence[Took]) -> float:
    """Seconds that go by."""
    return statistics.median(took.wall for took in times)


class Matmul:
    """The product of two square matrices in float32, several times: what the processor does at best."""

    def __init__(self, side: int = MATMUL, times: int = 8) -> None:
        generator = torch.Generator().manual_seed(0)
        self.a, self.b = (torch.randn(side, side, generator=generator) for _ in range(2))
        self.out = torch.empty(side, side)
        self.times = times
        self.flops = 2.0 * side**3 * times

    def __call__(self) -> None:
        for _ in range(self.times):
            torch.mm(self.a, self.b, out=self.out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """FLOPs of one call, how many of them a second (the median, in 10^9), and their share of those of matrix products
    in the same rounds."""

    flops: float
    gflops: float
    of_peak: float


def speed(flops: float, times: Sequence[Took], matmul: Sequence[Took], matmul_flops: float) -> Speed:
    shares = [flops / took.wall / (matmul_flops / peak.wall) for took, peak in zip(times, matmul, strict=True)]
    return Speed(flops=flops, gflops=flops / median_s(times) / 1e9, of_peak=statistics.median(shares))


def machine() -> dict[str, object]:
    """What the numbers were measured on."""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(total_bytes(torch.device("cpu")) / 1e9, 1),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def busy_s() -> float | None:
    """Seconds for which the processors of the machine have worked since its start, whoever asked; None where the system
    does not say (Linux does: man 5 proc_stat)."""
    try:
        user, nice, system, _idle, _waiting, *interrupts = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except (OSError, ValueError):
        return None
    return sum(map(int, (user, nice, system, *interrupts))) / os.sysconf("SC_CLK_TCK")


def own_s() -> float:
    """Seconds that this process has computed, and those that it started and that have ended."""
    return sum(os.times()[:4])


class Others:
    """How busy other programs keep the machine, from its making on."""

    def __init__(self) -> None:
        self.began, self.busy, self.own = time.monotonic(), busy_s(), own_s()

    def share(self) -> float | None:
        """Of the time of all processors: what neither this process nor those that it started took."""
        now = busy_s()
        if now is None or self.busy is None:
            return None
        there = (time.monotonic() - self.began) * (os.cpu_count() or 1)
        return round(min(max((now - self.busy - own_s() + self.own) / max(there, 1e-9), 0.0), 1.0), 3)
