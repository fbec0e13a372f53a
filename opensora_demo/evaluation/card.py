"""A model's card: README.md beside its weights, written from its configuration, its files' headers and study.json.

python -m opensora_demo.evaluation.card nano
python -m opensora_demo.evaluation.card nano --logs transformer=RUNS/dit/log.jsonl VAE=RUNS/vae/log.jsonl

Every sentence that holds a number takes it from there; what was not measured is not mentioned.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from opensora_demo.catalog import ModelSpec, WeightFiles, find_model
from opensora_demo.evaluation.markdown import NOTHING, count, duration, picture, table
from opensora_demo.evaluation.plots import training_plot
from opensora_demo.evaluation.study import Study, read_study
from opensora_demo.messages import render
from opensora_demo.request.limits import Range
from opensora_demo.weights.reading import read_metadata, read_state
from opensora_demo.weights.store import ASSETS

PARTS = {"network": "transformer", "codec": "VAE", "text": "T5 text encoder", "clip": "CLIP text encoder"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTraining:
    """A part of a model: its parameters, the bytes of its files, and what their headers say of the training."""

    parameters: int
    bytes: int
    files: tuple[str, ...]
    command: str | None = None
    date: str | None = None
    data: str | None = None
    license: str | None = None
    step: str | None = None
    seconds: str | None = None


Training = Mapping[str, PartTraining]
"""By the name of the part, one of PARTS."""


def read_training(spec: ModelSpec, folder: Path) -> dict[str, PartTraining]:
    """Of each part of a model. Raises WeightsError for missing files."""
    assert isinstance(spec.weights, WeightFiles)
    parts: dict[str, PartTraining] = {}
    for part in PARTS:
        files = [folder / name for name in getattr(spec.weights, part)]
        if files:
            state, header = read_state(files), read_metadata(files[0])
            parts[part] = PartTraining(
                parameters=sum(value.numel() for value in state.values()),
                bytes=sum(file.stat().st_size for file in files),
                files=tuple(getattr(spec.weights, part)),
                command=header.get("command"),
                date=header.get("date"),
                data=_today(header.get("data")),
                license=header.get("license"),
                step=header.get("step"),
                seconds=header.get("seconds"),
            )
    return parts


def _today(data: str | None) -> str | None:
    """What a header says the data were, with the renderer's name of today: published headers have an older one."""
    return data and data.replace("opensora_demo.training.worlds", "opensora_demo.toy.worlds")


def _span(span: Range) -> str:
    return f"{span.low:g} to {span.high:g}"


def _config(config: Any) -> str:
    """A configuration as `name value` pairs; those inside it in brackets."""

    def pairs(fields: Mapping[str, Any]) -> str:
        parts = (f"{k} ({pairs(v)})" if isinstance(v, dict) else f"{k} {v}" for k, v in fields.items() if v is not None)
        return ", ".join(parts)

    return f"{type(config).__name__.removesuffix('Config')}: {pairs(asdict(config))}"


def _architecture(spec: ModelSpec, training: Training) -> list[str]:
    limits, (height_px, width_px) = spec.limits, spec.limits.size_px
    rows = [
        (f"{PARTS[part]} ({', '.join(info.files)})", count(info.parameters), f"{info.bytes / 1e6:.1f} MB")
        for part, info in training.items()
    ]
    total = sum(info.parameters for info in training.values()), sum(info.bytes for info in training.values())
    rows.append(("together", count(total[0]), f"{total[1] / 1e6:.1f} MB"))
    configs = [c for c in (spec.network, spec.codec, spec.text, spec.clip, spec.sampler) if c is not None]
    others = [n for n in limits.frames if n != limits.default_frames]
    takes = [
        f"Clips of {limits.default_frames} frames of {height_px} x {width_px} px"
        + (f" (also {', '.join(map(str, others))})" if others else ""),
        f"{limits.fps.default:g} FPS unless asked otherwise ({_span(limits.fps)})",
        f"{limits.steps.default:g} steps ({_span(limits.steps)})",
        f"guidance {limits.guidance.default:g} ({_span(limits.guidance)})",
        "a first frame may be given" if limits.reference else "takes no first frame",
    ]
    return [
        "## What it is",
        "",
        render(spec.summary),
        "",
        "; ".join(takes) + ".",
        "",
        *table(("part", "parameters", "size"), rows),
        "Its numbers, as the catalog has them:",
        "",
        *(f"- `{_config(config)}`" for config in configs),
        "",
    ]


