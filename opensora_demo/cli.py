"""opensora-demo generate | compare | queue | adherence | models | download | doctor | restart

Progress goes to stderr, one JSON line to stdout. Exit status 2 and one sentence for input that cannot be run.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from opensora_demo import __version__
from opensora_demo.catalog import DEFAULT_MODEL, MODELS, ModelSpec, find_model
from opensora_demo.cluster.join import restart
from opensora_demo.errors import DemoError, RequestError
from opensora_demo.messages import message, render
from opensora_demo.request import settings as table
from opensora_demo.request.events import Decoding, Encoded, Finished, Started, StepPreview
from opensora_demo.request.limits import ALL_RULES
from opensora_demo.request.parse import parse_guidance_list, parse_request, split_list
from opensora_demo.request.request import GenerationRequest
from opensora_demo.request.settings import Choice, Number, Setting, Text
from opensora_demo.runtime.bundle import Bundles, build_bundle, fit_threads
from opensora_demo.runtime.cost.estimator import Estimator
from opensora_demo.runtime.cost.fits import fit_lines, what_fits
from opensora_demo.runtime.cost.words import bytes_words, duration, in_words, short
from opensora_demo.runtime.precision import precision_of
from opensora_demo.runtime.ranks import Layout, Ranks, joined
from opensora_demo.service.advisories import checked_on, open_advisories
from opensora_demo.service.engine import Engine
from opensora_demo.service.forms import DEFAULT_SCALES, read_request
from opensora_demo.service.local import LocalEngine
from opensora_demo.service.options import (
    AUTOSCALE,
    CLUSTER_OPTIONS,
    REPLICAS,
    STORAGE_OPTIONS,
    WEIGHT_OPTIONS,
    ServerOptions,
    add_options,
    read_cluster_options,
    read_server_options,
    read_storage_options,
    read_weight_options,
)
from opensora_demo.service.outputs import write_run
from opensora_demo.service.run_queue import QueuedRun, given_of, parse_batch, parse_each
from opensora_demo.service.storage import Storage
from opensora_demo.weights.options import WeightOptions
from opensora_demo.weights.store import (
    ASSETS,
    PART_NAMES,
    download,
    download_bytes,
    find_part,
    free_bytes,
    missing_places,
    unavailable_reason,
)


def _say(text: str, *, same_line: bool = False) -> None:
    if same_line and sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


def _finish_line() -> None:
    if sys.stderr.isatty():
        print(file=sys.stderr)


def add_settings(parser: argparse.ArgumentParser, *, several: bool = False, prompt: bool = True) -> None:
    """An argument for each setting of the table, None where it is not given; `several` takes lists where a comparison
    does; without `prompt` that one is left out."""
    for setting in table.SETTINGS:
        if isinstance(setting.kind, Text) and setting.kind.required:
            if prompt:
                parser.add_argument(setting.name, help=setting.help)
            continue
        flag = "--" + setting.name.replace("_", "-")
        if several and setting in listed():
            parser.add_argument(flag, help=setting.help, metavar=f"{setting.metavar},...", dest=setting.name)
        else:
            parser.add_argument(flag, help=setting.help, metavar=setting.metavar)


def listed() -> list[Setting]:
    """The settings of which a comparison takes several."""
    return [s for s in table.SETTINGS if isinstance(s.kind, Number | Choice) and s.kind.several]


def gathered(argv: Sequence[str]) -> list[str]:
    """The arguments of a comparison with each list in one of them, however it was typed: `--guidance 1 2 4`,
    `--guidance "1, 2, .., 4"` and `--guidance=1,2,4` are `--guidance=1,2,4`. A list ends where a word is none of it, so
    that a prompt may follow."""
    items = {f"--{s.name}": _NUMBERS if isinstance(s.kind, Number) else _NAMES for s in listed()}
    found: list[str] = []
    rest = list(argv)
    while rest:
        flag = rest.pop(0)
        found.append(flag)
        if (item := items.get(flag)) is not None and rest:
            values = [rest.pop(0)]
            while rest and item.fullmatch(rest[0]):
                values.append(rest.pop(0))
            found[-1] = f"{flag}={','.join(values)}"
    return found


_NUMBERS = re.compile(r"[-+\d.,;，、；…\s]+")
_NAMES = re.compile(rf"(?:(?:{'|'.join(ALL_RULES)})[,;，、；\s]*)+")


def _request(args: argparse.Namespace, options: WeightOptions) -> tuple[ModelSpec, GenerationRequest]:
    return read_request({name: getattr(args, name) for name in table.names()}, options)


def _compared(args: argparse.Namespace) -> argparse.Namespace:
    """The lists of a comparison as they were typed -> their values. Raises RequestError."""
    guidance = parse_guidance_list(DEFAULT_SCALES if args.guidance is None else args.guidance)
    return argparse.Namespace(
        **vars(args) | {"guidance": guidance, "rule": None if args.rule is None else split_list(args.rule)}
    )


def _out_file(path: str) -> Path:
    file = Path(path)
    if file.suffix.lower() != ".mp4":
        raise RequestError("out", message("request.out_mp4"))
    if not file.parent.is_dir():
        raise RequestError("out", message("request.out_folder", folder=str(file.parent)))
    if file.is_dir() or not os.access(file.parent, os.W_OK):
        raise RequestError("out", message("request.out_no_write", file=str(file)))
    return file


@contextmanager
def _shared(ranks: Ranks | None) -> Iterator[None]:
    """Of several processes with the same run only the first speaks."""
    if ranks is None or ranks.first:
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere), redirect_stdout(nowhere):
        yield


def _made(
    args: argparse.Namespace, options: WeightOptions, ranks: Ranks | None
) -> tuple[GenerationRequest, Path, Finished]:
    """The request of the command line, the file to write, and the run."""

    def asked() -> tuple[GenerationRequest, Path]:
        return _request(args, options)[1], _out_file(args.out)

    request, out = asked() if ranks is None else ranks.agree(asked)
    if ranks is None and args.branch_ranks is not None:
        raise RequestError("branch-ranks", message("request.branch_ranks", value=args.branch_ranks, count=1))
    layout = None if ranks is None else ranks.layout(request, args.branch_ranks)
    if layout is not None and options.precision == "auto":  # each would measure for itself, and they must agree
        options = replace(options, precision="stored")
    with _shared(ranks):
        return request, out, _run(find_model(request.model_id), request, options, layout)


def _run(spec: ModelSpec, request: GenerationRequest, options: WeightOptions, layout: Layout | None = None) -> Finished:
    """The run's end, if it fits; what it takes is said first where that is not a matter of seconds."""
    if spec.published:
        estimator = Estimator(options)
        _say(render(in_words(estimator.estimate(spec, request))))
        estimator.check_fits(spec, request)
    started, finished = time.monotonic(), None
    engine: Engine = LocalEngine(Bundles(options) if layout is None else Bundles(options, layout.share))
    with closing(engine.submit(request).events()) as events:  # type: ignore[type-var]
        for event in events:
            match event:
                case Started():
                    started = time.monotonic()
                case Encoded():
                    _say_unread(spec.id, event)
                case StepPreview():
                    _say_step(event, time.monotonic() - started)
                case Decoding():
                    _finish_line()
                    _say(f"decoded {event.done}/{event.total}")
                case Finished():
                    finished = event
                case _:
                    pass
    if finished is None:
        raise RuntimeError("the engine ended without a result")
    return finished


