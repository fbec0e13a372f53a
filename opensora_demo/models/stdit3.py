"""STDiT3, the spatial-temporal diffusion transformer of Open-Sora 1.2.

Blocks alternate: spatial attention among the tokens of a frame, temporal attention among the tokens of a place; each
is followed by cross-attention to the text and an MLP, modulated by adaLN-single (Chen et al., PixArt-alpha, 2023).
Parameter names follow the published checkpoint. Source: Open-Sora v1.2.0 opensora/models/stdit/stdit3.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from opensora_demo.models.base import TextMode
from opensora_demo.nn.attention import CrossAttention, SelfAttention, TextKeys
from opensora_demo.nn.embeddings import CaptionEmbedder, Mlp, ScalarEmbedder, sincos_position_2d, sinusoid
from opensora_demo.nn.final import FinalLayer
from opensora_demo.nn.memo import LastValue
from opensora_demo.nn.modulation import modulate
from opensora_demo.nn.patch import PatchEmbed3D, patch_grid, unpatchify
from opensora_demo.nn.peers import FrameShards, Peers, attend_over_time, frame_shards
from opensora_demo.nn.rope import RotaryFrequencies, RotaryTable

Conditioning = Literal["cross-attention", "concatenation", "replacement"]


@dataclass(frozen=True, slots=True, kw_only=True)
class STDiT3Config:
    """Numbers of an STDiT3; the defaults are the published XL/2.

    Two switches help a tiny model and are not in the published layout. `frame_position` adds a code of the frame's
    index to its tokens: rotary positions are relative, so in pure noise no frame can tell which one it is.
    `prediction` "clean" says that the output is the clean latent and no velocity (Li & He, "Back to basics", arXiv
    2511.13720); the family converts.

    `conditioning` says how text comes in. "cross-attention": as published. "concatenation": text tokens stand beside
    the patches of every frame, in one sequence, and there is no cross-attention. "replacement": in the spatial blocks
    patches attend to the text in place of each other, as in the first Open-Sora.
    """

    in_channels: int = 4
    patch: tuple[int, int, int] = (1, 2, 2)
    width: int = 1152
    depth: int = 28
    heads: int = 16
    mlp_ratio: float = 4.0
    text_channels: int = 4096
    max_tokens: int = 300
    qk_norm: bool = True
    learned_sigma: bool = True
    base_px: int = 512
    frame_position: bool = False
    prediction: Literal["velocity", "clean"] = "velocity"
    conditioning: Conditioning = "cross-attention"
    reads_fps: ClassVar[bool] = True
    takes_loras: ClassVar[bool] = False

    @property
    def text_mode(self) -> TextMode:
        return "token concatenation" if self.conditioning == "concatenation" else "cross-attention"

    def build(self) -> STDiT3:
        return STDiT3(self)

    @property
    def out_channels(self) -> int:
        return self.in_channels * (2 if self.learned_sigma else 1)


class Block(nn.Module):
    """Attention over space or time, cross-attention, MLP. x is (b, t, s, d); modulation is (b, t or 1, 6 d).

    Not every block has both attentions: text that is concatenated needs no cross-attention, and where cross-attention
    takes the place of attention over space, it has that one's modulation and gate.
    """

    attn: SelfAttention | None
    cross_attn: CrossAttention | None

    def __init__(self, cfg: STDiT3Config, *, temporal: bool) -> None:
        super().__init__()
        self.temporal = temporal
        self.norm1 = nn.LayerNorm(cfg.width, eps=1e-6, elementwise_affine=False)
        replaced = cfg.conditioning == "replacement" and not temporal
        concatenated = cfg.conditioning == "concatenation"
        self.attn = None if replaced else SelfAttention(cfg.width, cfg.heads, qk_norm=cfg.qk_norm)
        self.cross_attn = None if concatenated else CrossAttention(cfg.width, cfg.heads)
        self.norm2 = nn.LayerNorm(cfg.width, eps=1e-6, elementwise_affine=False)
        self.mlp = Mlp(cfg.width, int(cfg.width * cfg.mlp_ratio))
        self.scale_shift_table = nn.Parameter(torch.randn(6, cfg.width) / cfg.width**0.5)

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        k: Tensor | None,
        v: Tensor | None,
        mask: Tensor | None,
        rope: RotaryTable | None,
        attention: list[Tensor] | None = None,
        shards: FrameShards | None = None,
    ) -> Tensor:
        """k and v (b, heads, n, d) of the text and its mask (b, 1, 1, n); without keys the mask (b, 1, 1, s) is of the
        sequence itself. Appends the weights of cross-attention to `attention`."""
        b, frames = x.shape[:2]
        table = self.scale_shift_table + modulation.unflatten(-1, (6, -1))  # (b, t or 1, 6, d)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = table[..., None, :].unbind(2)  # (b, t or 1, 1, d)

        h = modulate(self.norm1(x), shift_a, scale_a)
        if self.attn is None:
            h = self._attend_text(h, k, v, mask, attention)
        elif self.temporal:
            h = attend_over_time(h, shards, partial(self.attn, rope=rope))
        else:
            keys = mask.repeat_interleave(frames, dim=0) if k is None and mask is not None else None  # (b t, 1, 1, s)
            h = self.attn(rearrange(h, "b t s d -> (b t) s d"), mask=keys)
            h = rearrange(h, "(b t) s d -> b t s d", b=b)
        x = torch.addcmul(x, gate_a, h)

        if self.attn is not None and self.cross_attn is not None:
            x = x + self._attend_text(x, k, v, mask, attention)

        return torch.addcmul(x, gate_m, self.mlp(modulate(self.norm2(x), shift_m, scale_m)))

    def _attend_text(
        self, x: Tensor, k: Tensor | None, v: Tensor | None, mask: Tensor | None, attention: list[Tensor] | None
    ) -> Tensor:
        assert self.cross_attn is not None
        assert k is not None
        assert v is not None
        h = self.cross_attn(rearrange(x, "b t s d -> b (t s) d"), k, v, mask, weights=attention)
        return rearrange(h, "b (t s) d -> b t s d", t=x.shape[1])


@dataclass
class Watched:
    """What training reads of a call: the weights of each block's cross-attention (b, t s, n), and the tokens
    (b, t, s, d) half way through the blocks."""

    attention: list[Tensor] = field(default_factory=list)
    middle: Tensor | None = None


class STDiT3(nn.Module):
    """Predicts (b, out_channels, t, h, w) from a noisy latent (b, c, t, h, w), a timestep 0..1000, text and FPS. With
    `peers` each process computes a part of the frames."""

    peers: Peers | None = None

    def __init__(self, cfg: STDiT3Config) -> None:
        super().__init__()
        self.cfg = cfg
        self.rope = RotaryFrequencies(cfg.width // cfg.heads)
        self._positions: LastValue[Tensor] = LastValue()
        self._rope: LastValue[RotaryTable] = LastValue()
        self.x_embedder = PatchEmbed3D(cfg.patch, cfg.in_channels, cfg.width)
        self.t_embedder = ScalarEmbedder(cfg.width)
        self.fps_embedder = ScalarEmbedder(cfg.width)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(cfg.width, 6 * cfg.width))
        self.y_embedder = CaptionEmbedder(cfg.text_channels, cfg.width, cfg.max_tokens)
        if cfg.frame_position:
            self.frame_embedder = nn.Linear(cfg.width, cfg.width, bias=False)
        self.spatial_blocks = nn.ModuleList(Block(cfg, temporal=False) for _ in range(cfg.depth))
        self.temporal_blocks = nn.ModuleList(Block(cfg, temporal=True) for _ in range(cfg.depth))
        self.final_layer = FinalLayer(cfg.width, math.prod(cfg.patch) * cfg.out_channels)

    def initialise(self) -> None:
        """Weights to start training from: xavier for linear layers, 0.02 normal for embedders, zeros at the ends."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.data.view(self.cfg.width, -1))
        for module in (self.t_embedder, self.fps_embedder, self.t_block, self.y_embedder):
            for p in module.parameters():
                if p.ndim == 2:
                    nn.init.normal_(p, std=0.02)
        for block in self._blocks():
            if block.attn is not None and block.cross_attn is not None:
                nn.init.zeros_(block.cross_attn.proj.weight)
        nn.init.zeros_(self.final_layer.linear.weight)
        if self.cfg.frame_position:
            nn.init.zeros_(self.frame_embedder.weight)

    def null_text(self, tokens: int) -> Tensor:
        """Learned features (tokens, c) of the null prompt; it sees as many tokens as the prompt it stands against."""
        return self.y_embedder.y_embedding[:tokens]

    def project_text(self, y: Tensor, lengths: Tensor | None = None, *, projected: bool = False) -> TextKeys:
        """Text features (b, n, c) -> keys and values of all blocks, spatial and temporal in turn.

        `lengths` (b) are the tokens that count, from the first; without it all do. `projected` features (b, n, d)
        have been through the caption projection already.
        """
        counts = None if lengths is None else torch.arange(y.shape[1], device=y.device) < lengths[:, None]  # (b, n)
        y = y if projected else self.y_embedder(y)
        mask = None if counts is None else counts[:, None, None]
        if self.cfg.conditioning == "concatenation":
            return TextKeys((), (), mask, tokens=y)
        readers = [block.cross_attn for block in self._blocks() if block.cross_attn is not None]
        keys, values = zip(*(reader.project_text(y) for reader in readers), strict=True)
        return TextKeys(keys, values, mask)

    def _blocks(self) -> list[Block]:
        return [b for pair in zip(self.spatial_blocks, self.temporal_blocks, strict=True) for b in pair]  # type: ignore[misc]

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        text: TextKeys,
        *,
        fps: Tensor,
        height_px: float,
        width_px: float,
        x_mask: Tensor | None = None,
        watched: Watched | None = None,
    ) -> Tensor:
        """timestep (b) in 0..1000, or (b, t') of each latent frame; fps (b); x_mask (b, t') is False for frames that
        are given: they count as t = 0."""
        size = x.shape[2:]
        grid_t, grid_h, grid_w = patch_grid(self.cfg.patch, (size[0], size[1], size[2]))
        scale = (height_px * width_px) ** 0.5 / self.cfg.base_px

        x = self.x_embedder(x)  # (b, t, s, d)
        base_size = round((grid_h * grid_w) ** 0.5)
        x = x + self._positions.get(
            (grid_h, grid_w, scale, x.device, x.dtype),
            lambda: sincos_position_2d(self.cfg.width, grid_h, grid_w, scale, base_size, x.device).to(x.dtype),
        )
        if self.cfg.frame_position:
            index = sinusoid(torch.arange(grid_t, device=x.device), self.cfg.width).to(self.frame_embedder.weight.dtype)
            x = x + self.frame_embedder(index)[:, None]  # (t, 1, d)

        extra = self.fps_embedder(fps)
        if timestep.ndim == 2:
            time = self.t_embedder(timestep.flatten()).unflatten(0, timestep.shape) + extra[:, None]  # (b, t, d)
            modulation = self.t_block(time)  # (b, t, 6 d)
        else:
            time = self.t_embedder(timestep) + extra  # (b, d)
            modulation = self.t_block(time)[:, None]  # (b, 1, 6 d)
        t0_embedding = time
        if x_mask is not None:
            t0_embedding = self.t_embedder(torch.zeros_like(fps)) + extra
            modulation = torch.where(x_mask[..., None], modulation, self.t_block(t0_embedding)[:, None])  # (b, t, 6 d)

        patches, mask = x.shape[2], text.mask
        if text.tokens is not None:
            x = torch.cat([x, text.tokens[:, None].expand(-1, grid_t, -1, -1).to(x.dtype)], dim=2)  # (b, t, s + n, d)
            mask = None if mask is None else F.pad(mask, (patches, 0), value=True)

        rope = self._rope.get((grid_t, x.device), lambda: self.rope.table(grid_t))
        shards = frame_shards(self.peers, grid_t)
        if shards is not None:
            x, modulation = shards.take(x), shards.take(modulation)
            time = shards.take(time) if timestep.ndim == 2 else time
            x_mask = None if x_mask is None else shards.take(x_mask)
        for i, block in enumerate(self._blocks()):
            k, v = (text.keys[i], text.values[i]) if text.tokens is None else (None, None)
            weights: list[Tensor] | None = None if watched is None else []
            x = block(x, modulation, k, v, mask, rope, weights, shards)
            if watched is not None and weights is not None:
                watched.attention += weights
                if i + 1 == self.cfg.depth:
                    watched.middle = x[:, :, :patches]

        x = self.final_layer(x[:, :, :patches], time, t0_embedding, x_mask)  # (b, t, s, pt * ph * pw * out_channels)
        x = x if shards is None else shards.join(x)
        return unpatchify(x, self.cfg.patch, (size[0], size[1], size[2])).float()
