"""Train the diffusion transformer and its text encoder together, by rectified flow on a pool of latents.

x_t = (1 - t) x0 + t noise; the network predicts the velocity (Liu et al., 2022; Open-Sora 1.2's sign, data - noise).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from opensora_demo.models.stdit3 import STDiT3, STDiT3Config
from opensora_demo.sampling.schedule import shift_time
from opensora_demo.text.t5 import T5Config, T5TextEncoder
from opensora_demo.training.captions import caption, look_alikes
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
    """Weight files to go on from, instead of from nothing. `tokenizer` is the one that they were trained with."""

    network: tuple[Path, ...]
    text: tuple[Path, ...]
    tokenizer: Path


def read_words(tokenizer: Path) -> dict[str, int]:
    return dict(json.loads(tokenizer.read_text())["model"]["vocab"])


def grow(both: TextToVideo, start: Started, tokenizer: Path) -> None:
    """Load weights whose tokenizer knew other words and whose prompts were shorter.

    An embedding goes with its word; a new word starts from a word of the same meaning, if the grammar knows one.
    """
    network = read_state(list(start.network))
    network["y_embedder.y_embedding"] = _first_rows(
        network["y_embedder.y_embedding"], both.dit.y_embedder.y_embedding.detach()
    )
    both.dit.load_state_dict(network)
    both.null.data.copy_(network["y_embedder.y_embedding"])

    text, own = read_state(list(start.text)), both.text.state_dict()
    old, new, alike = read_words(start.tokenizer), read_words(tokenizer), look_alikes()
    for name in [n for n in text if n.endswith(("shared.weight", "embed_tokens.weight"))]:
        before, table = text[name].float(), own[name].clone()
        known = before[: len(old)]
        table.copy_(known.mean(0) + known.std(0) * torch.randn(table.shape, generator=torch.Generator().manual_seed(0)))
        for word, row in new.items():
            if word in old:
                table[row] = before[old[word]]
            elif alike.get(word) in old:
                table[row] = before[old[alike[word]]]
        text[name] = table
    both.text.load_state_dict(text)


def _first_rows(rows: Tensor, table: Tensor) -> Tensor:
    return torch.cat([rows.to(table), table[len(rows) :]])


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
    chinese: float = 0.12
    bfloat16: bool = True
    start: Started | None = None
    compiled: bool = False  # 1.2 x as fast on two cores, after some minutes of compiling

    def __post_init__(self) -> None:
        self.model = TextToVideo(self.dit, self.text, self.tokenizer)
        self.model.dit.initialise()
        if self.compiled:
            for block in (*self.model.dit.spatial_blocks, *self.model.dit.temporal_blocks):
                block.compile()
        self.latents, self.scenes = load_pool(self.pool)
        self.shift, self.scale = latent_statistics(self.latents)
        if self.start is not None:
            grow(self.model, self.start, self.tokenizer)

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
        prompts = [caption(s, rng, omit=0.04, chinese=self.chinese) for s in scenes]
        dropped = torch.rand(len(x0), generator=generator) < self.caption_dropout
        fps = torch.tensor([float(s.fps) for s in scenes])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bfloat16):
            y, lengths = self.model.features(prompts, dropped)
            text = self.model.dit.project_text(y, lengths)
            v = self.model.dit(xt, 1000 * t, text, fps=fps, height_px=SIZE_PX, width_px=SIZE_PX, x_mask=x_mask)
        error = (v - (x0 - noise)).square() * x_mask[:, None, :, None, None]
        loss = error.sum() / (x_mask.sum() * error[0, :, 0].numel())
        return loss, {}
