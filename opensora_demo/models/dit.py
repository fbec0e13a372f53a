"""DiT over video, and Latte: the first networks of Open-Sora 1.0.

One vector conditions everything: time plus pooled text (or a class), through adaLN-Zero in every block (Peebles & Xie,
"Scalable diffusion models with transformers", 2023). DiT attends over all tokens of the clip; Latte is the same
network whose blocks attend over space and over time in turn (Ma et al., "Latte", 2024).
Source: Open-Sora v1.0.0 opensora/models/dit/dit.py, opensora/models/latte/latte.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from opensora_demo.models.base import TextMode
from opensora_demo.nn.attention import SelfAttention
from opensora_demo.nn.embeddings import CaptionEmbedder, Mlp, ScalarEmbedder, fixed_positions, fixed_times
from opensora_demo.nn.modulation import modulate
from opensora_demo.nn.patch import PatchEmbed3D, patch_grid, unpatchify
from opensora_demo.nn.peers import FrameShards, Peers, attend_over_time, frame_shards


@dataclass(frozen=True, slots=True, kw_only=True)
class DiTConfig:
    """Numbers of a DiT; the defaults are XL/2 for 16 frames of 256 px with CLIP's pooled text.

    `input_size` is the latent's (t, h, w), fixed, since the position tables are. `classes` > 0 takes class labels in
    place of text. Without `temporal_positions` no frame knows where in time it stands. `alternate` makes it a Latte.
    """

    input_size: tuple[int, int, int] = (16, 32, 32)
    in_channels: int = 4
    patch: tuple[int, int, int] = (1, 2, 2)
    width: int = 1152
    depth: int = 28
    heads: int = 16
    mlp_ratio: float = 4.0
    text_channels: int = 512
    classes: int = 0
    learned_sigma: bool = True
    temporal_positions: bool = True
    alternate: bool = False
    reads_fps: ClassVar[bool] = False
    takes_loras: ClassVar[bool] = False

    @property
    def text_mode(self) -> TextMode:
        return "class label" if self.classes else "pooled vector"

    def build(self) -> DiT:
        return DiT(self)

    @property
    def out_channels(self) -> int:
        return self.in_channels * (2 if self.learned_sigma else 1)


class LabelEmbedder(nn.Module):
    """Class labels (b) in 0..classes as vectors (b, width): a row for each class, and a last one, number `classes`, for
    none."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.none = classes
        self.embedding_table = nn.Embedding(classes + 1, width)

    def forward(self, label: Tensor) -> Tensor:
        return self.embedding_table(label)

    def token_drop(self, label: Tensor, dropped: Tensor) -> Tensor:
        """The labels (b), none in the place of those that are `dropped` (b): training drops a share of them."""
        return torch.where(dropped, self.none, label)


class Block(nn.Module):
    """Attention and MLP under adaLN-Zero: shift, scale and gate of both from the condition (b, d)."""

    def __init__(self, cfg: DiTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(cfg.width, eps=1e-6, elementwise_affine=False)
        self.attn = SelfAttention(cfg.width, cfg.heads, qk_norm=False)
        self.norm2 = nn.LayerNorm(cfg.width, eps=1e-6, elementwise_affine=False)
        self.mlp = Mlp(cfg.width, int(cfg.width * cfg.mlp_ratio))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(cfg.width, 6 * cfg.width))

    def forward(self, x: Tensor, c: Tensor, axis: str, shards: FrameShards | None = None) -> Tensor:
        """x (b, t, s, d); axis "all", "space" or "time" says which tokens attend to each other."""
        b, t = x.shape[:2]
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(c)[:, None, None].chunk(6, dim=-1)
        h = modulate(self.norm1(x), shift_a, scale_a)
        if axis == "time":
            h = attend_over_time(h, shards, self.attn)
        elif axis == "space":
            h = rearrange(self.attn(rearrange(h, "b t s d -> (b t) s d")), "(b t) s d -> b t s d", b=b)
        else:
            tokens = None if shards is None else shards.tokens(x.shape[2])
            h = self.attn(rearrange(h, "b t s d -> b (t s) d"), shards=tokens)
            h = rearrange(h, "b (t s) d -> b t s d", t=t)
        x = torch.addcmul(x, gate_a, h)
        return torch.addcmul(x, gate_m, self.mlp(modulate(self.norm2(x), shift_m, scale_m)))


