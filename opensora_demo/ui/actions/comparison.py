"""A comparison: what it would run, its run, and that found again."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import gradio as gr

from opensora_demo.errors import DemoError, RequestError
from opensora_demo.messages import Message, in_a_row, message
from opensora_demo.service.engine import RunRecord, State
from opensora_demo.service.forms import (
    COMPARISON,
    EXAMPLE,
    Comparison,
    Form,
    compare_names,
    parse_comparison,
)
from opensora_demo.service.runs import Run, new_id, part_id
from opensora_demo.ui.context import (
    LOST_RUN,
    UPDATE_S,
    PageContext,
    address_of,
    known_ids,
    payload,
    phase_of,
    user_errors,
)
from opensora_demo.ui.controls import row_updates
from opensora_demo.ui.values.common import IdleValue
from opensora_demo.ui.values.compare import CompareValue, CompareView

KEEP_STOPPED = 6  # comparisons that can go on, with the frames they have
KEEP_SEEDS = 200  # visitors whose last comparison's seed is known


class ComparisonActions:
    """Comparisons, a row after the other in one run."""

    def __init__(self, context: PageContext) -> None:
        self.context = context
        # By the secret ids of their runs, oldest first.
        self._stopped: dict[str, tuple[Comparison, CompareView, Form | None]] = {}
        self._seeds: OrderedDict[str, tuple[Form, int]] = OrderedDict()  # by visitor, the last comparison's

    def start(
        self,
        comparison: Comparison,
        visitor: gr.Request,
        view: CompareView | None = None,
        form: Form | None = None,
    ) -> Run[CompareValue]:
        """Begin a comparison of a form, or go on with what a `view` of it has; run after run it publishes values."""
        record = RunRecord(
            kind="comparison", what=comparison, number=next(self.context.numbers), began_at=time.time(), form=form
        )
        return self._begin(new_id(), record, visitor, view)

    def _begin(
        self,
        run_id: str,
        record: RunRecord,
        visitor: gr.Request,
        view: CompareView | None = None,
        *,
        found: bool = False,
    ) -> Run[CompareValue]:
        """The run of a record; `found` where another process began it: rows that were made there are found too, as
        long as the cluster has them, and the others are made."""
        comparison: Comparison = record.what
        owner, storage = visitor.session_hash, self.context.storage_of(visitor)
        if record.seconds is not None:  # the process that it ended in has kept the table
            storage = None
        files = self.context.files
        view = view or CompareView(record.number, run_id, comparison, files.write_cell, self.context.engine.blind)
        view.name(record.number, run_id)

        def write() -> None:
            clips = [[clip.frames for clip in of_row] for of_row in view.clips]
            table = files.write_table(comparison, clips, view.samples)
            view.keep(table)
            if storage is not None and table.grid is not None:
                storage.gallery.keep(table.grid)

        def work(run: Run[CompareValue]) -> CompareValue:
            if found:  # there is something to show, whatever it waits for
                run.publish(view.value(run.elapsed_s, kept=run.kept))
            for number, (row, seed, request) in enumerate(comparison.runs()):
                if view.has(row, seed):
                    continue
                view.begin(row, seed)
                job = self.context.made.submit(
                    self.context.engine, request, owner, pictures=seed == 0, job_id=part_id(run_id, number)
                )
                for event in run.follow(job):
                    view.add(event)
                    run.publish(view.value(run.elapsed_s, kept=run.kept))
            write()
            return view.finish(run.elapsed_s)

        def end(state: State, reason: Message, seconds: float) -> CompareValue:
            with suppress(OSError):  # it may be why the run has ended
                write()
            self._keep_stopped(run_id, comparison, view, record.form)
            return view.end(phase_of(state), reason, seconds)

        return self.context.runs.start(
            owner,
            work,
            end,
            kind="comparison",
            run_id=run_id,
            visitor=address_of(visitor),
            form=record.form,
            record=record,
            found=found,
        )

    def _keep_stopped(self, run_id: str, comparison: Comparison, view: CompareView, form: Form | None) -> None:
        self._stopped[run_id] = comparison, view, form
        while len(self._stopped) > KEEP_STOPPED:
            self._stopped.pop(next(iter(self._stopped)), None)

    def resume(self, request: gr.Request, event: gr.EventData) -> Iterator[CompareValue]:
        """A comparison that was stopped goes on with what it has not made."""
        with user_errors():
            kept = self._stopped.pop(str(payload(event).get("job")), None)
            if kept is None:
                raise RequestError("run", message("request.comparison_gone"))
            comparison, view, form = kept
            run = self.start(comparison, request, view, form)
        yield from self.context.follow(run, request)

    def make_comparison(self, request: gr.Request, *values: Any) -> Iterator[CompareValue]:
        """Values of the comparison, from the click to the last clip."""
        form = dict(zip(compare_names(), values, strict=True))
        with user_errors():
            seeded = self._with_seed(form, request.session_hash)
            comparison = parse_comparison(seeded, self.context.estimator)
            run = self.start(comparison, request, form=form)
        self._keep_seed(form, comparison.requests[0].seed, request.session_hash)
        yield from self.context.follow(run, request)

    def _with_seed(self, form: dict[str, Any], visitor: str | None) -> dict[str, Any]:
        """Where no seed is typed, a table that has other columns or rows than the visitor's last one, and is the same
        otherwise, goes on with its noise; the very same table is made of new noise."""
        last, seed = self._seeds.get(visitor or "", ({}, 0))
        changed = {name for name in form if last.get(name, form[name]) != form[name]} if last else set()
        goes_on = bool(changed) and changed <= set(COMPARISON) and form["seed"] in (None, "")
        return form | {"seed": seed} if goes_on else form

    def _keep_seed(self, form: Form, seed: int, visitor: str | None) -> None:
        self._seeds[visitor or ""] = form, seed
        self._seeds.move_to_end(visitor or "")
        while len(self._seeds) > KEEP_SEEDS:
            self._seeds.popitem(last=False)

    def plan(self, *values: Any) -> Message:
        """What a comparison would run, in a sentence; what is wrong with it in another."""
        form = dict(zip(compare_names(), values, strict=True))
        try:
            comparison = parse_comparison(form | ({} if form["prompt"] else EXAMPLE), self.context.estimator)
        except DemoError as error:
            return message("note.not_yet", reason=error.message)
        return plan_of(comparison)

    def choose_axis(self, axis: Any, rows: Any, model: Any) -> list[Any]:
        """Somebody chose what the rows differ in: the updates of `ROW_FIELDS`, with what is usual put in."""
        with user_errors():
            return row_updates(axis, rows, model, self.context.options, fill=True)

    def follow_axis(self, axis: Any, rows: Any, model: Any) -> list[Any]:
        """The axis, or the model, is another one, whoever changed it: the same, and what is typed stays."""
        with user_errors():
            return row_updates(axis, rows, model, self.context.options, fill=False)

    def restore(self, request: gr.Request, event: gr.EventData) -> Iterator[CompareValue | IdleValue]:
        """The same for the newest comparison."""
        asked = payload(event)
        ids = known_ids(asked)

        def begin(run_id: str, record: RunRecord) -> Run[CompareValue]:
            return self._begin(run_id, record, request, found=True)

        with user_errors():
            self.context.find_again(ids, "comparison", request, begin)
        runs = self.context.runs.adopt(ids, request.session_hash, "comparison")[:1]
        if not runs and asked.get("going"):
            yield LOST_RUN
        for run in runs:
            for value in run.watch(UPDATE_S, self.context.listener(request)):
                comparison: CompareValue = value
                cells = [[self.context.still_here(cell) for cell in row] for row in comparison["cells"]]
                yield {**comparison, "cells": cells}


def plan_of(comparison: Comparison) -> Message:
    """How many clips of what noise, in how many steps."""
    requests, seeds = comparison.requests, comparison.seeds
    columns, rows = len(requests[0].columns), len(requests)
    numbers = {
        "columns": columns,
        "rows": rows,
        "clips": columns * rows,
        "steps": sum(r.steps * r.scenes for r in requests),
    }
    if rows == 1:
        plan = message("note.plan", clips=columns, steps=numbers["steps"], columns=columns)
    elif comparison.axis == "seed":
        plan = message("note.plan_noises", **numbers)
    elif len({r.shape for r in requests}) > 1 or comparison.axis == "model":
        plan = message("note.plan_models", **numbers)
    else:
        plan = message("note.plan_rows", **numbers)
    if (scenes := max(r.scenes for r in requests)) > 1:
        plan = in_a_row(plan, message("note.plan_scenes", scenes=scenes))
    if seeds == 1:
        return plan
    return in_a_row(plan, message("note.plan_seeds", seeds=seeds, clips=seeds * columns * rows))
