"""Pictures of what `study` measured and of how training went, for the model cards; and sheets of clips to look at.

matplotlib is imported when a plot is drawn: it is in requirements-dev.txt and nothing else needs it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from opensora_demo.grid import compose_grid
from opensora_demo.training.worlds import SPEEDS
from opensora_demo.types import Frames

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
def _figure(file: Path, panels: Sequence[float]) -> Iterator[list[Axes]]:
    """A row of axes of these relative widths, written to `file` as PNG in the end.

    Raises ImportError, saying what to install, without matplotlib.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("plots need matplotlib: pip install -r requirements-dev.txt") from None
    with rc_context(_STYLE):
        figure: Figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), dpi=DPI, layout="constrained")
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


def _label_ends(axes: Axes, ends: Sequence[tuple[str, float, str]]) -> None:
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


def _ticks(axes: Axes, values: Sequence[float]) -> None:
    axes.set_xticks(list(values), [f"{v:g}" for v in values])
    axes.minorticks_off()


def _column(rows: Mapping[str, Mapping[str, Any]], name: str) -> list[float]:
    return [float("nan") if row.get(name) is None else float(row[name]) for row in rows.values()]


def _not_too_close(axes: Axes, share: float = 0.4) -> None:
    """Widen the range of y to a share of its middle at least, so that a small change looks small."""
    low, high = axes.get_ylim()
    middle, half = (low + high) / 2, max(high - low, share * abs(low + high) / 2) / 2
    axes.set_ylim(middle - half, middle + half)


def guidance_plot(table: Mapping[str, Any], file: Path) -> None:
    """Adherence, diversity and saturation over the scale, from `study.guidance_study`."""
    rows = table["scales"]
    scales = [float(s) for s in rows]
    attributes = ("all four", "motion", "shape", "colour", "background")
    with _figure(file, (1.5, 1, 1)) as (left, middle, right):
        ends = []
        for name, colour in zip(attributes, (BLUE, PURPLE, ORANGE, SKY, GREEN), strict=True):
            values = [100 * v for v in _column(rows, name)]
            wide = name == "all four"  # below the others, and seen where one of them covers it
            left.plot(scales, values, "o-", color=colour, linewidth=3.2 if wide else 1.4, markersize=6 if wide else 3.5)
            ends.append((name, values[-1], colour))
        left.set_title("right, % of clips")
        left.set_ylim(min(*left.get_ylim(), 80), 102)
        _label_ends(left, ends)
        for axes, name, title in (
            (middle, "diversity", "diversity (RMS distance)"),
            (right, "saturation", "saturation"),
        ):
            values = _column(rows, name)
            axes.plot(scales, values, "o-", color=BLUE)
            axes.set_title(title)
            ends = [("model", values[-1], BLUE)]
            if (drawn := table["rendered"].get(name)) is not None:
                axes.axhline(drawn, color=GREY, linestyle="--", linewidth=1.2)
                ends.append(("rendered", drawn, GREY))
            _not_too_close(axes)
            _label_ends(axes, ends)
        for axes in (left, middle, right):
            axes.set_xlabel("guidance scale")
            _ticks(axes, [s for s in scales if s == int(s)])


def read_log(file: Path) -> dict[int, dict[str, float]]:
    """A run's log.jsonl: step -> its record. A resumed run repeats steps; the last time counts."""
    records = (json.loads(line) for line in file.read_text().splitlines() if line.strip())
    found = {int(record["step"]): record for record in records}
    return dict(sorted(found.items()))


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
    with _figure(file, [1.0] * len(panels)) as all_axes:
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


def fps_plot(table: Mapping[str, Any], file: Path) -> None:
    """Measured speed over FPS for each speed word, from `study.fps_study`; dashed: what the word meant in training."""
    rates = [int(r) for r in table["rates"]]
    with _figure(file, (1.25, 1)) as (left, right):
        ends = []
        for speed, colour, aside in zip(SPEEDS, (GREEN, BLUE, ORANGE), (-0.15, 0.0, 0.15), strict=True):
            rows = {fps: row[speed] for fps, row in table["rates"].items()}
            nominal, means = table["nominal"][speed], _column(rows, "mean")
            left.axhline(nominal, color=colour, linestyle="--", linewidth=1)
            beside = [r + aside for r in rates]  # so that bars do not cover each other
            left.errorbar(beside, means, _column(rows, "std"), fmt="o-", color=colour, elinewidth=1, capsize=2)
            ends.append((f"{speed} ({nominal:g})", nominal, colour))
        left.set_title("speed, px a second, with standard deviation")
        left.set_ylim(0, max(1.3 * max(table["nominal"].values()), 1.05 * left.dataLim.y1))
        _label_ends(left, ends)
        ends = []
        for name, key, colour in (("model", "ratio", BLUE), ("rendered", "rendered ratio", GREY)):
            values = _column(table["rates"], key)
            right.plot(rates, values, "o-", color=colour)
            ends.append((name, values[-1], colour))
        right.axhline(1, color=GREY, linestyle="--", linewidth=1)
        right.set_title("measured / asked, mean of three speeds")
        right.set_ylim(0, max(1.2, *right.get_ylim()))
        _label_ends(right, ends)
        for axes in (left, right):
            axes.set_xlabel("frames a second")
            _ticks(axes, rates)