class FinalLayer(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.linear = nn.Linear(width, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c)[:, None, None].chunk(2, dim=-1)
        return self.linear(modulate(self.norm_final(x), shift, scale))


class DiT(nn.Module):
    """Predicts (b, out_channels, t, h, w), the noise and with `learned_sigma` the variance's fraction, from a noisy
    latent (b, c, t, h, w), a timestep 0..999 and a condition. With `peers` each process computes a part of the
    frames."""

    peers: Peers | None = None
    pos_embed_spatial: Tensor
    pos_embed_temporal: Tensor

    def __init__(self, cfg: DiTConfig) -> None:
        super().__init__()
        self.cfg = cfg
        for name, table in self.fixed_tables().items():
            self.register_buffer(name, table)
        self.x_embedder = PatchEmbed3D(cfg.patch, cfg.in_channels, cfg.width)
        self.t_embedder = ScalarEmbedder(cfg.width)
        self.y_embedder = (
            LabelEmbedder(cfg.classes, cfg.width) if cfg.classes else CaptionEmbedder(cfg.text_channels, cfg.width, 1)
        )
        self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.depth))
        self.final_layer = FinalLayer(cfg.width, math.prod(cfg.patch) * cfg.out_channels)

    def fixed_tables(self) -> dict[str, Tensor]:
        """The buffers that are computed and not learned: whatever a file has in their place."""
        t, h, w = patch_grid(self.cfg.patch, self.cfg.input_size)
        return {
            "pos_embed_spatial": fixed_positions(self.cfg.width, h, w),
            "pos_embed_temporal": fixed_times(self.cfg.width, t),
        }

    def initialise(self) -> None:
        """Weights to start training from: xavier, 0.02 normal in embedders, zeros in modulation and output."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.data.view(self.cfg.width, -1))
        nn.init.zeros_(self.x_embedder.proj.bias)  # type: ignore[arg-type]
        for embedder in (self.t_embedder, self.y_embedder):
            for p in embedder.parameters():
                if p.ndim == 2:
                    nn.init.normal_(p, std=0.02)
        for module in (*self.blocks, self.final_layer):
            nn.init.zeros_(module.adaLN_modulation[1].weight)
        nn.init.zeros_(self.final_layer.linear.weight)

    def null_condition(self) -> Tensor:
        """What stands for no text (c) or no class (an index)."""
        if isinstance(self.y_embedder, CaptionEmbedder):
            return self.y_embedder.y_embedding[0]
        return torch.tensor(self.cfg.classes)

    def forward(self, x: Tensor, timestep: Tensor, y: Tensor) -> Tensor:
        """timestep (b); y (b, text_channels) pooled text, or (b) class indices.

        Raises ValueError when the latent's size is not the one the position tables were made for.
        """
        size = (x.shape[2], x.shape[3], x.shape[4])
        if size != self.cfg.input_size:
            raise ValueError(f"this DiT takes latents of {self.cfg.input_size}, not {size}")
        x = self.x_embedder(x) + self.pos_embed_spatial[:, None]  # (b, t, s, d)
        if self.cfg.temporal_positions and not self.cfg.alternate:
            x = x + self.pos_embed_temporal[:, :, None]
        c = self.t_embedder(timestep) + self.y_embedder(y)  # (b, d)
        shards, times = frame_shards(self.peers, x.shape[1]), self.pos_embed_temporal
        if shards is not None:
            x, times = shards.take(x), shards.take(times)
        for i, block in enumerate(self.blocks):
            if self.cfg.alternate and i == 1:
                x = x + times[:, :, None]
            axis = ("time" if i % 2 else "space") if self.cfg.alternate else "all"
            x = block(x, c, axis, shards)
        x = self.final_layer(x, c)  # (b, t, s, pt * ph * pw * out_channels)
        x = x if shards is None else shards.join(x)
        return unpatchify(x, self.cfg.patch, size).float()
