"""What a program can call: /generate and /compare. A call that is given up stops its run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from threading import Event as Flag
from typing import Any

from opensora_demo.types import Finished, parse_guidance_list
from opensora_demo.ui.handlers import DEFAULT_SCALES, MAX_TYPED, Handlers, Pictures, sentences
from opensora_demo.ui.present import RunView, View

NEWS_S = 0.25  # a caller is told at most this often

News = Iterator[tuple[str | None, View]]


class Api:
    """The functions behind the endpoints; their parameters are the endpoints' names."""

    def __init__(self, handlers: Handlers) -> None:
        self.handlers = handlers

    def _call(self, raw: Mapping[str, Any], pictures: Pictures, model: object) -> News:
        """News of a run as (None, state), then (file, settings)."""
        cancel, clock = Flag(), self.handlers.clock
        with sentences():
            spec, request = self.handlers.parse(raw, pictures, model)
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
    ) -> News:
        """Make one clip of `prompt`; answers the mp4 and its settings: the seed used, seconds per stage, unknown words.

        Everything but the prompt may be left out and takes the model's default; without a seed, or with -1, a random
        one is taken. While it runs a job's outputs are (null, state).
        """
        if isinstance(guidance, list | tuple):
            guidance = str(guidance)  # several scales or rules are /compare's: refused by the schema
        if isinstance(rule, list | tuple):
            rule = str(rule)
        raw = {
            "prompt": "" if prompt is None else prompt, "negative": negative, "fps": fps, "frames": frames,
            "steps": steps, "guidance": guidance, "seed": seed, "edit": edit, "rule": rule,
            "image_guidance": image_guidance, "motion_score": motion_score,
        }  # fmt: skip
        yield from self._call(raw, (reference, last_frame), model)

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
    ) -> News:
        """The same prompt and noise at several guidance scales, such as "1, 2, 4, 7", and by one or several rules;
        answers one labelled grid mp4."""
        guidance = DEFAULT_SCALES if guidance is None else guidance
        with sentences():
            raw = {
                "prompt": "" if prompt is None else prompt, "negative": negative, "fps": fps, "frames": frames,
                "steps": steps, "seed": seed, "edit": edit, "rule": rule,
                "guidance": parse_guidance_list(guidance[:MAX_TYPED]) if isinstance(guidance, str) else guidance,
                "image_guidance": image_guidance, "motion_score": motion_score,
            }  # fmt: skip
        yield from self._call(raw, (reference, last_frame), model)