def _short(names: Sequence[str]) -> list[str]:
    """What tells samplers apart: their names without the parts that all of them share."""
    parts = [name.split(", ") for name in names]
    shared = set(parts[0]).intersection(*parts[1:]) if len(parts) > 1 else set()
    return [", ".join(p for p in some if p not in shared) or ", ".join(some[:2]) for some in parts]


def steps_plot(table: Mapping[str, Any], file: Path) -> None:
    """Adherence and distance from the fine solution over the number of steps, from `study.steps_study`."""
    samplers = table["samplers"]
    names = _short(list(samplers))
    counts = [int(s) for s in next(iter(samplers.values()))]
    known = any(row["distance"] for rows in samplers.values() for row in rows.values())
    with _figure(file, (1, 1) if known else (1,)) as panels:
        left = panels[0]
        share, distance = [], []
        for name, rows, colour in zip(names, samplers.values(), LINES, strict=False):
            values = [100 * v for v in _column(rows, "all four")]
            left.plot(counts, values, "o-", color=colour)
            share.append((name if len(names) > 1 else "model", values[-1], colour))
            apart = _column(rows, "distance")
            if known and np.isfinite(apart).any():
                panels[1].plot(counts, apart, "o-", color=colour)
                distance.append((name, apart[-1], colour))
        left.set_title("all four right, % of clips")
        if table["fine"]:
            best = 100 * table["fine"]["all four"]
            left.axhline(best, color=GREY, linestyle="--", linewidth=1.2)
            share.append((f"{table['fine']['steps']} steps", best, GREY))
        _not_too_close(left)
        left.set_ylim(left.get_ylim()[0], min(left.get_ylim()[1], 102))
        _label_ends(left, share)
        if known:
            from matplotlib.ticker import LogLocator

            panels[1].set_title(f"RMS distance of latents from {table['fine']['steps']} steps")
            panels[1].set_xscale("log")
            panels[1].set_yscale("log")
            panels[1].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panels[1].yaxis.set_major_formatter("{x:g}")
            if len(distance) > 1:
                _label_ends(panels[1], distance)
        for axes in panels:
            axes.set_xlabel("steps")
            _ticks(axes, counts)


def write_plots(study: Mapping[str, Any], folder: Path, logs: Mapping[str, Path] | None = None) -> list[Path]:
    """guidance.png, fps.png, steps.png and training.png in `folder`: those for which there are numbers."""
    written: list[Path] = []
    for name, draw in (("guidance", guidance_plot), ("fps", fps_plot), ("steps", steps_plot)):
        if name not in study or (name == "fps" and len(study["fps"]["rates"]) < 2):
            continue
        draw(study[name], folder / f"{name}.png")
        written.append(folder / f"{name}.png")
    if logs:
        training_plot(logs, folder / "training.png")
        written.append(folder / "training.png")
    return written


def contact_sheet(clips: Sequence[Frames], prompts: Sequence[str], *, shown: int = 5, frame_px: int = 128) -> Frames:
    """One picture (1, h, w, 3): each clip a row of `shown` frames from first to last, at least `frame_px` high, under
    its prompt."""
    rows = []
    for clip, prompt in zip(clips, prompts, strict=True):
        at = np.linspace(0, len(clip) - 1, min(shown, len(clip))).round().astype(int)
        gap = np.full((clip.shape[1], 1, 3), 255, np.uint8)
        parts = [part for i in at for part in (clip[i], gap)][:-1]
        grid, _ = compose_grid([[np.concatenate(parts, 1)[None]]], [prompt], [""], [1], min_px=frame_px)
        rows.append(np.stack(list(grid)))
    width = max(row.shape[2] for row in rows)
    return np.concatenate([np.pad(r, ((0, 0), (0, 0), (0, width - r.shape[2]), (0, 0)), mode="edge") for r in rows], 1)


def write_picture(picture: Frames, file: Path) -> None:
    """One picture (1, h, w, 3) as PNG. Raises ImportError as the plots do."""
    try:
        from matplotlib.image import imsave
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install -r requirements-dev.txt") from None
    imsave(file, picture[0])