def _say_unread(model_id: str, read: Encoded) -> None:
    if read.unknown:
        _say(render(message("note.unknown", model=model_id, words=read.unknown)))
    if read.cut_tokens:
        _say(render(message("note.cut", model=model_id, count=read.cut_tokens)))
    if read.refined:
        _say(render(message("note.refined", model=model_id, prompts=message("note.quoted", text=read.refined))))


def _answer(value: Any) -> None:
    """One line of JSON to stdout; other programs read it, in whatever encoding the terminal or pipe has."""
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(value, ensure_ascii=not utf8))


def _say_step(step: StepPreview, spent_s: float) -> None:
    done, total = step.place + 1, step.of_all
    left_s = spent_s / done * (total - done)
    scene = f", scene {step.scene + 1} of {step.scenes}" if step.scenes > 1 else ""
    if sys.stderr.isatty() or done in (1, total) or done % 10 == 0:
        _say(f"denoising {done}/{total}{scene}  {spent_s:.1f} s, {left_s:.1f} s to go", same_line=True)


def _write(args: argparse.Namespace, options: WeightOptions, **form: Any) -> None:
    """Make what was asked for and say where it is; of several processes with the same run the first one does."""
    with joined(os.environ) as ranks:
        request, out, finished = _made(args, options, ranks)
    if ranks is not None and not ranks.first:
        return
    write_run(out, request, finished, label=request.prompt, **form)
    _answer(
        {
            "out": str(out),
            "model": request.model_id,
            "seed": request.seed,
            "settings": request.settings(),
            "seconds": {k: round(v, 3) for k, v in finished.seconds.items()},
            "unknown": list(finished.unknown),
            "refined": finished.refined,
            "reused_steps": list(finished.reused),
            "peak_bytes": finished.peak_bytes,
            "precision": None if finished.precision is None else dict(finished.precision),
        }
    )


