"""One step's call of the network: the doubled batch that goes in, both halves that come out, and every channel of them.

Guidance asks once with the prompt and once without. Both questions hold the same latent, so it is concatenated with
itself, goes through the network as one batch, and the output is split again.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from opensora_demo.families.adapters.base import Adapter, CrossAttentionSite
from opensora_demo.preview import heat, latent_to_rgb
from opensora_demo.request.video import Frames
from opensora_demo.sampling.config import IddpmConfig, SamplerConfig
from opensora_demo.sampling.iddpm import Diffusion
from opensora_demo.sampling.step import Step

SHOWN_TIME = 0.75  # the first step from here on is shown: the prompt decides most near the noise, but not in pure noise
MOST_CHANNELS = 64  # of an output that are shown one by one
RANGE = 3.0  # root mean squares from the middle grey of a channel to white

Size = tuple[int, ...]
Use = Literal["none", "cut", "variance", "ignored"]
"""What becomes of output channels beyond the latent's: there are none; a flow cuts them off; diffusion places the
variance of its noise with them; a diffusion sampler that draws no noise of a learned variance passes over them."""


class CallRecorder:
    """While entered, keeps the latents (on the CPU) that go into the calls of a network, what comes out, and the sizes
    of the masks that its cross-attentions are given, None where there is none."""

    def __init__(self, adapter: Adapter[Any, Any]) -> None:
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.masks: list[Size | None] = []
        self._adapter = adapter
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> CallRecorder:
        def keep(_module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
            self.inputs.append(args[0].float().cpu())
            self.outputs.append(out.float().cpu())

        def keep_mask(_module: nn.Module, args: tuple[Any, ...]) -> None:
            mask = args[3]
            self.masks.append(None if mask is None else tuple(mask.shape))

        self._hooks.append(self._adapter.network.register_forward_hook(keep))
        for site in self._adapter.attention_sites():
            if isinstance(site, CrossAttentionSite):
                self._hooks.append(site.module.register_forward_pre_hook(keep_mask))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class Halves:
    """The doubled batch of step `index` (from 0) of `total`, taken at flow time `t`.

    `given` and `answered` are the sizes (b, c, t, h, w) of what went into the network and came out, in `calls` calls
    together; `apart` is the largest difference between both halves of the input. Pictures (1, h, w, 3) of the middle
    latent frame: the latent `latent`, the answers `prompt` and `null`, how far these lie apart, RMS over channels,
    black for nothing and white for `peak`, and the `mix` that the step followed at `scale`. A run of one branch has no
    pictures and no `scale` that is mixed.
    """

    index: int
    total: int
    t: float
    scale: float
    calls: int
    given: Size
    answered: Size
    apart: float
    peak: float
    pictures: dict[str, Frames]


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """Every output channel of the prompt's half at that step.

    `values` (n, h, w) in bytes, 128 for nothing: of the first `latent` channels 255 is `top`, of those beyond 1.
    `noise` is the standard deviation of the noise that the step adds: the lower bound, what the second half makes of
    it on average, the upper bound; None where it decides nothing.
    """

    index: int
    latent: int
    use: Use
    top: float
    values: Frames
    noise: tuple[float, float, float] | None


def halves_of(recorder: CallRecorder, step: Step, scale: float, matrix: Tensor) -> Halves:
    """What one step's calls held. `matrix` shows latents, as `ModelBundle.preview_matrix`."""
    z, out = torch.cat(recorder.inputs), torch.cat(recorder.outputs)
    branches = step.prediction.branches
    both = [branch[0].float().cpu() for branch in branches[:2] if branch is not None]
    pictures: dict[str, Frames] = {}
    peak = 0.0
    if len(both) == 2:
        middle = slice(z.shape[2] // 2, z.shape[2] // 2 + 1)
        c, u = (branch[:, middle] for branch in both)  # (c, 1, h, w)
        mixed = step.prediction.guided[0, : len(c), middle].float().cpu()
        gap = (c - u).square().mean(0).sqrt()  # (1, h, w)
        peak = float(gap.max())
        shown = {"latent": z[0, :, middle], "prompt": c, "null": u, "mix": mixed}
        pictures = {name: latent_to_rgb(x, matrix) for name, x in shown.items()}
        pictures["gap"] = heat(gap.numpy(), peak)
    return Halves(
        index=step.index,
        total=step.total,
        t=step.t,
        scale=scale,
        calls=len(recorder.inputs),
        given=tuple(z.shape),
        answered=tuple(out.shape),
        apart=float((z - z[:1]).abs().max()),
        peak=peak,
        pictures=pictures,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Masking:
    """What a mask of this run's attention from patches to words would be made of: entries of the batch, heads,
    `patches` and `words` of a sequence. `used` are the sizes of the masks that the network was given, each once."""

    batch: int
    heads: int
    patches: int
    words: int
    used: tuple[Size, ...]


def use_of(extra: bool, sampler: SamplerConfig) -> Use:
    """What a sampler makes of output channels beyond the latent's, where there are such."""
    if not extra:
        return "none"
    if not isinstance(sampler, IddpmConfig):
        return "cut"
    return "variance" if sampler.method == "ddpm" else "ignored"


def channels_of(recorder: CallRecorder, step: Step, sampler: SamplerConfig) -> Channels:
    """The output channels of the first entry of a step's calls, the prompt's."""
    latent = recorder.inputs[0].shape[1]
    out = recorder.outputs[0][0]  # (c', t, h, w)
    middle = out[:MOST_CHANNELS, out.shape[1] // 2]
    top = RANGE * float(out[:latent].square().mean().sqrt())
    scaled = torch.cat([middle[:latent] / max(top, 1e-12), middle[latent:]])
    use = use_of(len(out) > latent, sampler)
    noise = None
    if use == "variance" and step.index + 1 < step.total:
        assert isinstance(sampler, IddpmConfig)
        noise = noise_of(step, out[latent:], sampler)
    values: Frames = (scaled.clamp(-1, 1) * 127 + 128).round().to(torch.uint8).numpy()
    return Channels(index=step.index, latent=latent, use=use, top=top, values=values, noise=noise)


def noise_of(step: Step, fraction: Tensor, sampler: IddpmConfig) -> tuple[float, float, float]:
    """(lower, mean, upper) standard deviation of the noise of a DDPM step, of which `fraction` in -1..1 places the log
    variance between its bounds (Nichol & Dhariwal, 2021, eq. 15)."""
    process = Diffusion.respaced(str(step.total), float32_betas=sampler.float32_betas)
    index = step.total - 1 - step.index
    low, high = float(process.posterior_log_variance_clipped[index]), float(process.betas[index].log())
    share = (fraction + 1) / 2
    mean = torch.exp(0.5 * (share * high + (1 - share) * low)).mean()
    return float(torch.tensor(0.5 * low).exp()), float(mean), float(torch.tensor(0.5 * high).exp())


def masking_of(recorder: CallRecorder, heads: int, patches: int, words: int) -> Masking:
    """What a mask would be made of at a step, and which there were."""
    used = tuple(sorted({mask for mask in recorder.masks if mask is not None}))
    return Masking(batch=sum(map(len, recorder.inputs)), heads=heads, patches=patches, words=words, used=used)
