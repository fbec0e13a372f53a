"""Every guidance rule at several scales: does the clip show the prompt, how varied and how burnt is it?

python -m opensora_demo.evaluation.guidance_rules nano --records RECORDS.jsonl              measures 256 prompts
python -m opensora_demo.evaluation.guidance_rules nano --records RECORDS.jsonl --write docs  and writes what is there

A prompt's clips, one for each cell (rule and scale), are made in one batch from one noise, every fourth prompt's once
more from another noise. A line of the records is one prompt, so that the program may be stopped at any time and goes on
where it was; a rule or scale that is asked for later is added to the prompts that lack it. `--write` puts the result
beside docs/guidance.md, as numbers and as a picture, and its table into that page.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter

from opensora_demo.catalog import find_model
from opensora_demo.evaluation import plots
from opensora_demo.evaluation.adherence import held_out_prompts
from opensora_demo.evaluation.markdown import number, percent, table
from opensora_demo.evaluation.studies.base import Counts, Setup, mean
from opensora_demo.evaluation.studies.guidance_scales import Colours
from opensora_demo.evaluation.study import fingerprint, plain
from opensora_demo.messages import message, render
from opensora_demo.metrics import pairwise_rms
from opensora_demo.pipeline import run
from opensora_demo.request.limits import Rule
from opensora_demo.request.parse import parse_request
from opensora_demo.request.video import Frames
from opensora_demo.runtime.bundle import build_bundle, fit_threads
from opensora_demo.toy.reader import at_reading_size, load_reader, read_clips
from opensora_demo.toy.worlds import Scene

PROMPTS, SCALES, TWICE_EVERY = 256, (2.0, 4.0, 7.0, 12.0), 4
OTHER_NOISE = 1_000_000  # between the seeds of a prompt's two noises
NORMAL_95 = 1.96
JSON, PICTURE, PAGE = "guidance_rules.json", "guidance_rules.png", "guidance.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

Cell = tuple[Rule, float]
NO_GUIDANCE: Cell = ("plain", 1.0)  # at scale 1 all rules are the prompt's prediction alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One clip: whether shape, colour, motion and background are right; means over its pixels, all in 0..1 (as
    `Colours` has them); and the RMS distance of pixels from the clip of another noise, where there is one."""

    rule: Rule
    scale: float
    right: bool
    saturation: float
    clipped: float
    distance: float | None = None

    @property
    def cell(self) -> Cell:
        return self.rule, self.scale


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A line of the records: a prompt's clips by weights of this fingerprint."""

    prompt: int
    weights: str
    steps: int
    shots: tuple[Shot, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AtCell:
    """Of a rule at a scale: prompts; share right with its 95 % interval (Wilson, 1927); means of the clips; diversity,
    the mean RMS distance between two clips of a prompt, over `pairs` prompts."""

    rule: Rule
    scale: float
    prompts: int
    right: float
    low: float
    high: float
    saturation: float
    clipped: float
    pairs: int
    diversity: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleStudy:
    """What docs/guidance_rules.json holds. `asked` are the prompts a cell should have."""

    model: str
    weights: str
    steps: int
    date: str
    asked: int
    cells: tuple[AtCell, ...]

    @property
    def prompts(self) -> tuple[int, int]:
        """The fewest and the most prompts of a cell."""
        counts = [cell.prompts for cell in self.cells]
        return min(counts), max(counts)

    def find(self, rule: Rule, scale: float) -> AtCell | None:
        return next((cell for cell in self.cells if (cell.rule, cell.scale) == (rule, scale)), None)

    @property
    def rules(self) -> tuple[Rule, ...]:
        return tuple(dict.fromkeys(cell.rule for cell in self.cells))

    @property
    def scales(self) -> tuple[float, ...]:
        return tuple(sorted({cell.scale for cell in self.cells} - {NO_GUIDANCE[1]}))


_RECORD, _STUDY = TypeAdapter(Record), TypeAdapter(RuleStudy)


# --- measuring


def cells_of(rules: Sequence[Rule], scales: Sequence[float]) -> tuple[Cell, ...]:
    return (NO_GUIDANCE, *((rule, scale) for rule in rules for scale in scales))


def clips_of(setup: Setup, scene: Scene, prompt: str, seed: int, steps: int, cells: Sequence[Cell]) -> list[Frames]:
    """A clip of each cell, from one noise. Rules that lack the same scales go together through the network."""
    made: dict[Cell, Frames] = {}
    lacking: dict[tuple[float, ...], list[Rule]] = {}
    for rule in dict.fromkeys(rule for rule, _ in cells):
        lacking.setdefault(tuple(scale for of, scale in cells if of == rule), []).append(rule)
    raw = {"prompt": prompt, "fps": scene.fps, "seed": seed, "steps": steps}
    one = parse_request(raw, model_id=setup.spec.id, limits=setup.spec.limits)
    for scales, rules in lacking.items():  # more columns than a visitor may have
        for clip in run(setup.bundle, replace(one, guidance=scales, rules=tuple(rules))).clips:
            made[clip.request.rules[0], clip.request.guidance[0]] = clip.frames
    return [made[cell] for cell in cells]


def shots_of(
    setup: Setup, scene: Scene, prompt: str, index: int, steps: int, cells: Sequence[Cell]
) -> tuple[Shot, ...]:
    """One prompt in the cells."""
    clips = clips_of(setup, scene, prompt, index, steps, cells)
    others: Sequence[Frames | None] = [None] * len(cells)
    if index % TWICE_EVERY == 0:
        others = clips_of(setup, scene, prompt, index + OTHER_NOISE, steps, cells)
    shots = []
    for (rule, scale), clip, other, reading in zip(cells, clips, others, read_clips(setup.reader, clips), strict=True):
        seen = at_reading_size(clip)
        colours = Colours.of(seen)
        shots.append(
            Shot(
                rule=rule,
                scale=scale,
                right=min(reading.matches(scene).values()) == 1,
                saturation=colours.saturation,
                clipped=colours.clipped,
                distance=None if other is None else pairwise_rms([seen, at_reading_size(other)]),
            )
        )
    return tuple(shots)


Measure = Callable[[Setup, Scene, str, int, int, Sequence[Cell]], tuple[Shot, ...]]


def collect(
    setup: Setup, file: Path, prompts: int, steps: int, cells: Sequence[Cell], measure: Measure = shots_of
) -> Iterator[int]:
    """Append to the records what they lack, and say each prompt's number when it is done. Records of other weights or
    steps are left alone, and count for nothing."""
    weights = fingerprint(setup.spec)
    if file.exists() and not (text := file.read_bytes()).endswith(b"\n"):  # stopped in the middle of a line
        file.write_bytes(text[: text.rfind(b"\n") + 1])
    there: dict[int, set[Cell]] = {}
    for record in read_records(file, weights, steps):
        there.setdefault(record.prompt, set()).update(shot.cell for shot in record.shots)
    for index, (scene, prompt) in enumerate(held_out_prompts(prompts, setup.fps)):
        lacking = [cell for cell in cells if cell not in there.get(index, ())]
        if lacking:
            shots = measure(setup, scene, prompt, index, steps, lacking)
            record = Record(prompt=index, weights=weights, steps=steps, shots=shots)
            with file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(plain(asdict(record))) + "\n")
        yield index