def command_generate(args: argparse.Namespace, options: WeightOptions) -> None:
    _write(args, options, min_px=1 if args.native_size else 256)


def command_compare(args: argparse.Namespace, options: WeightOptions) -> None:
    _write(_compared(args), options)


def _storage(args: argparse.Namespace, options: WeightOptions) -> Storage:
    """The queue and the gallery, the same as the page's. Raises RequestError where nothing is to be kept."""
    found = read_storage_options(args, os.environ)
    if found is None:
        raise RequestError("gallery", message("request.no_gallery"))
    return Storage.open(found, LocalEngine(Bundles(options)))


def _row(run: QueuedRun) -> dict[str, Any]:
    failure = None if run.failure is None else render(run.failure)
    about = {name: run.settings.get(name) for name in ("model", "prompt", "seed")}
    return {"id": run.id, "state": run.state, **about, "clip": run.clip or None, "failure": failure}


def command_queue_add(args: argparse.Namespace, options: WeightOptions) -> None:
    storage = _storage(args, options)
    form = {setting.name: getattr(args, setting.name, None) for setting in table.SETTINGS}
    try:
        text = sys.stdin.read() if args.file == "-" else Path(args.file).read_text("utf-8")
    except ValueError:
        raise RequestError("prompts", message("request.not_utf8", file=args.file)) from None
    requests = parse_batch(form, text, parse_each(args.each), Estimator(options))
    added = storage.queue.add(requests, given_of(form))
    _say(f"{len(added)} added; `opensora-demo queue run` makes them, and so does a page that is open")
    _answer([_row(run) for run in added])


def command_queue_list(args: argparse.Namespace, options: WeightOptions) -> None:
    storage = _storage(args, options)
    runs = storage.queue.runs()
    for run in runs:
        why = f"  ({render(run.failure)})" if run.failure else ""
        _say(f"{run.id}  {run.state:11} {run.settings.get('prompt', '')}{why}")
    _say(f"{sum(not run.over for run in runs)} to make" + ", stopped" * storage.queue.paused)
    _answer([_row(run) for run in runs])


def command_queue_remove(args: argparse.Namespace, options: WeightOptions) -> None:
    queue = _storage(args, options).queue
    chosen = [run.id for run in queue.runs() if run.id in args.ids or "all" in args.ids]
    _answer({"removed": queue.remove(chosen)})


def command_queue_run(args: argparse.Namespace, options: WeightOptions) -> int:
    """Make all that waits. Exit status 1 where a run has failed, or another process is at it."""
    storage = _storage(args, options)
    storage.queue.go_on()
    ended: list[QueuedRun] = []

    def news(run: QueuedRun) -> None:
        if not run.over:
            _say(f"{run.settings['prompt']} …" if run.state == "running" else "stopped")
            return
        ended.append(run)
        what = f"failed: {render(run.failure)}" if run.failure else str(storage.gallery.clips / run.clip)
        left = sum(not other.over for other in storage.queue.runs())
        _say(f"  {what}, {left} to make")

    mine = storage.worker.run_all(news)
    if not mine:
        _say("another process works through the queue")
    _answer([_row(run) for run in ended])
    return 0 if mine and all(run.state == "done" for run in ended) else 1


