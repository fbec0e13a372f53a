"""A picture of no toy world is given, as a JPEG of another format than the clip's."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from opensora_demo.catalog import ModelSpec
from opensora_demo.errors import NumericsError
from opensora_demo.evaluation.adherence import EVAL_SEED, held_out_prompts
from opensora_demo.evaluation.markdown import number, percent
from opensora_demo.evaluation.studies.base import Measurement, Setup, clip_size, mean
from opensora_demo.media import jpeg_strip
from opensora_demo.metrics import psnr
from opensora_demo.pictures import read_reference

if TYPE_CHECKING:
    from opensora_demo.evaluation.study import Study

SEED = EVAL_SEED + 7
SIDE_PX = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoStudy(Measurement):
    """`finite`: share of runs that ended with finite values. PSNR, dB, against what the model was given: of the first
    frame, of all frames, and of the given frame through the codec alone."""

    name: ClassVar[str] = "photo"
    pictures: int
    finite: float
    first_frame_psnr: float | None
    clip_psnr: float | None
    codec_psnr: float | None

    @classmethod
    def applies(cls, spec: ModelSpec) -> bool:
        return spec.limits.reference

    @classmethod
    def measure(cls, setup: Setup) -> Self:
        pictures, (_, size_px) = setup.counts.photos, clip_size(setup.spec)
        rng = np.random.default_rng(SEED)
        first: list[float] = []
        whole: list[float] = []
        trips: list[float] = []
        for index, (scene, prompt) in enumerate(held_out_prompts(pictures, setup.fps, SEED)):
            photo = natural_picture(rng, SIDE_PX, SIDE_PX * 4 // 3)
            jpeg = base64.b64decode(jpeg_strip(photo[None], SIDE_PX, quality=92).split(",", 1)[1])
            given = read_reference(io.BytesIO(jpeg), size_px, size_px)
            if 1 in setup.spec.limits.frames:
                trips.append(psnr(setup.round_trip(given), given))
            try:
                clip = setup.made({"prompt": prompt, "fps": scene.fps, "seed": index}, given)
            except NumericsError:
                continue
            first.append(psnr(clip[:1], given))
            whole.append(psnr(clip, np.broadcast_to(given, clip.shape)))
        return cls(
            pictures=pictures,
            finite=len(first) / pictures,
            first_frame_psnr=mean(first),
            clip_psnr=mean(whole),
            codec_psnr=mean(trips),
        )

    def sentences(self) -> list[str]:
        """A paragraph of the chapter about given frames."""
        return [
            f"{self.pictures} pictures of no toy world (1/f textures): {percent(self.finite)} of the runs end "
            f"with finite values; first frame {number(self.first_frame_psnr, 1)} dB, all frames "
            f"{number(self.clip_psnr, 1)} dB, the codec alone {number(self.codec_psnr, 1)} dB.",
            "",
        ]

    def chapter(self, spec: ModelSpec, study: Study, pictures: Sequence[str]) -> list[str]:
        """Nothing where the chapter about given frames has said it."""
        return [] if study.reference is not None else ["## A given picture", "", *self.sentences()]

    def limits(self, spec: ModelSpec, study: Study) -> list[str]:
        if self.codec_psnr is None:
            return []
        own = None if study.reference is None else study.reference.codec_psnr
        beside = "" if own is None else f"; rendered first frames keep {number(own, 1)} dB"
        return [f"A picture of no toy world keeps {number(self.codec_psnr, 1)} dB through the codec{beside}."]


def natural_picture(rng: np.random.Generator, height_px: int, width_px: int) -> NDArray[np.uint8]:
    """A picture (h, w, 3) of no toy world: a random texture whose amplitude falls as 1 / frequency, as in photographs
    (Field, 1987), mostly grey, lit from one side."""
    frequency = np.hypot(np.fft.fftfreq(height_px)[:, None] * height_px, np.fft.fftfreq(width_px)[None] * width_px)
    spectrum = 1 / np.maximum(frequency, 1)[..., None]
    noise = np.fft.fft2(rng.standard_normal((height_px, width_px, 4)), axes=(0, 1))
    layers = np.fft.ifft2(noise * spectrum, axes=(0, 1)).real
    layers /= layers.std((0, 1))
    y, x = np.mgrid[-1 : 1 : height_px * 1j, -1 : 1 : width_px * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    light = np.cos(angle) * x + np.sin(angle) * y
    tint = rng.uniform(-30, 30, 3)
    values = 128 + tint + 34 * layers[..., :1] + 14 * layers[..., 1:] + 26 * light[..., None]
    return np.clip(values, 0, 255).astype(np.uint8)
