"""STDiT3 with T5 and rectified flow: the conventions of Open-Sora 1.2, decided here and nowhere else.

- Velocity: the network predicts data - noise; this package's sign is noise - data, so it is turned around.
- Time: the network counts 0..1000.
- Null prompt: a learned table in the checkpoint, read at the prompt's own length. A negative prompt replaces it.
- FPS: an embedder of its own. Text keys and values are computed once per prompt.
- Learned sigma: only the first half of the output channels is the velocity.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from opensora_demo.models.stdit3 import STDiT3
from opensora_demo.nn.attention import TextKeys
from opensora_demo.sampling.guidance import combine, needed
from opensora_demo.text.t5 import T5TextEncoder
from opensora_demo.types import GenerationRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditioning:
    """What the network is told at every step: the text of each branch (prompt, then null) and the frame rate."""

    branches: tuple[TextKeys, TextKeys]
    fps: float
    unknown: tuple[str, ...]
    cut_tokens: int


class STDiTFamily:
    """Turns requests into conditions and calls of the network into velocities."""

    def __init__(self, text: T5TextEncoder, network: STDiT3) -> None:
        self.text = text
        self.network = network

    def condition(self, request: GenerationRequest) -> Conditioning:
        features = self.text([request.prompt])
        prompt = self.network.project_text(features.y)
        if request.negative_prompt:
            negative = self.text([request.negative_prompt])
            unknown = dict.fromkeys((*features.unknown[0], *negative.unknown[0]))
            null = self.network.project_text(negative.y)
        else:
            unknown = dict.fromkeys(features.unknown[0])
            null = self.network.project_text(self.network.null_text(features.y.shape[1])[None])
        return Conditioning(
            branches=(prompt, null), fps=float(request.fps), unknown=tuple(unknown), cut_tokens=features.cut_tokens[0]
        )

    def velocity(
        self,
        x: Tensor,
        t: float,
        condition: Conditioning,
        weights: Tensor,
        *,
        height_px: int,
        width_px: int,
        x_mask: Tensor | None = None,
        shared: bool = False,
    ) -> Tensor:
        """Guided velocity of x (rows, c, t, h, w) at time t; weights (rows, 2).

        Rows that do not need a branch are left out of its pass; with `shared`, all rows of x are equal (the first
        step of a comparison) and each branch is evaluated once for all of them.
        """
        rows = x.shape[0]
        predictions: list[Tensor | None] = []
        for k, text in enumerate(condition.branches):
            wanted = needed(weights)[:, k]
            if not wanted.any():
                predictions.append(None)
                continue
            index = torch.zeros(1, dtype=torch.long) if shared else wanted.nonzero()[:, 0]
            v = self._call(x[index], t, text, condition.fps, height_px, width_px, x_mask)
            if shared:
                predictions.append(v.expand(rows, *v.shape[1:]))
            else:
                full = v.new_zeros(rows, *v.shape[1:])
                full[index] = v
                predictions.append(full)
        return combine(predictions, weights)

    def _call(
        self, x: Tensor, t: float, text: TextKeys, fps: float, height_px: int, width_px: int, x_mask: Tensor | None
    ) -> Tensor:
        rows = x.shape[0]
        out = self.network(
            x,
            torch.full((rows,), 1000.0 * t, device=x.device),
            text.expand(rows),
            fps=torch.full((rows,), fps, device=x.device),
            height_px=height_px,
            width_px=width_px,
            x_mask=None if x_mask is None else x_mask[None].expand(rows, -1),
        )
        return -out[:, : x.shape[1]].float()
