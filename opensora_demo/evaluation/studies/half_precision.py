"""What bfloat16 changes about clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from opensora_demo.catalog import ModelSpec
from opensora_demo.evaluation.adherence import EVAL_SEED, held_out_prompts
from opensora_demo.evaluation.markdown import number, percent, table
from opensora_demo.evaluation.studies.base import Measurement, Setup, median
from opensora_demo.metrics import psnr
from opensora_demo.runtime.bundle import build_bundle
from opensora_demo.toy.reader import read_clips
from opensora_demo.weights.options import WeightOptions

if TYPE_CHECKING:
    from opensora_demo.evaluation.study import Study

SEED = EVAL_SEED + 6
LOW = 5  # the percentile that is called low


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfPrecision(Measurement):
    """The same prompts and noises with network and codec in bfloat16 and in float32.

    full, half: share of clips with all four right; lost and gained: prompts right in float32 alone, and in bfloat16
    alone. psnr_db, low_db: of a clip in bfloat16 against that in float32, the median over prompts and the fifth
    percentile; codec_db: the median where only the codec is in bfloat16.
    """

    name: ClassVar[str] = "half_precision"
    prompts: int
    full: float
    half: float
    lost: int
    gained: int
    psnr_db: float | None  # None where no clip differs
    low_db: float | None
    codec_db: float | None

    @classmethod
    def measure(cls, setup: Setup) -> Self:
        full = setup.bundle
        half = build_bundle(setup.spec, full.device, WeightOptions(precision="bfloat16"))
        setups = (setup, replace(setup, bundle=half), replace(setup, bundle=replace(full, codec=half.codec)))
        scenes = held_out_prompts(setup.counts.half, setup.fps, SEED)
        clips = [
            [one.made({"prompt": prompt, "fps": scene.fps, "seed": seed}) for one in setups]
            for seed, (scene, prompt) in enumerate(scenes)
        ]
        right = np.array(
            [
                [min(reading.matches(scene).values()) == 1 for reading in read_clips(setup.reader, made)]
                for (scene, _), made in zip(scenes, clips, strict=True)
            ]
        )
        in_full, in_half = right[:, 0], right[:, 1]
        whole = [psnr(made[1], made[0]) for made in clips]
        return cls(
            prompts=len(scenes),
            full=float(in_full.mean()),
            half=float(in_half.mean()),
            lost=int((in_full & ~in_half).sum()),
            gained=int((in_half & ~in_full).sum()),
            psnr_db=median(whole),
            low_db=float(np.percentile(whole, LOW)),
            codec_db=median([psnr(made[2], made[0]) for made in clips]),
        )

    def chapter(self, spec: ModelSpec, study: Study, pictures: Sequence[str]) -> list[str]:
        rows = [("float32", percent(self.full), ""), ("bfloat16", percent(self.half), number(self.psnr_db, 1))]
        return [
            "## Half precision",
            "",
            f"Network and codec in bfloat16, as where a processor is faster with it, against float32: {self.prompts} "
            f"prompts, the same noises. {self.lost} of them are right in float32 alone, {self.gained} in bfloat16 "
            f"alone. One clip in twenty is no nearer than {number(self.low_db, 1)} dB; with the codec alone in half "
            f"precision the median is {number(self.codec_db, 1)} dB.",
            "",
            *table(("numbers", "all four right", "PSNR against float32, dB"), rows),
        ]
