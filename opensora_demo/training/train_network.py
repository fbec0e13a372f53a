"""Train a diffusion transformer and its text encoders together, on a pool of latents; captions are drawn afresh.

One job for each era of Open-Sora: rectified flow with cross-attention (STDiT3), diffusion with learned variance and
pooled text (DiT), rectified flow over one sequence of text and video (MMDiT).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from opensora_demo.bundle import build_network
from opensora_demo.catalog import ModelSpec
from opensora_demo.models.dit import DiT
from opensora_demo.models.mmdit import MMDiT
from opensora_demo.models.stdit3 import STDiT3
from opensora_demo.sampling.iddpm import TIMESTEPS, Diffusion
from opensora_demo.sampling.rectified_flow import noised
from opensora_demo.sampling.schedule import shift_time
from opensora_demo.text.clip import ClipTextEncoder
from opensora_demo.text.prompts import add_fps_and_motion
from opensora_demo.text.t5 import T5TextEncoder
from opensora_demo.training.captions import caption, look_alikes
from opensora_demo.training.pool import load_pool
from opensora_demo.weights import read_state


class TextToVideo(nn.Module):
    """The trained parts under one roof, so that one optimiser and one checkpoint hold them.

    `null` is the learned table that stands for no text, which the networks keep as a buffer.
    """

    def __init__(self, spec: ModelSpec, tokenizer: Path) -> None:
        super().__init__()
        if spec.text is not None:
            self.text = T5TextEncoder(spec.text, tokenizer)
        if spec.clip is not None:
            self.clip = ClipTextEncoder(spec.clip, tokenizer)
        network = build_network(spec.network)
        assert isinstance(network, STDiT3 | DiT | MMDiT)
        self.dit = network
        if (table := self.null_table()) is not None:
            self.null = nn.Parameter(torch.randn_like(table) / table.shape[1] ** 0.5)

    def null_table(self) -> Tensor | None:
        """(n, c), where the network keeps one."""
        return None if isinstance(self.dit, MMDiT) else self.dit.get_buffer("y_embedder.y_embedding")

    def blocks(self) -> list[nn.Module]:
        return [block for part in self.dit.children() if isinstance(part, nn.ModuleList) for block in part]

    def parts(self) -> dict[str, nn.Module]:
        """What is exported, by the field of `WeightFiles` that names its files; `null` is put in its place."""
        if (table := self.null_table()) is not None:
            table.copy_(self.null.detach())
        found = {"network": self.dit, "text": getattr(self, "text", None), "clip": getattr(self, "clip", None)}
        return {name: part for name, part in found.items() if part is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Weight files to go on from, instead of from nothing: `parts` as in TextToVideo.parts, and the tokenizer that
    they were trained with."""

    parts: Mapping[str, tuple[Path, ...]]
    tokenizer: Path


def read_words(tokenizer: Path) -> dict[str, int]:
    return dict(json.loads(tokenizer.read_text())["model"]["vocab"])


def grow(both: TextToVideo, start: Started, tokenizer: Path) -> None:
    """Load weights whose tokenizer may have known other words and whose prompts may have been shorter.

    An embedding goes with its word; a new word starts from a word of the same meaning, if the grammar knows one.
    """
    old, new, alike = read_words(start.tokenizer), read_words(tokenizer), look_alikes()
    for name, part in both.parts().items():
        state, own = read_state(list(start.parts[name])), part.state_dict()
        for key in state:
            if key.endswith("y_embedding"):
                state[key] = torch.cat([state[key], own[key][len(state[key]) :].to(state[key])])
                both.null.data.copy_(state[key])
            elif old != new and key.endswith(("shared.weight", "embed_tokens.weight", "token_embedding.weight")):
                before, table = state[key].float(), own[key].clone()
                known, generator = before[: len(old)], torch.Generator().manual_seed(0)
                table.copy_(known.mean(0) + known.std(0) * torch.randn(table.shape, generator=generator))
                for word, row in new.items():
                    if word in old or alike.get(word) in old:
                        table[row] = before[old.get(word, old.get(alike.get(word, ""), 0))]
                state[key] = table
        part.load_state_dict(state)


