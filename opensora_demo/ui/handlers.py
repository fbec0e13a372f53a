"""What happens on a click or a call: parse, run, present. The page and the API differ only in what they show.

Every generator here yields before it works, holds its flag and lock through context managers, and so ends cleanly
whether it runs out, fails, is stopped, or is closed because the tab went away.
"""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from opensora_demo.catalog import ModelSpec, find_model
from opensora_demo.errors import Cancelled, DemoError, RequestError, WeightsError
from opensora_demo.media import compose_grid, read_reference, write_mp4
from opensora_demo.pipeline import generate as run_pipeline
from opensora_demo.types import Finished, Frames, GenerationRequest, Limits, parse_guidance_list, parse_request
from opensora_demo.ui.controls import FOLLOWS, LEFT_OUT, PICKED, limit_updates, pick_updates
from opensora_demo.ui.files import OutputFolder
from opensora_demo.ui.present import RunView, View
from opensora_demo.ui.runs import BundleSource, Generate, RunEvent, Runs, stream
from opensora_demo.ui.scope import ScopeView
from opensora_demo.ui.words import compose, roll
from opensora_demo.weights import why_not

log = logging.getLogger(__name__)
SORRY = "Something went wrong; the details are in the server's log."
UPDATE_S = 0.08  # the page is told at most this often
NEWS_S = 0.25  # an API caller
ENDED = ("done", "stopped", "failed")  # phases after which nothing comes
DEFAULT_SCALES = "1, 2, 4, 7"
Pictures = tuple[str | None, str | None]  # files of the first and the last frame


@contextmanager
def sentences() -> Iterator[None]:
    """Turn errors into the one kind whose text Gradio shows; what nobody foresaw goes to the log."""
    try:
        yield
    except DemoError as error:
        raise gr.Error(str(error), title="Not run", print_exception=False) from error
    except gr.Error:
        raise
    except Exception as error:
        log.exception("a request failed")
        raise gr.Error(SORRY, title="Sorry", print_exception=False) from error


