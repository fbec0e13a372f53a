"""The lesson, over all tabs: it drives them, and stays in sight while they answer."""

from __future__ import annotations

from typing import Any

from opensora_demo.ui.actions.all import Actions
from opensora_demo.ui.components import Lesson, Scope
from opensora_demo.ui.controls import restored_names
from opensora_demo.ui.events import QUEUED, QUICK, RUN


def build() -> Lesson:
    return Lesson({"phase": "idle"}, elem_id="lesson")


def wire(lesson: Lesson, everything: dict[str, Any], scope: Scope, actions: Actions) -> None:
    """`everything` has the components of both forms by name, stage and grid among them."""
    filled = [everything[name] for name in restored_names()]
    for event in (lesson.fill, lesson.clip, lesson.compare):
        event(actions.lesson.fill, None, filled, **QUICK)
    shown = [everything["stage"], scope]
    lesson.clip(actions.lesson.clip, None, shown, **RUN).then(actions.clips.complete, None, shown, **QUEUED)
    lesson.compare(actions.lesson.compare_step, None, everything["grid"], **RUN)
    lesson.check(actions.lesson.check, None, lesson, **QUEUED)
