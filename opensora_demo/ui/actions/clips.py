"""A run of one clip: from the form, from a clip once more, and found again by a page that was loaded anew."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import gradio as gr

from opensora_demo.catalog import ModelSpec, find_model
from opensora_demo.errors import RequestError
from opensora_demo.messages import Message, message
from opensora_demo.request import settings as table
from opensora_demo.request.events import DecodedFrames, Finished
from opensora_demo.request.request import GenerationRequest
from opensora_demo.service.engine import RunRecord, State
from opensora_demo.service.forms import Form, given_names, parse_form, with_frames_of_form
from opensora_demo.service.outputs import RunFiles, read_beside, scene_marks
from opensora_demo.service.runs import Run, new_id, part_id
from opensora_demo.toy.chips import TOY_MODELS
from opensora_demo.ui.context import (
    LOST_RUN,
    UPDATE_S,
    PageContext,
    Shown,
    address_of,
    known_ids,
    payload,
    phase_of,
    user_errors,
    without_scope,
)
from opensora_demo.ui.scripts import UI_ASSETS
from opensora_demo.ui.values.scope import ScopeView
from opensora_demo.ui.values.stage import RunView


def example_file(settings: Mapping[str, Any], name: object) -> Path | None:
    """The mp4 of an example of the model that its settings name."""
    if settings.get("model") not in TOY_MODELS or not isinstance(name, str) or not re.fullmatch(r"\d+\.mp4", name):
        return None
    file = UI_ASSETS / "examples" / str(settings["model"]) / name
    return file if file.is_file() else None


class ClipActions:
    """Runs of one clip. Each works in a thread of its own; these watch it."""

    def __init__(self, context: PageContext) -> None:
        self.context = context

    def start(
        self, spec: ModelSpec, request: GenerationRequest, visitor: gr.Request, form: Form | None = None
    ) -> Run[Shown]:
        """Begin one run of a form; it publishes values of the stage and the scope."""
        record = RunRecord(
            kind="clip", what=request, number=next(self.context.numbers), began_at=time.time(), form=form
        )
        return self._begin(new_id(), record, spec, visitor)

    def _begin(
        self, run_id: str, record: RunRecord, spec: ModelSpec, visitor: gr.Request, *, found: bool = False
    ) -> Run[Shown]:
        """The run of a record; `found` where another process began it."""
        request: GenerationRequest = record.what
        owner, storage = visitor.session_hash, self.context.storage_of(visitor)
        if record.seconds is not None:  # the process that it ended in has kept the clip
            storage = None
        view = RunView(record.number, run_id, request, spec, blind=self.context.engine.blind)
        scope = ScopeView(record.number, request)

        def work(run: Run[Shown]) -> Shown:
            with closing(self.context.files.run(request)) as files:
                return written(run, files)

        def written(run: Run[Shown], files: RunFiles) -> Shown:
            last: Shown | None = None
            if found:  # there is something to show, whatever it waits for
                run.publish((view.value(run.elapsed_s, kept=run.kept), scope.value(done=False)))
            job = self.context.engine.submit(request, owner, look=True, job_id=part_id(run_id))
            for event in run.follow(job):
                view.add(event)
                scope.add(event)
                if isinstance(event, DecodedFrames) and (picture := files.add(event)) is not None:
                    view.show(*picture)
                run.publish((view.value(run.elapsed_s, kept=run.kept), scope.value(done=False)))
                if isinstance(event, Finished):
                    marks = read_beside(scene_marks, event.clips[0]) if len(event.clips) == 1 else None
                    file, settings = files.finish(event)
                    if storage is not None:
                        storage.gallery.keep(file)
                    made = view.finish(file, settings, run.elapsed_s, [] if marks is None else marks.result())
                    run.publish((made, scope.value(done=False)))  # what is still to be decoded comes after it
                    last = view.complete(made["elapsed"]), scope.value(done=True)
            assert last is not None
            return last

        def end(state: State, reason: Message, seconds: float) -> Shown:
            stage = view.end(phase_of(state), reason, seconds)
            return (view.complete(seconds) if stage["phase"] == "stopped" else stage), scope.value(done=True)

        return self.context.runs.start(
            owner,
            work,
            end,
            kind="clip",
            run_id=run_id,
            visitor=address_of(visitor),
            form=record.form,
            shrink=without_scope,
            record=record,
            found=found,
        )

    def make_clip(self, request: gr.Request, *values: Any) -> Iterator[Shown]:
        """Values of stage and scope from click to clip. A bad request raises before the first, so nothing changes."""
        form = dict(zip(table.names(), values, strict=True))
        with user_errors():
            spec, wanted = parse_form(form, self.context.estimator)
            run = self.start(spec, wanted, request, form)
        yield from self._to_its_clip(run, request)

    def _to_its_clip(self, run: Run[Shown], request: gr.Request) -> Iterator[Shown]:
        """A run's values until its clip is there. `complete` has the rest, so that the next run may begin meanwhile:
        the page passes over clicks while an event of the same kind goes on."""
        for shown in self.context.follow(run, request):
            yield shown
            if shown[0]["phase"] == "done":
                return

    def complete(self, request: gr.Request) -> Iterator[Shown]:
        """What a finished run still gets after its clip, the pictures that its time had no room for; nothing where
        another has begun."""
        runs, owner = self.context.runs, request.session_hash
        run = runs.newest(owner, "clip")
        if run is None:
            return
        for shown in run.watch(UPDATE_S, self.context.listener(request)):
            if shown[0]["phase"] != "done" or runs.newest(owner, "clip") != run:
                return
            if run.over:
                yield shown[0], shown[1] or gr.skip()

    def extend(self, request: gr.Request, event: gr.EventData, *values: Any) -> Iterator[Shown]:
        """The clip on the stage goes on: the form's settings with it as the given video. An example, whose settings are
        not in the form, brings its own."""
        asked = payload(event)
        settings = asked.get("settings")
        with user_errors():
            file = self.context.files.clip(asked.get("name"))
            form = dict(zip(table.names(), values, strict=True))
            if isinstance(settings, dict):
                file, form = example_file(settings, asked.get("name")), with_frames_of_form(settings, {})
            if file is None:
                raise RequestError("video", message("request.clip_gone"))
            alone = dict.fromkeys(setting.name for setting in table.SETTINGS if setting.section == "branch")
            alone |= dict.fromkeys(given_names())  # the video is what the clip begins with
            given = {"video": str(file), "video_use": "extend"}
            spec, wanted = parse_form(form | alone, self.context.estimator, **given)
            run = self.start(spec, wanted, request, form)
        yield from self._to_its_clip(run, request)

    def again(self, request: gr.Request, event: gr.EventData, *files: Any) -> Iterator[Shown]:
        """A clip's settings once more, with some of them changed: another noise, another way from a step on. Where the
        clip had given frames or a video, the form's files (`given_names`) stand in.

        It does not read the form, which is being filled from the same settings meanwhile.
        """
        settings = payload(event)
        with user_errors():
            form = with_frames_of_form(settings, dict(zip(given_names(), files, strict=True)))
            spec, wanted = parse_form(form, self.context.estimator)
            run = self.start(spec, wanted, request, form)
        yield from self._to_its_clip(run, request)

    def restore(self, request: gr.Request, event: gr.EventData) -> Iterator[Any]:
        """A page was loaded anew and names the runs it knew: those that are still here, and the newest one followed
        if it is going on. Values of stage and scope."""
        asked = payload(event)
        ids = known_ids(asked)

        def begin(run_id: str, record: RunRecord) -> Run[Shown]:
            return self._begin(run_id, record, find_model(record.what.model_id), request, found=True)

        with user_errors():
            self.context.find_again(ids, "clip", request, begin)
        runs = self.context.runs.adopt(ids, request.session_hash, "clip")
        shown: list[Run[Shown]] = [run for run in runs if run.value is not None]
        if not shown:
            if asked.get("going"):  # a run of a server that is no more
                yield LOST_RUN, gr.skip()
            return
        newest = next((run for run in shown if not run.over), shown[0])
        stages = [run.value[0] for run in shown if run is not newest and run.value]  # also while last pictures come
        history = [stage for stage in stages if stage["clip"] is not None and self.context.here(stage["clip"]["file"])]
        for stage, scope in newest.watch(UPDATE_S, self.context.listener(request)):
            clip = stage["clip"]
            lost = clip is not None and not self.context.here(clip["file"])
            yield {**stage, "history": history, "clip": None if lost else clip}, scope or gr.skip()

    def keep(self, request: gr.Request, event: gr.EventData) -> None:
        """A run goes on, though its page may be closed and its connection lost, or no longer."""
        asked = payload(event)
        on = bool(asked.get("on"))
        with user_errors():
            if self.context.runs.keep_going(str(asked.get("job")), request.session_hash, on=on) != on:
                raise RequestError("run", message("request.not_kept"))

    def stop(self, request: gr.Request) -> None:
        self.context.runs.stop(request.session_hash)
