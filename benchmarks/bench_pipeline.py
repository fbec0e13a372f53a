"""A clip of nano from click to file, as the page makes it, against the bare pipeline.

The page's way is the one of `ui.actions.clips`: a job of the engine, whose every step is looked at, folded into the
values of the stage and the latent scope, and its mp4 written with what a reader sees in it. The bare way is
`pipeline.generate` and nothing else: no picture is made, no file written.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks.pairs import Took, alternate, median_s, ratio
from benchmarks.report import Report, Row
from opensora_demo.catalog import find_model
from opensora_demo.pipeline import run
from opensora_demo.request.events import Finished, StepPreview
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.bundle import Bundles
from opensora_demo.service.local import LocalEngine
from opensora_demo.service.outputs import OutputFolder, read_beside, scene_marks
from opensora_demo.ui.values.scope import ScopeView
from opensora_demo.ui.values.stage import RunView

MODEL = "nano"
SCALES = (2.0, 4.0, 6.0, 8.0)
STAGES = ("text", "denoise", "decode")


@dataclass(slots=True)
class Stages:
    """Seconds of each of several clips, stage by stage."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, **seconds: float) -> None:
        for name, value in seconds.items():
            self.seconds.setdefault(name, []).append(value)

    def took(self, name: str) -> list[Took]:
        """As `pairs.ratio` takes them; only the seconds that went by are known of a stage."""
        return [Took(wall=value, cpu=0.0) for value in self.seconds[name]]


class Pipeline:
    """Both ways over one loaded model."""

    def __init__(self, steps: int | None = None, frames: int | None = None) -> None:
        """`steps` and `frames` replace the model's defaults."""
        self.spec = find_model(MODEL)
        self.bundles = Bundles()
        self.engine = LocalEngine(self.bundles)
        self.files = OutputFolder(keep=4)
        self.steps, self.frames = steps, frames
        self.page_stages, self.bare_stages = Stages(), Stages()
        self.peak_mb = 0.0

    def request(self, *scales: float) -> GenerationRequest:
        raw: dict[str, Any] = {"prompt": "a red ball bouncing on a meadow", "seed": 7}
        raw |= {"steps": self.steps, "frames": self.frames}
        raw |= {"guidance": list(scales)} if scales else {}
        return parse_request(raw, model_id=self.spec.id, limits=self.spec.limits)

    def page(self) -> None:
        """From the click to the clip's file, with all that is shown meanwhile; then the pictures of steps that the run
        had no time for."""
        began = time.perf_counter()
        request = self.request()
        view, scope = RunView(1, "bench", request, self.spec), ScopeView(1, request)
        first = shown = 0.0
        for event in self.engine.submit(request, "bench", look=True).events():
            at = time.perf_counter()
            view.add(event)
            scope.add(event)
            view.value(at - began)
            scope.value(done=False)
            now = time.perf_counter()
            shown += now - at
            if isinstance(event, StepPreview) and not first:
                first = now - began
            if isinstance(event, Finished):
                marks = read_beside(scene_marks, event.clips[0])
                file, settings = self.files.write_run(request, event)
                written = time.perf_counter()
                view.finish(file, settings, written - began, marks.result())
                ended = time.perf_counter()
                view.complete(ended - began)
                scope.value(done=True)
                self.peak_mb = max(self.peak_mb, (event.peak_bytes or 0) / 1e6)
                self.page_stages.add(
                    **{name: event.seconds[name] for name in STAGES},
                    preview=shown,
                    first=first,
                    write=written - now,
                    read=ended - written,
                    total=ended - began,
                    after=time.perf_counter() - ended,
                )

    def bare(self) -> None:
        began = time.perf_counter()
        done = run(self.bundles.get(MODEL), self.request())
        self.bare_stages.add(total=time.perf_counter() - began, **{name: done.seconds[name] for name in STAGES})

    def four(self) -> None:
        """Four scales of guidance over one noise, without pictures and files."""
        run(self.bundles.get(MODEL), self.request(*SCALES))


def measure(report: Report, *, quick: bool, rounds: int, limit_s: float) -> None:
    pipeline = Pipeline(steps=2, frames=5) if quick else Pipeline()
    try:
        pipeline.page()  # loads the model, and all that is made when it is first needed
        pipeline.bare()
        pipeline.page_stages, pipeline.bare_stages = Stages(), Stages()
        times = alternate(
            {"page": pipeline.page, "bare": pipeline.bare, "four": pipeline.four}, rounds=rounds, limit_s=limit_s
        )
    finally:
        pipeline.files.close()
    add_rows(report, pipeline, times)
    report.memory["one clip in this process, models of the cases above included"] = round(pipeline.peak_mb, 1)


def add_rows(report: Report, pipeline: Pipeline, times: dict[str, list[Took]]) -> None:
    page, bare = pipeline.page_stages, pipeline.bare_stages
    clip = bare.took("total")

    def row(name: str, seconds: list[Took], of: str, below: list[Took]) -> None:
        found = ratio(seconds, below).without_computing()
        report.add(Row(group="pipeline", name=name, value=median_s(seconds), unit="s", of=of, ratio=found))

    row("click to clip", page.took("total"), "page / bare pipeline", clip)
    steps = pipeline.request().steps
    for name, words in (("text", "text"), ("denoise", f"denoising, {steps} steps"), ("decode", "decoding")):
        row(words, page.took(name), "page / bare pipeline", bare.took(name))
    row("pictures while it runs", page.took("preview"), "of the bare pipeline", clip)
    row("writing the mp4", page.took("write"), "of the bare pipeline", clip)
    row("what a reader sees in it, beyond that", page.took("read"), "of the bare pipeline", clip)
    row("pictures that are made after the clip", page.took("after"), "of the bare pipeline", clip)
    row("first picture", page.took("first"), "of the bare pipeline", clip)
    row("four scales of guidance", times["four"], "four / one, both bare", times["bare"])
