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

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from opensora_demo.families.base import Conditioning, Draw, Given, PooledEncoder, TokenEncoder, Use, unmoved
from opensora_demo.families.branches import evaluate
from opensora_demo.models.mmdit import MMDiT
from opensora_demo.sampling.config import RectifiedFlowConfig
from opensora_demo.sampling.given_frames import given_frames
from opensora_demo.sampling.guidance import ClassifierFree, Guidance, TextImage, Unguided, flow_levels, jumps
from opensora_demo.sampling.rectified_flow import sample
from opensora_demo.sampling.schedule import flow_times, shift_v20
from opensora_demo.sampling.step import Prediction, Step
from opensora_demo.text.prompts import add_fps_and_motion
from opensora_demo.types import GenerationRequest

GIVEN_IN_BRANCH = (True, True, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MMDiTConditioning(Conditioning):
    """text (branches, n, c) and pooled (branches, c_pooled): prompt, null, null again; mask (1, t, h, w) and latent
    (c, t, h, w) of given frames, zero where none is; back: (index, latent (c, 1, h, w)) of frames that are put back
    over the result; scales: what a distilled network is told, one for each row."""

    text: Tensor
    pooled: Tensor
    mask: Tensor
    latent: Tensor
    back: tuple[tuple[int, Tensor], ...] = ()
    scales: tuple[float, ...] = ()

    def cond(self, branches: list[int]) -> Tensor:
        """(n, 1 + c, t, h, w): mask and latent for the branches that see the given frames, zeros for the others."""
        full = torch.cat([self.mask, self.latent])
        seen = torch.tensor([GIVEN_IN_BRANCH[k] for k in branches], device=full.device)
        return full * seen.view(-1, 1, 1, 1, 1)


class MMDiTFamily:
    def __init__(
        self,
        text: TokenEncoder,
        pooled: PooledEncoder,
        network: MMDiT,
        sampler: RectifiedFlowConfig,
        *,
        causal: bool = True,
        max_batch: int | None = None,
        use: Use = unmoved,
    ) -> None:
        """`causal` says whether the codec gives the first frame a latent of its own."""
        self.text = text
        self.pooled = pooled
        self.network = network
        self.sampler = sampler
        self.causal = causal
        self.max_batch = max_batch
        self.use = use

    def condition(self, request: GenerationRequest, given: Given, size: tuple[int, int, int]) -> MMDiTConditioning:
        prompts = [add_fps_and_motion(request.prompt, request.fps, request.motion_score), request.negative_prompt]
        features, pooled = self.text(prompts), self.pooled(prompts)
        self.use("denoise")
        references = [latent for latent in (given.first, given.last) if latent is not None]
        kind = {(False, False): "t2v", (True, False): "i2v_head", (False, True): "i2v_tail", (True, True): "i2v_loop"}[
            given.first is not None, given.last is not None
        ]
        mask, latent = given_frames(kind, references, (self.network.cfg.latent_channels, *size), causal=self.causal)  # type: ignore[arg-type]
        return MMDiTConditioning(
            guidance=self.guidance(request, bool(mask.any()), size),
            text=features.y[[0, 1, 1]],
            pooled=pooled.pooled[[0, 1, 1]],
            mask=mask.to(features.y.device),
            latent=latent.to(features.y.device),
            back=tuple((at, frame) for at, frame in ((0, given.first), (-1, given.last)) if frame is not None),
            scales=tuple(scale for scale, _ in request.columns),
            unknown=tuple(dict.fromkeys(word for words in features.unknown for word in words)),
            cut_tokens=features.cut_tokens[0],
        )

    def guidance(self, request: GenerationRequest, given: bool, size: tuple[int, int, int]) -> Guidance:
        scales, rules = tuple(scale for scale, _ in request.columns), tuple(rule for _, rule in request.columns)
        if self.network.cfg.guidance_embed:
            return Unguided(scales)
        levels = flow_levels(self.times(request.steps, size)[:-1])
        if not given:
            return ClassifierFree(scales, rules, levels)
        return TextImage(
            scales=scales,
            rules=rules,
            image_scale=request.image_guidance,
            points=request.steps + 1,
            levels=levels,
            latent_frames=size[0],
        )

    def predictions(
        self, x: Tensor, t: float, condition: MMDiTConditioning, wanted: Tensor, *, shared: bool = False
    ) -> list[Tensor | None]:
        """Each branch's velocity (rows, c, t, h, w) where `wanted` (rows, branches)."""

        def call(rows: list[int], branches: list[int]) -> Tensor:
            return self.network(
                x[rows],
                torch.full((len(rows),), t, device=x.device),
                condition.text[branches],
                condition.pooled[branches],
                cond=condition.cond(branches) if self.network.cfg.cond_embed else None,
                guidance=torch.tensor([condition.scales[row] for row in rows], device=x.device)
                if self.network.cfg.guidance_embed
                else None,
            )

        distilled_rows_differ = self.network.cfg.guidance_embed and len(set(condition.scales)) > 1
        return evaluate(call, wanted, shared=shared and not distilled_rows_differ, max_batch=self.max_batch)

    def times(self, steps: int, size: tuple[int, int, int]) -> tuple[float, ...]:
        if self.sampler.shift == "none":
            return flow_times(steps, self.sampler.ratio)
        if self.sampler.shift != "2.0":
            raise ValueError(f"MMDiT has no timestep transform {self.sampler.shift}")
        tokens = size[1] * size[2] // self.network.cfg.patch**2
        return flow_times(steps, shift_v20(tokens, size[0]))

    def steps(
        self, noise: Tensor, condition: MMDiTConditioning, request: GenerationRequest, draw: Draw
    ) -> Iterator[Step]:
        size = (noise.shape[2], noise.shape[3], noise.shape[4])
        yield from self.run(noise, condition, self.times(request.steps, size))

    def run(self, noise: Tensor, condition: MMDiTConditioning, times: tuple[float, ...]) -> Iterator[Step]:
        """`denoise`, whose last step has the given frames put back as they came from the codec. (A clip of one frame is
        not told what is given, as in the reference, and becomes it all the same.)"""
        for step in self.denoise(noise, condition, times):
            if step.index + 1 == step.total and condition.back:
                x = step.x.clone()
                for at, frame in condition.back:
                    x[:, :, at] = frame[:, 0].to(x)
                step = replace(step, x=x, x0=x)
            yield step

    def denoise(self, noise: Tensor, condition: MMDiTConditioning, times: tuple[float, ...]) -> Iterator[Step]:
        """From noise (rows, c, t, h, w) along `times`."""

        def velocity(x: Tensor, t: float, index: int, x_mask: Tensor | None) -> Prediction:
            wanted = condition.guidance.needed(index)
            branches = tuple(self.predictions(x, t, condition, wanted, shared=index == 0 and len(x) > 1))
            guidance = condition.guidance
            return Prediction(
                guided=guidance.guide(branches, index, x, (1.0, -t)), branches=branches, jumps=jumps(guidance, index)
            )

        yield from sample(velocity, noise, times, order=self.sampler.order)
