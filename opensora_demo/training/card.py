"""A model's card: README.md beside its weights, written from its configuration, its files' headers and study.json.

python -m opensora_demo.training.card nano
python -m opensora_demo.training.card nano --logs transformer=RUNS/dit/log.jsonl VAE=RUNS/vae/log.jsonl

Every sentence that holds a number takes it from there; what was not measured is not mentioned.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from opensora_demo.catalog import ModelSpec, WeightFiles, find_model
from opensora_demo.store import ASSETS
from opensora_demo.training.plots import write_plots
from opensora_demo.weights import read_metadata, read_state

Table = Mapping[str, Any]
PARTS = {"network": "transformer", "codec": "VAE", "text": "T5 text encoder", "clip": "CLIP text encoder"}
ATTRIBUTES = ("shape", "colour", "motion", "background")


def read_training(spec: ModelSpec, folder: Path) -> dict[str, dict[str, Any]]:
    """For each part of a model: its parameters, the bytes of its files, and what their headers tell of its training
    (step, seconds, command, date, data, license, where told). Raises WeightsError for missing files."""
    assert isinstance(spec.weights, WeightFiles)
    found: dict[str, dict[str, Any]] = {}
    for part in PARTS:
        files = [folder / name for name in getattr(spec.weights, part)]
        if not files:
            continue
        state = read_state(files)
        story = read_metadata(files[0])
        kept = ("command", "date", "data", "license", "step", "seconds")
        found[part] = {
            "parameters": sum(value.numel() for value in state.values()),
            "bytes": sum(file.stat().st_size for file in files),
            "files": list(getattr(spec.weights, part)),
            **{key: story[key] for key in kept if key in story},
        }
    return found


# --- words for numbers -----------------------------------------------------------------------------------------------


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _count(number: int) -> str:
    return f"{number / 1e6:.2f} M" if number >= 1e5 else f"{number / 1e3:.1f} k"


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"


def _ratio(a: float | None, b: float | None) -> float | None:
    return None if a is None or not b else a / b


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, numbers to the right."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def _margin(count: int) -> str:
    """Half of the widest 95 % interval of a share of `count` (normal approximation, share one half), in points."""
    return f"± {100 * 1.96 * math.sqrt(0.25 / count):.0f}"


def _range(span: Any) -> str:
    return f"{span.low:g} to {span.high:g}"


def _config(config: Any) -> str:
    """A configuration as `name value` pairs; those inside it in brackets."""

    def told(fields: Mapping[str, Any]) -> str:
        parts = (f"{k} ({told(v)})" if isinstance(v, dict) else f"{k} {v}" for k, v in fields.items() if v is not None)
        return ", ".join(parts)

    return f"{type(config).__name__.removesuffix('Config')}: {told(asdict(config))}"


# --- chapters --------------------------------------------------------------------------------------------------------


def _architecture(spec: ModelSpec, training: Table) -> list[str]:
    limits, (height_px, width_px) = spec.limits, spec.limits.size_px
    rows = [
        (
            f"{PARTS[part]} ({', '.join(info['files'])})",
            _count(info["parameters"]),
            f"{info['bytes'] / 1e6:.1f} MB",
        )
        for part, info in training.items()
    ]
    total = sum(info["parameters"] for info in training.values()), sum(info["bytes"] for info in training.values())
    rows.append(("together", _count(total[0]), f"{total[1] / 1e6:.1f} MB"))
    configs = [c for c in (spec.network, spec.codec, spec.text, spec.clip, spec.sampler) if c is not None]
    others = [n for n in limits.frames if n != limits.default_frames]
    takes = [
        f"Clips of {limits.default_frames} frames of {height_px} x {width_px} px"
        + (f" (also {', '.join(map(str, others))})" if others else ""),
        f"{limits.fps.default:g} FPS unless asked otherwise ({_range(limits.fps)})",
        f"{limits.steps.default:g} steps ({_range(limits.steps)})",
        f"guidance {limits.guidance.default:g} ({_range(limits.guidance)})",
        "a first frame may be given" if limits.reference else "takes no first frame",
    ]
    return [
        "## What it is",
        "",
        spec.summary,
        "",
        "; ".join(takes) + ".",
        "",
        *_rows(("part", "parameters", "size"), rows),
        "Its numbers, as the catalog has them:",
        "",
        *(f"- `{_config(config)}`" for config in configs),
        "",
    ]


def _training(training: Table, plot: bool) -> list[str]:
    rows = [
        (
            PARTS[part],
            info.get("step", "–"),
            _time(float(info["seconds"])) if "seconds" in info else "–",
            info.get("date", "–"),
        )
        for part, info in training.items()
    ]
    stories = training.values()
    data = dict.fromkeys(info["data"] for info in stories if "data" in info)
    commands = dict.fromkeys(info["command"] for info in stories if "command" in info)
    runs = {(info["step"], info["seconds"]) for info in stories if "step" in info and "seconds" in info}
    lines = ["## How it was trained", "", *(f"Data: {text}." for text in data), ""]
    lines += [
        "Steps and wall time of each file's last stage, from its header. Parts of equal numbers were trained in one"
    ]
    lines += [f"run; together {_time(sum(float(seconds) for _, seconds in runs))}.", ""] if runs else ["run.", ""]
    lines += _rows(("part", "steps", "time", "date"), rows)
    lines += [f"    {command}" for command in commands] + [""]
    return lines + (["![Training curves](training.png)", ""] if plot else [])


def _adherence(table: Table) -> list[str]:
    names = (*ATTRIBUTES, "all four")
    kinds = {"prompts that are new": "prompts", "combinations that are new": "unseen prompts"}
    rows = [(kind, str(table[count]), *(_percent(table[kind][n]) for n in names)) for kind, count in kinds.items()]
    return [
        "## Does a clip show what its prompt says?",
        "",
        f"Prompts that training never saw; shares are uncertain by {_margin(table['prompts'])} points at most (95 %). "
        "A tenth of all combinations of shape, colour and motion was kept out of training.",
        "",
        *_rows(("", "number", *names), rows),
    ]


def _guidance(spec: ModelSpec, table: Table, plot: bool) -> list[str]:
    names = [*ATTRIBUTES, "all four", "all four, unseen"]
    shown = ("diversity", "track", "saturation", "chroma", "contrast", "clipped")
    head = ("guidance", *names, "diversity", "track, px", *shown[2:-1], "clipped")
    rows = [
        (key, *(_percent(row.get(n)) for n in names), *(_number(row.get(n), 1 if n == "track" else 3) for n in shown))
        for key, row in table["scales"].items()
    ]
    drawn = table["rendered"]
    rows.append(("rendered", *("" for _ in names), *(_number(drawn[n], 1 if n == "track" else 3) for n in shown)))
    return [
        "## Guidance",
        "",
        f"The default is {spec.limits.guidance.default:g}. {table['prompts']} prompts that training never saw, the "
        "same noise at every scale; shares are uncertain by "
        f"{_margin(table['prompts'])} points (95 %). Unseen: the {table['unseen']} of them whose combination of shape, "
        "colour and motion was kept out of training.",
        f"Diversity is the mean RMS distance (0..1) between clips of one prompt from {table['seeds']} noises, over "
        f"{table['diverse']} prompts, track the same of the object's position; rendered is the same of training's "
        "renderer.",
        "",
        *_rows(head, rows),
        *(["![Adherence, diversity and saturation over guidance](guidance.png)", ""] if plot else []),
    ]


def _captions(table: Table) -> list[str]:
    two, chinese = table["two objects"], table["Chinese"]
    names = (*ATTRIBUTES, "arrangement", "everything")
    rows = [
        ("two objects", str(two["prompts"]), *(_percent(two.get(n)) for n in names)),
        ("Chinese", str(chinese["prompts"]), *(_percent(chinese.get(n, chinese.get("all four"))) for n in names)),
    ]
    rows[1] = (*rows[1][:6], "–", rows[1][7])
    return ["## Two objects, and Chinese", "", *_rows(("prompts", "number", *names), rows)]


def _negative(table: Table) -> list[str]:
    names = {"without": "no negative prompt", "word": "the value's name", "caption": "a caption with it"}
    rows = [
        (
            f"{attribute}, {noise}",
            *(_percent(table[attribute][noise][way]["still there"]) for way in names),
            *(_percent(table[attribute][noise][way]["shape"]) for way in names),
        )
        for attribute in table
        if attribute != "prompts"
        for noise in table[attribute]
    ]
    return [
        "## Negative prompts",
        "",
        f"{table['prompts']} prompts each that leave colour or background open; the negative prompt names what came "
        "out without it. How often that is there, and how often the prompt's shape is. With the same noise it was "
        "there by choice of the value, so the other noise is the fair comparison.",
        "",
        *_rows(("", *names.values(), *(f"shape: {name}" for name in names.values())), rows),
    ]


def _right_way(rows: Sequence[Table]) -> str:
    measured = sum(row["measured"] for row in rows)
    return f"{_percent(_ratio(sum(row['right way'] for row in rows), measured))} of {measured}"


def _fps(table: Table, plot: bool) -> list[str]:
    speeds = list(table["nominal"])
    head = (
        "FPS",
        *(f"{s} ({table['nominal'][s]:g} px/s)" for s in speeds),
        "ratio",
        "rendered",
        "right way",
    )
    rows = [
        (
            fps,
            *(f"{_number(row[s]['mean'], 1)} (median {_number(row[s]['median'], 1)})" for s in speeds),
            *(_number(row[key]) for key in ("ratio", "rendered ratio")),
            _right_way([row[s] for s in speeds]),
        )
        for fps, row in table["rates"].items()
    ]
    told = "" if table["told"] else " This model is not told the frame rate; it is measured at its own."
    return [
        "## Speed and FPS",
        "",
        f"Speed of straight motions, px (64ths of the side) a second, against what the words meant in training.{told} "
        "Means and medians are of clips that move the way they were asked to (right way, of those that show the object "
        "long enough). Rendered is the ratio of the renderer's own clips: how far it is from 1 is the error of "
        "measuring.",
        "",
        *_rows(head, rows),
        *(["![Measured speed over FPS](fps.png)", ""] if plot else []),
    ]


def _steps(table: Table, plot: bool) -> list[str]:
    samplers = table["samplers"]
    counts = list(next(iter(samplers.values())))
    rows = []
    for name, found in samplers.items():
        rows.append((f"{name}: all four", *(_percent(found[c]["all four"]) for c in counts)))
        if any(found[c]["distance"] is not None for c in counts):
            rows.append((f"{name}: distance", *(_number(found[c]["distance"], 3) for c in counts)))
    fine = table["fine"]
    said = "" if fine is None else f" {fine['steps']} steps of {fine['sampler']}: {_percent(fine['all four'])}."
    distance = "" if fine is None else " Distance: RMS of the latents, of about unit variance, from there."
    return [
        "## Steps",
        "",
        f"Share of clips with all four right, {table['prompts']} prompts, uncertain by {_margin(table['prompts'])} "
        "points (95 %)." + said + distance,
        "",
        *_rows(("steps", *counts), rows),
        *(["![Adherence and distance over steps](steps.png)", ""] if plot else []),
    ]


def _reference(table: Table, photo: Table | None) -> list[str]:
    names = (*ATTRIBUTES, "all four")
    rows = [
        (
            name,
            *(_number(table[name][n], 1) for n in ("psnr", "background psnr")),
            *(_percent(table[name][n]) for n in names),
        )
        for name in ("own motion", "another motion")
    ]
    lines = [
        "## A given first frame",
        "",
        f"{table['prompts']} rendered first frames with their scene's caption, and with one of another motion. PSNR of "
        "the clip's first frame, and of the later frames' background, against the given one, dB; the codec alone gives "
        f"{_number(table['codec psnr'], 1)} dB.",
        "",
        *_rows(("caption", "first frame", "background", *names), rows),
    ]
    if photo is not None:
        lines += [
            f"{photo['pictures']} pictures of no toy world (1/f textures): {_percent(photo['finite'])} of the runs end "
            f"with finite values; first frame {_number(photo['psnr'], 1)} dB, all frames "
            f"{_number(photo['clip psnr'], 1)} dB, the codec alone {_number(photo['codec psnr'], 1)} dB.",
            "",
        ]
    return lines


def _pixels(codec: Table | None, consistency: Table | None) -> list[str]:
    lines = ["## Codec and flicker", ""]
    if codec is not None:
        lines += [f"PSNR of {codec['clips']} rendered clips of each kind through the codec alone, dB.", ""]
        names = ("pooled", "mean", "object")
        rows = [(kind, *(_number(codec[kind][n], 1) for n in names)) for kind in ("one object", "two objects")]
        lines += _rows(("clips of", "all pixels", "mean of clips", "object's pixels"), rows)
    if consistency is not None:
        lines += ["Mean absolute change of the background from frame to frame, of 255, away from objects.", ""]
        kinds = ("generated", "codec", "rendered")
        lines += _rows(
            ("clips", "mean", "median", "measured"),
            [
                (k, _number(consistency[k]["mean"]), _number(consistency[k]["median"]), str(consistency[k]["measured"]))
                for k in kinds
            ],
        )
    return lines


def limits_of(spec: ModelSpec, study: Table) -> list[str]:
    """What does not work, as far as it was measured: sentences."""
    said: list[str] = []
    default = f"{spec.limits.guidance.default:g}"
    if "adherence" in study:
        row, new = study["adherence"]["prompts that are new"], study["adherence"]["combinations that are new"]
        weakest = min(ATTRIBUTES, key=lambda name: float(row[name]))
        said.append(
            f"{_percent(1 - row['all four'])} of clips miss at least one of shape, colour, motion and background; "
            f"{weakest} is right least often ({_percent(row[weakest])}). Of combinations kept out of training "
            f"{_percent(new['all four'])} are right in all four."
        )
    if "guidance" in study and (row := study["guidance"]["scales"].get(default)):
        said.append(
            f"Clips of one prompt are {_number(_ratio(row['diversity'], study['guidance']['rendered']['diversity']))} "
            "times as far apart as rendered ones of the same words."
        )
    if "other captions" in study:
        two, chinese = study["other captions"]["two objects"], study["other captions"]["Chinese"]
        said.append(
            f"Of {two['prompts']} scenes with two objects {_percent(two['everything'])} are right in everything; of "
            f"{chinese['prompts']} captions in Chinese {_percent(chinese['all four'])} are right in all four."
        )
    if "fps" in study:
        ratios = {fps: row["ratio"] for fps, row in study["fps"]["rates"].items() if row["ratio"] is not None}
        if ratios:
            low, high = min(ratios, key=lambda k: ratios[k]), max(ratios, key=lambda k: ratios[k])
            where = f"{_number(ratios[low])} (at {low} FPS) to {_number(ratios[high])} (at {high} FPS)"
            said.append(f"Speed is {where if low != high else _number(ratios[low])} times what the words mean.")
        if not study["fps"]["told"]:
            said.append("The frame rate is not told to the model; another rate plays the same frames faster or slower.")
    if "negative" in study:
        for attribute in ("colour", "background"):
            found = study["negative"][attribute]["other noise"]
            shares = [_percent(found[way]["still there"]) for way in ("without", "word", "caption")]
            said.append(
                f"A {attribute} named in the negative prompt is there in {shares[1]} (its name) or {shares[2]} (a "
                f"caption) of clips, against {shares[0]} without."
            )
    if (photo := study.get("photo", {}).get("codec psnr")) is not None:
        own = study.get("reference", {}).get("codec psnr")
        beside = "" if own is None else f"; rendered first frames keep {_number(own, 1)} dB"
        said.append(f"A picture of no toy world keeps {_number(photo, 1)} dB through the codec{beside}.")
    sizes = [config.vocabulary for config in (spec.text, spec.clip) if config is not None]
    said.append(f"It knows at most {max(sizes)} words and characters; every other word is read as unknown.")
    if "reader" in study:
        own = study["reader"]["one object"]
        weakest = min(ATTRIBUTES, key=lambda name: float(own[name]))
        least = f" (least often about {weakest}, {_percent(own[weakest])})" if own[weakest] < 1 else ""
        said.append(
            "What clips show is as the reader sees it, a small network that is right in all four about "
            f"{_percent(own['all four'])} of {study['reader']['clips']} rendered clips{least}."
        )
    return said


def card_text(spec: ModelSpec, study: Table, training: Table, plots: Sequence[str] = ()) -> str:
    """The card as Markdown; `plots` names the pictures that lie beside it."""
    settings = study["settings"]
    chapters = [f"# {spec.title}", ""]
    chapters += _architecture(spec, training)
    chapters += _training(training, "training.png" in plots)
    spent = sum(study["seconds"].values())
    dates = sorted(set(study["dates"].values()))
    chapters += [
        "## How it was measured",
        "",
        f"By `python -m opensora_demo.training.study {spec.id}` ({', '.join(dates)}; {_time(spent)} on "
        f"{study['device']}): {settings['frames']} frames of {settings['size_px']} px, {settings['fps']:g} FPS, "
        f"guidance {settings['guidance']:g}, {settings['steps']:g} steps of {settings['sampler']}, where nothing else "
        f"is said. Weights {study['weights']}. The numbers are in [study.json](study.json).",
        "",
    ]
    if "reader" in study:
        own, count = study["reader"], study["reader"]["clips"]
        chapters += [
            f"What a clip shows is told by the reader, a network that sees pixels only. Of {count} rendered clips it "
            f"is right in all four attributes of {_percent(own['one object']['all four'])}, and in everything of "
            f"{_percent(own['two objects']['everything'])} of {count} with two objects.",
            "",
        ]
    if "adherence" in study:
        chapters += _adherence(study["adherence"])
    if "guidance" in study:
        chapters += _guidance(spec, study["guidance"], "guidance.png" in plots)
    if "other captions" in study:
        chapters += _captions(study["other captions"])
    if "fps" in study:
        chapters += _fps(study["fps"], "fps.png" in plots)
    if "steps" in study:
        chapters += _steps(study["steps"], "steps.png" in plots)
    if "reference" in study:
        chapters += _reference(study["reference"], study.get("photo"))
    if "negative" in study:
        chapters += _negative(study["negative"])
    if "codec" in study or "consistency" in study:
        chapters += _pixels(study.get("codec"), study.get("consistency"))
    chapters += ["## Limits", "", *(f"- {sentence}" for sentence in limits_of(spec, study)), ""]
    licences = dict.fromkeys(info["license"] for info in training.values() if "license" in info)
    if licences:
        chapters += ["## Licence", "", f"{', '.join(licences)}, code and weights.", ""]
    return "\n".join(chapters).rstrip() + "\n"


def write_card(
    spec: ModelSpec, folder: Path, study: Table, training_info: Table, logs: Mapping[str, Path] | None = None
) -> Path:
    """README.md in `folder`, and the plots that it shows. `training_info` is `read_training`'s, `logs` are those of
    `plots.training_plot`. Raises ImportError, before anything is written, without matplotlib."""
    write_plots(study, folder, logs)
    shown = [file.name for file in folder.glob("*.png")]
    file = folder / "README.md"
    file.write_text(card_text(spec, study, training_info, shown))
    return file


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m opensora_demo.training.card", description=(__doc__ or "").splitlines()[0]
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
    study = json.loads((args.study or folder / "study.json").read_text())
    out: Path = args.out or folder
    out.mkdir(parents=True, exist_ok=True)
    logs = {name: Path(file) for name, file in (text.split("=", 1) for text in args.logs)}
    print(write_card(spec, out, study, read_training(spec, folder), logs))


if __name__ == "__main__":
    main()
