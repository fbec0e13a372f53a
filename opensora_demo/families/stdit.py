"""Networks that read text by cross-attention (STDiT, STDiT2, STDiT3) with T5: Open-Sora 1.0, 1.1, 1.2 and 1.3.

Their conventions, decided here and nowhere else:
- Velocity (1.2, 1.3): the network predicts data - noise; this package's sign is noise - data, so it is turned around.
- Time: the network counts 0..1000.
- Null prompt: a learned table in the checkpoint, read at the prompt's own length. A negative prompt replaces it.
- FPS and size: embedders of their own from 1.1 on. Text keys and values are computed once per prompt.
- Learned sigma: the second half of the output channels; diffusion (1.0, 1.1) uses it, flows do not.
- Guided channels (1.0, 1.1): guidance touches the first three; the others are the prompt branch's.
- Given frames: 1.1 and 1.2 keep them by a frame mask, 1.3 is told them and reads the null prompt there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from opensora_demo.families.base import Conditioning, Draw, Given, TokenEncoder, Use, unmoved
from opensora_demo.families.branches import evaluate
from opensora_demo.models.stdit import STDiT
from opensora_demo.models.stdit2 import STDiT2
from opensora_demo.models.stdit3 import STDiT3
from opensora_demo.models.stdit3_v13 import STDiT3V13
from opensora_demo.nn.attention import TextKeys
from opensora_demo.sampling import iddpm, rectified_flow
from opensora_demo.sampling.config import IddpmConfig, RectifiedFlowConfig, SamplerConfig
from opensora_demo.sampling.guidance import ClassifierFree, Guidance, TextImage, flow_levels, jumps
from opensora_demo.sampling.schedule import flow_times, shift_v12, shift_v13
from opensora_demo.sampling.step import Prediction, Step
from opensora_demo.text.prompts import add_scores
from opensora_demo.types import GenerationRequest

Network = STDiT | STDiT2 | STDiT3 | STDiT3V13
TEXT_OF_BRANCH = (0, 1, 1)  # prompt, null, null


@dataclass(frozen=True, slots=True, kw_only=True)
class STDiTConditioning(Conditioning):
    """What the network is told at every step.

    text: keys and values of (prompt, null); null: the null prompt's once more, which given frames read in 1.3.
    frame_mask (1, t): 1 generates a latent frame, 0 keeps it, in between starts late. latent and mask (c, t, h, w):
    what is given, and ones where.
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

    def given_frames(self) -> list[int]:
        return [] if self.mask is None else self.mask[0, :, 0, 0].nonzero().flatten().tolist()


