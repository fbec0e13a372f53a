"""What the codec alone keeps of rendered clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from opensora_demo.catalog import ModelSpec
from opensora_demo.evaluation.adherence import EVAL_SEED
from opensora_demo.evaluation.markdown import number, table
from opensora_demo.evaluation.studies.base import Measurement, Setup, draw, mean
from opensora_demo.metrics import psnr_of
from opensora_demo.toy.worlds import sample_scene

if TYPE_CHECKING:
    from opensora_demo.evaluation.study import Study

SEED = EVAL_SEED + 6
HEADING = "## Codec and flicker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """PSNR, dB: pooled over all pixels of all clips, mean over clips, pooled over the pixels that are object for the
    most part."""

    pooled: float | None
    mean: float | None
    object: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecFidelity(Measurement):
    """`clips` of each kind, through the codec and back."""

    name: ClassVar[str] = "codec"
    of_prompts: ClassVar[bool] = False
    clips: int
    one_object: Fidelity
    two_objects: Fidelity

    @classmethod
    def measure(cls, setup: Setup) -> Self:
        clips = setup.counts.codec
        return cls(
            clips=clips,
            one_object=_fidelity(setup, clips, pairs=0.0),
            two_objects=_fidelity(setup, clips, pairs=1.0),
        )

    def chapter(self, spec: ModelSpec, study: Study, pictures: Sequence[str]) -> list[str]:
        kinds = (("one object", self.one_object), ("two objects", self.two_objects))
        rows = [(kind, number(of.pooled, 1), number(of.mean, 1), number(of.object, 1)) for kind, of in kinds]
        return [
            HEADING,
            "",
            f"PSNR of {self.clips} rendered clips of each kind through the codec alone, dB.",
            "",
            *table(("clips of", "all pixels", "mean of clips", "object's pixels"), rows),
        ]


def _fidelity(setup: Setup, clips: int, pairs: float) -> Fidelity:
    rng = np.random.default_rng((SEED, int(pairs)))
    errors, of_objects, each = [], [], []
    for _ in range(clips):
        clip, alpha = draw(setup.spec, sample_scene(rng, held_out=None, pairs=pairs))
        error = ((setup.round_trip(clip).astype(np.float64) - clip) ** 2).mean(-1)  # (t, h, w)
        errors.append(error.mean())
        of_objects.append(error[alpha > 127])
        each.append(psnr_of(float(error.mean())))
    return Fidelity(
        pooled=psnr_of(float(np.mean(errors))),
        mean=mean(each),
        object=psnr_of(float(np.mean(np.concatenate(of_objects)))),
    )
