"""The first frame of a rendered scene is given: is it kept, and does the clip do what its caption says?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from opensora_demo.catalog import ModelSpec
from opensora_demo.evaluation.adherence import EVAL_SEED, held_out_prompts, score
from opensora_demo.evaluation.background import background_psnr
from opensora_demo.evaluation.markdown import number, percent, table
from opensora_demo.evaluation.studies.base import ATTRIBUTES, Measurement, Scores, Setup, clip_size, mean
from opensora_demo.metrics import psnr
from opensora_demo.request.video import Frames
from opensora_demo.toy.captions import caption
from opensora_demo.toy.reader import find_objects
from opensora_demo.toy.worlds import SIZE_PX, Scene, path

if TYPE_CHECKING:
    from opensora_demo.evaluation.study import Study

SEED = EVAL_SEED + 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """PSNR, dB, against the given frame, mean over clips: of the clip's first frame, and of the later frames where no
    object is near in either; and what the clips show."""

    first_frame_psnr: float | None
    background_psnr: float | None
    scores: Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenFrame(Measurement):
    """Given with the scene's caption, and with one of another motion. codec_psnr: of the given frame through the codec
    alone, dB, which the first frame's equals where a model keeps the given latent and the codec is causal; None where
    the codec takes no single frame."""

    name: ClassVar[str] = "reference"
    prompts: int
    codec_psnr: float | None
    own_motion: Kept
    another_motion: Kept

    @classmethod
    def applies(cls, spec: ModelSpec) -> bool:
        return spec.limits.reference

    @classmethod
    def measure(cls, setup: Setup) -> Self:
        prompts, (frames, _) = setup.counts.references, clip_size(setup.spec)
        trips: list[float] = []
        pictures: list[Frames] = []
        own: list[tuple[Scene, Frames]] = []
        another: list[tuple[Scene, Frames]] = []
        for index, (scene, prompt) in enumerate(held_out_prompts(prompts, setup.fps, SEED)):
            given = setup.drawn(scene)[:1]
            pictures.append(given)
            if 1 in setup.spec.limits.frames:
                trips.append(psnr(setup.round_trip(given), given))
            other = _other_motion(scene, frames)
            raw = {"fps": scene.fps, "seed": index}
            own.append((scene, setup.made(raw | {"prompt": prompt}, given)))
            words = caption(other, np.random.default_rng((SEED, index)))
            another.append((other, setup.made(raw | {"prompt": words}, given)))
        return cls(
            prompts=prompts,
            codec_psnr=mean(trips),
            own_motion=_kept(setup, own, pictures),
            another_motion=_kept(setup, another, pictures),
        )

    def chapter(self, spec: ModelSpec, study: Study, pictures: Sequence[str]) -> list[str]:
        rows = [
            (
                name,
                *(number(value, 1) for value in (kept.first_frame_psnr, kept.background_psnr)),
                *map(percent, (*kept.scores.attributes.values(), kept.scores.all_right)),
            )
            for name, kept in (("own motion", self.own_motion), ("another motion", self.another_motion))
        ]
        return [
            "## A given first frame",
            "",
            f"{self.prompts} rendered first frames with their scene's caption, and with one of another motion. PSNR of "
            "the clip's first frame, and of the later frames' background, against the given one, dB; the codec alone "
            f"gives {number(self.codec_psnr, 1)} dB.",
            "",
            *table(("caption", "first frame", "background", *ATTRIBUTES, "all four"), rows),
            *([] if study.photo is None else study.photo.sentences()),
        ]


def _kept(setup: Setup, shown: Sequence[tuple[Scene, Frames]], pictures: Sequence[Frames]) -> Kept:
    clips = [clip for _, clip in shown]
    masks = find_objects(setup.reader, clips)
    later = [background_psnr(c, g, m) for c, g, m in zip(clips, pictures, masks, strict=True)]
    return Kept(
        first_frame_psnr=mean([psnr(clip[:1], given) for clip, given in zip(clips, pictures, strict=True)]),
        background_psnr=mean(later),
        scores=Scores.of(score(setup.reader, list(shown))),
    )


def _other_motion(scene: Scene, frames: int) -> Scene:
    """The same first frame with a straight motion, towards where there is most room, that is not the scene's own."""
    x, y = path(scene, frames).centre_px[0]
    room = {"left": x, "right": SIZE_PX - x, "up": y, "down": SIZE_PX - y}
    room.pop(scene.motion, None)
    return replace(scene, motion=max(room, key=lambda name: float(room[name])))
