"""How many replicas serve so many visitors, what they wait, and what it costs: a queue simulated event by event.

    python -m benchmarks.capacity            prints the tables
    python -m benchmarks.capacity --write    puts them and the pictures into docs/scaling.md

Runs arrive at random (Poisson) and are served first come, first served, by replicas that make one clip at a time. A
fixed number of replicas is checked against Erlang's formula (tests/unit/test_capacity.py); with autoscaling more are
started while runs wait, each after the time that one takes to start, and idle ones end. What is assumed and what was
measured, and by whom, stands in `SERVICES`; prices are options.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
VISITORS = (10, 1_000, 100_000)  # an hour
RUNS_EACH = 3  # clips that a visitor makes
PAGE_CORE_S = 0.7  # of the process that serves the page, for each that loads it
LOOK_S = 5.0  # how often the autoscaler looks


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What one replica does: seconds for a clip, seconds to start, the wait that is bearable (of 95 in 100 runs), and
    what it runs on."""

    name: str
    clip_s: float
    start_s: float
    patience_s: float
    device: str
    source: str


SERVICES = (
    Service(
        name="nano, defaults", clip_s=0.96, start_s=9.0, patience_s=5.0, device="core",
        source="one replica with one thread, 2026-11-25",
    ),
    Service(
        name="1.2, 2 s of 480p", clip_s=29.0, start_s=180.0, patience_s=60.0, device="H100",
        source="README of Open-Sora 1.2: 30 steps, one H100; the start is assumed",
    ),
    Service(
        name="2.0, 256 px", clip_s=60.0, start_s=300.0, patience_s=120.0, device="H100",
        source="README of Open-Sora 2.0: 50 steps, one H100; the start is assumed",
    ),
)  # fmt: skip
PRICES = {"core": 0.03, "H100": 3.0}  # dollars an hour, assumed


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Between `low` and `high` replicas: one more for every `waiting` runs that wait and have none under way, one less
    when one has been idle for `idle_s`."""

    low: int
    high: int
    start_s: float = 0.0
    waiting: int = 1
    idle_s: float = 120.0


@dataclass(slots=True)
class Report:
    """waits: seconds from arrival to start, of each run in its order; replica_s: seconds of replicas that were paid
    for; end_s: when the last run ended; history: (second, waiting runs, replicas that are up) at every look."""

    waits: list[float] = field(default_factory=list)
    replica_s: float = 0.0
    end_s: float = 0.0
    history: list[tuple[float, int, int]] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        ordered = sorted(self.waits)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    @property
    def mean(self) -> float:
        return math.fsum(self.waits) / len(self.waits)


def simulate(arrivals: Sequence[float], service: Callable[[], float], scaling: Scaling) -> Report:
    """Serve runs that arrive at these seconds, in rising order; `service` draws how long each takes."""
    report, line = Report(), deque[float]()
    events: list[tuple[float, int, str]] = []  # (second, order, what happens)
    order = 0

    def at(second: float, what: str) -> None:
        nonlocal order
        heapq.heappush(events, (second, order := order + 1, what))

    up, starting, busy = scaling.low, 0, 0
    idle: deque[float] = deque([0.0] * scaling.low)  # since when, of each that does nothing
    since, left, coming = 0.0, len(arrivals), iter(arrivals)

    def arrive() -> None:
        if (second := next(coming, None)) is not None:
            at(second, "arrival")

    arrive()
    if scaling.high > scaling.low:
        at(LOOK_S, "look")
    while left:
        now, _, what = heapq.heappop(events)
        report.replica_s += (up + starting) * (now - since)
        since = now
        match what:
            case "arrival":
                line.append(now)
                arrive()
            case "end":
                busy, left = busy - 1, left - 1
                idle.append(now)
                report.end_s = now
            case "up":
                up, starting = up + 1, starting - 1
                idle.append(now)
            case _:
                wanted = min(math.ceil(len(line) / scaling.waiting) - starting, scaling.high - up - starting)
                for _ in range(max(wanted, 0)):
                    starting += 1
                    at(now + scaling.start_s, "up")
                while up > scaling.low and idle and not line and now - idle[0] >= scaling.idle_s:
                    idle.popleft()
                    up -= 1
                report.history.append((now, len(line), up))
                at(now + LOOK_S, "look")
        while line and idle:
            report.waits.append(now - line.popleft())
            idle.pop()  # the one that was idle last, so that the others may end
            busy += 1
            at(now + service(), "end")
    return report


def poisson(rate: float, count: int, rng: random.Random) -> list[float]:
    """Seconds at which `count` runs arrive, `rate` a second on average."""
    second, found = 0.0, []
    for _ in range(count):
        found.append(second := second + rng.expovariate(rate))
    return found


def erlang_wait_s(rate: float, clip_s: float, replicas: int) -> float:
    """The mean wait of M/M/c (Erlang, 1917): random arrivals, service times that are exponential. Infinite where more
    arrives than is served."""
    load = rate * clip_s
    if load >= replicas:
        return math.inf
    blocked = 1.0  # Erlang's B, built up replica by replica
    for k in range(1, replicas + 1):
        blocked = load * blocked / (k + load * blocked)
    waits = blocked / (1 - load / replicas * (1 - blocked))
    return waits * clip_s / (replicas - load)


def replicas_for(service: Service, visitors: int, *, seed: int = 0) -> tuple[int, Report]:
    """The fewest replicas that serve more than comes and with which 95 of 100 runs wait no longer than is bearable, and
    what came of an hour with them after an hour before it, or of 2000 runs where an hour has fewer. Clips take the same
    time each."""
    rate = visitors * RUNS_EACH / 3600
    count = max(round(rate * 3600), 2000)
    arrivals = poisson(rate, 2 * count, random.Random(seed))

    def tried(replicas: int) -> Report:
        found = simulate(arrivals, lambda: service.clip_s, Scaling(low=replicas, high=replicas))
        found.waits = found.waits[count:]
        return found

    low = math.floor(rate * service.clip_s)  # too few: the line would grow for ever
    high = low + 1
    while (report := tried(high)).quantile(0.95) > service.patience_s:
        low, high = high, math.ceil(high * 1.02) + 1
    while high - low > 1:
        middle = (low + high) // 2
        if (found := tried(middle)).quantile(0.95) > service.patience_s:
            low = middle
        else:
            high, report = middle, found
    return high, report


def page_cores(visitors: int) -> float:
    """Cores of page processes that are busy with so many visitors an hour."""
    return visitors * PAGE_CORE_S / 3600


def fixed_table(prices: dict[str, float]) -> list[str]:
    lines = [
        "| model | visitors an hour | replicas | busy | wait p50 | p95 | dollars an hour | pages, busy cores |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for service in SERVICES:
        for visitors in VISITORS:
            count, report = replicas_for(service, visitors)
            busy = visitors * RUNS_EACH / 3600 * service.clip_s / count
            cost = count * prices[service.device]
            lines.append(
                f"| {service.name} | {visitors:,} | {count:,} x {service.device} | {busy:.0%} | "
                f"{report.quantile(0.5):.1f} s | {report.quantile(0.95):.1f} s | {cost:,.2f} | "
                f"{page_cores(visitors):.2f} |".replace("%", " %")
            )
    return lines


def burst(*, calm: int = 100, crowd: int = 3000, seed: int = 1) -> list[float]:
    """Runs of two hours: `calm` visitors an hour, and `crowd` an hour for twenty minutes from minute 30 on."""
    rng, second, found = random.Random(seed), 0.0, list[float]()
    top = crowd * RUNS_EACH / 3600
    while second < 7200:
        second += rng.expovariate(top)
        share = 1.0 if 1800 <= second < 3000 else calm / crowd
        if rng.random() < share:
            found.append(second)
    return found


def scaled(service: Service, high: int) -> Report:
    """The same burst with up to `high` replicas."""
    scaling = Scaling(low=1, high=high, start_s=service.start_s)
    return simulate(burst(), lambda: service.clip_s, scaling)


def burst_table() -> tuple[list[str], dict[str, Report]]:
    lines = [
        "| model | replicas | wait p50 | p95 | longest | replica hours | the same, all the time |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    shown: dict[str, Report] = {}
    for service in SERVICES:
        most = max(math.ceil(1.1 * 3000 * RUNS_EACH / 3600 * service.clip_s), 2)
        report = scaled(service, most)
        shown[service.name] = report
        hours = report.end_s / 3600
        lines.append(
            f"| {service.name} | 1 to {most} | {report.quantile(0.5):.1f} s | {report.quantile(0.95):.0f} s | "
            f"{max(report.waits):.0f} s | {report.replica_s / 3600:.1f} | {most * hours:.1f} |"
        )
    return lines, shown


def draw(shown: dict[str, Report], file: Path) -> None:
    """What waits and what is up during the burst, a panel for each model."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(shown), figsize=(3.6 * len(shown), 2.8), constrained_layout=True)
    for panel, (name, report) in zip(panels, shown.items(), strict=True):
        minutes = [second / 60 for second, _, _ in report.history]
        panel.fill_between(minutes, [n for _, n, _ in report.history], color="#d9a441", alpha=0.6, label="runs waiting")
        panel.plot(minutes, [n for _, _, n in report.history], color="#0d6e61", label="replicas up")
        panel.set_title(name, fontsize=9)
        panel.set_xlabel("minutes", fontsize=8)
        panel.tick_params(labelsize=7)
    panels[0].legend(fontsize=7)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def text(prices: dict[str, float]) -> tuple[str, dict[str, Report]]:
    bursts, shown = burst_table()
    sources = [f"- {s.name}: {s.clip_s:g} s a clip, {s.start_s:g} s to start ({s.source})." for s in SERVICES]
    assumed = ", ".join(f"{device} {price:g} dollars an hour" for device, price in prices.items())
    rows = [
        f"{datetime.now(UTC).date()}; a visitor makes {RUNS_EACH} clips; {assumed} (assumed).",
        "",
        *sources,
        "",
        "Fewest replicas with which 95 of 100 runs wait at most "
        + ", ".join(f"{s.patience_s:g} s ({s.name})" for s in SERVICES)
        + ":",
        "",
        *fixed_table(prices),
        "",
        "A burst, 100 visitors an hour and for twenty minutes 3,000; replicas started and ended by what waits:",
        "",
        *bursts,
    ]
    return "\n".join(rows), shown


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity")
    parser.add_argument("--core", type=float, default=PRICES["core"], help="dollars for a core and hour")
    parser.add_argument("--h100", type=float, default=PRICES["H100"], help="dollars for an H100 and hour")
    parser.add_argument("--write", action="store_true", help="write docs/scaling.md and its picture")
    args: Any = parser.parse_args(argv)
    found, shown = text({"core": args.core, "H100": args.h100})
    print(found)
    if args.write:
        page = DOCS / "scaling.md"
        before, _, rest = page.read_text("utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        page.write_text(f"{before}{BEGIN}\n{found}\n{END}{after}", "utf-8")
        draw(shown, DOCS / "scaling.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
