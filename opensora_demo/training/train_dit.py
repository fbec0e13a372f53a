"""Train the diffusion transformer and its text encoder together, by rectified flow on a pool of latents.

x_t = (1 - t) x0 + t noise; the network predicts the velocity (Liu et al., 2022; Open-Sora 1.2's sign, data - noise).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from opensora_demo.models.stdit3 import STDiT3, STDiT3Config
from opensora_demo.sampling.schedule import shift_time
from opensora_demo.text.t5 import T5Config, T5TextEncoder
from opensora_demo.training.captions import caption
from opensora_demo.training.pool import latent_statistics, load_pool
from opensora_demo.training.worlds import SIZE_PX
from opensora_demo.weights import read_state


class TextToVideo(nn.Module):
    """The two trained parts under one roof, so that one optimiser and one checkpoint hold them."""

    def __init__(self, dit: STDiT3Config, text: T5Config, tokenizer: Path) -> None:
        super().__init__()
        self.text = T5TextEncoder(text, tokenizer)
        self.dit = STDiT3(dit)
        self.null = nn.Parameter(torch.randn(dit.max_tokens, dit.text_channels) / dit.text_channels**0.5)

    def features(self, prompts: list[str], dropped: Tensor) -> tuple[Tensor, Tensor]:
        """Text features (b, n, c) and lengths (b); dropped (b) prompts read the null features at their own length."""
        ids, lengths, _, _ = self.text.tokenize(prompts)
        y = self.text.encode_ids(ids, lengths)
        return torch.where(dropped[:, None, None], self.null[: y.shape[1]].to(y.dtype), y), lengths


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Weight files to go on from, instead of from nothing; the codec's give the scale of the latents."""

    network: tuple[Path, ...]
    text: tuple[Path, ...]
    codec: tuple[Path, ...]


def draw_times(count: int, generator: torch.Generator, mean: float) -> Tensor:
    """Times (count) in (0, 1): half logit-normal (Esser et al., 2024), half uniform and shifted by 2 towards noise.

    Where an object goes is decided in the noisiest steps, which a logit-normal alone hardly visits.
    """
    middle = torch.sigmoid(torch.randn(count, generator=generator) + mean)
    u = torch.rand(count, generator=generator)
    noisy = torch.rand(count, generator=generator) < 0.5
    return torch.where(noisy, shift_time(u, 2.0), middle)


@dataclass
class DitJob:
    """Loss: squared error of the velocity; captions are drawn afresh each time."""

    dit: STDiT3Config
    text: T5Config
    tokenizer: Path
    pool: Path
    batch: int = 24
    t_mean: float = 0.3
    caption_dropout: float = 0.1
    reference_share: float = 0.2
    short_share: float = 0.1
    bfloat16: bool = True
    start: Started | None = None

    def __post_init__(self) -> None:
        self.model = TextToVideo(self.dit, self.text, self.tokenizer)
        self.model.dit.initialise()
        self.latents, self.scenes = load_pool(self.pool)
        self.shift, self.scale = latent_statistics(self.latents)
        if self.start is not None:
            self.model.dit.load_state_dict(read_state(list(self.start.network)))
            self.model.text.load_state_dict(read_state(list(self.start.text)))
            self.model.null.data.copy_(self.model.dit.y_embedder.y_embedding)
            codec = read_state(list(self.start.codec))
            self.shift, self.scale = codec["shift"].float(), codec["scale"].float()

    def loss(self, rng: np.random.Generator, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        chosen = rng.integers(len(self.scenes), size=self.batch)
        x0 = (torch.from_numpy(self.latents[np.sort(chosen)]).float() - self.shift) / self.scale
        scenes = [self.scenes[i] for i in np.sort(chosen)]
        if rng.random() < self.short_share:  # stills and short clips: 1, 5, 9 or 13 frames
            x0 = x0[:, :, : int(rng.integers(1, x0.shape[2]))]
        noise = torch.randn(x0.shape, generator=generator)
        t = draw_times(len(x0), generator, self.t_mean)
        given = torch.rand(len(x0), generator=generator) < self.reference_share
        x_mask = torch.ones(len(x0), x0.shape[2], dtype=torch.bool)
        x_mask[:, 0] = ~given | (x0.shape[2] == 1)
        at = torch.where(x_mask, t[:, None], 0.0)[:, None, :, None, None]
        xt = (1 - at) * x0 + at * noise
        prompts = [caption(s, rng, omit=0.04) for s in scenes]
        dropped = torch.rand(len(x0), generator=generator) < self.caption_dropout
        fps = torch.tensor([float(s.fps) for s in scenes])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bfloat16):
            y, lengths = self.model.features(prompts, dropped)
            text = self.model.dit.project_text(y, lengths)
            v = self.model.dit(xt, 1000 * t, text, fps=fps, height_px=SIZE_PX, width_px=SIZE_PX, x_mask=x_mask)
        error = (v - (x0 - noise)).square() * x_mask[:, None, :, None, None]
        loss = error.sum() / (x_mask.sum() * error[0, :, 0].numel())
        return loss, {}
