"""A finished model whose velocity is what another one learns, in place of the velocity of one clip and one noise.

What a network should answer is the mean over all clips that fit what it sees. One clip says that with much noise, a
model that is finished with next to none, so that a small network learns from fewer samples (Meng et al., "On
distillation of guided diffusion models", arXiv 2210.03142, stage one, with one guidance scale).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from opensora_demo.catalog import ModelSpec, WeightFiles
from opensora_demo.models.stdit3 import STDiT3
from opensora_demo.runtime.bundle import build_network
from opensora_demo.text.t5 import T5TextEncoder
from opensora_demo.weights.reading import load_module
from opensora_demo.weights.store import asset


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """Whom to learn from, an embedded STDiT3 with latents of the same codec, and at which guidance scale it speaks.
    Where its captions were vague or wrong, a little guidance makes up for them."""

    spec: ModelSpec
    guidance: float


class Teacher:
    """Network and text encoder of a lesson's model, from the files in assets."""

    def __init__(self, lesson: Lesson, device: str = "cpu") -> None:
        spec = lesson.spec
        assert isinstance(spec.weights, WeightFiles)
        assert spec.text is not None
        files, text = spec.weights, spec.text
        network = load_module(
            lambda: build_network(spec.network), tuple(asset(files, name) for name in files.network), "network"
        )
        assert isinstance(network, STDiT3)
        self.network = network.to(device)
        self.text = load_module(
            lambda: T5TextEncoder(text, asset(files, files.tokenizer)),
            tuple(asset(files, name) for name in files.text),
            "text",
            aliases=T5TextEncoder.aliases,
        ).to(device)
        self.guidance = lesson.guidance
        self.size_px = spec.limits.size_px

    @torch.no_grad()
    def velocity(self, x: Tensor, t: Tensor, prompts: list[str], dropped: Tensor, fps: Tensor) -> Tensor:
        """Data minus noise, guided, at x (b, c, t, h, w) of times t (b) in 0..1; the null prompt's where `dropped`."""
        told, null = self.text(prompts), self.network.get_buffer("y_embedder.y_embedding")
        nothing = null[: told.y.shape[1]].to(told.y.dtype).expand_as(told.y)
        text = self.network.project_text(torch.cat([told.y, nothing]), torch.cat([told.lengths] * 2))
        out = self.network(
            torch.cat([x, x]),
            1000 * torch.cat([t, t]),
            text,
            fps=torch.cat([fps, fps]),
            height_px=self.size_px[0],
            width_px=self.size_px[1],
        )
        with_prompt, without = out.float().chunk(2)
        scale = torch.where(dropped, 0.0, self.guidance)[:, None, None, None, None]
        return without + scale * (with_prompt - without)
