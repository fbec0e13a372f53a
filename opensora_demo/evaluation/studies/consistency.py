"""How much the background flickers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from opensora_demo.catalog import ModelSpec
from opensora_demo.evaluation.adherence import EVAL_SEED, held_out_prompts
from opensora_demo.evaluation.background import flicker
from opensora_demo.evaluation.markdown import number, table
from opensora_demo.evaluation.studies.base import Measurement, Setup, mean, median
from opensora_demo.evaluation.studies.codec_fidelity import HEADING
from opensora_demo.request.video import Frames
from opensora_demo.toy.reader import Reader, find_objects

if TYPE_CHECKING:
    from opensora_demo.evaluation.study import Study

SEED = EVAL_SEED + 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Flicker:
    """Change from frame to frame, 0..255: mean and median over the `measured` clips, those that show any background."""

    mean: float | None
    median: float | None
    measured: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Consistency(Measurement):
    """Flicker of generated clips, of rendered ones through the codec, and of rendered ones (0, unless the reader loses
    an object)."""

    name: ClassVar[str] = "consistency"
    prompts: int
    generated: Flicker
    codec: Flicker
    rendered: Flicker

    @classmethod
    def measure(cls, setup: Setup) -> Self:
        prompts = setup.counts.flicker
        generated, coded, rendered = [], [], []
        for index, (scene, prompt) in enumerate(held_out_prompts(prompts, setup.fps, SEED)):
            drawn = setup.drawn(scene)
            generated.append(setup.made({"prompt": prompt, "fps": scene.fps, "seed": index}))
            coded.append(setup.round_trip(drawn))
            rendered.append(drawn)
        return cls(
            prompts=prompts,
            generated=_flicker(setup.reader, generated),
            codec=_flicker(setup.reader, coded),
            rendered=_flicker(setup.reader, rendered),
        )

    def chapter(self, spec: ModelSpec, study: Study, pictures: Sequence[str]) -> list[str]:
        kinds = (("generated", self.generated), ("codec", self.codec), ("rendered", self.rendered))
        rows = [(kind, number(of.mean), number(of.median), str(of.measured)) for kind, of in kinds]
        return [
            *([HEADING, ""] if study.codec is None else []),
            "Mean absolute change of the background from frame to frame, of 255, away from objects.",
            "",
            *table(("clips", "mean", "median", "measured"), rows),
        ]


def _flicker(reader: Reader, clips: Sequence[Frames]) -> Flicker:
    values = [flicker(clip, mask) for clip, mask in zip(clips, find_objects(reader, clips), strict=True)]
    return Flicker(mean=mean(values), median=median(values), measured=sum(math.isfinite(v) for v in values))
