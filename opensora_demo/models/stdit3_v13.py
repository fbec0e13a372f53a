"""STDiT3 of Open-Sora 1.3: windows in the temporal blocks, rotary positions in three dimensions, given frames.

Against 1.2: temporal attention runs over all frames of a small window of places, queries and keys turn with time,
height and width (spatial blocks too), given latents and their mask are embedded beside the noisy one, and the text
does not reach given frames, which read the null prompt.
Source: Open-Sora v1.3 opensora/models/stdit/stdit3.py, opensora/models/layers/blocks.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from opensora_demo.models.base import TextMode
from opensora_demo.nn.attention import CrossAttention, SelfAttention, TextKeys
from opensora_demo.nn.embeddings import CaptionEmbedder, Mlp, ScalarEmbedder, sincos_position_2d
from opensora_demo.nn.final import FinalLayer
from opensora_demo.nn.memo import LastValue
from opensora_demo.nn.modulation import modulate
from opensora_demo.nn.patch import PatchEmbed3D, patch_grid, unpatchify
from opensora_demo.nn.peers import FrameShards, Peers, Split, attend_over_time, frame_shards
from opensora_demo.nn.rope import RotaryFrequencies, RotaryTable


@dataclass(frozen=True, slots=True, kw_only=True)
class STDiT3V13Config:
    """Numbers of a 1.3 network; the defaults are the published XL/2.

    `window` is the height and width, in tokens, of a temporal block's window; None leaves temporal attention to each
    place by itself, as in 1.2, with rotary positions over time only. A head's width must be a multiple of 6 with it.
    """

    in_channels: int = 16
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
    window: tuple[int, int] | None = (8, 8)
    spatial_rope: bool = True
    temporal: bool = True
    text_mode: ClassVar[TextMode] = "cross-attention"
    reads_fps: ClassVar[bool] = True
    takes_loras: ClassVar[bool] = False

    def build(self) -> STDiT3V13:
        return STDiT3V13(self)

    @property
    def out_channels(self) -> int:
        return self.in_channels * (2 if self.learned_sigma else 1)


@dataclass(frozen=True, slots=True)
class Tables:
    """Rotary tables of a call, and which keys of a window are no padding (windows, 1, 1, n) or None."""

    space: RotaryTable | None
    time: RotaryTable
    keys: Tensor | None


class Block(nn.Module):
    """Attention over a frame, or over the frames of a window; text; MLP. x is (b, t, h, w, d)."""

    def __init__(self, cfg: STDiT3V13Config, *, temporal: bool) -> None:
        super().__init__()
        self.temporal = temporal
        self.window = cfg.window
        self.norm1 = nn.LayerNorm(cfg.width, eps=1e-6, elementwise_affine=False)
        self.attn = SelfAttention(cfg.width, cfg.heads, qk_norm=cfg.qk_norm)
        self.cross_attn = CrossAttention(cfg.width, cfg.heads)
        self.norm2 = nn.LayerNorm(cfg.width, eps=1e-6, elementwise_affine=False)
        self.mlp = Mlp(cfg.width, int(cfg.width * cfg.mlp_ratio))
        self.scale_shift_table = nn.Parameter(torch.randn(6, cfg.width) / cfg.width**0.5)

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        text: TextKeys,
        null: TextKeys | None,
        given: list[int],
        i: int,
        at: Tables,
        shards: FrameShards | None = None,
    ) -> Tensor:
        """modulation (b, t or 1, 6 d); text and null of this call, block number `i`; given: frames that read null."""
        table = self.scale_shift_table + modulation.unflatten(-1, (6, -1))  # (b, t or 1, 6, d)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = table[:, :, :, None, None].unbind(2)

        x = torch.addcmul(x, gate_a, self._attend(modulate(self.norm1(x), shift_a, scale_a), at, shards))
        if given and null is not None:
            rest = [frame for frame in range(x.shape[1]) if frame not in given]
            h = torch.empty_like(x)
            h[:, given] = self._read(x[:, given], null, i)
            if rest:
                h[:, rest] = self._read(x[:, rest], text, i)
            x = x + h
        else:
            x = x + self._read(x, text, i)
        return torch.addcmul(x, gate_m, self.mlp(modulate(self.norm2(x), shift_m, scale_m)))

    def _read(self, x: Tensor, text: TextKeys, i: int) -> Tensor:
        return self.cross_attn(x.flatten(1, 3), text.keys[i], text.values[i], text.mask).view_as(x)

    def _attend(self, x: Tensor, at: Tables, shards: FrameShards | None) -> Tensor:
        b, _t, h, w, _ = x.shape
        if not self.temporal:
            y = self.attn(rearrange(x, "b t h w d -> (b t) (h w) d"), at.space)
            return rearrange(y, "(b t) (h w) d -> b t h w d", b=b, h=h)
        if self.window is None:
            return attend_over_time(x.flatten(2, 3), shards, partial(self.attn, rope=at.time)).unflatten(2, (h, w))
        kh, kw = self.window
        x = F.pad(x, (0, 0, 0, -w % kw, 0, -h % kh))
        rows, columns = x.shape[2] // kh, x.shape[3] // kw
        size = kh * kw

        def windows(y: Tensor, own: Split | None = None) -> Tensor:
            """Attention within each window: y (b, t, windows, size d), all frames of some windows."""
            keys = at.keys
            if keys is not None:  # a window that is padding itself sees all of it, so that no softmax is empty
                keys = keys if own is None else ~own.take(~keys, 0)
                keys = keys.repeat(b, 1, 1, 1)
            z = rearrange(y, "b t n (k d) -> (b n) (k t) d", k=size)
            return rearrange(self.attn(z, at.time, mask=keys), "(b n) (k t) d -> b t n (k d)", b=b, k=size)

        y = rearrange(x, "b t (r kh) (c kw) d -> b t (r c) (kh kw d)", kh=kh, kw=kw)
        y = windows(y) if shards is None else shards.over_time(y, windows)
        y = rearrange(y, "b t (r c) (kh kw d) -> b t (r kh) (c kw) d", r=rows, c=columns, kh=kh, kw=kw)
        return y[:, :, :h, :w]


class STDiT3V13(nn.Module):
    """Predicts (b, out_channels, t, h, w) from a noisy latent (b, c, t, h, w), a timestep 0..1000, text and FPS. With
    `peers` each process computes a part of the frames."""

    peers: Peers | None = None

    def __init__(self, cfg: STDiT3V13Config) -> None:
        super().__init__()
        self.cfg = cfg
        head = cfg.width // cfg.heads
        if cfg.window is not None and head % 6:
            raise ValueError(f"a head of {head} channels cannot be divided among three axes")
        self.rope = RotaryFrequencies(head if cfg.window is None else head // 3)
        self.x_embedder = PatchEmbed3D(cfg.patch, cfg.in_channels, cfg.width)
        self.x_embedder_cond = PatchEmbed3D(cfg.patch, cfg.in_channels, cfg.width)
        self.x_embedder_cond_mask = PatchEmbed3D(cfg.patch, cfg.in_channels, cfg.width)
        self.t_embedder = ScalarEmbedder(cfg.width)
        self.fps_embedder = ScalarEmbedder(cfg.width)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(cfg.width, 6 * cfg.width))
        self.y_embedder = CaptionEmbedder(cfg.text_channels, cfg.width, cfg.max_tokens)
        self.spatial_blocks = nn.ModuleList(Block(cfg, temporal=False) for _ in range(cfg.depth))
        if cfg.temporal:
            self.temporal_blocks = nn.ModuleList(Block(cfg, temporal=True) for _ in range(cfg.depth))
        self.final_layer = FinalLayer(cfg.width, math.prod(cfg.patch) * cfg.out_channels)
        self._tables: LastValue[Tables] = LastValue()
        self._positions: LastValue[Tensor] = LastValue()

    def null_text(self, tokens: int) -> Tensor:
        """Learned features (tokens, c) of the null prompt; it sees as many tokens as the prompt it stands against."""
        return self.y_embedder.y_embedding[:tokens]

    def project_text(self, y: Tensor, lengths: Tensor | None = None, *, projected: bool = False) -> TextKeys:
        """Text features (b, n, c) -> keys and values of all blocks; `lengths` (b) are the tokens that count.

        `projected` features (b, n, d) have been through the caption projection already.
        """
        counts = None if lengths is None else torch.arange(y.shape[1], device=y.device) < lengths[:, None]
        y = y if projected else self.y_embedder(y)
        keys, values = zip(*(block.cross_attn.project_text(y) for block in self._blocks()), strict=True)
        return TextKeys(keys, values, None if counts is None else counts[:, None, None])

    def _blocks(self) -> list[Block]:
        if not self.cfg.temporal:
            return list(self.spatial_blocks)  # type: ignore[arg-type]
        return [b for pair in zip(self.spatial_blocks, self.temporal_blocks, strict=True) for b in pair]  # type: ignore[misc]

    def tables(self, grid: tuple[int, int, int], scale: float, device: torch.device) -> Tables:
        """Rotary tables of a grid of tokens (t, h, w); kept, since every step of a run asks for the same ones."""
        return self._tables.get((grid, scale, device), lambda: self._make_tables(grid, scale))

    def _make_tables(self, grid: tuple[int, int, int], scale: float) -> Tables:
        t, h, w = grid
        if self.cfg.window is None:
            return Tables(None, self.rope.table(t), None)
        kh, kw = self.cfg.window

        def positions(frames: int, rows: int, columns: int) -> Tensor:
            """(rows * columns * frames, 3): time, height and width of the tokens of a window, frames innermost."""
            index = torch.meshgrid(*(torch.arange(n).float() for n in (rows, columns, frames)), indexing="ij")
            return torch.stack([index[2], index[0] / scale, index[1] / scale], dim=-1).flatten(0, 2)

        space = self.rope.table_3d(positions(1, h, w)) if self.cfg.spatial_rope else None
        keys = None
        if h % kh or w % kw:
            real = F.pad(torch.ones(h, w, dtype=torch.bool), (0, -w % kw, 0, -h % kh))
            keys = rearrange(real, "(r kh) (c kw) -> (r c) 1 1 (kh kw)", kh=kh, kw=kw).repeat_interleave(t, dim=-1)
            keys = keys.to(self.rope.freqs.device)
        return Tables(space, self.rope.table_3d(positions(t, kh, kw)), keys)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        text: TextKeys,
        *,
        fps: Tensor,
        height_px: float,
        width_px: float,
        cond: Tensor | None = None,
        cond_mask: Tensor | None = None,
        given: list[int] | None = None,
        null: TextKeys | None = None,
        x_mask: Tensor | None = None,
    ) -> Tensor:
        """timestep in 0..1000 and fps, each (b). With `given` (indices of given latent frames, none negative):
        cond (b, c, t, h, w) their latents, cond_mask the same shape, 1 where given, null the text they read.
        x_mask (b, t') as in 1.2.
        """
        size = (x.shape[2], x.shape[3], x.shape[4])
        grid = patch_grid(self.cfg.patch, size)
        _, grid_h, grid_w = grid
        scale = (height_px * width_px) ** 0.5 / self.cfg.base_px
        base_size = round((grid_h * grid_w) ** 0.5)

        x = self.x_embedder(x)  # (b, t, s, d)
        if cond is not None and cond_mask is not None:
            x = x + self.x_embedder_cond(cond) + self.x_embedder_cond_mask(cond_mask)
        x = x + self._positions.get(
            (grid_h, grid_w, scale, x.device, x.dtype),
            lambda: sincos_position_2d(self.cfg.width, grid_h, grid_w, scale, base_size, x.device).to(x.dtype),
        )
        x = x.unflatten(2, (grid_h, grid_w))  # (b, t, h, w, d)

        extra = self.fps_embedder(fps)
        time = t0_embedding = self.t_embedder(timestep) + extra
        modulation = self.t_block(time)[:, None]  # (b, 1, 6 d)
        if x_mask is not None:
            t0_embedding = self.t_embedder(torch.zeros_like(timestep)) + extra
            modulation = torch.where(x_mask[..., None], modulation, self.t_block(t0_embedding)[:, None])

        tables, given = self.tables(grid, scale, x.device), given or []
        shards = frame_shards(self.peers, grid[0])
        if shards is not None:
            x, modulation, given = shards.take(x), shards.take(modulation), shards.own(given)
            x_mask = None if x_mask is None else shards.take(x_mask)
        for i, block in enumerate(self._blocks()):
            x = block(x, modulation, text, null, given, i, tables, shards)
        x = self.final_layer(x.flatten(2, 3), time, t0_embedding, x_mask)
        x = x if shards is None else shards.join(x)
        return unpatchify(x, self.cfg.patch, size).float()
