"""Networks that read text by cross-attention (STDiT, STDiT2, STDiT3) with T5: Open-Sora 1.0, 1.1, 1.2 and 1.3.

Their conventions, decided here and nowhere else:
- Velocity (1.2, 1.3): the network predicts data - noise; this package's sign is noise - data, so it is turned around.
  A network of ours may predict the clean latent instead.
- Time: the network counts 0..1000 (the config says how far).
- Null prompt: a learned table in the checkpoint, read at the prompt's own length. A negative prompt replaces it.
- FPS and size: embedders of their own from 1.1 on. Text keys and values are computed once per prompt.
- Learned sigma: the second half of the output channels; diffusion (1.0, 1.1) uses it, flows do not.
- Guided channels (1.0, 1.1): guidance touches the first three; the others are the prompt branch's.
- Given frames: 1.1 and 1.2 keep them by a frame mask, 1.3 is told them and reads the null prompt there.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from opensora_demo.families.adapters.base import Adapter, N
from opensora_demo.families.base import (
    Conditioning,
    ConditioningFrames,
    Draw,
    Family,
    Grid,
    PrepareStage,
    RunSettings,
    TokenEncoder,
    no_offload,
)
from opensora_demo.families.branches import evaluate, guide_noise, guide_velocity
from opensora_demo.nn.attention import TextKeys
from opensora_demo.request.curve import shares
from opensora_demo.request.request import GenerationRequest
from opensora_demo.sampling import iddpm, rectified_flow
from opensora_demo.sampling.config import IddpmConfig, SamplerConfig
from opensora_demo.sampling.guidance import ClassifierFree, Guidance, TextImage, flow_levels, image_rules
from opensora_demo.sampling.mask_strategy import Strategy, apply_strategy
from opensora_demo.sampling.schedule import flow_times, shift_v12, shift_v13
from opensora_demo.sampling.step import Prediction, Step
from opensora_demo.text.prompts import add_scores

TEXT_OF_BRANCH = (0, 1, 1)  # prompt, null, null


@dataclass(frozen=True, slots=True, kw_only=True)
class STDiTConditioning(Conditioning):
    """What the network is told at every step.

    text: keys and values of (prompt, null); null: the null prompt's once more, which given frames read in 1.3.
    frame_mask (1, t): 1 generates a latent frame, 0 keeps it, in between starts late. latent (c, t, h, w), or with a
    row for each clip in front, and mask (c, t, h, w): what is given, and ones where.
    """

    text: TextKeys
    fps: float
    height_px: float
    width_px: float
    frames: int = 1
    frame_mask: Tensor | None = None
    latent: Tensor | None = None
    mask: Tensor | None = None
    null: TextKeys | None = None
    selected: dict[tuple[int, ...], tuple[TextKeys, TextKeys | None]] = field(default_factory=dict)

    def rows(self, branches: list[int]) -> tuple[TextKeys, TextKeys | None]:
        """The text, and the null text for given frames, of a batch whose entries belong to these branches; the same
        at every step, so it is kept."""
        key = tuple(branches)
        if key not in self.selected:
            of_text = [TEXT_OF_BRANCH[k] for k in branches]
            self.selected[key] = self.text.select(of_text), None if self.null is None else self.null.select(of_text)
        return self.selected[key]

    @property
    def apart(self) -> bool:
        """Whether each clip has given frames of its own."""
        return self.latent is not None and self.latent.ndim == 5

    def given_frames(self) -> list[int]:
        return [] if self.mask is None else self.mask[0, :, 0, 0].nonzero().flatten().tolist()


class CrossAttentionAdapter(Adapter[N, STDiTConditioning]):
    """A network that reads text by cross-attention.

    `takes_frames`: it can keep given frames. `reads_frames`: it is told them instead, and reads the null prompt there.
    """

    takes_frames: ClassVar[bool] = True
    reads_frames: ClassVar[bool] = False

    @property
    def predicts_clean(self) -> bool:
        """Whether a flow's network says the clean latent and no velocity."""
        return False

    @abstractmethod
    def null_text(self, tokens: int) -> Tensor:
        """Features (tokens, c) of the null prompt."""

    @abstractmethod
    def project_text(self, y: Tensor, lengths: Tensor | None = None) -> TextKeys:
        """Text features (b, n, c), of which `lengths` (b) count -> keys and values of all blocks."""