def command_models(args: argparse.Namespace, options: WeightOptions) -> None:
    rows = []
    for spec in MODELS.values():
        if spec.hidden and not args.all:
            continue
        why = unavailable_reason(spec, options)
        rows.append(
            {
                "id": spec.id,
                "title": spec.title,
                "text": spec.text_mode,
                "runs_here": not why,
                "why_not": "" if why is None else render(why),
            }
        )
        _say(f"{spec.id:22} {'ready          ' if not why else 'weights missing'}  {spec.title}")
    _answer(rows)


def command_download(args: argparse.Namespace, options: WeightOptions) -> None:
    spec = find_model(args.model)
    if missing_places(spec, options):
        size, free = bytes_words(download_bytes(spec, options)), bytes_words(free_bytes(options.weights_dir))
        _say(f"about {size} to fetch into {options.weights_dir}, which has room for {free}")
        if sys.stdin.isatty() and not args.yes and input("Go on? [Y/n] ").strip().lower() not in ("", "y", "yes"):
            return
    begin, before = time.monotonic(), -1
    for news in download(spec, options):
        before = news.done_bytes if before < 0 else before
        rate = (news.done_bytes - before) / max(time.monotonic() - begin, 1e-3)
        left = f", {(news.total_bytes - news.done_bytes) / rate / 60:.0f} min to go" if rate > 1e4 else ""
        _say(
            f"{news.file}: {news.done_bytes / 1e9:.2f} of {news.total_bytes / 1e9:.2f} GB, {rate / 1e6:.0f} MB/s{left}",
            same_line=True,
        )
    _finish_line()
    places = spec.published.parts() if spec.published else {}
    found = {
        render(PART_NAMES[part]): [str(f) for f in find_part(files, options) or ()] for part, files in places.items()
    }
    _say(f"{spec.id} is complete")
    _answer({"model": spec.id, "files": found})


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
    "numpy",
    "pillow",
    "av",
    "imageio",
)


_PRECISIONS = {
    "auto": "bfloat16 where it is faster",
    "stored": "as the files have it",
    "float32": "everywhere",
    "bfloat16": "everywhere",
}
_KERNELS = {
    "auto": "torch's fused kernel, and plain products for few tokens on a CPU",
    "fused": "torch's fused kernel, in every dtype",
    "plain": "plain products, which hold all scores",
}


def doctor(options: WeightOptions, server: ServerOptions | None = None, *, fits: bool = False) -> dict[str, Any]:
    """What is installed, which device there is, which models can run here and why not, and how the page is served if
    nothing is said on its command line; with `fits` also which sizes and lengths of the models fit its memory, which
    takes a minute."""
    import torch

    estimator = Estimator(options)
    device = estimator.machine.device
    models: dict[str, str] = {}
    costs: dict[str, dict[str, Any]] = {}
    in_bfloat16: dict[str, list[str]] = {}
    for spec in MODELS.values():
        if spec.hidden:
            continue
        try:
            kept = replace(options, precision="stored") if spec.published else options  # converting takes a while
            bundle = build_bundle(spec, device, kept)
            models[spec.id] = "ready"
            if half := [part for part, numbers in precision_of(bundle).items() if numbers == "bfloat16"]:
                in_bfloat16[spec.id] = half
        except (DemoError, ImportError) as error:
            models[spec.id] = str(error)
        if spec.published:
            usual = parse_request({"prompt": "a ball"}, model_id=spec.id, limits=spec.limits)
            takes = estimator.estimate(spec, usual)
            costs[spec.id] = {
                "seconds": round(takes.seconds),
                "memory_bytes": takes.needed_bytes,
                "fits": takes.fits,
                "download_bytes": download_bytes(spec, options),
            }
            if fits:
                found = what_fits(spec, estimator)
                costs[spec.id]["longest_frames"] = {fit.size.resolution: fit.frames for fit in found}
                costs[spec.id]["what_fits"] = [render(line) for line in fit_lines(found)]
    return {
        "version": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "optional": {name: _version(name) for name in _OPTIONAL},
        "device": str(device),
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
        "attention": options.attention,
        "precision": options.precision,
        "in_bfloat16": in_bfloat16,
        "memory_bytes": estimator.machine.total_bytes,
        "assets": ASSETS.is_dir(),
        "models": models,
        "usual_clip": costs,
        "server": asdict(server or ServerOptions()),
        "advisories": [f"{a.package} {a.fixed}: {', '.join(a.ids)}" for a in open_advisories(_version)],
        "advisories_checked": checked_on(),
    }