class Handlers:
    """The functions behind the page and the API. Holds nothing of any one visitor."""

    def __init__(
        self,
        bundles: BundleSource,
        *,
        generate: Generate = run_pipeline,
        files: OutputFolder | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.bundles = bundles
        self.files = files or OutputFolder()
        self.runs = Runs()
        self._generate = generate
        self._clock = clock
        self._numbers = itertools.count(1)

    # --- requests

    def parse(self, raw: Mapping[str, Any], pictures: Pictures, model: object) -> tuple[ModelSpec, GenerationRequest]:
        """The request of a form or call. Raises RequestError, and WeightsError where the model cannot be loaded."""
        spec = find_model(model)
        if why := why_not(spec):
            raise WeightsError(f"{spec.title} cannot run here: {why}.")
        request = parse_request(raw, model_id=spec.id, limits=spec.limits)  # cheap checks before a file is opened
        if pictures == (None, None):
            return spec, request
        first, last = read_pictures(pictures, spec.limits)
        raw = dict(raw) | {"seed": request.seed}
        return spec, parse_request(raw, model_id=spec.id, limits=spec.limits, reference=first, last_frame=last)

    def _events(self, request: GenerationRequest, session: str | None, *, look: bool = False) -> Iterator[RunEvent]:
        flag = self.runs.start(session)
        generate = partial(self._generate, look=True) if look else self._generate
        try:
            with closing(stream(self.bundles, generate, request, flag)) as events:  # type: ignore[type-var]
                yield from events
        finally:
            self.runs.finish(session, flag)

    def _write(self, request: GenerationRequest, done: Finished) -> tuple[Path, dict[str, Any]]:
        """The mp4 of a finished run (a labelled grid if there are several clips) and its settings."""
        settings = request.settings() | {
            "seconds": {k: round(v, 3) for k, v in done.seconds.items()},
            "unknown": list(done.unknown),
        }
        frames = done.clips[0].frames
        if len(done.clips) > 1:
            frames = compose_grid([clip.frames for clip in done.clips], request.labels)
        file = self.files.new_file(request.model_id, request.prompt, request.seed)
        write_mp4(file, np.asarray(frames), request.fps, settings)
        return file, settings

    # --- the page

    def page(
        self,
        raw: Mapping[str, Any],
        pictures: Pictures,
        model: object,
        session: str | None,
        *,
        look: bool = False,
    ) -> Iterator[Any]:
        """Values of the stage from the click to the clip; with `look` (stage, scope). A bad request raises before the
        first, so nothing changes."""
        with sentences():
            spec, request = self.parse(raw, pictures, model)
        begin = self._clock()
        run = next(self._numbers)
        view, scope = RunView(run, request, spec), ScopeView(run, request)

        def drawn(stage: View) -> Any:
            return (stage, scope.value(done=stage["phase"] in ENDED)) if look else stage

        shown = float("-inf")
        try:
            with closing(self._events(request, session, look=look)) as events:  # type: ignore[type-var]
                for event in events:
                    view.add(event)
                    scope.add(event)
                    now = self._clock()
                    if view.steps <= 1 or now - shown >= UPDATE_S or isinstance(event, Finished):
                        shown = now
                        yield drawn(view.value(now - begin))
                    if isinstance(event, Finished):
                        file, settings = self._write(request, event)
                        yield drawn(view.finish(file, settings, self._clock() - begin))
        except Cancelled:
            yield drawn(view.end("stopped", "Stopped", self._clock() - begin))
        except DemoError as error:
            yield drawn(view.end("failed", str(error), self._clock() - begin))
            raise gr.Error(str(error), title="Not finished", print_exception=False) from error
        except Exception as error:
            log.exception("a run failed")
            yield drawn(view.end("failed", SORRY, self._clock() - begin))
            raise gr.Error(SORRY, title="Sorry", print_exception=False) from error

    def page_generate(
        self,
        prompt: Any,
        negative: Any,
        reference: Any,
        last_frame: Any,
        edit: Any,
        fps: Any,
        frames: Any,
        steps: Any,
        guidance: Any,
        rule: Any,
        image_guidance: Any,
        motion_score: Any,
        seed: Any,
        model: Any,
        request: gr.Request,
    ) -> Iterator[tuple[View, View]]:
        """Values of stage and scope."""
        raw = raw_form(
            prompt=prompt,
            negative=negative,
            fps=fps,
            frames=frames,
            steps=steps,
            guidance=guidance,
            seed=seed,
            **self.of_model(model, edit, rule, image_guidance, motion_score),
        )
        given = self.pictures_of(model, reference, last_frame)
        yield from self.page(raw, given, model, request.session_hash, look=True)

    def page_vary(
        self, reference: Any, last_frame: Any, event: gr.EventData, request: gr.Request
    ) -> Iterator[tuple[View, View]]:
        """A clip's settings once more from another noise, with the form's pictures where the clip had some.

        It does not read the form, which is being filled from the same settings meanwhile.
        """
        chosen = LEFT_OUT | (event._data if isinstance(event._data, dict) else {})
        keys = ("prompt", "negative", "edit", "fps", "frames", "steps", "guidance")
        yield from self.page_generate(
            **{key: chosen.get(key) for key in (*keys, "rule", "image_guidance", "motion_score", "model")},
            reference=reference if chosen.get("reference") else None,
            last_frame=last_frame if chosen.get("last_frame") else None,
            seed=None,
            request=request,
        )

    def page_compare(
        self,
        prompt: Any,
        negative: Any,
        reference: Any,
        last_frame: Any,
        edit: Any,
        fps: Any,
        frames: Any,
        steps: Any,
        scales: Any,
        rule: Any,
        image_guidance: Any,
        motion_score: Any,
        seed: Any,
        model: Any,
        request: gr.Request,
    ) -> Iterator[View]:
        with sentences():
            raw = raw_form(
                prompt=prompt,
                negative=negative,
                fps=fps,
                frames=frames,
                steps=steps,
                guidance=guidance_list(scales),
                seed=seed,
                **self.of_model(model, edit, rule, image_guidance, motion_score),
            )
        yield from self.page(raw, self.pictures_of(model, reference, last_frame), model, request.session_hash)

    def of_model(self, model: object, edit: Any, rule: Any, image_guidance: Any, motion_score: Any) -> dict[str, Any]:
        """Those of the settings only some models have that are shown for this one; a hidden control keeps the value
        it had for another model and says nothing."""
        with sentences():
            limits = find_model(model).limits
        return {
            "rule": rule if len(limits.rules) > 1 else None,
            "image_guidance": image_guidance if limits.image_guidance else None,
            "motion_score": motion_score if limits.motion_score else None,
            "edit": edit if limits.edit else None,
        }

    def pictures_of(self, model: object, reference: Any, last_frame: Any) -> Pictures:
        """The given frames this model takes; a picture that is out of sight waits for the model it was given to."""
        with sentences():
            limits = find_model(model).limits
        return (reference if limits.reference else None, last_frame if limits.last_frame else None)

    def page_model(self, model: Any) -> list[Any]:
        """A model was chosen: the updates of `FOLLOWS`."""
        with sentences():
            updates = limit_updates(model)
        return [updates[name] for name in FOLLOWS]

    def page_stop(self, request: gr.Request) -> None:
        self.runs.stop(request.session_hash)

    def page_pick(self, event: gr.EventData) -> list[Any]:
        """A clip was picked on the stage: its model and settings go into the form, the updates of `PICKED`."""
        updates = pick_updates(event._data if isinstance(event._data, dict) else {})
        return [updates[name] for name in PICKED]

    def page_compose(self, event: gr.EventData) -> str:
        """The sentence of the chips that are pressed."""
        return compose(event._data if isinstance(event._data, dict) else {})

    def page_roll(self) -> str:
        return roll(random.Random())

    # --- the API

    def _call(self, raw: Mapping[str, Any], pictures: Pictures, model: object) -> Iterator[tuple[str | None, View]]:
        """News of a run as (None, state), then (file, settings)."""
        with sentences():
            spec, request = self.parse(raw, pictures, model)
            begin = told = self._clock()
            view = RunView(0, request, spec)
            with closing(self._events(request, None)) as events:  # type: ignore[type-var]
                for event in events:
                    view.add(event)
                    now = self._clock()
                    if now - told >= NEWS_S or view.steps == 0:
                        told = now
                        yield None, view.news(now - begin)
                    if isinstance(event, Finished):
                        file, settings = self._write(request, event)
                        yield str(file), settings

    def api_generate(
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
    ) -> Iterator[tuple[str | None, View]]:
        """Make one clip of `prompt`; answers the mp4 and its settings: the seed used, seconds per stage, unknown words.

        Everything but the prompt may be left out and takes the model's default; without a seed, or with -1, a random
        one is taken. While it runs a job's outputs are (null, state).
        """
        if isinstance(guidance, list | tuple):
            guidance = str(guidance)  # several scales are /compare's: refused by the schema as no number
        raw = raw_form(
            prompt=prompt,
            negative=negative,
            fps=fps,
            frames=frames,
            steps=steps,
            guidance=guidance,
            seed=seed,
            edit=edit,
            rule=rule,
            image_guidance=image_guidance,
            motion_score=motion_score,
        )
        yield from self._call(raw, (reference, last_frame), model)

    def api_compare(
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
    ) -> Iterator[tuple[str | None, View]]:
        """The same prompt and noise at several guidance scales, such as "1, 2, 4, 7"; answers one labelled grid mp4."""
        with sentences():
            raw = raw_form(
                prompt=prompt,
                negative=negative,
                fps=fps,
                frames=frames,
                steps=steps,
                guidance=guidance_list(DEFAULT_SCALES if guidance is None else guidance),
                seed=seed,
                edit=edit,
                rule=rule,
                image_guidance=image_guidance,
                motion_score=motion_score,
            )
        yield from self._call(raw, (reference, last_frame), model)


def read_pictures(pictures: Pictures, limits: Limits) -> list[Frames | None]:
    """The given frames at the model's size. Raises RequestError with the name of the field."""
    frames: list[Frames | None] = []
    for field, file in zip(("reference", "last_frame"), pictures, strict=True):
        try:
            frames.append(read_reference(file, *limits.sizes_px[0]) if file else None)
        except RequestError as error:
            raise RequestError(field, str(error).removeprefix(f"{error.field}: ")) from error
    return frames


def guidance_list(value: Any) -> Any:
    """Text such as "1, 2, 4, 7" as numbers; a list passes as it is, for the schema to judge. Raises RequestError."""
    return parse_guidance_list(value[:500]) if isinstance(value, str) else value


def raw_form(*, prompt: Any, **fields: Any) -> dict[str, Any]:
    """The fields as `parse_request` calls them; a form's empty prompt is no text."""
    return {"prompt": "" if prompt is None else prompt, **fields}
