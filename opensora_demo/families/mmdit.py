"""MMDiT with T5, CLIP and rectified flow: the conventions of Open-Sora 2.0, decided here and nowhere else.

- Velocity and time are the package's own: noise - data, 0..1.
- Text: T5 tokens join the video's in one sequence, padding and all; CLIP's pooled vector modulates. The null prompt is
  the encoded empty string, the negative prompt replaces it.
- FPS and motion score are words at the end of the prompt, not of the negative one.
- Given frames: a mask and a latent beside the noisy one, and put back over the result before decoding.
- Guidance: three branches, text and image scale, oscillating (`sampling.guidance.TextImage`). A distilled network
  (Flux) is told the scale instead and has one branch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
    TokenEncoder,
    no_offload,
)
from opensora_demo.families.branches import evaluate, guide_velocity
from opensora_demo.request.curve import shares
from opensora_demo.request.request import GenerationRequest
from opensora_demo.sampling.config import RectifiedFlowConfig
from opensora_demo.sampling.frame_conditions import given_frames, kind_of
from opensora_demo.sampling.guidance import ClassifierFree, Guidance, TextImage, Unguided, flow_levels, image_rules
from opensora_demo.sampling.rectified_flow import sample
from opensora_demo.sampling.schedule import flow_times, shift_v20
from opensora_demo.sampling.step import Prediction, Step
from opensora_demo.text.prompts import add_fps_and_motion

GIVEN_IN_BRANCH = (True, True, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MMDiTConditioning(Conditioning):
    """text (branches, n, c) and pooled (branches, c_pooled): prompt, null, null again; mask (1, t, h, w) and latent
    (c, t, h, w) of given frames, zero where none is; back: latents (c, n, h, w) that are put back over the beginning
    and the end of the result; scales: what a distilled network is told, one for each row."""

    text: Tensor
    pooled: Tensor
    mask: Tensor
    latent: Tensor
    back: tuple[Tensor | None, Tensor | None] = (None, None)
    scales: tuple[float, ...] = ()

    def cond(self, branches: list[int]) -> Tensor:
        """(n, 1 + c, t, h, w): mask and latent for the branches that see the given frames, zeros for the others."""
        full = torch.cat([self.mask, self.latent])
        seen = torch.tensor([GIVEN_IN_BRANCH[k] for k in branches], device=full.device)
        return full * seen.view(-1, 1, 1, 1, 1)


class JointTextAdapter(Adapter[N, MMDiTConditioning]):
    """A network whose text tokens join the clip's, beside a pooled vector."""

    @property
    @abstractmethod
    def latent_channels(self) -> int: ...

    @property
    @abstractmethod
    def distilled(self) -> bool:
        """Whether the scale of guidance is told to the network instead of being applied to two calls of it."""


