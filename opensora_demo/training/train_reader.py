"""Train the reader on freshly rendered clips, blurred, tinted and noised so that it survives imperfect ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from opensora_demo.frames import to_video
from opensora_demo.toy.reader import ATTRIBUTES, OF_OBJECTS, Reader, load_partial
from opensora_demo.toy.worlds import ARRANGEMENTS, BACKGROUNDS, render, sample_scene
from opensora_demo.training.precision import half_precision
from opensora_demo.weights.reading import read_state


def roughen(video: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the clips: a random mix of blur, noise, gain and offset of the size that a decoder's faults have."""
    b = video.shape[0]

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(b, 1, 1, 1, 1, generator=generator)

    blurred = F.avg_pool3d(F.pad(video, (1, 1, 1, 1, 0, 0), mode="replicate"), (1, 3, 3), stride=1)
    rough = torch.lerp(video, blurred, draw(0, 1)) * draw(0.92, 1.06) + draw(-0.06, 0.06)
    rough = rough + draw(0, 0.06) * torch.randn(video.shape, generator=generator)
    return torch.where(torch.rand(b, 1, 1, 1, 1, generator=generator) < 0.5, rough.clamp(-1, 1), video)


@dataclass
class ReaderJob:
    """Loss: cross-entropy of the answers plus the objects' mask."""

    batch: int = 16
    pairs: float = 0.35
    start: Path | None = None  # an older reader, for what fits

    def __post_init__(self) -> None:
        self.model = Reader()
        if self.start is not None:
            load_partial(self.model, read_state([self.start]))
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(self, rng: np.random.Generator, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        scenes = [sample_scene(rng, held_out=None, pairs=self.pairs) for _ in range(self.batch)]
        clips, masks = zip(*(render(s) for s in scenes), strict=True)
        video = roughen(to_video(np.stack(clips)), generator)
        target = F.avg_pool2d(torch.from_numpy(np.stack(masks)).float() / 255, 2)  # (b, t, 32, 32)
        arrangement = torch.tensor([ARRANGEMENTS.index(s.arrangement) for s in scenes])
        with half_precision("cpu"):
            out = self.model(video, arrangement)
        mask_loss = F.binary_cross_entropy_with_logits(out.mask, target)
        total, metrics = 4 * mask_loss, {"mask": float(mask_loss.detach())}
        objects = [(i, k, o) for i, s in enumerate(scenes) for k, o in enumerate(s.objects)]
        clip_of, slot_of = (torch.tensor([o[j] for o in objects]) for j in range(2))
        background = torch.tensor([BACKGROUNDS.index(s.background) for s in scenes])
        questions = {"arrangement": (out.arrangement, arrangement), "background": (out.background, background)}
        for name in OF_OBJECTS:
            truth = torch.tensor([ATTRIBUTES[name].index(getattr(o, name)) for *_, o in objects])
            questions[name] = out.objects[name][clip_of, slot_of], truth
        for name, (logits, truth) in questions.items():
            total = total + F.cross_entropy(logits.float(), truth, label_smoothing=0.02)
            metrics[name] = float((logits.argmax(-1) == truth).float().mean())
        return total, metrics
