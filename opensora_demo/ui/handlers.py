"""What happens on a click: parse, start a run, show what it publishes.

A run works in a thread of its own (`jobs`), so that a page may be closed or loaded anew while it goes on; every
generator here only watches one.
"""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cache, lru_cache, partial
from html import escape
from pathlib import Path
from threading import Event as Flag
from typing import Any, Literal

import gradio as gr
import numpy as np

from opensora_demo.bundle import pick_device
from opensora_demo.catalog import ModelSpec, find_model
from opensora_demo.catalog.spec import HubWeights
from opensora_demo.errors import Cancelled, DemoError, DeviceError, RequestError, WeightsError
from opensora_demo.estimate import check_fits, download_bytes, estimate, in_words, remember
from opensora_demo.grid import compose_grid
from opensora_demo.lora import lora_names
from opensora_demo.media import read_reference, read_settings, write_mp4, write_png, write_sprite
from opensora_demo.pipeline import generate as run_pipeline
from opensora_demo.store import download, missing_places, why_not
from opensora_demo.training.asked import mark_clips
from opensora_demo.training.reader import MIN_FRAMES, Reader, load_reader
from opensora_demo.types import (
    Clip,
    Finished,
    Frames,
    GenerationRequest,
    Limits,
    VideoShape,
    parse_guidance_list,
    parse_request,
)
from opensora_demo.ui.compare import CompareView, Made, fit_to_model, parse_rows
from opensora_demo.ui.controls import (
    FOLLOWS,
    LEFT_OUT,
    PICKED,
    checked_settings,
    limit_updates,
    pick_updates,
    preset_updates,
    stage_props,
)
from opensora_demo.ui.files import OutputFolder
from opensora_demo.ui.jobs import Job, Jobs, Value
from opensora_demo.ui.language import language_of, say, translated
from opensora_demo.ui.present import RunView, View
from opensora_demo.ui.runs import BundleSource, E, Generate, RunEvent, Waiting, stream
from opensora_demo.ui.scope import ScopeView
from opensora_demo.ui.words import compose, knows_words, roll

log = logging.getLogger(__name__)
SORRY = "Something went wrong; the details are in the server's log."
UPDATE_S = 0.08  # the page is told at most this often
DEFAULT_SCALES = "1, 2, 4, 7"
MAX_TYPED = 500  # characters of a list of scales or rows
REMEMBERED = 12  # runs a page may ask for after it was loaded anew
Pictures = tuple[str | None, str | None]  # files of the first and the last frame

# The form, in the order in which the page hands it over.
FORM = (
    "prompt", "negative", "reference", "last_frame", "edit", "fps", "frames", "steps", "guidance", "rule",
    "image_guidance", "motion_score", "seed", "model", "resolution", "aspect",
)  # fmt: skip
COST_FORM = ("model", "steps", "frames", "resolution", "aspect", "guidance")
COMPARE_FORM = (*FORM, "scales", "rules", "axis", "rows")
Form = Mapping[str, Any]


@contextmanager
def sentences() -> Iterator[None]:
    """Turn errors into the one kind whose text Gradio shows; what nobody foresaw goes to the log."""
    try:
        yield
    except DemoError as error:
        raise gr.Error(escape(str(error), quote=False), title="Not run", print_exception=False) from error
    except gr.Error:
        raise
    except Exception as error:
        log.exception("a request failed")
        raise gr.Error(SORRY, title="Sorry", print_exception=False) from error