class STDiTFamily:
    """Turns requests into conditions, and calls of the network into steps.

    `max_batch` bounds how many (clip, branch) pairs go through the network at once; None takes them all.
    `aesthetic_score` is told in the prompt, as 1.2 was trained; `image_fps` is told for a clip of one frame.
    """

    def __init__(
        self,
        text: TokenEncoder,
        network: Network,
        sampler: SamplerConfig,
        *,
        aesthetic_score: float | None = None,
        image_fps: float | None = None,
        max_batch: int | None = None,
        use: Use = unmoved,
    ) -> None:
        self.text = text
        self.network = network
        self.sampler = sampler
        self.aesthetic_score = aesthetic_score
        self.image_fps = image_fps
        self.max_batch = max_batch
        self.use = use

    # --- conditions

    def condition(self, request: GenerationRequest, given: Given, size: tuple[int, int, int]) -> STDiTConditioning:
        network = self.network
        prompts = [add_scores(request.prompt, aesthetic=self.aesthetic_score, motion=request.motion_score)]
        if request.negative_prompt:
            prompts.append(request.negative_prompt)
        features = self.text(prompts)
        self.use("denoise")
        null_text = network.null_text(features.y.shape[1]).to(features.y)
        if request.negative_prompt:
            text = network.project_text(features.y, features.lengths)
        else:
            text = network.project_text(torch.cat([features.y, null_text[None]]))

        latent, mask, frame_mask = self._given(given, size, request.edit)
        null = None
        if mask is not None and isinstance(network, STDiT3V13):
            lengths = features.lengths.expand(2) if request.negative_prompt else None
            null = network.project_text(null_text.expand(2, -1, -1), lengths)
        return STDiTConditioning(
            guidance=self._guidance(request, mask is not None, size[0]),
            text=text,
            fps=float(self.image_fps if self.image_fps and request.shape.frames == 1 else request.fps),
            height_px=request.shape.height_px,
            width_px=request.shape.width_px,
            frames=request.shape.frames,
            frame_mask=frame_mask,
            latent=latent,
            mask=mask,
            null=null,
            unknown=tuple(dict.fromkeys(word for words in features.unknown for word in words)),
            cut_tokens=features.cut_tokens[0],
        )

    def _given(
        self, given: Given, size: tuple[int, int, int], edit: float
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Latent and mask (c, t, h, w) of given frames, and the frame mask (1, t)."""
        some = given.first if given.first is not None else given.last
        if some is None:
            return None, None, None
        if isinstance(self.network, STDiT):
            raise ValueError("Open-Sora 1.0 takes no given frames")
        latent = some.new_zeros(some.shape[0], *size)
        mask, frame_mask = torch.zeros_like(latent), latent.new_ones(1, size[0])
        for at, frame in ((0, given.first), (-1, given.last)):
            if frame is not None:
                latent[:, at], mask[:, at], frame_mask[:, at] = frame[:, 0], 1, edit
        return latent, mask, frame_mask

    def _guidance(self, request: GenerationRequest, given: bool, latent_frames: int) -> Guidance:
        scales, rules = tuple(scale for scale, _ in request.columns), tuple(rule for _, rule in request.columns)
        if given and isinstance(self.network, STDiT3V13):
            return TextImage(
                scales=scales,
                rules=rules,
                image_scale=request.image_guidance,
                points=request.steps,
                levels=flow_levels(self.times(request)[:-1]),
                latent_frames=latent_frames,
            )
        if isinstance(self.sampler, IddpmConfig):
            return ClassifierFree(scales, rules, iddpm.noise_levels(request.steps, self.sampler))
        return ClassifierFree(scales, rules, flow_levels(self.times(request)[:-1]), self.sampler.rescale)

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
            count, device = len(rows), x.device
            text, null = condition.rows(branches)
            time = torch.full((count,), timestep, device=device)
            flags = None if x_mask is None else x_mask[rows]

            def number(value: float) -> Tensor:
                return torch.full((count,), float(value), device=device)

            match self.network:
                case STDiT():
                    return self.network(x[rows], time, text, x_mask=flags)
                case STDiT2():
                    return self.network(
                        x[rows],
                        time,
                        text,
                        fps=number(condition.fps),
                        frames=number(condition.frames),
                        height_px=condition.height_px,
                        width_px=condition.width_px,
                        aspect=condition.height_px / condition.width_px,
                        x_mask=flags,
                    )
                case STDiT3():
                    return self.network(
                        x[rows],
                        time,
                        text,
                        fps=number(condition.fps),
                        height_px=condition.height_px,
                        width_px=condition.width_px,
                        x_mask=flags,
                    )
                case STDiT3V13():
                    cond = cond_mask = None
                    if condition.latent is not None and condition.mask is not None:
                        seen = torch.tensor([k < 2 for k in branches], device=device).view(-1, 1, 1, 1, 1)
                        cond, cond_mask = condition.latent * seen, condition.mask.expand(count, -1, -1, -1, -1)
                    return self.network(
                        x[rows],
                        time,
                        text,
                        fps=number(condition.fps),
                        height_px=condition.height_px,
                        width_px=condition.width_px,
                        cond=cond,
                        cond_mask=cond_mask,
                        given=condition.given_frames(),
                        null=null,
                        x_mask=flags,
                    )

        return evaluate(call, wanted, shared=shared, max_batch=self.max_batch)

    def velocity(
        self, x: Tensor, t: float, index: int, condition: STDiTConditioning, x_mask: Tensor | None = None
    ) -> Prediction:
        """Guided dx/dt of x (rows, c, t, h, w) at time t. Only (row, branch) pairs that count are evaluated."""
        wanted = condition.guidance.needed(index)
        out = self.outputs(x, 1000.0 * t, condition, wanted, x_mask, shared=index == 0 and len(x) > 1)
        branches = tuple(None if o is None else -o[:, : x.shape[1]].float() for o in out)
        guidance = condition.guidance
        return Prediction(
            guided=guidance.guide(branches, index, x, (1.0, -t)), branches=branches, jumps=jumps(guidance, index)
        )

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
        wanted = condition.guidance.needed(index)
        wanted[:, 0] = True  # the unguided channels are the prompt branch's
        out = self.outputs(x, timestep, condition, wanted, x_mask, shared=index == 0 and len(x) > 1)
        return guide_noise(out, condition.guidance, index, x, timestep, config.guided_channels)

    # --- the run

    def times(self, request: GenerationRequest) -> tuple[float, ...]:
        assert isinstance(self.sampler, RectifiedFlowConfig)
        shape = request.shape
        match self.sampler.shift:
            case "1.2":
                return flow_times(request.steps, shift_v12(shape.height_px, shape.width_px, shape.frames))
            case "1.3":
                return flow_times(request.steps, shift_v13(shape.height_px, shape.width_px, shape.frames))
            case "none":
                return flow_times(request.steps, self.sampler.ratio)
            case other:
                raise ValueError(f"STDiT has no timestep transform {other}")

    def steps(
        self, noise: Tensor, condition: STDiTConditioning, request: GenerationRequest, draw: Draw
    ) -> Iterator[Step]:
        """The run of a request from noise (rows, c, t, h, w)."""
        told = isinstance(self.network, STDiT3V13)
        frame_mask = None if told else condition.frame_mask
        x = noise
        if frame_mask is not None and condition.latent is not None and condition.mask is not None:
            x = torch.where(condition.mask.bool(), condition.latent, noise)
        if isinstance(self.sampler, IddpmConfig):
            config = self.sampler
            yield from iddpm.sample(
                lambda x, t, i, flags: self.noise_and_variance(x, t, i, condition, config, flags),
                x,
                request.steps,
                config,
                draw,
                frame_mask=frame_mask,
            )
            return
        given = None
        if told and condition.latent is not None and condition.mask is not None:
            given = (condition.latent, condition.mask)
        yield from rectified_flow.sample(
            lambda x, t, i, flags: self.velocity(x, t, i, condition, flags),
            x,
            self.times(request),
            order=self.sampler.order,
            frame_mask=frame_mask,
            given=given,
            draw=draw,
        )


def guide_noise(
    out: list[Tensor | None], guidance: Guidance, index: int, x: Tensor, timestep: float, guided: int | None
) -> Prediction:
    """The prompt branch's output with the first `guided` of its noise channels (None: all of them) replaced by the
    guided ones."""
    assert out[0] is not None
    channels = x.shape[1]
    count = channels if guided is None else guided
    noise = [None if o is None else o[:, :channels].float() for o in out]
    part = [None if n is None else n[:, :count] for n in noise]
    eps = guidance.guide(part, index, x[:, :count], iddpm.to_x0(timestep))
    return Prediction(guided=torch.cat([eps, out[0][:, count:].float()], dim=1), branches=tuple(noise))
