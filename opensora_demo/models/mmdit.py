"""MMDiT, the transformer of Open-Sora 2.0: text and video tokens in one sequence.

Double-stream blocks give text and video weights of their own and let them attend to each other; single-stream blocks
treat the joined sequence alike (Esser et al., "Scaling rectified flow transformers", 2024). The text enters by token
concatenation: no cross-attention, and no mask, since padding tokens are attended as in training.
Parameter names follow the published checkpoint. Source: Open-Sora v2.0 opensora/models/mmdit/model.py, layers.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from opensora_demo.models.base import TextMode
from opensora_demo.nn.attention import Attention, AttentionKernel, attend
from opensora_demo.nn.embeddings import FREQUENCIES, sinusoid
from opensora_demo.nn.memo import LastValue
from opensora_demo.nn.modulation import modulate
from opensora_demo.nn.peers import Peers, TokenShards
from opensora_demo.nn.rope import RotaryTable, axial_table, rotate_halves, rotate_pairs

TIME_FACTOR = 1000.0  # times and guidance in 0..1 and around 4 are multiplied by this before the sinusoid


@dataclass(frozen=True, slots=True, kw_only=True)
class MMDiTConfig:
    """Numbers of an MMDiT; the defaults are the published 11 B model.

    `in_channels` counts a token's values: latent channels x patch^2. `fused_qkv` and `rotate_halves` are two layouts
    of the same maths that need different weights: the published video model has separate projections and rotates
    halves, Flux fuses them and rotates adjacent pairs. `guidance_embed` tells a distilled model the guidance scale;
    `cond_embed` adds the projected mask and latent of given frames to the tokens.
    """

    in_channels: int = 64
    patch: int = 2
    width: int = 3072
    heads: int = 24
    mlp_ratio: float = 4.0
    depth: int = 19
    depth_single: int = 38
    axes: tuple[int, int, int] = (16, 56, 56)
    theta: float = 10000.0
    text_channels: int = 4096
    pooled_channels: int = 768
    qkv_bias: bool = True
    guidance_embed: bool = False
    cond_embed: bool = True
    fused_qkv: bool = False
    rotate_halves: bool = True
    text_mode: ClassVar[TextMode] = "token concatenation"
    reads_fps: ClassVar[bool] = True
    takes_loras: ClassVar[bool] = True

    def build(self) -> MMDiT:
        return MMDiT(self)

    @property
    def latent_channels(self) -> int:
        return self.in_channels // self.patch**2


class MLPEmbedder(nn.Module):
    """A vector (b, c) as one of the network's width: two layers with SiLU between."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.in_layer = nn.Linear(channels, width)
        self.out_layer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_layer(F.silu(self.in_layer(x)))


class ScaleNorm(nn.Module):
    """x / rms(x) * scale over the last axis, in float32, eps 1e-6."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.scale.shape, self.scale.float(), 1e-6).to(x.dtype)


class QKNorm(nn.Module):
    def __init__(self, head_width: int) -> None:
        super().__init__()
        self.query_norm = ScaleNorm(head_width)
        self.key_norm = ScaleNorm(head_width)


class Modulation(nn.Module):
    """Shift, scale and gate, `count` of each, from the condition vector (b, d)."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.lin = nn.Linear(width, 3 * count * width)

    def forward(self, vec: Tensor) -> tuple[Tensor, ...]:
        return self.lin(F.silu(vec))[:, None].chunk(3 * self.count, dim=-1)  # each (b, 1, d)