def _training(training: Training, pictures: Sequence[str]) -> list[str]:
    infos = training.values()
    rows = [
        (
            PARTS[part],
            info.step or NOTHING,
            duration(float(info.seconds)) if info.seconds else NOTHING,
            info.date or NOTHING,
        )
        for part, info in training.items()
    ]
    data = dict.fromkeys(info.data for info in infos if info.data)
    commands = dict.fromkeys(info.command for info in infos if info.command)
    runs = {(info.step, info.seconds) for info in infos if info.step and info.seconds}
    together = f"run; together {duration(sum(float(seconds) for _, seconds in runs if seconds))}." if runs else "run."
    return [
        "## How it was trained",
        "",
        *(f"Data: {text}." for text in data),
        "",
        "Steps and wall time of each file's last stage, from its header. Parts of equal numbers were trained in one",
        together,
        "",
        *table(("part", "steps", "time", "date"), rows),
        *(f"    {command}" for command in commands),
        "",
        *picture("Training curves", "training.png", pictures),
    ]


def _measuring(spec: ModelSpec, study: Study, pictures: Sequence[str]) -> list[str]:
    """How the numbers were had, and how far what measures them can be trusted."""
    settings = study.settings
    lines = [
        "## How it was measured",
        "",
        f"By `python -m opensora_demo.evaluation.study {spec.id}` ({', '.join(sorted(set(study.dates.values())))}; "
        f"{duration(sum(study.seconds.values()))} on {study.device}): {settings.frames} frames of {settings.size_px} "
        f"px, {settings.fps:g} FPS, guidance {settings.guidance:g}, {settings.steps:g} steps of {settings.sampler}, "
        f"where nothing else is said. Weights {study.weights}. The numbers are in [study.json](study.json).",
        "",
    ]
    for part in study.parts:
        if part.of_instrument:
            lines += part.chapter(spec, study, pictures)
    return lines


def limits_of(spec: ModelSpec, study: Study) -> list[str]:
    """What does not work, as far as it was measured: sentences, those about what measures last."""
    sizes = [config.vocabulary for config in (spec.text, spec.clip) if config is not None]
    return [
        *(line for part in study.parts if not part.of_instrument for line in part.limits(spec, study)),
        f"It knows at most {max(sizes)} words and characters; every other word is read as unknown."
        if sizes
        else f"It knows {len(spec.labels)} classes and no text.",
        *(line for part in study.parts if part.of_instrument for line in part.limits(spec, study)),
    ]


def card_text(spec: ModelSpec, study: Study, training: Training, pictures: Sequence[str] = ()) -> str:
    """The card as Markdown; `pictures` names those that lie beside it."""
    lines = [f"# {spec.title}", "", *_architecture(spec, training), *_training(training, pictures)]
    lines += _measuring(spec, study, pictures)
    for part in study.parts:
        if not part.of_instrument:
            lines += part.chapter(spec, study, pictures)
    lines += ["## Limits", "", *(f"- {sentence}" for sentence in limits_of(spec, study)), ""]
    if licences := dict.fromkeys(info.license for info in training.values() if info.license):
        lines += ["## Licence", "", f"{', '.join(licences)}, code and weights.", ""]
    return "\n".join(lines).rstrip() + "\n"


def write_plots(study: Study, folder: Path, logs: Mapping[str, Path] | None = None) -> list[Path]:
    """The pictures of those parts that have one, and training.png of the logs, in `folder`."""
    written = [file for part in study.parts if part.picture and part.plot(file := folder / part.picture)]
    if logs:
        training_plot(logs, folder / "training.png")
        written.append(folder / "training.png")
    return written


def write_card(
    spec: ModelSpec, folder: Path, study: Study, training: Training, logs: Mapping[str, Path] | None = None
) -> Path:
    """README.md in `folder`, and the plots that it shows. `training` is `read_training`'s, `logs` are those of
    `plots.training_plot`. Raises ImportError, before anything is written, without matplotlib."""
    write_plots(study, folder, logs)
    file = folder / "README.md"
    file.write_text(card_text(spec, study, training, [picture.name for picture in folder.glob("*.png")]))
    return file


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m opensora_demo.evaluation.card", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("model")
    parser.add_argument("--study", type=Path, help="study.json; the one beside the weights without it")
    parser.add_argument("--out", type=Path, help="folder for README.md and plots; the model's own without it")
    parser.add_argument("--logs", nargs="*", default=[], metavar="NAME=FILE", help="log.jsonl files of training runs")
    args = parser.parse_args()
    spec = find_model(args.model)
    if not isinstance(spec.weights, WeightFiles):
        parser.error(f"{spec.id} has no weights of ours to tell of")
    if wrong := [text for text in args.logs if "=" not in text]:
        parser.error(f"--logs takes NAME=FILE, not {wrong[0]}")
    folder = ASSETS / spec.weights.folder
    study = read_study(args.study or folder / "study.json")
    out: Path = args.out or folder
    out.mkdir(parents=True, exist_ok=True)
    logs = {name: Path(file) for name, file in (text.split("=", 1) for text in args.logs)}
    print(write_card(spec, out, study, read_training(spec, folder), logs))


if __name__ == "__main__":
    main()
