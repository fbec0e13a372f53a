"""STDiT2 of Open-Sora 1.1: any size and length, told to the network, and frames that are given.

Against STDiT: temporal attention has its own norm, modulation and rotary positions, queries and keys are normalised,
positions follow the size of the clip, and height, width, aspect ratio, frame count and FPS are embedded.
Source: Open-Sora v1.1.0 opensora/models/stdit/stdit2.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from opensora_demo.models.base import TextMode
from opensora_demo.nn.attention import CrossAttention, SelfAttention, TextKeys
from opensora_demo.nn.embeddings import CaptionEmbedder, Mlp, ScalarEmbedder, sincos_position_2d
from opensora_demo.nn.final import FinalLayer
from opensora_demo.nn.memo import LastValue
from opensora_demo.nn.modulation import modulate
from opensora_demo.nn.patch import PatchEmbed3D, patch_grid, unpatchify
from opensora_demo.nn.peers import FrameShards, Peers, attend_over_time, frame_shards
from opensora_demo.nn.rope import RotaryFrequencies, RotaryTable


@dataclass(frozen=True, slots=True, kw_only=True)
class STDiT2Config:
    """Numbers of an STDiT2; the defaults are the published XL/2. `width` must be a multiple of 3."""

    in_channels: int = 4
    patch: tuple[int, int, int] = (1, 2, 2)
    width: int = 1152
    depth: int = 28
    heads: int = 16
    mlp_ratio: float = 4.0
    text_channels: int = 4096
    max_tokens: int = 200
    qk_norm: bool = True
    learned_sigma: bool = True
    base_px: int = 512
    text_mode: ClassVar[TextMode] = "cross-attention"
    reads_fps: ClassVar[bool] = True
    takes_loras: ClassVar[bool] = False

    def build(self) -> STDiT2:
        return STDiT2(self)

    @property
    def out_channels(self) -> int:
        return self.in_channels * (2 if self.learned_sigma else 1)


class Block(nn.Module):
    """Attention over space, over time, to the text, MLP. x is (b, t, s, d)."""

    def __init__(self, cfg: STDiT2Config) -> None:
        super().__init__()
        width, heads = cfg.width, cfg.heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attn = SelfAttention(width, heads, qk_norm=cfg.qk_norm)
        self.cross_attn = CrossAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = Mlp(width, int(width * cfg.mlp_ratio))
        self.scale_shift_table = nn.Parameter(torch.randn(6, width) / width**0.5)
        self.norm_temp = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attn_temp = SelfAttention(width, heads, qk_norm=cfg.qk_norm, rotate_first=True)
        self.scale_shift_table_temporal = nn.Parameter(torch.randn(3, width) / width**0.5)

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        modulation_time: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        rope: RotaryTable,
        shards: FrameShards | None = None,
    ) -> Tensor:
        """modulation (b, t or 1, 6 d) of space and MLP, modulation_time (b, t or 1, 3 d) of temporal attention."""
        b, t = x.shape[:2]
        table = self.scale_shift_table + modulation.unflatten(-1, (6, -1))  # (b, t or 1, 6, d)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = table[..., None, :].unbind(2)
        table = self.scale_shift_table_temporal + modulation_time.unflatten(-1, (3, -1))
        shift_t, scale_t, gate_t = table[..., None, :].unbind(2)

        h = self.attn(rearrange(modulate(self.norm1(x), shift_a, scale_a), "b t s d -> (b t) s d"))
        x = torch.addcmul(x, gate_a, rearrange(h, "(b t) s d -> b t s d", b=b))
        h = modulate(self.norm_temp(x), shift_t, scale_t)
        x = torch.addcmul(x, gate_t, attend_over_time(h, shards, partial(self.attn_temp, rope=rope)))
        h = self.cross_attn(rearrange(x, "b t s d -> b (t s) d"), k, v, mask)
        x = x + rearrange(h, "b (t s) d -> b t s d", t=t)
        return torch.addcmul(x, gate_m, self.mlp(modulate(self.norm2(x), shift_m, scale_m)))


def _first(number: float | Tensor) -> float:
    return float(number.flatten()[0]) if isinstance(number, Tensor) else number


def _each(number: float | Tensor, timestep: Tensor) -> Tensor:
    """One for all items, or (b), as float32 (b)."""
    if isinstance(number, Tensor):
        return number.to(timestep.device, torch.float32).expand(len(timestep))
    return torch.full_like(timestep, number, dtype=torch.float32)


class STDiT2(nn.Module):
    """Predicts (b, out_channels, t, h, w) from a noisy latent (b, c, t, h, w), a timestep 0..999, text and sizes. With
    `peers` each process computes a part of the frames."""

    peers: Peers | None = None

    def __init__(self, cfg: STDiT2Config) -> None:
        super().__init__()
        if cfg.width % 3:
            raise ValueError(f"width must be a multiple of 3, not {cfg.width}")
        self.cfg = cfg
        self.rope = RotaryFrequencies(cfg.width // cfg.heads)
        self._positions: LastValue[Tensor] = LastValue()
        self._rope: LastValue[RotaryTable] = LastValue()
        self.x_embedder = PatchEmbed3D(cfg.patch, cfg.in_channels, cfg.width)
        self.t_embedder = ScalarEmbedder(cfg.width)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(cfg.width, 6 * cfg.width))
        self.t_block_temp = nn.Sequential(nn.SiLU(), nn.Linear(cfg.width, 3 * cfg.width))
        self.y_embedder = CaptionEmbedder(cfg.text_channels, cfg.width, cfg.max_tokens)
        self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.depth))
        self.final_layer = FinalLayer(cfg.width, math.prod(cfg.patch) * cfg.out_channels)
        self.csize_embedder = ScalarEmbedder(cfg.width // 3)
        self.ar_embedder = ScalarEmbedder(cfg.width // 3)
        self.fl_embedder = ScalarEmbedder(cfg.width)
        self.fps_embedder = ScalarEmbedder(cfg.width)

    def null_text(self, tokens: int) -> Tensor:
        """Learned features (tokens, c) of the null prompt; it sees as many tokens as the prompt it stands against."""
        return self.y_embedder.y_embedding[:tokens]

    def project_text(self, y: Tensor, lengths: Tensor | None = None) -> TextKeys:
        """Text features (b, n, c) -> keys and values of all blocks; `lengths` (b) are the tokens that count."""
        counts = None if lengths is None else torch.arange(y.shape[1], device=y.device) < lengths[:, None]
        y = self.y_embedder(y)
        keys, values = zip(*(block.cross_attn.project_text(y) for block in self.blocks), strict=True)  # type: ignore[operator, union-attr]
        return TextKeys(keys, values, None if counts is None else counts[:, None, None])

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        text: TextKeys,
        *,
        fps: Tensor,
        frames: Tensor,
        height_px: float | Tensor,
        width_px: float | Tensor,
        aspect: float | Tensor,
        x_mask: Tensor | None = None,
    ) -> Tensor:
        """timestep, fps, frames (of the video): each (b); size and aspect (height to width): one for all, or (b), of
        which the positions follow the first, as in the reference.

        x_mask (b, t') is False for frames that are given: they count as t = 0.
        """
        size = (x.shape[2], x.shape[3], x.shape[4])
        grid_t, grid_h, grid_w = patch_grid(self.cfg.patch, size)
        scale = (_first(height_px) * _first(width_px)) ** 0.5 / self.cfg.base_px
        base_size = round((grid_h * grid_w) ** 0.5)

        x = self.x_embedder(x)  # (b, t, s, d)
        x = x + self._positions.get(
            (grid_h, grid_w, scale, x.device, x.dtype),
            lambda: sincos_position_2d(self.cfg.width, grid_h, grid_w, scale, base_size, x.device).to(x.dtype),
        )

        height, width, ratio = (_each(number, timestep) for number in (height_px, width_px, aspect))
        embedded = (self.csize_embedder(height), self.csize_embedder(width), self.ar_embedder(ratio))
        space_info = torch.cat(embedded, dim=-1)  # (b, d)
        time_info = self.fl_embedder(frames) + self.fps_embedder(fps)
        time = t0_embedding = self.t_embedder(timestep)
        modulation = self.t_block(time + space_info)[:, None]  # (b, 1, 6 d)
        modulation_time = self.t_block_temp(time + time_info)[:, None]  # (b, 1, 3 d)
        if x_mask is not None:
            zero = self.t_embedder(torch.zeros_like(timestep))
            t0_embedding = zero + space_info  # unlike `time`, which enters the final layer bare: so does the reference
            modulation = torch.where(x_mask[..., None], modulation, self.t_block(t0_embedding)[:, None])
            modulation_time = torch.where(
                x_mask[..., None], modulation_time, self.t_block_temp(zero + time_info)[:, None]
            )
        rope = self._rope.get((grid_t, x.device), lambda: self.rope.table(grid_t))
        shards = frame_shards(self.peers, grid_t)
        if shards is not None:
            x, modulation, modulation_time = map(shards.take, (x, modulation, modulation_time))
            x_mask = None if x_mask is None else shards.take(x_mask)
        for i, block in enumerate(self.blocks):
            x = block(x, modulation, modulation_time, text.keys[i], text.values[i], text.mask, rope, shards)
        x = self.final_layer(x, time, t0_embedding, x_mask)
        x = x if shards is None else shards.join(x)
        return unpatchify(x, self.cfg.patch, size).float()