def _in_half(found: Mapping[str, Sequence[str]]) -> str:
    """Which parts of which small models are in bfloat16: "; nano's network and codec"."""
    return "".join(f"; {model}'s {' and '.join(parts)}" for model, parts in found.items())


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def command_doctor(args: argparse.Namespace, options: WeightOptions) -> int:
    server = read_server_options(argparse.Namespace(), os.environ)
    found = doctor(options, server, fits=args.fits)
    _say(f"{'opensora-demo':14} {found['version']}")
    for name, version in found["packages"].items():
        _say(f"{name:14} {version or 'not installed'}")
    for name, version in found["optional"].items():
        _say(f"{name:14} {version or 'not installed, and needed only for ' + _OPTIONAL[name]}")
    has = f"{found['gpu'] or found['device']}, {short(found['memory_bytes'] / 1e9)} GB"
    _say(f"{'device':14} {has}, {found['threads']} threads")
    _say(f"{'attention':14} {found['attention']}: {_KERNELS[found['attention']]}")
    _say(f"{'precision':14} {found['precision']}: {_PRECISIONS[found['precision']]}{_in_half(found['in_bfloat16'])}")
    reach = "for others too" if server.public else "for this machine"
    switches = f"downloads {server.downloads}, metrics {'on' if server.metrics else 'off'}"
    _say(f"{'page':14} {server.host}:{server.port}, {reach}; {len(server.offered)} models; {switches}")
    _say(
        f"{'':14} logs as {server.log_format} from {server.log_level} on; the newest {server.keep_clips} clips are kept"
    )
    for name, state in found["models"].items():
        _say(f"{name:14} {state}")
        if cost := found["usual_clip"].get(name):
            need, get = cost["memory_bytes"] / 1e9, cost["download_bytes"] / 1e9
            takes = f"about {render(duration(cost['seconds']))}, {short(need)} GB" + ", more than there is" * (
                not cost["fits"]
            )
            _say(f"{'':14} its usual clip: {takes}" + f"; to download {get:.1f} GB" * (get > 0))
            for line in cost.get("what_fits", ()):
                _say(f"{'':14} fits here: {line}")
    for known in found["advisories"]:
        _say(f"{'known fault':14} mended in {known}")
    _say(f"{'known faults':14} {len(found['advisories'])} of the list of {found['advisories_checked']}")
    _answer(found)
    broken = [name for name, version in found["packages"].items() if version is None]
    return 1 if broken or found["models"][DEFAULT_MODEL] != "ready" else 0  # published weights may well be elsewhere


def command_restart(args: argparse.Namespace, options: WeightOptions) -> None:
    if all(option.value(args, os.environ, None) is None for option in (REPLICAS, AUTOSCALE)):
        raise RequestError(REPLICAS.flag, message("request.missing"))
    cluster = read_cluster_options(args, os.environ)
    assert cluster is not None
    began = time.perf_counter()
    restart(cluster, options)
    seconds = round(time.perf_counter() - began, 1)
    _say(f"all replicas are new after {seconds} s")
    _answer({"replicas": [cluster.least, cluster.most], "seconds": seconds})