def draw_times(count: int, generator: torch.Generator, mean: float) -> Tensor:
    """Times (count) in (0, 1): a third logit-normal (Esser et al., 2024), the others uniform and shifted by 4 to noise.

    Where an object goes is decided in the noisiest steps, which a logit-normal alone hardly visits.
    """
    middle = torch.sigmoid(torch.randn(count, generator=generator) + mean)
    u = torch.rand(count, generator=generator)
    noisy = torch.rand(count, generator=generator) < 2 / 3
    return torch.where(noisy, shift_time(u, 4.0), middle)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """x0 and noise (b, c, t, h, w); dropped and given (b) say which prompts are not told and which first frames are
    given; lone (b, c, 1, h, w) is the given frame encoded by itself, where the codec is not causal."""

    x0: Tensor
    noise: Tensor
    prompts: list[str]
    dropped: Tensor
    given: Tensor
    fps: Tensor
    lone: Tensor | None = None


@dataclass
class NetworkJob:
    """What the three have in common: the pool, and how a batch is drawn from it.

    `shift` and `scale` (1, c, 1, 1, 1) normalise the pool's latents. `lone` says that their first frame is a lone
    frame's latent. A share of batches is of short clips.
    """

    spec: ModelSpec
    tokenizer: Path
    pool: Path
    shift: Tensor
    scale: Tensor
    batch: int = 32
    lone: bool = False
    t_mean: float = 0.3
    caption_dropout: float = 0.1
    reference_share: float = 0.2
    short_share: float = 0.1
    chinese: float = 0.12
    bfloat16: bool = True
    compiled: bool = False  # 1.2 x as fast on two cores, after a minute of compiling
    start: Started | None = None

    def __post_init__(self) -> None:
        self.model = TextToVideo(self.spec, self.tokenizer)
        self.model.dit.initialise()
        if self.compiled:
            for block in self.model.blocks():
                block.compile()
        self.latents, self.scenes = load_pool(self.pool)
        if self.start is not None:
            with torch.no_grad():
                grow(self.model, self.start, self.tokenizer)

    def draw(self, rng: np.random.Generator, generator: torch.Generator, short: bool) -> Batch:
        chosen = np.sort(rng.integers(len(self.scenes), size=self.batch))
        x0 = (torch.from_numpy(self.latents[chosen]).float() - self.shift) / self.scale
        scenes = [self.scenes[i] for i in chosen]
        lone = None
        if self.lone:
            lone, x0 = x0[:, :, :1], x0[:, :, 1:]
        if short:
            frames = int(rng.integers(1, x0.shape[2]))
            x0 = lone if lone is not None and frames == 1 else x0[:, :, :frames]
        return Batch(
            x0=x0,
            noise=torch.randn(x0.shape, generator=generator),
            prompts=[caption(s, rng, omit=0.04, chinese=self.chinese) for s in scenes],
            dropped=torch.rand(len(x0), generator=generator) < self.caption_dropout,
            given=(torch.rand(len(x0), generator=generator) < self.reference_share) & (x0.shape[2] > 1),
            fps=torch.tensor([float(s.fps) for s in scenes]),
            lone=lone,
        )

    def loss(self, rng: np.random.Generator, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        short = bool(rng.random() < self.short_share)
        batch = self.draw(rng, generator, short)
        # Compiled code that has to fit every length is slower than code that is not compiled.
        with torch.compiler.set_stance("force_eager" if short else "default"):
            return self.loss_of(batch, generator)

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bfloat16)

    def loss_of(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        raise NotImplementedError


class STDiT3Job(NetworkJob):
    """Open-Sora 1.2: x_t = (1 - t) x0 + t noise, the network predicts data - noise (Liu et al., 2022); given frames
    are clean and count as t = 0. A dropped prompt reads the null features at its own length."""

    def loss_of(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        x0, noise, network = batch.x0, batch.noise, self.model.dit
        assert isinstance(network, STDiT3)
        height_px, width_px = self.spec.limits.size_px
        t = draw_times(len(x0), generator, self.t_mean)
        x_mask = torch.ones(len(x0), x0.shape[2], dtype=torch.bool)
        x_mask[:, 0] = ~batch.given
        at = torch.where(x_mask, t[:, None], 0.0)[:, None, :, None, None]
        with self.autocast():
            told = self.model.text(batch.prompts)
            null = self.model.null[: told.y.shape[1]].to(told.y.dtype)
            y = torch.where(batch.dropped[:, None, None], null, told.y)
            v = network(
                noised(x0, noise, at),
                1000 * t,
                network.project_text(y, told.lengths),
                fps=batch.fps,
                height_px=height_px,
                width_px=width_px,
                x_mask=x_mask,
            )
        error = (v - (x0 - noise)).square() * x_mask[:, None, :, None, None]
        return error.sum() / (x_mask.sum() * error[0, :, 0].numel()), {}


MAX_RATIO = 8.0  # noise levels sigma / alpha above it count no more


class DiTJob(NetworkJob):
    """Open-Sora 1.0: squared error of the noise, plus the variational bound, which trains the variance alone (Nichol &
    Dhariwal, 2021, L_hybrid). Clips have the network's one length, and no frame is given.

    Times are drawn as for a flow and taken at the same ratio r = sigma / alpha of noise to data; an error of the noise
    counts (1 + r)^2, which makes it the error of the flow's velocity. By equal weights what an object is and does,
    which is decided at r of 1 to 8, would count for next to nothing.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        process = Diffusion.respaced(str(TIMESTEPS))
        self.ratios = (1 / process.alphas_cumprod - 1).sqrt().float()  # (1000), rising
        self.tables = {
            "alpha": process.alphas_cumprod.float(),
            "from_x0": process.posterior_mean_coef1.float(),
            "from_x": process.posterior_mean_coef2.float(),
            "least": process.posterior_log_variance_clipped.float(),
            "most": process.betas.log().float(),
        }

    def loss(self, rng: np.random.Generator, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        return self.loss_of(self.draw(rng, generator, short=False), generator)

    def loss_of(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        x0, noise, network = batch.x0, batch.noise, self.model.dit
        assert isinstance(network, DiT)
        t = draw_times(len(x0), generator, self.t_mean)
        timestep = torch.searchsorted(self.ratios, t / (1 - t)).clamp(max=TIMESTEPS - 1)
        weight = (1 + self.ratios[timestep].clamp(max=MAX_RATIO)).square()
        at = {name: table[timestep].view(-1, 1, 1, 1, 1) for name, table in self.tables.items()}
        x = at["alpha"].sqrt() * x0 + (1 - at["alpha"]).sqrt() * noise
        with self.autocast():
            pooled = self.model.clip(batch.prompts).pooled
            y = torch.where(batch.dropped[:, None], self.model.null.to(pooled.dtype), pooled)
            out = network(x, timestep.float(), y)
        eps, fraction = out.float().chunk(2, dim=1)
        error = ((eps - noise).square().mean((1, 2, 3, 4)) * weight).sum() / weight.sum()

        guess = (x - (1 - at["alpha"]).sqrt() * eps.detach()) * at["alpha"].rsqrt()
        true_mean, mean = (at["from_x0"] * clean + at["from_x"] * x for clean in (x0, guess))
        log_variance = torch.lerp(at["least"], at["most"], (fraction + 1) / 2)
        apart = (true_mean - mean).square()
        kl = 0.5 * (log_variance - at["least"] - 1 + (at["least"] - log_variance).exp() + apart * (-log_variance).exp())
        last = 0.5 * (math.log(2 * math.pi) + log_variance + (x0 - mean).square() * (-log_variance).exp())
        bound = torch.where((timestep == 0).view(-1, 1, 1, 1, 1), last, kl).mean() / math.log(2)
        return error + bound, {"error": float(error.detach()), "bound": float(bound.detach())}


class MMDiTJob(NetworkJob):
    """Open-Sora 2.0: x_t = (1 - t) x0 + t noise, the network predicts noise - data. FPS is words of the prompt, a
    dropped prompt is the empty one; given frames are told as a mask and a latent beside the noisy one."""

    def loss_of(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        x0, noise, network = batch.x0, batch.noise, self.model.dit
        assert isinstance(network, MMDiT)
        given = batch.given[:, None, None, None, None]
        mask = torch.zeros_like(x0[:, :1])
        mask[:, :, :1] = given.to(mask.dtype)
        if batch.lone is not None and x0.shape[2] > 1:
            x0 = torch.cat([torch.where(given, batch.lone, x0[:, :, :1]), x0[:, :, 1:]], dim=2)
        t = draw_times(len(x0), generator, self.t_mean)
        prompts = [
            "" if dropped else add_fps_and_motion(prompt, fps, None)
            for prompt, fps, dropped in zip(batch.prompts, batch.fps.tolist(), batch.dropped.tolist(), strict=True)
        ]
        with self.autocast():
            v = network(
                noised(x0, noise, t.view(-1, 1, 1, 1, 1)),
                t,
                self.model.text(prompts).y,
                self.model.clip(prompts).pooled,
                cond=torch.cat([mask, mask * x0], dim=1),
            )
        return (v - (noise - x0)).square().mean(), {}
