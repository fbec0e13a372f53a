"""The look of the pictures in the model cards, and how training went.

matplotlib is imported when a plot is drawn: it is in requirements-dev.txt and nothing else needs it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (2008): told apart by colour-blind readers too. Yellow is too faint on white.
BLUE, ORANGE, GREEN, PURPLE, SKY, INK, GREY = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#222222", "#8a8a8a"
)  # fmt: skip
LINES = (BLUE, ORANGE, GREEN, PURPLE, SKY)
WIDTH_IN, HEIGHT_IN, DPI = 8.4, 2.9, 96
_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
}


@contextmanager
def figure(file: Path, panels: Sequence[float], height_in: float = HEIGHT_IN) -> Iterator[list[Axes]]:
    """A row of axes of these relative widths, written to `file` as PNG in the end.

    Raises ImportError, saying what to install, without matplotlib.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("plots need matplotlib: pip install -r requirements-dev.txt") from None
    with rc_context(_STYLE):
        figure: Figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, layout="constrained")
        grid = figure.add_gridspec(1, len(panels), width_ratios=list(panels))
        yield [figure.add_subplot(grid[0, i]) for i in range(len(panels))]
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, facecolor="white", pil_kwargs={"optimize": True})


def spaced(wanted: Sequence[float], gap: float) -> list[float]:
    """Positions in the order of `wanted`, at least `gap` apart, each as near its own as that allows."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    blocks: list[tuple[float, list[int]]] = []  # centre and members
    for i in order:
        centre, members = wanted[i], [i]
        while blocks and centre - blocks[-1][0] < gap * (len(members) + len(blocks[-1][1])) / 2:
            other, more = blocks.pop()
            centre = (centre * len(members) + other * len(more)) / (len(members) + len(more))
            members = more + members
        blocks.append((centre, members))
    placed = [0.0] * len(wanted)
    for centre, members in blocks:
        for k, i in enumerate(members):
            placed[i] = centre + gap * (k - (len(members) - 1) / 2)
    return placed


def label_ends(axes: Axes, ends: Sequence[tuple[str, float, str]]) -> None:
    """Names (text, y, colour) beside the right end of their lines, moved apart where they would meet."""
    low, high = axes.get_ylim()
    if axes.get_yscale() == "log":
        low, high, ends = np.log10(low), np.log10(high), [(text, float(np.log10(y)), c) for text, y, c in ends]
    placed = spaced([y for _, y, _ in ends], 0.075 * (high - low))
    for (text, _, colour), y in zip(ends, placed, strict=True):
        axes.annotate(
            text,
            (1.015, (y - low) / (high - low)),
            xycoords="axes fraction",
            color=colour,
            va="center",
            fontsize=8.5,
            annotation_clip=False,
        )


def ticks(axes: Axes, values: Sequence[float]) -> None:
    axes.set_xticks(list(values), [f"{v:g}" for v in values])
    axes.minorticks_off()


def column(values: Sequence[float | None]) -> list[float]:
    """What was not measured is NaN, which is not drawn."""
    return [math.nan if value is None else value for value in values]


def not_too_close(axes: Axes, share: float = 0.4) -> None:
    """Widen the range of y to a share of its middle at least, so that a small change looks small."""
    low, high = axes.get_ylim()
    middle, half = (low + high) / 2, max(high - low, share * abs(low + high) / 2) / 2
    axes.set_ylim(middle - half, middle + half)


def logarithmic(axes: Axes) -> None:
    """Both axes, with y marked at 1, 2 and 5."""
    from matplotlib.ticker import LogLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")


def read_log(file: Path) -> dict[int, dict[str, float]]:
    """A run's log.jsonl: step -> its record. A resumed run repeats steps; the last time counts."""
    records = (json.loads(line) for line in file.read_text().splitlines() if line.strip())
    by_step = {int(record["step"]): record for record in records}
    return dict(sorted(by_step.items()))


def smoothed(values: Sequence[float], width: float) -> NDArray[np.float64]:
    """Medians of five, then a Gaussian mean of standard deviation `width` (in entries), with fewer at the ends.

    The medians pass over single records, such as a resumed run's first, which holds fewer steps than it is divided by.
    """
    padded = np.pad(np.asarray(values, np.float64), 2, mode="edge")
    medians = np.median(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=1)
    at = np.arange(len(values))
    weights = np.exp(-0.5 * ((at[:, None] - at[None]) / max(width, 1e-6)) ** 2)
    return weights @ medians / weights.sum(1)


def training_plot(logs: Mapping[str, Path], file: Path, metrics: Sequence[str] = ("loss", "psnr")) -> None:
    """Curves of one or more runs (name -> log.jsonl), each metric that a run has in a panel of its own.

    The thin line is medians of at most 40 groups of records, the thick one is smoothed.
    """
    runs = {name: read_log(log) for name, log in logs.items()}
    panels = [
        (name, metric, records)
        for name, records in runs.items()
        for metric in metrics
        if any(metric in record for record in records.values())
    ]
    if not panels:
        raise ValueError(f"no {' or '.join(metrics)} in {', '.join(map(str, logs.values()))}")
    with figure(file, [1.0] * len(panels)) as all_axes:
        for axes, (name, metric, records) in zip(all_axes, panels, strict=True):
            steps = [s for s, record in records.items() if metric in record]
            values = [records[s][metric] for s in steps]
            smooth = smoothed(values, len(values) / 40)
            groups = np.array_split(np.arange(len(values)), min(len(values), 40))
            thin = [float(np.median([values[i] for i in group])) for group in groups]
            axes.plot([steps[group[-1]] for group in groups], thin, color=SKY, linewidth=0.8)
            axes.plot(steps, smooth, color=BLUE)
            axes.set_title(f"{name}: {'PSNR, dB' if metric == 'psnr' else metric}")
            axes.set_xlabel("step")
            low, high = np.percentile(thin, (1, 99))  # a few records would flatten the rest
            axes.set_ylim(low - 0.08 * (high - low) - 1e-9, high + 0.08 * (high - low) + 1e-9)
