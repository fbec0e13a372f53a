"""Three ways for text to reach one small STDiT, measured and shown: `python -m opensora_demo.ui.make_modes`.

The networks differ in nothing else: the same widths and depths, latents, text encoder, seed, budget of training. Writes
what "How it works" shows of them, modes.json and clips of the same noise in `assets/ui/modes`, and the table of
docs/text_modes.md. How often clips are right comes from each model's study.json
(`python -m opensora_demo.evaluation.study MODEL`); what a call costs is measured here, the networks in turn.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from opensora_demo.catalog import MODELS, ModelSpec, WeightFiles
from opensora_demo.evaluation.markdown import percent, table
from opensora_demo.evaluation.study import fingerprint, read_study
from opensora_demo.evaluation.text_modes import BATCH, THREE, measure_costs
from opensora_demo.locations import assets_dir
from opensora_demo.media import write_mp4
from opensora_demo.messages import message, render
from opensora_demo.pipeline import run
from opensora_demo.request.parse import parse_request
from opensora_demo.runtime.bundle import build_bundle, fit_threads
from opensora_demo.service.outputs import marks_of
from opensora_demo.ui.scripts import UI_ASSETS
from opensora_demo.ui.values.modes import ModeClip, ModesValue, ModeValue
from opensora_demo.ui.values.verdict import verdict
from opensora_demo.weights.reading import read_metadata

FOLDER = UI_ASSETS / "modes"
DOCS = Path(__file__).resolve().parents[2] / "docs" / "text_modes.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
PROMPTS = (
    "a red ball bouncing over a meadow",
    "a yellow star spinning in the night sky",
    "a big blue ring moving in a circle at sunset",
    "a yellow star spins on the left, a blue ball bounces on the right, in the desert",
)
SEED = 7


class _Shares(NamedTuple):
    """What a study says of one object and of two: how many prompts, and the share of clips that are right."""

    prompts: int | None = None
    right: float | None = None
    two_prompts: int | None = None
    two: float | None = None


def _shares(spec: ModelSpec) -> _Shares:
    """Nothing of a network without weights. Raises SystemExit where its study lacks a part."""
    assert isinstance(spec.weights, WeightFiles)
    if spec.id not in MODELS:
        return _Shares()
    study = read_study(assets_dir() / spec.weights.folder / "study.json")
    one, two = study.adherence, study.other_captions
    if one is None or two is None:
        raise SystemExit(f"{spec.id}: measure adherence and other_captions first")
    return _Shares(one.prompts, one.new_prompts.all_right, two.two_prompts, two.two_objects.all_right)


def cpu_minutes(header: Mapping[str, str]) -> float:
    """Of training, as the command in a file's header gives them; else those that went by."""
    given = re.search(r"--cpu-minutes (\d+(?:\.\d+)?)", header["command"])
    return float(given[1]) if given else float(header["seconds"]) / 60


def _clips(spec: ModelSpec, folder: Path) -> list[ModeClip]:
    """The prompts' clips from one seed, so from the same noise for all three."""
    bundle = build_bundle(spec)
    made: list[ModeClip] = []
    for i, prompt in enumerate(PROMPTS, 1):
        request = parse_request({"prompt": prompt, "seed": SEED}, model_id=spec.id, limits=spec.limits)
        (clip,) = run(bundle, request).clips
        name = f"{spec.id}-{i}.mp4"
        write_mp4(folder / name, clip.frames, request.fps, request.settings())
        marks = marks_of(clip)
        assert marks is not None
        made.append({"url": name, "verdict": verdict(marks)})
    return made


def make(folder: Path) -> ModesValue:
    """Measure, write clips and modes.json into `folder`, and answer the value."""
    folder.mkdir(parents=True, exist_ok=True)
    modes, minutes = list[ModeValue](), list[float]()
    costs = measure_costs(THREE)
    shares = [_shares(spec) for spec in THREE]
    for spec, share in zip(THREE, shares, strict=True):
        assert isinstance(spec.weights, WeightFiles)
        cost, trained = costs[spec.id], share.right is not None
        if trained:
            files = [assets_dir() / spec.weights.folder / name for name in spec.weights.network]
            minutes.append(cpu_minutes(read_metadata(files[0])))
        modes.append(
            {
                "model": spec.id,
                "weights": fingerprint(spec) if trained else None,
                "title": spec.title,
                "mode": spec.network.conditioning,  # type: ignore[attr-defined]
                "parameters": cost.parameters,
                "gflop": round(cost.gflop, 3),
                "ms": round(cost.ms, 1),
                "mb": round(cost.mb),
                "right": share.right,
                "two": share.two,
                "clips": _clips(spec, folder) if trained else [],
            }
        )
    value: ModesValue = {
        "modes": modes,
        "shown": list(PROMPTS),
        "seed": SEED,
        "batch": BATCH,
        "minutes": round(statistics.mean(minutes)) if minutes else None,
        "prompts": shares[0].prompts,
        "two_prompts": shares[0].two_prompts,
        "date": datetime.now(UTC).date().isoformat(),
    }
    (folder / "modes.json").write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", "utf-8")
    return value


def title_of(mode: ModeValue) -> str:
    """In what way text comes in, in English."""
    name = mode["mode"].replace("-", "_")
    return render(message(f"ui.explain.modes.{name}"))


def table_of(value: ModesValue) -> str:
    """The table of docs/text_modes.md; how often clips are right where that was measured."""
    head = ["text comes in by", "parameters", "GFLOP a call", "ms a call", f"MB in a training step of {value['batch']}"]
    if measured := value["prompts"] is not None:
        head += [f"one object: all four right ({value['prompts']})"]
        head += [f"two objects: everything right ({value['two_prompts']})"]
    rows = [
        (
            f"{title_of(mode)} (`{mode['model']}`)",
            f"{mode['parameters'] / 1e6:.2f} M",
            f"{mode['gflop']:.2f}",
            f"{mode['ms']:.1f}",
            f"{mode['mb']:.0f}",
            *((percent(mode["right"]), percent(mode["two"])) if measured else ()),
        )
        for mode in value["modes"]
    ]
    return "\n".join(table(head, rows))


def write_docs(value: ModesValue, page: Path) -> None:
    """The table into the page, between its marks."""
    text = page.read_text("utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n\n{table_of(value).rstrip()}\n\n{END}{after}", "utf-8")


def main() -> None:
    fit_threads()
    value = make(FOLDER)
    write_docs(value, DOCS)
    print(table_of(value))


if __name__ == "__main__":
    main()
