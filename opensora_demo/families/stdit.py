"""STDiT3 with T5 and rectified flow: the conventions of Open-Sora 1.2, decided here and nowhere else.

- Velocity: the network predicts data - noise; this package's sign is noise - data, so it is turned around.
- Time: the network counts 0..1000.
- Null prompt: a learned table in the checkpoint, read at the prompt's own length. A negative prompt replaces it.
- FPS: an embedder of its own. Text keys and values are computed once per prompt.
- Learned sigma: only the first half of the output channels is the velocity.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from opensora_demo.models.stdit3 import STDiT3
from opensora_demo.nn.attention import TextKeys
from opensora_demo.sampling.guidance import combine, needed
from opensora_demo.text.t5 import T5TextEncoder
from opensora_demo.types import GenerationRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditioning:
    """What the network is told at every step.

    text: keys and values of the branches, prompt first, null second; fps: frames per second.
    """

    text: TextKeys
    fps: float
    unknown: tuple[str, ...] = ()
    cut_tokens: int = 0
    selected: dict[tuple[int, ...], TextKeys] = field(default_factory=dict)

    def rows(self, branches: list[int]) -> TextKeys:
        """The text of a batch whose entries belong to these branches; the same for every step, so it is kept."""
        key = tuple(branches)
        if key not in self.selected:
            self.selected[key] = self.text.select(branches)
        return self.selected[key]


class STDiTFamily:
    """Turns requests into conditions, and calls of the network into velocities.

    `max_batch` bounds how many (clip, branch) pairs go through the network at once; None takes them all.
    """

    def __init__(self, text: T5TextEncoder, network: STDiT3, max_batch: int | None = None) -> None:
        self.text = text
        self.network = network
        self.max_batch = max_batch

    def condition(self, request: GenerationRequest) -> Conditioning:
        prompts = [request.prompt, *([request.negative_prompt] if request.negative_prompt else [])]
        features = self.text(prompts)
        if request.negative_prompt:
            text = self.network.project_text(features.y, features.lengths)
        else:
            null = self.network.null_text(features.y.shape[1]).to(features.y)
            text = self.network.project_text(torch.cat([features.y, null[None]]))
        unknown = tuple(dict.fromkeys(word for words in features.unknown for word in words))
        return Conditioning(text=text, fps=float(request.fps), unknown=unknown, cut_tokens=features.cut_tokens[0])

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

        Only the (row, branch) pairs of non-zero weight are evaluated, in one batch. With `shared` all rows of x are
        equal (the first step of a comparison) and each branch is evaluated once for all of them.
        """
        rows, wanted = x.shape[0], needed(weights)
        if shared:
            pairs = [(0, k) for k in range(wanted.shape[1]) if wanted[:, k].any()]
        else:
            pairs = [(row, k) for k in range(wanted.shape[1]) for row in range(rows) if wanted[row, k]]
        size = self.max_batch or len(pairs)
        out = torch.cat(
            [
                self._call(x, t, condition, pairs[at : at + size], height_px, width_px, x_mask)
                for at in range(0, len(pairs), size)
            ]
        )
        predictions: list[Tensor | None] = []
        for k in range(wanted.shape[1]):
            found = [i for i, (_, branch) in enumerate(pairs) if branch == k]
            if not found:
                predictions.append(None)
            elif shared:
                predictions.append(out[found].expand(rows, *out.shape[1:]))
            else:
                full = out.new_zeros(rows, *out.shape[1:])
                full[[pairs[i][0] for i in found]] = out[found]
                predictions.append(full)
        return combine(predictions, weights)

    def _call(
        self,
        x: Tensor,
        t: float,
        condition: Conditioning,
        pairs: list[tuple[int, int]],
        height_px: int,
        width_px: int,
        x_mask: Tensor | None,
    ) -> Tensor:
        count = len(pairs)
        out = self.network(
            x[[row for row, _ in pairs]],
            torch.full((count,), 1000.0 * t, device=x.device),
            condition.rows([branch for _, branch in pairs]),
            fps=torch.full((count,), condition.fps, device=x.device),
            height_px=height_px,
            width_px=width_px,
            x_mask=None if x_mask is None else x_mask[None].expand(count, -1),
        )
        return -out[:, : x.shape[1]].float()
