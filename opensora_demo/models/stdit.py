"""STDiT of Open-Sora 1.0, and PixArt, from which it grew.

PixArt (Chen et al., 2023) adds cross-attention to the text and adaLN-single to DiT; STDiT adds attention over time.
Source: Open-Sora v1.0.0 opensora/models/stdit/stdit.py, opensora/models/pixart/pixart.py; `x_mask` is the 1.2 edition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from opensora_demo.models.base import TextMode
from opensora_demo.nn.attention import CrossAttention, SelfAttention, TextKeys
from opensora_demo.nn.embeddings import CaptionEmbedder, Mlp, ScalarEmbedder, fixed_positions, fixed_times
from opensora_demo.nn.final import FinalLayer
from opensora_demo.nn.modulation import modulate
from opensora_demo.nn.patch import PatchEmbed3D, patch_grid, unpatchify
from opensora_demo.nn.peers import FrameShards, Peers, attend_over_time, frame_shards


@dataclass(frozen=True, slots=True, kw_only=True)
class STDiTConfig:
    """Numbers of an STDiT; the defaults are XL/2 for 16 frames of 256 px. Without `temporal` it is a PixArt.

    `input_size` is the latent's (t, h, w), fixed, since the position tables are; positions are divided by the scales.
    """

    input_size: tuple[int, int, int] = (16, 32, 32)
    in_channels: int = 4
    patch: tuple[int, int, int] = (1, 2, 2)
    width: int = 1152
    depth: int = 28
    heads: int = 16
    mlp_ratio: float = 4.0
    text_channels: int = 4096
    max_tokens: int = 120
    learned_sigma: bool = True
    space_scale: float = 0.5
    time_scale: float = 1.0
    temporal: bool = True
    temporal_positions: bool = True
    text_mode: ClassVar[TextMode] = "cross-attention"
    reads_fps: ClassVar[bool] = False
    takes_loras: ClassVar[bool] = False

    def build(self) -> STDiT:
        return STDiT(self)

    @property
    def out_channels(self) -> int:
        return self.in_channels * (2 if self.learned_sigma else 1)


class Block(nn.Module):
    """Attention over space, then over time (on the stream as it is, with the spatial gate), text, MLP."""

    def __init__(self, cfg: STDiTConfig) -> None:
        super().__init__()
        self.temporal = cfg.temporal
        self.norm1 = nn.LayerNorm(cfg.width, eps=1e-6, elementwise_affine=False)
        self.attn = SelfAttention(cfg.width, cfg.heads, qk_norm=False)
        self.cross_attn = CrossAttention(cfg.width, cfg.heads)
        self.norm2 = nn.LayerNorm(cfg.width, eps=1e-6, elementwise_affine=False)
        self.mlp = Mlp(cfg.width, int(cfg.width * cfg.mlp_ratio))
        self.scale_shift_table = nn.Parameter(torch.randn(6, cfg.width) / cfg.width**0.5)
        if cfg.temporal:
            self.attn_temp = SelfAttention(cfg.width, cfg.heads, qk_norm=False)

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        time_gate: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        times: Tensor | None,
        shards: FrameShards | None = None,
    ) -> Tensor:
        """x (b, t, s, d); modulation (b, t or 1, 6 d); time_gate (b, d): the noisy frames' gate, used for all frames
        after temporal attention, also for given ones; times (1, t, d): positions in time, in the first block."""
        b, t = x.shape[:2]
        table = self.scale_shift_table + modulation.unflatten(-1, (6, -1))  # (b, t or 1, 6, d)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = table[..., None, :].unbind(2)

        pattern = "(b t) s d" if self.temporal else "b (t s) d"  # PixArt draws images: all tokens are one frame's
        h = self.attn(rearrange(modulate(self.norm1(x), shift_a, scale_a), f"b t s d -> {pattern}"))
        x = torch.addcmul(x, gate_a, rearrange(h, f"{pattern} -> b t s d", b=b, t=t))
        if self.temporal:
            h = attend_over_time(x, shards, lambda y: self.attn_temp(y if times is None else y + times))
            gate = (self.scale_shift_table[2] + time_gate)[:, None, None]
            x = torch.addcmul(x, gate, h)

        h = self.cross_attn(rearrange(x, "b t s d -> b (t s) d"), k, v, mask)
        x = x + rearrange(h, "b (t s) d -> b t s d", t=t)
        return torch.addcmul(x, gate_m, self.mlp(modulate(self.norm2(x), shift_m, scale_m)))


class STDiT(nn.Module):
    """Predicts (b, out_channels, t, h, w) from a noisy latent (b, c, t, h, w), a timestep 0..999 and text. With `peers`
    each process computes a part of the frames."""

    peers: Peers | None = None
    pos_embed: Tensor
    pos_embed_temporal: Tensor

    def __init__(self, cfg: STDiTConfig) -> None:
        super().__init__()
        self.cfg = cfg
        for name, table in self.fixed_tables().items():
            self.register_buffer(name, table)
        self.x_embedder = PatchEmbed3D(cfg.patch, cfg.in_channels, cfg.width)
        self.t_embedder = ScalarEmbedder(cfg.width)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(cfg.width, 6 * cfg.width))
        self.y_embedder = CaptionEmbedder(cfg.text_channels, cfg.width, cfg.max_tokens)
        self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.depth))
        self.final_layer = FinalLayer(cfg.width, math.prod(cfg.patch) * cfg.out_channels)

    def fixed_tables(self) -> dict[str, Tensor]:
        """The buffers that are computed and not learned: whatever a file has in their place."""
        cfg = self.cfg
        t, h, w = patch_grid(cfg.patch, cfg.input_size)
        base_size = None if cfg.temporal else int(math.sqrt(h * w))
        return {
            "pos_embed": fixed_positions(cfg.width, h, w, cfg.space_scale, base_size),
            "pos_embed_temporal": fixed_times(cfg.width, t, cfg.time_scale),
        }

    def null_text(self, tokens: int) -> Tensor:
        """Learned features (tokens, c) of the null prompt; it sees as many tokens as the prompt it stands against."""
        return self.y_embedder.y_embedding[:tokens]

    def project_text(self, y: Tensor, lengths: Tensor | None = None) -> TextKeys:
        """Text features (b, n, c) -> keys and values of all blocks; `lengths` (b) are the tokens that count."""
        counts = None if lengths is None else torch.arange(y.shape[1], device=y.device) < lengths[:, None]
        y = self.y_embedder(y)
        keys, values = zip(*(block.cross_attn.project_text(y) for block in self.blocks), strict=True)  # type: ignore[operator, union-attr]
        return TextKeys(keys, values, None if counts is None else counts[:, None, None])

    def forward(self, x: Tensor, timestep: Tensor, text: TextKeys, *, x_mask: Tensor | None = None) -> Tensor:
        """timestep (b); x_mask (b, t') is False for frames that are given: they count as t = 0.

        Raises ValueError when the latent's size is not the one the position tables were made for.
        """
        size = (x.shape[2], x.shape[3], x.shape[4])
        if size != self.cfg.input_size:
            raise ValueError(f"this STDiT takes latents of {self.cfg.input_size}, not {size}")
        x = self.x_embedder(x) + self.pos_embed[:, None]  # (b, t, s, d)
        times = self.pos_embed_temporal if self.cfg.temporal_positions or self.cfg.temporal else None
        if not self.cfg.temporal and times is not None:
            x, times = x + times[:, :, None], None

        time = t0_embedding = self.t_embedder(timestep)  # (b, d)
        modulation = self.t_block(time)[:, None]  # (b, 1, 6 d)
        time_gate = modulation[:, 0].chunk(6, dim=-1)[2]
        if x_mask is not None:
            t0_embedding = self.t_embedder(torch.zeros_like(timestep))
            modulation = torch.where(x_mask[..., None], modulation, self.t_block(t0_embedding)[:, None])
        shards = frame_shards(self.peers, x.shape[1])
        if shards is not None:
            x, modulation = shards.take(x), shards.take(modulation)
            x_mask = None if x_mask is None else shards.take(x_mask)
        for i, block in enumerate(self.blocks):
            in_time = times if i == 0 else None
            x = block(x, modulation, time_gate, text.keys[i], text.values[i], text.mask, in_time, shards)
        x = self.final_layer(x, time, t0_embedding, x_mask)
        x = x if shards is None else shards.join(x)
        return unpatchify(x, self.cfg.patch, size).float()