def command_adherence(args: argparse.Namespace, options: WeightOptions) -> None:
    from opensora_demo.evaluation.adherence import adherence_table, format_table, reader_table, run_trials
    from opensora_demo.toy.reader import load_reader

    if args.prompts < 1:
        raise RequestError("prompts", message("request.at_least", least=1, got=args.prompts))
    if args.reader_clips < 1:
        raise RequestError("reader-clips", message("request.at_least", least=1, got=args.reader_clips))
    spec = find_model(args.model)
    raw = {"prompt": "check", "guidance": args.guidance, "steps": args.steps, "fps": args.fps}
    parse_request(raw, model_id=spec.id, limits=spec.limits)
    bundle, reader = build_bundle(spec, options=options), load_reader()
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
    _answer(
        {
            "model": spec.id,
            "prompts": args.prompts,
            "steps": args.steps or int(spec.limits.steps.default),
            "reader": own,
            "guidance": rows,
        }
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="opensora-demo",
        description="Open-Sora on the command line.",
        epilog="The page in a browser is one more command: opensora-demo serve (serve --help tells its options).",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    p = commands.add_parser("generate", help="one clip")
    add_settings(p)
    p.add_argument("--out", required=True, metavar="CLIP.mp4")
    p.add_argument("--native-size", action="store_true", help="do not enlarge small clips to 256 px")
    p.set_defaults(run=command_generate)

    p = commands.add_parser("compare", help="the same noise at several guidance scales, in one labelled grid")
    add_settings(p, several=True)
    p.add_argument("--out", required=True, metavar="GRID.mp4")
    p.set_defaults(run=command_compare)
    for p in commands.choices.values():
        p.add_argument(
            "--branch-ranks",
            type=int,
            metavar="N",
            help="of the processes that torchrun started, how many share the branches of guidance; the others share "
            "the tokens of each branch (by default as many as there are branches and clips)",
        )

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
    p.add_argument("--yes", action="store_true", help="do not ask before gigabytes are fetched")
    p.set_defaults(run=command_download)
    p = commands.add_parser("doctor", help="what is installed and what works here")
    p.add_argument("--fits", action="store_true", help="which sizes and lengths fit this device; takes a minute")
    p.set_defaults(run=command_doctor)
    p = commands.add_parser("restart", help="replace the replicas of a cluster one after the other; no job is lost")
    add_options(p, CLUSTER_OPTIONS)
    p.set_defaults(run=command_restart)
    for p in commands.choices.values():
        add_options(p, WEIGHT_OPTIONS)
    _add_queue(commands.add_parser("queue", help="runs for the night: many prompts, one after another"))
    return parser


def _add_queue(parser: argparse.ArgumentParser) -> None:
    parser.description = "Runs for the night. The queue is kept on disk, and shared with the page on this machine."
    commands = parser.add_subparsers(dest="queue_command", required=True)
    p = commands.add_parser("add", help="put a run into the queue for each line of a file")
    p.add_argument("file", help="a prompt a line, UTF-8; - reads them from standard input")
    add_settings(p, prompt=False)
    p.add_argument("--each", default="1", metavar="N", help="clips of each prompt; with a seed, from that one on")
    p.set_defaults(run=command_queue_add)
    p = commands.add_parser("run", help="make all that waits; what is stopped or killed goes on from there")
    p.set_defaults(run=command_queue_run)
    p = commands.add_parser("list", help="what waits, and what has become of the others")
    p.set_defaults(run=command_queue_list)
    p = commands.add_parser("remove", help="take runs out of the queue; their clips stay")
    p.add_argument("ids", nargs="+", metavar="ID", help="as list names them, or all")
    p.set_defaults(run=command_queue_remove)
    for p in commands.choices.values():
        add_options(p, (*WEIGHT_OPTIONS, *STORAGE_OPTIONS))


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(gathered(argv) if argv[:1] == ["compare"] else argv)
    try:
        options = read_weight_options(args, os.environ)
        fit_threads()
        return args.run(args, options) or 0
    except DemoError as error:
        _say(f"error: {error}")
        return 2
    except OSError as error:
        about = f"{error.filename}: " if error.filename else ""
        _say(f"error: {about}{error.strerror or error}")
        return 2
    except KeyboardInterrupt:
        _finish_line()
        _say("stopped")
        return 130