class STDiTFamily(Family[STDiTConditioning]):
    """Turns requests into conditions, and calls of the network into steps.

    `aesthetic_score` is told in the prompt, as 1.2 was trained; `image_fps` is told for a clip of one frame.
    """

    adapter: CrossAttentionAdapter[Any]

    def __init__(
        self,
        text: TokenEncoder,
        adapter: CrossAttentionAdapter[Any],
        sampler: SamplerConfig,
        *,
        aesthetic_score: float | None = None,
        image_fps: float | None = None,
        max_batch: int | None = None,
        prepare: PrepareStage = no_offload,
    ) -> None:
        super().__init__(adapter, max_batch=max_batch, prepare=prepare)
        self.text = text
        self.sampler = sampler
        self.aesthetic_score = aesthetic_score
        self.image_fps = image_fps

    @property
    def carries_latents(self) -> bool:
        return self.adapter.reads_frames

    @property
    def time_scale(self) -> float:
        return 999.0 if isinstance(self.sampler, IddpmConfig) else float(self.sampler.timesteps)

    # --- conditions

    def condition(self, request: GenerationRequest, given: ConditioningFrames, size: Grid) -> STDiTConditioning:
        adapter = self.adapter
        prompts = [add_scores(request.prompt, aesthetic=self.aesthetic_score, motion=request.motion_score)]
        if request.negative_prompt:
            prompts.append(request.negative_prompt)
        features = self.text(prompts)
        self.prepare("denoise")
        null_text = adapter.null_text(features.y.shape[1]).to(features.y)
        if request.negative_prompt:
            text = adapter.project_text(features.y, features.lengths)
        else:
            text = adapter.project_text(torch.cat([features.y, null_text[None]]))

        latent, mask, frame_mask = self._given(given, size, request.edit)
        null = None
        if mask is not None and adapter.reads_frames:
            lengths = features.lengths.expand(2) if request.negative_prompt else None
            null = adapter.project_text(null_text.expand(2, -1, -1), lengths)
        times = self.times(request, size)
        return STDiTConditioning(
            guidance=self.guidance(request, bool(given), size, times),
            times=times,
            text=text,
            fps=float(self.image_fps if self.image_fps and request.shape.frames == 1 else request.fps),
            height_px=request.shape.height_px,
            width_px=request.shape.width_px,
            frames=request.shape.frames,
            frame_mask=frame_mask,
            latent=latent,
            mask=mask,
            null=null,
            prompt=prompts[0],
            unknown=tuple(dict.fromkeys(word for words in features.unknown for word in words)),
            cut_tokens=features.cut_tokens[0],
            weaker=self.weaker_condition(request, given, size),
            cache=self.step_cache(request),
        )

    def _given(
        self, given: ConditioningFrames, size: Grid, edit: float
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Latent and mask (c, t, h, w) of given frames, and the frame mask (1, t); the latent (rows, c, t, h, w) where
        the first ones are."""
        if given.first is not None and given.first.ndim == 5:
            rows = [self._given(replace(given, first=first), size, edit) for first in given.first]
            return torch.stack([latent for latent, _, _ in rows if latent is not None]), *rows[0][1:]
        some = given.first if given.first is not None else given.last
        if some is None:
            return None, None, None
        if not self.adapter.takes_frames:
            raise ValueError("Open-Sora 1.0 takes no given frames")
        references = [latent for latent in (given.first, given.last) if latent is not None]
        entries = []
        if given.first is not None:
            entries.append(Strategy(length=given.first.shape[1], edit=edit))
        if given.last is not None:
            length = given.last.shape[1]
            entries.append(Strategy(reference=len(references) - 1, target_start=-length, length=length, edit=edit))
        empty = some.new_zeros(some.shape[0], *size)
        latent, frame_mask = apply_strategy(empty, references, entries)
        mask, _ = apply_strategy(empty, [torch.ones_like(latent) for latent in references], entries)
        return latent, mask, frame_mask[None]

    def guidance(self, run: RunSettings, given: bool, size: Grid, times: tuple[float, ...]) -> Guidance:
        scales, rules = tuple(scale for scale, _ in run.columns), tuple(rule for _, rule in run.columns)
        drawn = shares(run.curve, run.steps)
        if given and self.adapter.reads_frames:
            return TextImage(
                scales=scales,
                rules=rules,
                image_rules=image_rules(rules),
                image_scale=run.image_guidance,
                points=run.steps,
                levels=flow_levels(times[:-1]),
                latent_frames=size[0],
                shares=drawn,
            )
        if isinstance(self.sampler, IddpmConfig):
            return ClassifierFree(scales, rules, iddpm.noise_levels(run.steps, self.sampler), shares=drawn)
        return ClassifierFree(scales, rules, flow_levels(times[:-1]), self.sampler.rescale, drawn)

    def wanted(self, guidance: Guidance, step: int) -> Tensor:
        wanted = guidance.needed(step)
        if isinstance(self.sampler, IddpmConfig):
            wanted[:, 0] = True  # the unguided channels are the prompt branch's
        return wanted

    # --- the network

    def outputs(
        self,
        x: Tensor,
        timestep: float,
        condition: STDiTConditioning,
        wanted: Tensor,
        x_mask: Tensor | None = None,
        *,
        shared: bool = False,
    ) -> list[Tensor | None]:
        """What the network says of x (rows, c, t, h, w) for each branch that `wanted` (rows, branches) asks for."""

        def call(rows: list[int], branches: list[int]) -> Tensor:
            return self.call(x, timestep, condition, rows, branches, x_mask)

        return evaluate(call, wanted, shared=shared, max_batch=self.max_batch, peers=self.peers, threads=self.threads)

    def own_predictions(
        self,
        x: Tensor,
        t: float,
        condition: STDiTConditioning,
        wanted: Tensor,
        x_mask: Tensor | None = None,
        *,
        shared: bool = False,
    ) -> list[Tensor | None]:
        if isinstance(self.sampler, IddpmConfig):
            return self.outputs(x, t, condition, wanted, x_mask, shared=shared)
        out = self.outputs(x, self.time_scale * t, condition, wanted, x_mask, shared=shared)
        return [None if o is None else self._velocity(o[:, : x.shape[1]].float(), x, t) for o in out]

    def velocity(
        self, x: Tensor, t: float, index: int, condition: STDiTConditioning, x_mask: Tensor | None = None
    ) -> Prediction:
        """Guided dx/dt of x (rows, c, t, h, w) at time t. Only (row, branch) pairs that count are evaluated."""
        wanted = self.wanted(condition.guidance, index)
        branches = self.cached_predictions(
            x, t, index, condition, wanted, x_mask, shared=index == 0 and len(x) > 1 and not condition.apart
        )
        return guide_velocity(branches, condition.guidance, index, x, t)

    def _velocity(self, out: Tensor, x: Tensor, t: float) -> Tensor:
        """dx/dt of what the network says of x at time t."""
        if self.adapter.predicts_clean:
            return rectified_flow.velocity_to(out, x, t)
        return -out

    def noise_and_variance(
        self,
        x: Tensor,
        timestep: float,
        index: int,
        condition: STDiTConditioning,
        config: IddpmConfig,
        x_mask: Tensor | None = None,
    ) -> Prediction:
        """Guided (eps, variance values) (rows, 2 c, t, h, w) for a diffusion sampler."""
        wanted = self.wanted(condition.guidance, index)
        out = self.cached_predictions(
            x, timestep, index, condition, wanted, x_mask, shared=index == 0 and len(x) > 1 and not condition.apart
        )
        return guide_noise(out, condition.guidance, index, x, timestep, config.guided_channels)

    # --- the run

    def times(self, run: RunSettings, size: Grid) -> tuple[float, ...]:
        if isinstance(self.sampler, IddpmConfig):
            return ()
        shape = run.shape
        match self.sampler.shift:
            case "1.2":
                return flow_times(run.steps, shift_v12(shape.height_px, shape.width_px, shape.frames))
            case "1.3":
                return flow_times(run.steps, shift_v13(shape.height_px, shape.width_px, shape.frames))
            case "none":
                return flow_times(run.steps, self.sampler.ratio)
            case other:
                raise ValueError(f"STDiT has no timestep transform {other}")

    def steps(
        self, noise: Tensor, condition: STDiTConditioning, request: GenerationRequest, draw: Draw
    ) -> Iterator[Step]:
        """The run of a request from noise (rows, c, t, h, w)."""
        frame_mask = None if self.adapter.reads_frames else condition.frame_mask
        x = noise
        if frame_mask is not None and condition.latent is not None and condition.mask is not None:
            x = torch.where(condition.mask.bool(), condition.latent, noise)
        if isinstance(self.sampler, IddpmConfig):
            config = self.sampler
            yield from iddpm.sample(
                lambda x, t, i, flags: self.noise_and_variance(x, t, i, condition.at(i), config, flags),
                x,
                request.steps,
                config,
                draw,
                frame_mask=frame_mask,
                turn=condition.turn,
            )
            return
        given = None
        if self.adapter.reads_frames and condition.latent is not None and condition.mask is not None:
            given = (condition.latent, condition.mask)
        yield from rectified_flow.sample(
            lambda x, t, i, flags: self.velocity(x, t, i, condition.at(i), flags),
            x,
            condition.times,
            order=self.sampler.order,
            frame_mask=frame_mask,
            given=given,
            draw=draw,
            turn=condition.turn,
        )
