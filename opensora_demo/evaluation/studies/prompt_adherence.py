"""Does a clip show what its prompt says, at the default scale?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from opensora_demo.catalog import ModelSpec
from opensora_demo.evaluation.adherence import EVAL_SEED, run_trials, score
from opensora_demo.evaluation.markdown import margin, percent, table
from opensora_demo.evaluation.studies.base import ATTRIBUTES, Measurement, Scores, Setup

if TYPE_CHECKING:
    from opensora_demo.evaluation.study import Study


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptAdherence(Measurement):
    """Of prompts that training never saw, and of others whose combination of shape, colour and motion was kept out of
    training."""

    name: ClassVar[str] = "adherence"
    prompts: int
    unseen_prompts: int
    new_prompts: Scores
    new_combinations: Scores

    @classmethod
    def measure(cls, setup: Setup) -> Self:
        counts = setup.counts

        def scores(count: int, *, unseen: bool) -> Scores:
            trials = run_trials(setup.bundle, count, (setup.scale,), unseen=unseen, seed=EVAL_SEED + 8 * unseen)
            return Scores.of(score(setup.reader, [(t.scene, t.clips[setup.scale]) for t in trials]))

        return cls(
            prompts=counts.adherence,
            unseen_prompts=counts.unseen,
            new_prompts=scores(counts.adherence, unseen=False),
            new_combinations=scores(counts.unseen, unseen=True),
        )

    def chapter(self, spec: ModelSpec, study: Study, pictures: Sequence[str]) -> list[str]:
        kinds = (
            ("prompts that are new", self.prompts, self.new_prompts),
            ("combinations that are new", self.unseen_prompts, self.new_combinations),
        )
        rows = [
            (kind, str(count), *map(percent, scores.attributes.values()), percent(scores.all_right))
            for kind, count, scores in kinds
        ]
        return [
            "## Does a clip show what its prompt says?",
            "",
            f"Prompts that training never saw; shares are uncertain by {margin(self.prompts)} points at most (95 %). "
            "A tenth of all combinations of shape, colour and motion was kept out of training.",
            "",
            *table(("", "number", *ATTRIBUTES, "all four"), rows),
        ]

    def limits(self, spec: ModelSpec, study: Study) -> list[str]:
        weakest = self.new_prompts.weakest
        return [
            f"{percent(1 - self.new_prompts.all_right)} of clips miss at least one of shape, colour, motion and "
            f"background; {weakest} is right least often ({percent(self.new_prompts.attributes[weakest])}). Of "
            f"combinations kept out of training {percent(self.new_combinations.all_right)} are right in all four."
        ]