def read_records(file: Path, weights: str, steps: int) -> list[Record]:
    """Those of these weights and steps. A last line that was cut off in writing is passed over."""
    if not file.exists():
        return []
    lines = file.read_text("utf-8").split("\n")[:-1]
    records = [_RECORD.validate_json(line) for line in lines]
    return [record for record in records if (record.weights, record.steps) == (weights, steps)]


# --- the result


def wilson(right: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, "Probable inference, the law of succession, and statistical inference",
    1927, in the form of Brown, Cai & DasGupta, 2001, eq. 4)."""
    z2 = NORMAL_95**2
    middle = (right + z2 / 2) / (of + z2)
    half = NORMAL_95 / (of + z2) * math.sqrt(right * (of - right) / of + z2 / 4)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def study_of(model: str, records: Iterable[Record], asked: int, date: str) -> RuleStudy:
    """Raises ValueError without records."""
    shots: dict[Cell, list[Shot]] = {}
    found = list(records)
    if not found:
        raise ValueError(f"no records of {model} with these weights and steps")
    for record in found:
        for shot in record.shots:
            shots.setdefault(shot.cell, []).append(shot)
    return RuleStudy(
        model=model,
        weights=found[0].weights,
        steps=found[0].steps,
        date=date,
        asked=asked,
        cells=tuple(_at_cell(cell, of) for cell, of in shots.items()),
    )


def _at_cell(cell: Cell, shots: Sequence[Shot]) -> AtCell:
    right, distances = sum(shot.right for shot in shots), [s.distance for s in shots if s.distance is not None]
    low, high = wilson(right, len(shots))
    return AtCell(
        rule=cell[0],
        scale=cell[1],
        prompts=len(shots),
        right=right / len(shots),
        low=low,
        high=high,
        saturation=mean([shot.saturation for shot in shots]),
        clipped=mean([shot.clipped for shot in shots]),
        pairs=len(distances),
        diversity=mean(distances) if distances else None,
    )


def title(rule: Rule) -> str:
    return render(message(f"label.rule.{rule}"))


def chapter(study: RuleStudy) -> list[str]:
    """Markdown lines: what was measured, the table, the picture."""
    least, most = study.prompts
    count = f"{most}" if least == most else f"{least} to {most}"
    fewer = "" if least >= study.asked else f" ({study.asked} were asked for)"
    rows = []
    for cell in study.cells:
        rows.append(
            (
                title(cell.rule) if (cell.rule, cell.scale) != NO_GUIDANCE else "no guidance",
                f"{cell.scale:g}",
                f"{percent(cell.right)} ({100 * cell.low:.0f} to {100 * cell.high:.0f})",
                number(cell.diversity, 3),
                number(cell.saturation, 3),
                f"{100 * cell.clipped:.1f} %",
                str(cell.prompts),
            )
        )
    head = ("rule", "scale", "all four right (95 %)", "diversity", "saturation", "clipped", "prompts")
    return [
        f"{study.model} (weights {study.weights}), {study.steps} steps, {count} prompts a cell{fewer} that training "
        f"never saw, all cells of a prompt from one noise; {study.date}. All four: the reader names shape, colour, "
        "motion and background right, with Wilson's 95 % interval. Diversity: RMS distance (0..1) between two clips of "
        f"a prompt, over {max(cell.pairs for cell in study.cells)} prompts. Saturation: mean of HSV's S. Clipped: "
        "share of values at either end of the range.",
        "",
        f"![Adherence, diversity, saturation and clipping of each rule at each scale]({PICTURE})",
        "",
        *table(head, rows),
    ]


def plot(study: RuleStudy, file: Path) -> None:
    """Four tables of colours, rules by scales. Raises ImportError without matplotlib."""
    panels: Mapping[str, Callable[[AtCell], float | None]] = {
        "all four right, %": lambda cell: 100 * cell.right,
        "diversity (RMS distance)": lambda cell: cell.diversity,
        "saturation": lambda cell: cell.saturation,
        "clipped, %": lambda cell: 100 * cell.clipped,
    }
    rules, scales = study.rules, study.scales
    with plots.figure(file, [1.0] * len(panels), height_in=0.9 + 0.28 * len(rules)) as all_axes:
        for axes, (name, value) in zip(all_axes, panels.items(), strict=True):
            found = [[study.find(rule, scale) for scale in scales] for rule in rules]
            values = [plots.column([None if cell is None else value(cell) for cell in row]) for row in found]
            axes.imshow(values, aspect="auto", cmap="cividis")
            axes.set_title(name)
            axes.grid(visible=False)
            axes.set_xticks(range(len(scales)), [f"{scale:g}" for scale in scales])
            axes.set_yticks(range(len(rules)), [title(rule) for rule in rules] if axes is all_axes[0] else [])
            axes.set_xlabel("guidance scale")
            finite = [v for row in values for v in row if math.isfinite(v)]
            middle = (min(finite) + max(finite)) / 2 if finite else 0.0
            digits = 0 if name.startswith("all") else 1 if name.startswith("clipped") else 2
            for y, row in enumerate(values):
                for x, v in enumerate(row):
                    if math.isfinite(v):
                        colour = "white" if v <= middle else "black"
                        axes.text(x, y, f"{v:.{digits}f}", ha="center", va="center", color=colour, fontsize=7.5)


def read_rule_study(file: Path) -> RuleStudy:
    """Raises pydantic's ValidationError for a file that is none."""
    return _STUDY.validate_json(file.read_bytes())


