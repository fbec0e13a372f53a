"""python -m opensora_demo generate | compare | adherence | models | download | doctor

Progress goes to stderr, one JSON line to stdout. Exit status 2 and one sentence for input that cannot be run.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from opensora_demo.bundle import ModelBundle, build_bundle, fit_threads, pick_device
from opensora_demo.catalog import DEFAULT_MODEL, MODELS, ModelSpec, find_model
from opensora_demo.catalog.spec import HubWeights
from opensora_demo.errors import DemoError, RequestError
from opensora_demo.estimate import check_fits, download_bytes, duration, estimate, in_words, machine_of, short
from opensora_demo.grid import compose_grid
from opensora_demo.lora import check_loras, lora_names
from opensora_demo.media import read_reference, write_mp4
from opensora_demo.pipeline import generate
from opensora_demo.store import ASSETS, PART_NAMES, download, find_part, why_not
from opensora_demo.text.quantized import wanted_bits
from opensora_demo.types import RULES, Decoding, Encoded, Finished, GenerationRequest, StepPreview, parse_request


def _say(text: str, *, same_line: bool = False) -> None:
    if same_line and sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


def _finish_line() -> None:
    if sys.stderr.isatty():
        print(file=sys.stderr)


def _request(args: argparse.Namespace, spec: ModelSpec) -> GenerationRequest:
    raw = {
        "prompt": args.prompt,
        "negative": args.negative,
        "fps": args.fps,
        "frames": args.frames,
        "steps": args.steps,
        "guidance": args.guidance,
        "seed": args.seed,
        "edit": args.edit,
        "rule": args.rule,
        "image_guidance": args.image_guidance,
        "motion_score": args.motion_score,
        "resolution": args.resolution,
        "aspect": args.aspect,
    }
    request = parse_request(raw, model_id=spec.id, limits=spec.limits)  # its size is that of the pictures
    size_px = request.shape.height_px, request.shape.width_px
    first, last = (
        None if file is None else read_reference(Path(file), *size_px) for file in (args.reference, args.last_frame)
    )
    raw["seed"] = request.seed
    request = parse_request(raw, model_id=spec.id, limits=spec.limits, reference=first, last_frame=last)
    return replace(request, loras=lora_names(spec))


def _out_file(path: str) -> Path:
    file = Path(path)
    if file.suffix.lower() != ".mp4":
        raise RequestError("out", "must end in .mp4")
    if not file.parent.is_dir():
        raise RequestError("out", f"the folder {file.parent} does not exist")
    if file.is_dir() or not os.access(file.parent, os.W_OK):
        raise RequestError("out", f"{file} cannot be written")
    return file


def _run(bundle: ModelBundle, request: GenerationRequest) -> Finished:
    started = time.monotonic()
    for event in generate(bundle, request):
        match event:
            case Encoded(unknown=unknown) if unknown:
                _say(f"{bundle.spec.id} does not know: {', '.join(unknown)}")
            case StepPreview():
                done = event.index + 1
                spent = time.monotonic() - started
                left = spent / done * (event.total - done)
                if sys.stderr.isatty() or done in (1, event.total) or done % 10 == 0:
                    _say(
                        f"denoising {done}/{event.total}  {spent:.1f} s, {left:.1f} s to go",
                        same_line=True,
                    )
            case Decoding():
                _finish_line()
                _say(f"decoded {event.done}/{event.total}")
            case Finished():
                return event
            case _:
                pass
    raise RuntimeError("the pipeline ended without a result")


def _report(out: Path, request: GenerationRequest, finished: Finished) -> None:
    settings = request.settings()
    print(
        json.dumps(
            {
                "out": str(out),
                "model": request.model_id,
                "seed": request.seed,
                "settings": settings,
                "seconds": {k: round(v, 3) for k, v in finished.seconds.items()},
                "unknown": list(finished.unknown),
                "peak_bytes": finished.peak_bytes,
            },
            ensure_ascii=False,
        )
    )


def _bundle(spec: ModelSpec, request: GenerationRequest) -> ModelBundle:
    """The model, if its run fits; what that takes is said first where it is not a matter of seconds."""
    if isinstance(spec.weights, HubWeights):
        _say(in_words(estimate(spec, request)))
        check_fits(spec, request)
    return build_bundle(spec)


def command_generate(args: argparse.Namespace) -> None:
    spec = find_model(args.model)
    request, out = _request(args, spec), _out_file(args.out)
    finished = _run(_bundle(spec, request), request)
    write_mp4(out, finished.clips[0].frames, request.fps, request.settings(), min_px=1 if args.native_size else 256)
    _report(out, request, finished)


def command_compare(args: argparse.Namespace) -> None:
    spec = find_model(args.model)
    request, out = _request(args, spec), _out_file(args.out)
    finished = _run(_bundle(spec, request), request)
    grid, fps = compose_grid([[c.frames for c in finished.clips]], request.labels, [request.prompt], [request.fps])
    write_mp4(out, grid, fps, request.settings(), min_px=1)
    _report(out, request, finished)


def command_models(args: argparse.Namespace) -> None:
    rows = []
    for spec in MODELS.values():
        if spec.hidden and not args.all:
            continue
        why = why_not(spec)
        rows.append(
            {
                "id": spec.id,
                "title": spec.title,
                "text": spec.text_mode,
                "runs_here": not why,
                "why_not": why,
            }
        )
        _say(f"{spec.id:22} {'ready          ' if not why else 'weights missing'}  {spec.title}")
    print(json.dumps(rows, ensure_ascii=False))


def command_download(args: argparse.Namespace) -> None:
    spec = find_model(args.model)
    begin, before = time.monotonic(), -1
    for news in download(spec):
        before = news.done_bytes if before < 0 else before
        rate = (news.done_bytes - before) / max(time.monotonic() - begin, 1e-3)
        left = f", {(news.total_bytes - news.done_bytes) / rate / 60:.0f} min to go" if rate > 1e4 else ""
        _say(
            f"{news.file}: {news.done_bytes / 1e9:.2f} of {news.total_bytes / 1e9:.2f} GB, {rate / 1e6:.0f} MB/s{left}",
            same_line=True,
        )
    _finish_line()
    places = spec.weights.parts() if isinstance(spec.weights, HubWeights) else {}
    found = {PART_NAMES[part]: [str(f) for f in find_part(files) or ()] for part, files in places.items()}
    _say(f"{spec.id} is complete")
    print(json.dumps({"model": spec.id, "files": found}))


_OPTIONAL = {"torchao": "--t5-bits 8", "bitsandbytes": "--t5-bits 4"}
_PACKAGES = (
    "torch",
    "gradio",
    "transformers",
    "diffusers",
    "accelerate",
    "safetensors",
    "sentencepiece",
    "protobuf",
    "ftfy",
    "beautifulsoup4",
    "einops",
    "pydantic",
    "numpy",
    "pillow",
    "imageio",
    "av",
)


def doctor() -> dict[str, Any]:
    """What is installed, which device there is, which models can run here and why not."""
    import torch

    device = pick_device()
    models: dict[str, str] = {}
    costs: dict[str, dict[str, Any]] = {}
    for spec in MODELS.values():
        if spec.hidden:
            continue
        try:
            build_bundle(spec)
            models[spec.id] = "ready"
        except (DemoError, ImportError) as error:
            models[spec.id] = str(error)
        if isinstance(spec.weights, HubWeights):
            usual = parse_request({"prompt": "a ball"}, model_id=spec.id, limits=spec.limits)
            takes = estimate(spec, usual, device)
            costs[spec.id] = {
                "seconds": round(takes.seconds),
                "memory_bytes": takes.needed_bytes,
                "fits": takes.fits,
                "download_bytes": download_bytes(spec),
            }
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "optional": {name: _version(name) for name in _OPTIONAL},
        "device": str(device),
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
        "memory_bytes": machine_of(device).total_bytes,
        "assets": ASSETS.is_dir(),
        "models": models,
        "usual_clip": costs,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def command_doctor(args: argparse.Namespace) -> int:
    found = doctor()
    for name, version in found["packages"].items():
        _say(f"{name:14} {version or 'not installed'}")
    for name, version in found["optional"].items():
        _say(f"{name:14} {version or 'not installed, and needed only for ' + _OPTIONAL[name]}")
    has = f"{found['gpu'] or found['device']}, {short(found['memory_bytes'] / 1e9)} GB"
    _say(f"{'device':14} {has}, {found['threads']} threads")
    for name, state in found["models"].items():
        _say(f"{name:14} {state}")
        if cost := found["usual_clip"].get(name):
            need, get = cost["memory_bytes"] / 1e9, cost["download_bytes"] / 1e9
            takes = f"about {duration(cost['seconds'])}, {short(need)} GB" + ", more than there is" * (not cost["fits"])
            _say(f"{'':14} its usual clip: {takes}" + f"; to download {get:.1f} GB" * (get > 0))
    print(json.dumps(found, ensure_ascii=False))
    broken = [name for name, version in found["packages"].items() if version is None]
    return 1 if broken or found["models"][DEFAULT_MODEL] != "ready" else 0  # published weights may well be elsewhere


def command_adherence(args: argparse.Namespace) -> None:
    from opensora_demo.training.adherence import adherence_table, format_table, reader_table, run_trials
    from opensora_demo.training.reader import load_reader

    if args.prompts < 1:
        raise RequestError("prompts", f"must be at least 1, not {args.prompts}")
    if args.reader_clips < 1:
        raise RequestError("reader-clips", f"must be at least 1, not {args.reader_clips}")
    spec = find_model(args.model)
    raw = {"prompt": "check", "guidance": args.guidance, "steps": args.steps, "fps": args.fps}
    parse_request(raw, model_id=spec.id, limits=spec.limits)
    bundle, reader = build_bundle(spec), load_reader()
    own = reader_table(reader, args.reader_clips)
    _say("the reader on rendered clips: " + ", ".join(f"{k} {100 * v:.1f} %" for k, v in own.items()))
    trials = []
    for trial in run_trials(bundle, args.prompts, args.guidance, steps=args.steps, fps=args.fps):
        trials.append(trial)
        if len(trials) % 8 == 0 or len(trials) == args.prompts:
            _say(f"{len(trials)}/{args.prompts} prompts", same_line=True)
    _finish_line()
    rows = adherence_table(reader, trials)
    _say(format_table(rows))
    print(
        json.dumps(
            {
                "model": spec.id,
                "prompts": args.prompts,
                "steps": args.steps or int(spec.limits.steps.default),
                "reader": own,
                "guidance": rows,
            }
        )
    )


def add_weight_options(parser: argparse.ArgumentParser) -> None:
    """How weights are come by and held; `apply_weight_options` puts it into the environment, where it is looked up, and
    raises WeightsError for what cannot be."""
    parser.add_argument("--offline", action="store_true", help="do not ask the hub for weights")
    parser.add_argument(
        "--allow-pickle", action="store_true", help="open .pth and .bin files too, for their tensors only"
    )
    parser.add_argument(
        "--lora",
        action="append",
        metavar="FILE[=STRENGTH]",
        help="a LoRA for Open-Sora 2.0: safetensors, or a folder of peft's; may be given several times",
    )
    parser.add_argument(
        "--t5-bits", choices=("16", "8", "4"), help="fewer for less memory: 8 needs torchao, 4 bitsandbytes"
    )


def apply_weight_options(args: argparse.Namespace) -> None:
    for given, name in ((args.offline, "OPENSORA_OFFLINE"), (args.allow_pickle, "OPENSORA_ALLOW_PICKLE")):
        if given:
            os.environ[name] = "1"
    if args.t5_bits:
        os.environ["OPENSORA_T5_BITS"] = args.t5_bits
    if args.lora:
        os.environ["OPENSORA_LORA"] = os.pathsep.join(args.lora)
    check_loras()
    wanted_bits()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m opensora_demo", description="Open-Sora on the command line.")
    commands = parser.add_subparsers(dest="command", required=True)

    def run_options(p: argparse.ArgumentParser) -> None:
        p.add_argument("prompt")
        p.add_argument("--model", default=DEFAULT_MODEL)
        p.add_argument("--steps", help="denoising steps")
        p.add_argument("--fps", help="frames per second: what the model is told and what the file plays at")
        p.add_argument("--frames", help="length of the clip")
        p.add_argument("--resolution", help="such as 480p, where the model has several")
        p.add_argument("--aspect", help="width to height, such as 16:9, where the model has several")
        p.add_argument("--seed", help="0 to 4294967295; random if left out")
        p.add_argument("--negative", default="", help="what to steer away from")
        p.add_argument("--reference", metavar="IMAGE", help="PNG, JPEG or WebP that becomes the first frame")
        p.add_argument("--last-frame", metavar="IMAGE", help="the same for the last frame, where the model can")
        p.add_argument("--edit", help="0 keeps given frames exactly, up to 1 lets them be redrawn")
        several: dict[str, Any] = {"nargs": "+"} if p.prog.endswith("compare") else {}
        p.add_argument("--rule", metavar="R", help=f"guidance rule: {', '.join(RULES)}", **several)
        p.add_argument("--image-guidance", metavar="W", help="how hard given frames pull")
        p.add_argument("--motion-score", metavar="M", help="told to the model: more is livelier")

    p = commands.add_parser("generate", help="one clip")
    run_options(p)
    p.add_argument("--guidance", metavar="W", help="guidance scale; 1 is none")
    p.add_argument("--out", required=True, metavar="CLIP.mp4")
    p.add_argument("--native-size", action="store_true", help="do not enlarge small clips to 256 px")
    p.set_defaults(run=command_generate)

    p = commands.add_parser("compare", help="the same noise at several guidance scales, in one labelled grid")
    run_options(p)
    p.add_argument("--guidance", nargs="+", default=[1, 2, 4, 7], metavar="W")
    p.add_argument("--out", required=True, metavar="GRID.mp4")
    p.set_defaults(run=command_compare)

    p = commands.add_parser("adherence", help="how often clips show what their prompts say, by guidance scale")
    p.add_argument("--model", default=DEFAULT_MODEL)
    p.add_argument("--prompts", type=int, default=128)
    p.add_argument("--guidance", type=float, nargs="+", default=[1.0, 2.0, 4.0, 7.0], metavar="W")
    p.add_argument("--steps", type=int)
    p.add_argument("--fps", type=int)
    p.add_argument("--reader-clips", type=int, default=256, help="rendered clips to check the reader on")
    p.set_defaults(run=command_adherence)

    p = commands.add_parser("models", help="what can be run")
    p.add_argument("--all", action="store_true", help="the tiny random models for debugging too")
    p.set_defaults(run=command_models)
    p = commands.add_parser("download", help="fetch a published model's weights; an unfinished download goes on")
    p.add_argument("model")
    p.set_defaults(run=command_download)
    p = commands.add_parser("doctor", help="what is installed and what works here")
    p.set_defaults(run=command_doctor)
    for p in commands.choices.values():
        add_weight_options(p)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        apply_weight_options(args)
        fit_threads()
        return args.run(args) or 0
    except DemoError as error:
        _say(f"error: {error}")
        return 2
    except OSError as error:
        _say(f"error: {error.strerror or error}")
        return 2
    except KeyboardInterrupt:
        _finish_line()
        _say("stopped")
        return 130
