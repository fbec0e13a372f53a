"""Does a clip show the class that it was made for?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from opensora_demo.catalog import ModelSpec
from opensora_demo.evaluation.adherence import clips_at
from opensora_demo.evaluation.markdown import margin, percent, table
from opensora_demo.evaluation.studies.base import Measurement, Setup, mean
from opensora_demo.request.video import Frames
from opensora_demo.toy.reader import read_clips

if TYPE_CHECKING:
    from opensora_demo.evaluation.study import Study

SCALES = (1.0, 2.0, 4.0, 7.0)
NO_CLASS = "anything"  # a prompt that names none


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelAdherence(Measurement):
    """`clips` of each class at each of `scales`, the same noises for all of them. `right`: of each class the share of
    clips that show one object of it, at each scale; `of_none`: of as many clips without a label the share of each
    class."""

    name: ClassVar[str] = "labels"
    of_prompts: ClassVar[bool] = False
    clips: int
    scales: tuple[float, ...]
    right: dict[str, tuple[float, ...]]
    of_none: dict[str, float]

    @classmethod
    def applies(cls, spec: ModelSpec) -> bool:
        return bool(spec.labels)

    @classmethod
    def measure(cls, setup: Setup) -> Self:
        names = [name for name, _ in setup.spec.labels]
        count = max(2, setup.counts.adherence // (2 * len(names)))

        def seen(prompt: str, scales: tuple[float, ...]) -> dict[float, list[str]]:
            made = [clips_at(setup.bundle, {"prompt": prompt, "seed": seed}, scales) for seed in range(count)]
            return {scale: _shapes(setup, [clips[scale] for clips in made]) for scale in scales}

        found = {name: seen(name, SCALES) for name in names}
        (without,) = seen(NO_CLASS, (1.0,)).values()
        return cls(
            clips=count,
            scales=SCALES,
            right={
                name: tuple(mean([float(shape == name) for shape in of[scale]]) for scale in SCALES)
                for name, of in found.items()
            },
            of_none={name: mean([float(shape == name) for shape in without]) for name in names},
        )

    def mean_right(self, scale: float) -> float:
        """Over the classes."""
        at = self.scales.index(scale)
        return mean([shares[at] for shares in self.right.values()])

    def chapter(self, spec: ModelSpec, study: Study, pictures: Sequence[str]) -> list[str]:
        head = ("class", *(f"guidance {scale:g}" for scale in self.scales), "without a label")
        rows = [(name, *map(percent, shares), percent(self.of_none[name])) for name, shares in self.right.items()]
        rows.append(("mean", *(percent(self.mean_right(scale)) for scale in self.scales), ""))
        together = self.clips * len(self.right)
        return [
            "## Does a clip show its class?",
            "",
            f"{self.clips} clips of each class from the same noises at every scale; the means are uncertain by "
            f"{margin(together)} points at most (95 %). Without a label: what {self.clips} clips "
            "of the null class show.",
            "",
            *table(head, rows),
        ]

    def limits(self, spec: ModelSpec, study: Study) -> list[str]:
        at = self.scales.index(float(spec.limits.guidance.default))
        worst = min(self.right, key=lambda name: self.right[name][at])
        return [
            f"At guidance {self.scales[at]:g} {percent(self.mean_right(self.scales[at]))} of clips show one object of "
            f"their class; {worst} is right least often ({percent(self.right[worst][at])}). Colour, motion and "
            "background cannot be said."
        ]


def _shapes(setup: Setup, clips: Sequence[Frames]) -> list[str]:
    """The shape of each clip's only object; empty where the reader sees another number of them."""
    readings = read_clips(setup.reader, clips)
    return [r.objects[0].shape if len(r.objects) == 1 else "" for r in readings]
