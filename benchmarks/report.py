"""What `benchmarks.bench` found: rows of numbers, as JSON and as tables of docs/performance.md."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.pairs import Others, Ratio, Speed, machine

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
Group = Literal["models", "pipeline", "page", "visitors"]
TITLES: dict[Group, str] = {
    "models": "Networks and codecs",
    "pipeline": "A clip of nano, from click to file",
    "page": "From the start of the program to a page",
    "visitors": "Requests an hour",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measurement: the median of `value` in `unit` (s, an hour), and its ratio, `of` saying which to which."""

    group: Group
    name: str
    value: float
    unit: str
    of: str
    ratio: Ratio
    speed: Speed | None = None


@dataclass(slots=True, kw_only=True)
class Report:
    """All of a run. `peaks`: the most megabytes that tensors of a forward pass hold at once, by the case's name;
    `memory`: resident megabytes of processes; `left_out`: what was not measured, and why; `others_share`: of the
    processors' time, what other programs took meanwhile."""

    quick: bool = False
    clock: Callable[[], float] = time.monotonic
    date: str = field(default_factory=lambda: time.strftime("%Y-%m-%d", time.gmtime()))
    machine: dict[str, object] = field(default_factory=machine)
    rows: list[Row] = field(default_factory=list)
    peak_gflops: float | None = None
    peaks: dict[str, dict[str, float]] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    others: Others = field(default_factory=Others)
    others_share: float | None = None
    took_s: float = 0.0

    def add(self, row: Row) -> None:
        self.rows.append(row)
        print(f"{row.name}: {shown(row.value, row.unit)}, {row.of} {row.ratio.median:.3g}", flush=True)

    def close(self, took_s: float) -> None:
        self.took_s, self.others_share = round(took_s, 1), self.others.share()

    def to_json(self) -> dict[str, Any]:
        return {
            "date": self.date,
            "quick": self.quick,
            "machine": self.machine,
            "others_share": self.others_share,
            "took_s": self.took_s,
            "peak_gflops": self.peak_gflops,
            "rows": [asdict(row) for row in self.rows],
            "peaks": self.peaks,
            "memory": self.memory,
            "left_out": self.left_out,
        }

    def tables(self) -> str:
        """What stands in docs/performance.md between the two marks."""
        m = self.machine
        lines = [
            f"{self.date}; {m['processor']}, {m['cores']} cores, {m['threads']} threads, {m['memory_gb']} GB; torch "
            f"{m['torch']}, Python {m['python']}; {self.took_s:.0f} s in all.",
        ]
        if self.others_share is not None:
            lines.append(f"Meanwhile other programs took {100 * self.others_share:.0f} % of the processors' time.")
        if self.peak_gflops is not None:
            lines.append(f"Matrix products in the same rounds: {self.peak_gflops:g} GFLOP/s.")
        for group, title in TITLES.items():
            rows = [row for row in self.rows if row.group == group]
            if rows:
                lines += ["", f"### {title}", "", *table(rows)]
        if self.peaks:
            lines += ["", "### The most memory that tensors of one pass hold at once", "", *peak_table(self.peaks)]
        if self.memory:
            lines += ["", "### Resident memory of processes", "", "| process | MB |", "|---|---:|"]
            lines += [f"| {name} | {value:,.0f} |" for name, value in self.memory.items()]
        if self.left_out:
            lines += ["", *(f"Left out: {what}." for what in self.left_out)]
        return "\n".join(lines)


def table(rows: list[Row]) -> list[str]:
    """Rows of one group; columns that none of them fills are left out."""
    speeds = any(row.speed is not None for row in rows)
    computed = any(row.ratio.cpu is not None for row in rows)
    head = ["what", "median", "ratio", "of", "range"] + ["by computing time"] * computed + ["rounds"]
    head += ["GFLOP", "GFLOP/s", "of the peak"] * speeds
    words = {0, 3}
    lines = [line(head), "|" + "|".join("---" if i in words else "---:" for i in range(len(head))) + "|"]
    for row in rows:
        r = row.ratio
        cells = [row.name, shown(row.value, row.unit), f"{r.median:.3g}", row.of, f"{r.low:.3g} to {r.high:.3g}"]
        cells += ["" if r.cpu is None else f"{r.cpu:.3g}"] * computed
        cells += [str(r.rounds)]
        if speeds:
            s = row.speed
            cells += (
                ["", "", ""] if s is None else [f"{s.flops / 1e9:.3g}", f"{s.gflops:.3g}", f"{100 * s.of_peak:.0f} %"]
            )
        lines.append(line(cells))
    return lines


def peak_table(peaks: dict[str, dict[str, float]]) -> list[str]:
    lines = ["| what | ours, MB | reference, MB | ratio |", "|---|---:|---:|---:|"]
    for name, of in peaks.items():
        ours, reference = of["ours_mb"], of["reference_mb"]
        lines.append(line([name, f"{ours:,.1f}", f"{reference:,.1f}", f"{reference / max(ours, 1e-9):.3g}"]))
    return lines


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def shown(value: float, unit: str) -> str:
    """A number with its unit, seconds below a tenth as milliseconds."""
    if unit == "s" and value < 0.1:
        return f"{1000 * value:.3g} ms"
    return f"{value:.3g} s" if unit == "s" else f"{value:,.0f} {unit}"


def write(report: Report, page: Path) -> None:
    """The tables into `page` between its marks, and the JSON beside it. Raises ValueError where the marks are not
    there."""
    text = page.read_text("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no place for what was measured")
    page.write_text(f"{before}{BEGIN}\n{report.tables()}\n{END}{after}", "utf-8")
    page.with_suffix(".json").write_text(json.dumps(report.to_json(), indent=1) + "\n", "utf-8")
