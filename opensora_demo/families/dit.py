"""DiT and Latte of Open-Sora 1.0: one vector of pooled text, diffusion with learned sigma.

The null condition is a learned vector, a negative prompt replaces it. Guidance touches the first three channels of the
noise estimate; the fourth and the variance are the prompt branch's (DPM-Solver++ guides all four). No FPS, no frames
given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from opensora_demo.families.base import Conditioning, Draw, Given, PooledEncoder, Use, unmoved
from opensora_demo.families.branches import evaluate
from opensora_demo.families.stdit import guide_noise
from opensora_demo.models.dit import DiT
from opensora_demo.sampling import iddpm
from opensora_demo.sampling.config import IddpmConfig
from opensora_demo.sampling.guidance import ClassifierFree
from opensora_demo.sampling.step import Prediction, Step
from opensora_demo.types import GenerationRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class DiTConditioning(Conditioning):
    """y (2, c): pooled text of the prompt, then the null vector."""

    y: Tensor


class DiTFamily:
    def __init__(
        self,
        text: PooledEncoder,
        network: DiT,
        sampler: IddpmConfig,
        *,
        max_batch: int | None = None,
        use: Use = unmoved,
    ) -> None:
        self.text = text
        self.network = network
        self.sampler = sampler
        self.max_batch = max_batch
        self.use = use

    def condition(self, request: GenerationRequest, given: Given, size: tuple[int, int, int]) -> DiTConditioning:
        if given:
            raise ValueError("Open-Sora 1.0 takes no given frames")
        pooled = self.text([request.prompt, *([request.negative_prompt] if request.negative_prompt else [])])
        self.use("denoise")
        y = pooled.pooled
        if not request.negative_prompt:
            y = torch.cat([y, self.network.null_condition().to(y)[None]])
        return DiTConditioning(
            guidance=ClassifierFree(
                tuple(scale for scale, _ in request.columns),
                tuple(rule for _, rule in request.columns),
                iddpm.noise_levels(request.steps, self.sampler),
            ),
            y=y,
            unknown=tuple(dict.fromkeys(word for words in pooled.unknown for word in words)),
            cut_tokens=pooled.cut_tokens[0],
        )

    def predict(self, x: Tensor, timestep: float, index: int, condition: DiTConditioning) -> Prediction:
        """Guided (eps, variance values) (rows, 2 c, t, h, w)."""

        def call(rows: list[int], branches: list[int]) -> Tensor:
            return self.network(x[rows], torch.full((len(rows),), timestep, device=x.device), condition.y[branches])

        wanted = condition.guidance.needed(index)
        wanted[:, 0] = True  # the unguided channels are the prompt branch's
        out = evaluate(call, wanted, shared=index == 0 and len(x) > 1, max_batch=self.max_batch)
        return guide_noise(out, condition.guidance, index, x, timestep, self.sampler.guided_channels)

    def steps(
        self, noise: Tensor, condition: DiTConditioning, request: GenerationRequest, draw: Draw
    ) -> Iterator[Step]:
        yield from iddpm.sample(
            lambda x, t, i, _: self.predict(x, t, i, condition), noise, request.steps, self.sampler, draw
        )