class Handlers:
    """The functions behind the page. Holds nothing of any one visitor but the runs, which are found by secret ids."""

    def __init__(
        self,
        bundles: BundleSource,
        *,
        generate: Generate = run_pipeline,
        files: OutputFolder | None = None,
        clock: Callable[[], float] = time.monotonic,
        debug_models: bool = False,
        downloads: Literal["never", "alone", "always"] = "never",
    ) -> None:
        self.debug_models = debug_models  # offered
        self.downloads = downloads  # of weights, by whoever sees the page
        self.bundles = bundles
        self.files = files or OutputFolder()
        self.jobs = Jobs()
        self.clock = clock
        self._generate = generate
        self.numbers = itertools.count(time.time_ns() // 1_000_000)  # also after a restart, later runs are larger

    # --- requests

    def parse(self, raw: Mapping[str, Any], pictures: Pictures, model: object) -> tuple[ModelSpec, GenerationRequest]:
        """The request of a form or call. Raises RequestError, and WeightsError where the model cannot be loaded."""
        spec = find_model(model)
        if why := why_not(spec):
            raise WeightsError(f"{spec.title} cannot run here: {why}.")
        request = parse_request(raw, model_id=spec.id, limits=spec.limits)  # cheap checks before a file is opened
        if isinstance(spec.weights, HubWeights):  # the others fit everywhere
            check_fits(spec, request)
        if pictures != (None, None):
            first, last = read_pictures(pictures, request.shape)
            raw = dict(raw) | {"seed": request.seed}
            request = parse_request(raw, model_id=spec.id, limits=spec.limits, reference=first, last_frame=last)
        return spec, replace(request, loras=lora_names(spec))

    def parse_form(self, form: Form, **changes: Any) -> tuple[ModelSpec, GenerationRequest]:
        """The request of the page's form with some settings changed. What the chosen model does not have is left out:
        a hidden control keeps the value it had for another model. Raises RequestError and WeightsError."""
        model = changes.pop("model", form["model"])
        limits = find_model(model).limits
        shown = {
            "rule": len(limits.rules) > 1,
            "image_guidance": limits.image_guidance is not None,
            "motion_score": limits.motion_score is not None,
            "edit": limits.edit,
            "resolution": len(limits.resolutions) > 1,
            "aspect": len(limits.aspects) > 1,
        }
        raw = {name: form[name] for name in FORM if name not in ("model", "reference", "last_frame")}
        raw = {name: value if shown.get(name, True) else None for name, value in raw.items()} | changes
        raw["prompt"] = "" if raw["prompt"] is None else raw["prompt"]
        pictures = (
            form["reference"] if limits.reference else None,
            form["last_frame"] if limits.last_frame else None,
        )
        return self.parse(raw, pictures, model)

    def parse_comparison(self, form: Form) -> tuple[list[str], list[GenerationRequest]]:
        """Labels and requests of the rows of a comparison. Raises RequestError and WeightsError."""
        scales, rules, axis = form["scales"], form["rules"], str(form["axis"])
        columns = {
            "guidance": parse_guidance_list(scales[:MAX_TYPED]) if isinstance(scales, str) else scales,
            "rule": rules or None,
        }
        _, first = self.parse_form(form, **columns)
        labels, requests = [], []
        for label, changes in parse_rows(axis, str(form["rows"] or "")[:MAX_TYPED], first.seed):
            of_row = dict(form) | changes
            if "model" in changes:
                of_row = (
                    dict(form) | fit_to_model(form, find_model(form["model"]), find_model(changes["model"])) | changes
                )
            _, request = self.parse_form(of_row, **columns, seed=changes.get("seed", first.seed))
            labels.append(label)
            requests.append(request)
        return labels, requests

    # --- runs

    def events(self, request: GenerationRequest, cancel: Flag, *, look: bool = False) -> Iterator[RunEvent]:
        seconds: Mapping[str, float] = {}
        for event in stream(self.bundles, partial(self._generate, look=look), request, cancel):
            yield event
            if isinstance(event, Finished):
                seconds = event.seconds
        try:
            remember(find_model(request.model_id), request, pick_device(), seconds)  # the device is free again
        except Exception:  # an estimate is not worth a finished clip
            log.exception("a run could not be remembered")

    def write(self, request: GenerationRequest, done: Finished) -> tuple[Path, dict[str, Any]]:
        """The mp4 of a finished run (a labelled grid if there are several clips) and its settings."""
        settings = request.settings() | {
            "seconds": {k: round(v, 3) for k, v in done.seconds.items()},
            "unknown": list(done.unknown),
            **({} if done.peak_bytes is None else {"peak_gb": round(done.peak_bytes / 1e9, 2)}),
        }
        file = self.files.new_file(request.model_id, request.prompt, request.seed)
        if len(done.clips) == 1:
            write_mp4(file, done.clips[0].frames, request.fps, settings)
        else:
            clips = [[clip.frames for clip in done.clips]]
            pictures, fps = compose_grid(clips, request.labels, [""], [request.fps])
            write_mp4(file, pictures, fps, settings, min_px=1)
        return file, settings

    def attend(self, job: Job, end: Callable[[str, str, float], Value], run: Callable[[float], None]) -> None:
        """`run` from start to end; however it ends, the job's last value says so: `end` of phase, text and seconds."""
        begin = self.clock()
        try:
            run(begin)
        except Cancelled:
            job.publish(end("stopped", "Stopped", self.clock() - begin))
        except DemoError as error:
            job.failure = str(error)
            job.publish(end("failed", job.failure, self.clock() - begin))
        except OSError:
            log.exception("a file could not be written")
            job.failure = "the file could not be written; the server's disk may be full"
            job.publish(end("failed", job.failure, self.clock() - begin))
        except Exception:
            log.exception("a run failed")
            job.failure = SORRY
            job.publish(end("failed", SORRY, self.clock() - begin))

    def start(self, spec: ModelSpec, request: GenerationRequest, session: str | None) -> Job:
        """Begin one run; its job publishes values of the stage and the scope."""

        def work(job: Job) -> None:
            number = next(self.numbers)
            view, scope = RunView(number, job.id, request, spec), ScopeView(number, request)

            def run(begin: float) -> None:
                with closing(self.events(request, job.cancel, look=True)) as events:  # type: ignore[type-var]
                    for event in noting(job, events):
                        view.add(event)
                        scope.add(event)
                        job.publish((view.value(self.clock() - begin), scope.value(done=False)))
                        if isinstance(event, Finished):
                            file, settings = self.write(request, event)
                            last = view.finish(file, settings, self.clock() - begin)
                            job.publish((last, scope.value(done=True)))

            def end(phase: str, text: str, seconds: float) -> tuple[View, View]:
                return view.end(phase, text, seconds), scope.value(done=True)

            self.attend(job, end, run)

        return self.jobs.start(session, work)

    def start_comparison(
        self,
        axis: str,
        labels: list[str],
        requests: list[GenerationRequest],
        session: str | None,
    ) -> Job:
        """Begin a comparison, row after row; its job publishes values of the comparison."""

        def work(job: Job) -> None:
            view = CompareView(next(self.numbers), job.id, axis, labels, requests, self._finish_clip)

            def run(begin: float) -> None:
                for row, request in enumerate(requests):
                    view.begin_row(row)
                    with closing(self.events(request, job.cancel)) as events:  # type: ignore[type-var]
                        for event in noting(job, events):
                            view.add(event)
                            job.publish(view.value(self.clock() - begin))
                file = self.files.new_file("compare", requests[0].prompt, requests[0].seed)
                clips = [[clip.frames for clip in of_row] for of_row in view.clips]
                pictures, fps = compose_grid(clips, requests[0].labels, labels, [r.fps for r in requests])
                settings = requests[0].settings() | {"rows": [r.settings() for r in requests]}
                write_mp4(file, pictures, fps, settings, min_px=1)
                job.publish(view.finish(file, self.clock() - begin))

            self.attend(job, view.end, run)

        return self.jobs.start(session, work)

    def _finish_clip(self, clip: Clip) -> Made:
        request = clip.request
        file = self.files.new_file(request.model_id, request.prompt, request.seed)
        write_mp4(file, clip.frames, request.fps, request.settings())
        sprite = file.with_suffix(".jpg")
        across, size_px = write_sprite(sprite, clip.frames)
        marks = None
        if knows_words(request.model_id) and len(clip.frames) >= MIN_FRAMES:
            try:
                (marks,) = mark_clips(reader(), request.prompt, [clip.frames])
            except DemoError as error:  # its file is not here: the clips are worth showing all the same
                log.error("%s", error)
        return Made(file, sprite, across, size_px, marks)

    def follow(self, job: Job) -> Iterator[Value]:
        """What a job publishes, to its end; its failure is raised as the sentence the page shows."""
        yield from job.watch(UPDATE_S)
        if job.failure:
            raise gr.Error(escape(job.failure, quote=False), title="Not finished", print_exception=False)

    # --- the page

    def page_generate(self, request: gr.Request, *values: Any) -> Iterator[tuple[View, View]]:
        """Values of stage and scope from click to clip. A bad request raises before the first, so nothing changes."""
        with sentences():
            spec, asked = self.parse_form(dict(zip(FORM, values, strict=True)))
            job = self.start(spec, asked, request.session_hash)
        yield from self.follow(job)

    def page_vary(
        self, request: gr.Request, event: gr.EventData, reference: Any, last_frame: Any
    ) -> Iterator[tuple[View, View]]:
        """A clip's settings once more from another noise, with the form's pictures where the clip had some.

        It does not read the form, which is being filled from the same settings meanwhile.
        """
        chosen = LEFT_OUT | (event._data if isinstance(event._data, dict) else {})
        form = {name: chosen.get(name) for name in FORM} | {
            "reference": reference if chosen.get("reference") else None,
            "last_frame": last_frame if chosen.get("last_frame") else None,
            "seed": None,
        }
        with sentences():
            spec, asked = self.parse_form(form)
            job = self.start(spec, asked, request.session_hash)
        yield from self.follow(job)

    def page_compare(self, request: gr.Request, *values: Any) -> Iterator[View]:
        """Values of the comparison, from the click to the last clip."""
        form = dict(zip(COMPARE_FORM, values, strict=True))
        with sentences():
            labels, requests = self.parse_comparison(form)
            job = self.start_comparison(str(form["axis"]), labels, requests, request.session_hash)
        yield from self.follow(job)

    def page_plan(self, request: gr.Request, *values: Any) -> str:
        """What a comparison would run, in a sentence; what is wrong with it in another."""
        form = dict(zip(COMPARE_FORM, values, strict=True))
        try:
            _, requests = self.parse_comparison(dict(form) | {"prompt": form["prompt"] or "a ball"})
        except DemoError as error:
            return say(f"**Not yet:** {error}.", accepted(request))
        columns, rows = len(requests[0].columns), len(requests)
        clips = f"{columns} clips" if rows == 1 else f"{columns} by {rows}: {columns * rows} clips"
        noise = "one noise" if rows == 1 or form["axis"] != "seed" else "one noise for each row"
        steps = sum(r.steps for r in requests)
        return say(f"{clips} from {noise}, {steps} steps of up to {columns} clips at once.", accepted(request))

    def page_cost(self, request: gr.Request, *values: Any) -> Iterator[str]:
        """What the run of the form would take, in a sentence; empty while the form says nothing that can run. Counting
        may take seconds for a large model, and the last sentence must not stand that long."""
        form = dict(zip(COST_FORM, values, strict=True))
        try:
            spec = find_model(form.pop("model"))
            asked = parse_request(
                {"prompt": "a ball"} | offered(form, spec.limits), model_id=spec.id, limits=spec.limits
            )
            if isinstance(spec.weights, HubWeights):
                yield say("Counting what this takes.", accepted(request))
            words = in_words(estimate(spec, asked)) + "."
            if missing := download_bytes(spec):
                words += f" To download: {missing / 1e9:.1f} GB."
            if not why_not(spec):  # counting smaller clips takes long
                check_fits(spec, asked)
        except DeviceError as error:
            words = f"**Does not fit here:** {error}."
        except DemoError:
            words = ""
        except Exception:  # what a run takes is not worth an error, nor may "counting" stand for ever
            log.exception("a run could not be counted")
            words = ""
        yield say(words, accepted(request))

    def page_download(self, request: gr.Request, model: Any) -> Iterator[str]:
        """Fetch what the chosen model lacks; how far it is, in a sentence. It stops when the page is left, and goes on
        from there the next time."""
        with sentences():
            spec = find_model(model)
            if not self.may_download(request):
                raise WeightsError("weights are not downloaded from this page")
            with closing(download(spec)) as coming:  # type: ignore[type-var]
                told = -UPDATE_S
                for news in coming:
                    if (now := self.clock()) - told >= 10 * UPDATE_S or news.done_bytes == news.total_bytes:
                        told = now
                        of = f"{news.done_bytes / 1e9:.2f} of {news.total_bytes / 1e9:.2f} GB"
                        yield say(f"Downloading {Path(news.file).name}: {of}.", accepted(request))
        yield ""

    def page_restore(self, request: gr.Request, event: gr.EventData) -> Iterator[tuple[View, View]]:
        """A page was loaded anew and names the runs it knew: those that are still here, and the newest one followed
        if it is going on."""
        jobs = self.jobs.adopt(known_ids(event._data), request.session_hash)
        shown = [job for job in jobs if isinstance(job.value, tuple)]
        if not shown:
            return
        newest = next((job for job in shown if not job.over), shown[0])
        stages = [job.value[0] for job in shown if job is not newest and job.over]
        history = [stage for stage in stages if stage["clip"] is not None and here(stage["clip"]["file"])]
        for stage, scope in newest.watch(UPDATE_S):
            lost = stage["clip"] is not None and not here(stage["clip"]["file"])
            yield {**stage, "history": history, **({"clip": None} if lost else {})}, scope or gr.skip()

    def page_restore_comparison(self, request: gr.Request, event: gr.EventData) -> Iterator[View]:
        """The same for the newest comparison."""
        for job in self.jobs.adopt(known_ids(event._data), request.session_hash)[:1]:
            for value in job.watch(UPDATE_S):
                if "cells" in value:
                    yield {**value, "cells": [[still_here(cell) for cell in row] for row in value["cells"]]}

    def page_model(self, model: Any) -> list[Any]:
        """A model was chosen: the updates of `FOLLOWS`."""
        with sentences():
            updates = limit_updates(model)
        return [translated(updates[name]) for name in FOLLOWS]

    def page_fetchable(self, request: gr.Request, model: Any) -> Any:
        """The button that fetches a model's weights: there where it may, and something is missing."""
        with sentences():
            return gr.update(visible=self.may_download(request) and bool(missing_places(find_model(model))))

    def may_download(self, request: gr.Request) -> bool:
        """Not through a proxy, behind which anybody may be, unless it was asked for."""
        proxied = any(name in request.headers for name in ("x-forwarded-for", "forwarded", "x-real-ip"))
        return self.downloads == "always" or (self.downloads == "alone" and not proxied)

    def page_preset(self, name: Any, model: Any) -> tuple[Any, Any]:
        """Updates of steps and guidance."""
        with sentences():
            return preset_updates(name, model)

    def page_stop(self, request: gr.Request) -> None:
        self.jobs.stop(request.session_hash)

    def page_pick(self, event: gr.EventData) -> list[Any]:
        """A clip was picked on the stage: its model and settings go into the form, the updates of `PICKED`."""
        updates = pick_updates(event._data if isinstance(event._data, dict) else {})
        return [translated(updates[name]) for name in PICKED]

    def page_link(self, request: gr.Request) -> list[Any]:
        """The page was opened with settings in its address: they go into the form, and nothing runs."""
        found = dict(request.query_params) if request.query_params else {}
        return self._take(found, "this link")

    def page_open(self, file: Any) -> list[Any]:
        """The settings inside a clip or picture of this demo go into the form."""
        found = read_settings(Path(file)) if isinstance(file, str) else None
        if found is None:
            raise gr.Error("this file holds no settings of this demo", title="Not opened", print_exception=False)
        return self._take(found, "this file")

    def _take(self, found: Mapping[str, Any], source: str) -> list[Any]:
        settings, ignored = checked_settings(found, hidden=self.debug_models)
        if ignored:
            told = escape("; ".join(ignored), quote=False)  # Gradio draws it as HTML
            gr.Warning(f"Ignored in {source}: {told}.", title="Not everything fits")
        updates = pick_updates(settings) if settings else dict.fromkeys(PICKED, gr.skip())
        return [translated(updates[name]) for name in PICKED]

    def page_crop(self, first: Any, last: Any, model: Any, resolution: Any, aspect: Any) -> Any:
        """The given frames as the model will see them, side by side: scaled, cropped, and no finer."""
        with sentences():
            spec = find_model(model)
            limits = spec.limits
            begin = first if isinstance(first, str) and limits.reference else None
            end = last if isinstance(last, str) and limits.last_frame else None
            size = offered({"resolution": resolution, "aspect": aspect}, limits)
            shape = parse_request({"prompt": "a ball"} | size, model_id=spec.id, limits=limits).shape
            frames = [frame[0] for frame in read_pictures((begin, end), shape) if frame is not None]
        if not frames:
            return gr.update(value=None, visible=False)
        file = self.files.new_file("frame", "given", 0).with_suffix(".png")
        write_png(file, np.concatenate(frames, axis=1), {})
        return gr.update(value=str(file), visible=True)

    def page_size(self, model: Any, resolution: Any, aspect: Any) -> tuple[Any, Any]:
        """The empty stages take the shape of the clip that is asked for."""
        with sentences():
            spec = find_model(model)
            asked = {"prompt": "a ball"} | offered({"resolution": resolution, "aspect": aspect}, spec.limits)
            size = parse_request(asked, model_id=spec.id, limits=spec.limits).size
        return gr.update(**stage_props("stage", spec, size)), gr.update(**stage_props("grid", spec, size))

    def page_compose(self, event: gr.EventData) -> str:
        """The sentence of the chips that are pressed."""
        choice = event._data if isinstance(event._data, dict) else {}
        return compose(choice, "zh" if choice.get("language") == "zh" else "en")

    def page_roll(self, request: gr.Request) -> str:
        return roll(random.Random(), language_of(accepted(request)))


def offered(form: Form, limits: Limits) -> dict[str, Any]:
    """The form without choices that another model left in it: the model has just changed."""
    return {name: value for name, value in form.items() if value in limits.choices.get(name, (value,))}


def accepted(request: gr.Request) -> str:
    """The Accept-Language header of a visitor."""
    return str(request.headers.get("accept-language", ""))


def noting(job: Job, events: Iterator[E]) -> Iterator[E]:
    """The events of a run, while its job is told whether it waits for the device."""
    for event in events:
        job.waiting = isinstance(event, Waiting)
        yield event


@cache
def reader() -> Reader:
    """The network that says what a clip shows; a few milliseconds to load, so only when it is needed."""
    return load_reader()


def here(file: Mapping[str, Any]) -> bool:
    """Whether a file that was handed to a page has not been swept away since."""
    return Path(file["path"]).is_file()


def still_here(cell: dict[str, Any]) -> dict[str, Any]:
    return cell if "file" not in cell or here(cell["file"]) else {"state": "missing"}


def known_ids(data: Any) -> list[str]:
    """The ids a page sends, whatever it sends."""
    found = data.get("jobs") if isinstance(data, dict) else None
    return [i for i in found[:REMEMBERED] if isinstance(i, str)] if isinstance(found, list) else []


@lru_cache(maxsize=8)
def _read_picture(file: str, height_px: int, width_px: int) -> Frames:
    """Read once: every row of a comparison, and its plan at every letter typed, asks for the same. An uploaded file's
    path is its content's."""
    frames = read_reference(file, height_px, width_px)
    frames.flags.writeable = False
    return frames


def read_pictures(pictures: Pictures, shape: VideoShape) -> list[Frames | None]:
    """The given frames at the clip's size. Raises RequestError with the name of the field."""
    frames: list[Frames | None] = []
    for field, file in zip(("reference", "last_frame"), pictures, strict=True):
        try:
            frames.append(_read_picture(file, shape.height_px, shape.width_px) if file else None)
        except RequestError as error:
            raise RequestError(field, str(error).removeprefix(f"{error.field}: ")) from error
    return frames
