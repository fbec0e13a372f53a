"""Every function behind the page, by subject."""

from __future__ import annotations

from dataclasses import dataclass

from opensora_demo.ui.actions.clips import ClipActions
from opensora_demo.ui.actions.comparison import ComparisonActions
from opensora_demo.ui.actions.figures import FigureActions
from opensora_demo.ui.actions.form import FormActions
from opensora_demo.ui.actions.gallery import GalleryActions
from opensora_demo.ui.actions.lesson import LessonActions
from opensora_demo.ui.actions.weights import WeightActions
from opensora_demo.ui.context import PageContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Actions:
    context: PageContext
    clips: ClipActions
    comparison: ComparisonActions
    form: FormActions
    weights: WeightActions
    figures: FigureActions
    lesson: LessonActions
    gallery: GalleryActions


def actions_of(context: PageContext) -> Actions:
    clips, comparison, form = ClipActions(context), ComparisonActions(context), FormActions(context)
    return Actions(
        context=context,
        clips=clips,
        comparison=comparison,
        form=form,
        weights=WeightActions(context),
        figures=FigureActions(context),
        lesson=LessonActions(context, form, clips, comparison),
        gallery=GalleryActions(context, form),
    )