def with_chapter(page: str, study: RuleStudy) -> str:
    """The page with the study's chapter between its marks. Raises ValueError without marks."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + "\n\n" + "\n".join(chapter(study)).rstrip() + "\n\n" + END + after


def write(study: RuleStudy, folder: Path) -> None:
    """Numbers, picture and the page's table."""
    study = _STUDY.validate_python(plain(asdict(study)))  # as the file has it
    (folder / JSON).write_text(json.dumps(plain(asdict(study)), indent=1) + "\n", "utf-8")
    page = folder / PAGE
    page.write_text(with_chapter(page.read_text("utf-8"), study), "utf-8")
    plot(study, folder / PICTURE)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m opensora_demo.evaluation.guidance_rules", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("model")
    parser.add_argument("--records", type=Path, required=True, help="file of one line a prompt; is added to")
    parser.add_argument("--prompts", type=int, default=PROMPTS, help=f"{PROMPTS} without it; 0 measures nothing")
    parser.add_argument("--steps", type=int, help="the model's own number without it")
    parser.add_argument("--rules", nargs="+", help="all of the model's without it")
    parser.add_argument("--scales", type=float, nargs="+", default=list(SCALES))
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the result beside guidance.md there")
    args = parser.parse_args()
    spec = find_model(args.model)
    rules = args.rules or spec.limits.rules
    if wrong := [rule for rule in rules if rule not in spec.limits.rules]:
        parser.error(f"{spec.id} has no {', '.join(wrong)}; there are {', '.join(spec.limits.rules)}")
    steps = args.steps or int(spec.limits.steps.default)
    if args.prompts:
        fit_threads()
        setup = Setup(bundle=build_bundle(spec), reader=load_reader(), counts=Counts())
        for index in collect(setup, args.records, args.prompts, steps, cells_of(rules, args.scales)):
            print(f"{index + 1} of {args.prompts} prompts", flush=True)
    if args.write is not None:
        records = read_records(args.records, fingerprint(spec), steps)
        date = datetime.now(UTC).date().isoformat()
        write(study_of(spec.id, records, args.prompts or PROMPTS, date), args.write)


if __name__ == "__main__":
    main()
