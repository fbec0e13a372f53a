"""What a program can call: /generate and /compare. A call that is given up stops its run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from threading import Event as Flag
from typing import Any

from opensora_demo.types import Finished, parse_guidance_list
from opensora_demo.ui.handlers import DEFAULT_SCALES, MAX_TYPED, Handlers, sentences
from opensora_demo.ui.present import RunView, View

NEWS_S = 0.25  # a caller is told at most this often

News = Iterator[tuple[str | None, View]]


class Api:
    """The functions behind the endpoints; their parameters are the endpoints' names."""

    def __init__(self, handlers: Handlers) -> None:
        self.handlers = handlers

    def _call(self, given: Mapping[str, Any]) -> News:
        """News of a run as (None, state), then (file, settings); `given` is what was called with, by name."""
        cancel, clock = Flag(), self.handlers.clock
        raw = {name: value for name, value in given.items() if name not in ("reference", "last_frame", "model")}
        raw["prompt"] = "" if raw["prompt"] is None else raw["prompt"]
        with sentences():
            spec, request = self.handlers.parse(raw, (given["reference"], given["last_frame"]), given["model"])
            begin = told = clock()
            view = RunView(0, "", request, spec)
            try:
                with closing(self.handlers.events(request, cancel)) as events:  # type: ignore[type-var]
                    for event in events:
                        view.add(event)
                        now = clock()
                        if now - told >= NEWS_S or view.steps == 0:
                            told = now
                            yield None, view.news(now - begin)
                        if isinstance(event, Finished):
                            file, settings = self.handlers.write(request, event)
                            yield str(file), settings
            finally:
                cancel.set()

    def generate(
        self,
        prompt: Any = None,
        negative: Any = None,
        reference: Any = None,
        fps: Any = None,
        frames: Any = None,
        steps: Any = None,
        guidance: Any = None,
        seed: Any = None,
        model: Any = None,
        last_frame: Any = None,
        edit: Any = None,
        rule: Any = None,
        image_guidance: Any = None,
        motion_score: Any = None,
        resolution: Any = None,
        aspect: Any = None,
    ) -> News:
        """Make one clip of `prompt`; answers the mp4 and its settings: the seed used, seconds per stage, unknown words.

        Everything but the prompt may be left out and takes the model's default; without a seed, or with -1, a random
        one is taken. While it runs a job's outputs are (null, state).
        """
        given = {name: value for name, value in locals().items() if name != "self"}
        for name in ("guidance", "rule"):
            if isinstance(given[name], list | tuple):
                given[name] = str(given[name])  # several are /compare's: refused by the schema
        yield from self._call(given)

    def compare(
        self,
        prompt: Any = None,
        negative: Any = None,
        reference: Any = None,
        fps: Any = None,
        frames: Any = None,
        steps: Any = None,
        guidance: Any = None,
        seed: Any = None,
        model: Any = None,
        last_frame: Any = None,
        edit: Any = None,
        rule: Any = None,
        image_guidance: Any = None,
        motion_score: Any = None,
        resolution: Any = None,
        aspect: Any = None,
    ) -> News:
        """The same prompt and noise at several guidance scales, such as "1, 2, 4, 7", and by one or several rules;
        answers one labelled grid mp4."""
        given = {name: value for name, value in locals().items() if name != "self"}
        guidance = DEFAULT_SCALES if guidance is None else guidance
        with sentences():
            given["guidance"] = parse_guidance_list(guidance[:MAX_TYPED]) if isinstance(guidance, str) else guidance
        yield from self._call(given)
