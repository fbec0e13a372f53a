"""How often the reader is right about rendered clips: what no model can be measured to exceed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from opensora_demo.catalog import ModelSpec
from opensora_demo.evaluation.adherence import reader_table
from opensora_demo.evaluation.markdown import percent
from opensora_demo.evaluation.studies.base import Measurement, Scores, Setup, clip_size

if TYPE_CHECKING:
    from opensora_demo.evaluation.study import Study


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderAccuracy(Measurement):
    """Of rendered clips, as many with one object as with two, of the model's own length, size and default FPS."""

    name: ClassVar[str] = "reader"
    of_prompts: ClassVar[bool] = False
    of_instrument: ClassVar[bool] = True
    clips: int
    one_object: Scores
    two_objects: Scores

    @classmethod
    def measure(cls, setup: Setup) -> Self:
        frames, size_px = clip_size(setup.spec)
        clips = 4 * setup.counts.codec

        def scores(pairs: float) -> Scores:
            row = reader_table(setup.reader, clips, pairs=pairs, fps=setup.fps, frames=frames, size_px=size_px)
            return Scores.of(row)

        return cls(clips=clips, one_object=scores(0.0), two_objects=scores(1.0))

    def chapter(self, spec: ModelSpec, study: Study, pictures: Sequence[str]) -> list[str]:
        return [
            f"What a clip shows is told by the reader, a network that sees pixels only. Of {self.clips} rendered clips "
            f"it is right in all four attributes of {percent(self.one_object.all_right)}, and in everything of "
            f"{percent(self.two_objects.all_right)} of {self.clips} with two objects.",
            "",
        ]

    def limits(self, spec: ModelSpec, study: Study) -> list[str]:
        own, weakest = self.one_object, self.one_object.weakest
        share = own.attributes[weakest]
        least = f" (least often about {weakest}, {percent(share)})" if share < 1 else ""
        return [
            "What clips show is as the reader sees it, a small network that is right in all four about "
            f"{percent(own.all_right)} of {self.clips} rendered clips{least}."
        ]