class MMDiTFamily(Family[MMDiTConditioning]):
    adapter: JointTextAdapter[Any]
    time_scale = 1.0

    def __init__(
        self,
        text: TokenEncoder,
        pooled: PooledEncoder,
        adapter: JointTextAdapter[Any],
        sampler: RectifiedFlowConfig,
        *,
        causal: bool = True,
        max_batch: int | None = None,
        prepare: PrepareStage = no_offload,
    ) -> None:
        """`causal` says whether the codec gives the first frame a latent of its own."""
        super().__init__(adapter, max_batch=max_batch, prepare=prepare)
        self.text = text
        self.pooled = pooled
        self.sampler = sampler
        self.causal = causal

    def condition(self, request: GenerationRequest, given: ConditioningFrames, size: Grid) -> MMDiTConditioning:
        prompts = [add_fps_and_motion(request.prompt, request.fps, request.motion_score), request.negative_prompt]
        features, pooled = self.text(prompts), self.pooled(prompts)
        self.prepare("denoise")
        references = [latent for latent in (given.first, given.last) if latent is not None]
        mask, latent = given_frames(
            kind_of(given.first, given.last),
            references,
            (self.adapter.latent_channels, *size),
            causal=self.causal,
            count=max((reference.shape[1] for reference in references), default=None),
        )
        times = self.times(request, size)
        return MMDiTConditioning(
            guidance=self.guidance(request, bool(given), size, times),
            times=times,
            text=features.y[[0, 1, 1]],
            pooled=pooled.pooled[[0, 1, 1]],
            mask=mask.to(features.y.device),
            latent=latent.to(features.y.device),
            back=(given.first, given.last),
            scales=tuple(scale for scale, _ in request.columns),
            prompt=prompts[0],
            unknown=tuple(dict.fromkeys(word for words in features.unknown for word in words)),
            cut_tokens=features.cut_tokens[0],
            weaker=self.weaker_condition(request, given, size),
            cache=self.step_cache(request),
        )

    def guidance(self, run: RunSettings, given: bool, size: Grid, times: tuple[float, ...]) -> Guidance:
        scales, rules = tuple(scale for scale, _ in run.columns), tuple(rule for _, rule in run.columns)
        if self.adapter.distilled:
            return Unguided(scales)
        levels, drawn = flow_levels(times[:-1]), shares(run.curve, run.steps)
        if not given or size[0] == 1:  # a picture is not told what is given
            return ClassifierFree(scales, rules, levels, shares=drawn)
        return TextImage(
            scales=scales,
            rules=rules,
            image_rules=image_rules(rules),
            image_scale=run.image_guidance,
            points=run.steps + 1,
            levels=levels,
            latent_frames=size[0],
            shares=drawn,
        )

    def own_predictions(
        self,
        x: Tensor,
        t: float,
        condition: MMDiTConditioning,
        wanted: Tensor,
        x_mask: Tensor | None = None,
        *,
        shared: bool = False,
    ) -> list[Tensor | None]:
        def call(rows: list[int], branches: list[int]) -> Tensor:
            return self.call(x, t, condition, rows, branches)

        distilled_rows_differ = self.adapter.distilled and len(set(condition.scales)) > 1
        return evaluate(
            call,
            wanted,
            shared=shared and not distilled_rows_differ,
            max_batch=self.max_batch,
            peers=self.peers,
            threads=self.threads,
        )

    def times(self, run: RunSettings, size: Grid) -> tuple[float, ...]:
        if self.sampler.shift == "none":
            return flow_times(run.steps, self.sampler.ratio)
        if self.sampler.shift != "2.0":
            raise ValueError(f"MMDiT has no timestep transform {self.sampler.shift}")
        _, rows, columns = self.adapter.patch
        return flow_times(run.steps, shift_v20(size[1] * size[2] // (rows * columns), size[0]))

    def steps(
        self, noise: Tensor, condition: MMDiTConditioning, request: GenerationRequest, draw: Draw
    ) -> Iterator[Step]:
        yield from self.run(noise, condition, condition.times)

    def run(self, noise: Tensor, condition: MMDiTConditioning, times: tuple[float, ...]) -> Iterator[Step]:
        """`denoise`, whose last step has the given frames put back as they came from the codec. (A clip of one frame is
        not told what is given, as in the reference, and becomes it all the same.)"""
        for step in self.denoise(noise, condition, times):
            first, last = condition.back
            if step.index + 1 == step.total and (first is not None or last is not None):
                x = step.x.clone()
                if first is not None:
                    x[:, :, : first.shape[1]] = first.to(x)
                if last is not None:
                    x[:, :, -last.shape[1] :] = last.to(x)
                step = replace(step, x=x, x0=x)
            yield step

    def denoise(self, noise: Tensor, condition: MMDiTConditioning, times: tuple[float, ...]) -> Iterator[Step]:
        """From noise (rows, c, t, h, w) along `times`."""

        def velocity(x: Tensor, t: float, index: int, x_mask: Tensor | None) -> Prediction:
            told = condition.at(index)
            wanted = self.wanted(told.guidance, index)
            branches = self.cached_predictions(x, t, index, told, wanted, shared=index == 0 and len(x) > 1)
            return guide_velocity(branches, told.guidance, index, x, t)

        yield from sample(velocity, noise, times, order=self.sampler.order, turn=condition.turn)
