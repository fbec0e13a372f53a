"""DiT and Latte of Open-Sora 1.0: one vector of pooled text, diffusion with learned sigma.

The null condition is a learned vector, a negative prompt replaces it. Guidance touches the first three channels of the
noise estimate; the fourth and the variance are the prompt branch's (DPM-Solver++ guides all four). No FPS, no frames
given.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from opensora_demo.families.adapters.base import Adapter, N
from opensora_demo.families.base import (
    Conditioning,
    ConditioningFrames,
    Draw,
    Family,
    Grid,
    PooledEncoder,
    PrepareStage,
    RunSettings,
    no_offload,
)
from opensora_demo.families.branches import evaluate, guide_noise
from opensora_demo.request.curve import shares
from opensora_demo.request.request import GenerationRequest
from opensora_demo.sampling import iddpm
from opensora_demo.sampling.config import IddpmConfig
from opensora_demo.sampling.guidance import ClassifierFree, Guidance
from opensora_demo.sampling.step import Prediction, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class DiTConditioning(Conditioning):
    """y (2, c): pooled text of the prompt, then the null vector; or (2) the prompt's class, then the null class."""

    y: Tensor


class PooledTextAdapter(Adapter[N, DiTConditioning]):
    """A network that is told one vector of text."""

    @abstractmethod
    def null_vector(self) -> Tensor:
        """What stands for no text, (c)."""


class DiTFamily(Family[DiTConditioning]):
    adapter: PooledTextAdapter[Any]
    time_scale = 999.0

    def __init__(
        self,
        text: PooledEncoder,
        adapter: PooledTextAdapter[Any],
        sampler: IddpmConfig,
        *,
        max_batch: int | None = None,
        prepare: PrepareStage = no_offload,
    ) -> None:
        super().__init__(adapter, max_batch=max_batch, prepare=prepare)
        self.text = text
        self.sampler = sampler

    def times(self, run: RunSettings, size: Grid) -> tuple[float, ...]:
        return ()

    def guidance(self, run: RunSettings, given: bool, size: Grid, times: tuple[float, ...]) -> Guidance:
        return ClassifierFree(
            tuple(scale for scale, _ in run.columns),
            tuple(rule for _, rule in run.columns),
            iddpm.noise_levels(run.steps, self.sampler),
            shares=shares(run.curve, run.steps),
        )

    def wanted(self, guidance: Guidance, step: int) -> Tensor:
        wanted = guidance.needed(step)
        wanted[:, 0] = True  # the unguided channels are the prompt branch's
        return wanted

    def condition(self, request: GenerationRequest, given: ConditioningFrames, size: Grid) -> DiTConditioning:
        if given:
            raise ValueError("Open-Sora 1.0 takes no given frames")
        pooled = self.text([request.prompt, *([request.negative_prompt] if request.negative_prompt else [])])
        self.prepare("denoise")
        y = pooled.pooled
        if not request.negative_prompt:
            y = torch.cat([y, self.adapter.null_vector().to(y)[None]])
        return DiTConditioning(
            guidance=self.guidance(request, False, size, ()),
            y=y,
            unknown=tuple(dict.fromkeys(word for words in pooled.unknown for word in words)),
            cut_tokens=pooled.cut_tokens[0],
            weaker=self.weaker_condition(request, given, size),
            cache=self.step_cache(request),
        )

    def own_predictions(
        self,
        x: Tensor,
        t: float,
        condition: DiTConditioning,
        wanted: Tensor,
        x_mask: Tensor | None = None,
        *,
        shared: bool = False,
    ) -> list[Tensor | None]:
        def call(rows: list[int], branches: list[int]) -> Tensor:
            return self.call(x, t, condition, rows, branches)

        return evaluate(call, wanted, shared=shared, max_batch=self.max_batch, peers=self.peers, threads=self.threads)

    def predict(self, x: Tensor, timestep: float, index: int, condition: DiTConditioning) -> Prediction:
        """Guided (eps, variance values) (rows, 2 c, t, h, w)."""
        wanted = self.wanted(condition.guidance, index)
        out = self.cached_predictions(x, timestep, index, condition, wanted, shared=index == 0 and len(x) > 1)
        return guide_noise(out, condition.guidance, index, x, timestep, self.sampler.guided_channels)

    def steps(
        self, noise: Tensor, condition: DiTConditioning, request: GenerationRequest, draw: Draw
    ) -> Iterator[Step]:
        yield from iddpm.sample(
            lambda x, t, i, _: self.predict(x, t, i, condition.at(i)),
            noise,
            request.steps,
            self.sampler,
            draw,
            turn=condition.turn,
        )
