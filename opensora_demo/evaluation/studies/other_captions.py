"""Scenes of two objects, and captions in Chinese."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from opensora_demo.catalog import ModelSpec
from opensora_demo.evaluation.adherence import Trial, adherence_table, run_trials
from opensora_demo.evaluation.markdown import percent, table
from opensora_demo.evaluation.studies.base import ATTRIBUTES, Measurement, Scores, Setup

if TYPE_CHECKING:
    from opensora_demo.evaluation.study import Study


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherCaptions(Measurement):
    """Adherence at the default scale: `two_prompts` of two objects, `chinese_prompts` of one in Chinese."""

    name: ClassVar[str] = "other_captions"
    two_prompts: int
    two_objects: Scores
    chinese_prompts: int
    chinese: Scores

    @classmethod
    def measure(cls, setup: Setup) -> Self:
        counts, scales = setup.counts, (setup.scale,)

        def scores(trials: Iterator[Trial]) -> Scores:
            return Scores.of(next(iter(adherence_table(setup.reader, list(trials)).values())))

        return cls(
            two_prompts=counts.pairs,
            two_objects=scores(run_trials(setup.bundle, counts.pairs, scales, pairs=1.0)),
            chinese_prompts=counts.chinese,
            chinese=scores(run_trials(setup.bundle, counts.chinese, scales, chinese=1.0)),
        )

    def chapter(self, spec: ModelSpec, study: Study, pictures: Sequence[str]) -> list[str]:
        kinds = (
            ("two objects", self.two_prompts, self.two_objects),
            ("Chinese", self.chinese_prompts, self.chinese),
        )
        rows = [
            (kind, str(count), *map(percent, (*of.attributes.values(), of.arrangement, of.all_right)))
            for kind, count, of in kinds
        ]
        head = ("prompts", "number", *ATTRIBUTES, "arrangement", "everything")
        return ["## Two objects, and Chinese", "", *table(head, rows)]

    def limits(self, spec: ModelSpec, study: Study) -> list[str]:
        return [
            f"Of {self.two_prompts} scenes with two objects {percent(self.two_objects.all_right)} are right in "
            f"everything; of {self.chinese_prompts} captions in Chinese {percent(self.chinese.all_right)} are right in "
            "all four."
        ]