class StreamAttention(nn.Module):
    """The projections of one stream; the attention itself runs over both streams together."""

    def __init__(self, cfg: MMDiTConfig) -> None:
        super().__init__()
        self.heads = cfg.heads
        self.fused = cfg.fused_qkv
        if cfg.fused_qkv:
            self.qkv = nn.Linear(cfg.width, 3 * cfg.width, bias=cfg.qkv_bias)
        else:
            self.q_proj = nn.Linear(cfg.width, cfg.width, bias=cfg.qkv_bias)
            self.k_proj = nn.Linear(cfg.width, cfg.width, bias=cfg.qkv_bias)
            self.v_proj = nn.Linear(cfg.width, cfg.width, bias=cfg.qkv_bias)
        self.norm = QKNorm(cfg.width // cfg.heads)
        self.proj = nn.Linear(cfg.width, cfg.width)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (b, n, d) -> normalised q and k, and v, each (b, heads, n, d / heads)."""
        q, k, v = self.qkv(x).chunk(3, dim=-1) if self.fused else (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        q, k, v = (rearrange(y, "b n (h d) -> b h n d", h=self.heads) for y in (q, k, v))
        return self.norm.query_norm(q), self.norm.key_norm(k), v


def attend_rotated(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rope: RotaryTable,
    halves: bool,
    kernel: AttentionKernel,
    shards: TokenShards | None = None,
) -> Tensor:
    """Attention of (b, heads, n, d) with rotary positions on q and k -> (b, n, heads * d)."""
    rotate = rotate_halves if halves else rotate_pairs

    def whole(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(rotate(q, rope), rotate(k, rope), v, kernel=kernel)

    out = whole(q, k, v) if shards is None else shards.attend(q, k, v, whole)
    return rearrange(out, "b h n d -> b n (h d)")


def _mlp(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))


class DoubleBlock(Attention):
    """Text and video each with their own weights, one attention over both."""

    kernel: AttentionKernel = "fused"

    def __init__(self, cfg: MMDiTConfig) -> None:
        super().__init__()
        hidden = int(cfg.width * cfg.mlp_ratio)
        self.halves = cfg.rotate_halves
        self.img_mod = Modulation(cfg.width, 2)
        self.img_attn = StreamAttention(cfg)
        self.img_mlp = _mlp(cfg.width, hidden)
        self.txt_mod = Modulation(cfg.width, 2)
        self.txt_attn = StreamAttention(cfg)
        self.txt_mlp = _mlp(cfg.width, hidden)

    def forward(
        self, img: Tensor, txt: Tensor, vec: Tensor, rope: RotaryTable, shards: TokenShards | None = None
    ) -> tuple[Tensor, Tensor]:
        """img (b, n, d), txt (b, n_text, d), vec (b, d)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.img_mod(vec)
        t_shift1, t_scale1, t_gate1, t_shift2, t_scale2, t_gate2 = self.txt_mod(vec)

        q, k, v = self.img_attn.project(modulate(_norm(img), shift1, scale1))
        t_q, t_k, t_v = self.txt_attn.project(modulate(_norm(txt), t_shift1, t_scale1))
        q, k, v = torch.cat([t_q, q], dim=2), torch.cat([t_k, k], dim=2), torch.cat([t_v, v], dim=2)  # text first
        out = attend_rotated(q, k, v, rope, self.halves, self.kernel, shards)
        t_out, out = out.split([txt.shape[1], img.shape[1]], dim=1)

        img = img + gate1 * self.img_attn.proj(out)
        img = img + gate2 * self.img_mlp(modulate(_norm(img), shift2, scale2))
        txt = txt + t_gate1 * self.txt_attn.proj(t_out)
        txt = txt + t_gate2 * self.txt_mlp(modulate(_norm(txt), t_shift2, t_scale2))
        return img, txt


class SingleBlock(Attention):
    """Attention and MLP side by side over the joined sequence (Dehghani et al., "ViT-22B", 2023)."""

    kernel: AttentionKernel = "fused"

    def __init__(self, cfg: MMDiTConfig) -> None:
        super().__init__()
        self.heads, self.width, self.halves, self.fused = cfg.heads, cfg.width, cfg.rotate_halves, cfg.fused_qkv
        hidden = int(cfg.width * cfg.mlp_ratio)
        if cfg.fused_qkv:
            self.linear1 = nn.Linear(cfg.width, 3 * cfg.width + hidden)
        else:
            self.q_proj = nn.Linear(cfg.width, cfg.width)
            self.k_proj = nn.Linear(cfg.width, cfg.width)
            self.v_mlp = nn.Linear(cfg.width, cfg.width + hidden)
        self.linear2 = nn.Linear(cfg.width + hidden, cfg.width)
        self.norm = QKNorm(cfg.width // cfg.heads)
        self.modulation = Modulation(cfg.width, 1)

    def forward(self, x: Tensor, vec: Tensor, rope: RotaryTable, shards: TokenShards | None = None) -> Tensor:
        shift, scale, gate = self.modulation(vec)
        y = modulate(_norm(x), shift, scale)  # (b, n, d)
        if self.fused:
            q, k, v, hidden = self.linear1(y).tensor_split([self.width, 2 * self.width, 3 * self.width], dim=-1)
        else:
            q, k = self.q_proj(y), self.k_proj(y)
            v, hidden = self.v_mlp(y).tensor_split([self.width], dim=-1)
        q, k, v = (rearrange(z, "b n (h d) -> b h n d", h=self.heads) for z in (q, k, v))
        q, k = self.norm.query_norm(q), self.norm.key_norm(k)
        out = attend_rotated(q, k, v, rope, self.halves, self.kernel, shards)
        return x + gate * self.linear2(torch.cat([out, F.gelu(hidden, approximate="tanh")], dim=-1))


class LastLayer(nn.Module):
    def __init__(self, cfg: MMDiTConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(cfg.width, cfg.in_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(cfg.width, 2 * cfg.width))

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(vec)[:, None].chunk(2, dim=-1)
        return self.linear(modulate(_norm(x), shift, scale))


def _norm(x: Tensor) -> Tensor:
    """Layer norm without weights, eps 1e-6."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def pack(x: Tensor, patch: int) -> Tensor:
    """(b, c, t, h, w) -> tokens (b, t * h/p * w/p, c * p * p)."""
    return rearrange(x, "b c t (h ph) (w pw) -> b (t h w) (c ph pw)", ph=patch, pw=patch)


def unpack(tokens: Tensor, patch: int, size: tuple[int, int, int]) -> Tensor:
    """The inverse of `pack`; size is (t, h, w) of the latent."""
    t, h, w = size
    return rearrange(
        tokens, "b (t h w) (c ph pw) -> b c t (h ph) (w pw)", t=t, h=h // patch, w=w // patch, ph=patch, pw=patch
    )


def token_ids(grid: tuple[int, int, int], text_tokens: int, device: torch.device | None = None) -> Tensor:
    """Position (t, h, w) of every token, text tokens (all at zero) first: (text_tokens + t * h * w, 3)."""
    axes = torch.meshgrid(*(torch.arange(n, device=device) for n in grid), indexing="ij")
    video = torch.stack(axes, dim=-1).flatten(0, 2)
    return torch.cat([video.new_zeros(text_tokens, 3), video])


class MMDiT(nn.Module):
    """Predicts the flow noise - data, (b, c, t, h, w), from a noisy latent, a time in 0..1 and text. With `peers` each
    process computes a part of the tokens."""

    peers: Peers | None = None

    def __init__(self, cfg: MMDiTConfig) -> None:
        super().__init__()
        if sum(cfg.axes) != cfg.width // cfg.heads:
            raise ValueError(f"axes {cfg.axes} must add up to the width of a head, {cfg.width // cfg.heads}")
        self.cfg = cfg
        self.img_in = nn.Linear(cfg.in_channels, cfg.width)
        self.time_in = MLPEmbedder(FREQUENCIES, cfg.width)
        self.vector_in = MLPEmbedder(cfg.pooled_channels, cfg.width)
        if cfg.guidance_embed:
            self.guidance_in = MLPEmbedder(FREQUENCIES, cfg.width)
        if cfg.cond_embed:
            self.cond_in = nn.Linear(cfg.in_channels + cfg.patch**2, cfg.width)
        self.txt_in = nn.Linear(cfg.text_channels, cfg.width)
        self.double_blocks = nn.ModuleList(DoubleBlock(cfg) for _ in range(cfg.depth))
        self.single_blocks = nn.ModuleList(SingleBlock(cfg) for _ in range(cfg.depth_single))
        self.final_layer = LastLayer(cfg)
        self._tables: LastValue[RotaryTable] = LastValue()

    def initialise(self) -> None:
        """Weights to start training from: xavier, 0.02 normal in embedders, zeros in modulation and output."""
        for name, p in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(p)
            elif p.ndim == 2:
                nn.init.xavier_uniform_(p)
        for embedder in (self.time_in, self.vector_in):
            nn.init.normal_(embedder.in_layer.weight, std=0.02)
            nn.init.normal_(embedder.out_layer.weight, std=0.02)
        for module in self.modules():
            if isinstance(module, Modulation):
                nn.init.zeros_(module.lin.weight)
        if self.cfg.cond_embed:
            nn.init.zeros_(self.cond_in.weight)
        nn.init.zeros_(self.final_layer.adaLN_modulation[1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.final_layer.linear.weight)

    def rope_table(self, grid: tuple[int, int, int], text_tokens: int, device: torch.device) -> RotaryTable:
        """Rotary table of a clip; kept, since every step of a run asks for the same one."""
        return self._tables.get((grid, text_tokens, device), lambda: self.rope_of(token_ids(grid, text_tokens, device)))

    def rope_of(self, ids: Tensor) -> RotaryTable:
        """Table of positions (n, 3), or (b, 1, n, 3) where they differ within the batch."""
        return axial_table(ids, self.cfg.axes, self.cfg.theta, halves=self.cfg.rotate_halves)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        text: Tensor,
        pooled: Tensor,
        *,
        cond: Tensor | None = None,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """x (b, c, t, h, w); time (b) in 0..1; text (b, n_text, c_text); pooled (b, c_pooled).

        cond (b, 1 + c, t, h, w): a mask that is 1 where a frame is given, then the given latent, zero elsewhere.
        guidance (b): the scale told to a distilled model. Height and width must be multiples of the patch.
        """
        size = (x.shape[2], x.shape[3], x.shape[4])
        grid = (size[0], size[1] // self.cfg.patch, size[2] // self.cfg.patch)
        tokens = self.forward_tokens(
            pack(x, self.cfg.patch),
            time,
            text,
            pooled,
            self.rope_table(grid, text.shape[1], x.device),
            cond=None if cond is None else pack(cond, self.cfg.patch),
            guidance=guidance,
        )
        return unpack(tokens, self.cfg.patch, size).float()

    def forward_tokens(
        self,
        img: Tensor,
        time: Tensor,
        text: Tensor,
        pooled: Tensor,
        rope: RotaryTable,
        *,
        cond: Tensor | None = None,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """The same on packed tokens: img (b, n, c) -> (b, n, c), c = in_channels; cond (b, n, c + patch^2)."""
        dtype = self.img_in.weight.dtype
        x = self.img_in(img.to(dtype))  # (b, n, d)
        if self.cfg.cond_embed:
            if cond is None:
                raise ValueError("this network needs `cond`, zeros where no frame is given")
            x = x + self.cond_in(cond.to(dtype))
        vec = self.time_in(sinusoid(TIME_FACTOR * time).to(dtype))  # (b, d)
        if self.cfg.guidance_embed:
            if guidance is None:
                raise ValueError("this network is distilled and needs `guidance`")
            vec = vec + self.guidance_in(sinusoid(TIME_FACTOR * guidance).to(dtype))
        vec = vec + self.vector_in(pooled.to(dtype))
        txt = self.txt_in(text.to(dtype))  # (b, n_text, d)

        shards = None
        if self.peers is not None:
            shards, of_text, of_video = TokenShards.joined(self.peers, txt.shape[1], x.shape[1], x.device)
            txt, x = of_text.take(txt, 1), of_video.take(x, 1)
        for block in self.double_blocks:
            x, txt = block(x, txt, vec, rope, shards=shards)
        x = torch.cat([txt, x], dim=1)
        for block in self.single_blocks:
            x = block(x, vec, rope, shards=shards)
        x = self.final_layer(x[:, txt.shape[1] :], vec)
        return x if shards is None else of_video.join(x, 1)
