"""MMDiT (Open-Sora 2.0) computed as its papers and upstream's arithmetic say, without thrift.

It reads the weights of this package's own network. Text is projected at every call, rotary angles are made anew at
every call, scores of attention over text and video together are written out, and the masks that are always true are
added all the same. (Esser et al., "Scaling rectified flow transformers", 2024; Flux.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.baseline.arithmetic import (
    attention,
    gelu_tanh,
    heads,
    joined,
    layer_norm,
    linear,
    modulate,
    rms_norm,
    rotated_halves,
    rotated_pairs,
    silu,
    sinusoid,
)

TIME_FACTOR = 1000.0  # times in 0..1 are multiplied by it before the sinusoid


def mmdit(net: Any, x: Tensor, time: Tensor, text: Tensor, pooled: Tensor, *, cond: Tensor | None = None) -> Tensor:
    """What `models.mmdit.MMDiT` says of x (b, c, t, h, w); time (b) in 0..1, text (b, n, c_text), pooled (b, c_pooled),
    cond (b, 1 + c, t, h, w) of given frames. Not for distilled networks: raises ValueError."""
    cfg = net.cfg
    if cfg.guidance_embed:
        raise ValueError("the reference evaluates the branches of guidance")
    t, h, w = x.shape[2:]
    img = linear(net.img_in, tokens_of(x, cfg.patch))  # (b, n, d)
    if cfg.cond_embed and cond is not None:
        img = img + linear(net.cond_in, tokens_of(cond, cfg.patch))
    vec = embedded(net.time_in, sinusoid(TIME_FACTOR * time)) + embedded(net.vector_in, pooled)  # (b, d)
    txt = linear(net.txt_in, text)
    angle = angles(cfg, (t, h // cfg.patch, w // cfg.patch), txt.shape[1])

    for block in net.double_blocks:
        img, txt = double(block, cfg, img, txt, vec, angle)
    both = torch.cat([txt, img], dim=1)
    for block in net.single_blocks:
        both = single(block, cfg, both, vec, angle)
    img = both[:, txt.shape[1] :]
    shift, scale = linear(net.final_layer.adaLN_modulation[1], silu(vec))[:, None].chunk(2, dim=-1)
    img = linear(net.final_layer.linear, modulate(layer_norm(img), shift, scale))
    img = img.reshape(len(img), t, h // cfg.patch, w // cfg.patch, -1, cfg.patch, cfg.patch)
    return img.permute(0, 4, 1, 2, 5, 3, 6).reshape(x.shape).float()


def tokens_of(x: Tensor, patch: int) -> Tensor:
    """(b, c, t, h, w) -> (b, t h/p w/p, c p p)."""
    b, c, t, h, w = x.shape
    x = x.reshape(b, c, t, h // patch, patch, w // patch, patch).permute(0, 2, 3, 5, 1, 4, 6)
    return x.reshape(b, t * (h // patch) * (w // patch), c * patch * patch)


def embedded(module: Any, x: Tensor) -> Tensor:
    """A vector through two layers, `in_layer` and `out_layer`, with SiLU between."""
    return linear(module.out_layer, silu(linear(module.in_layer, x)))


def angles(cfg: Any, grid: tuple[int, int, int], text_tokens: int) -> Tensor:
    """(n_text + n, head / 2): of every token the angle of each pair of channels, which the axes t, h and w share out
    among them. Text stands at zero, in front."""
    axes = torch.meshgrid(*(torch.arange(n).double() for n in grid), indexing="ij")
    parts = []
    for place, width in zip(axes, cfg.axes, strict=True):
        frequencies = cfg.theta ** -(torch.arange(0, width, 2).double() / width)
        parts.append(place.flatten()[:, None] * frequencies)
    video = torch.cat(parts, dim=-1)
    return torch.cat([torch.zeros(text_tokens, video.shape[1]).double(), video]).float()


def attended(cfg: Any, q: Tensor, k: Tensor, v: Tensor, angle: Tensor) -> Tensor:
    """Attention with rotary positions: (b, heads, n, d) -> (b, n, heads d)."""
    rotated = rotated_halves if cfg.rotate_halves else rotated_pairs
    return joined(attention(rotated(q, angle), rotated(k, angle), v))


def projected(attn: Any, cfg: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x (b, n, d) -> queries and keys, normalised, and values, each (b, heads, n, d / heads)."""
    if cfg.fused_qkv:
        parts = linear(attn.qkv, x).chunk(3, dim=-1)
    else:
        parts = (linear(attn.q_proj, x), linear(attn.k_proj, x), linear(attn.v_proj, x))
    q, k, v = (heads(part, cfg.heads) for part in parts)
    return rms_norm(q, attn.norm.query_norm.scale), rms_norm(k, attn.norm.key_norm.scale), v


def double(block: Any, cfg: Any, img: Tensor, txt: Tensor, vec: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Video img (b, n, d) and text txt (b, n_text, d), each with weights of its own, one attention over both."""
    i = linear(block.img_mod.lin, silu(vec))[:, None].chunk(6, dim=-1)  # shift, scale, gate, and once more
    t = linear(block.txt_mod.lin, silu(vec))[:, None].chunk(6, dim=-1)
    of_img = projected(block.img_attn, cfg, modulate(layer_norm(img), i[0], i[1]))
    of_txt = projected(block.txt_attn, cfg, modulate(layer_norm(txt), t[0], t[1]))
    q, k, v = (torch.cat(pair, dim=2) for pair in zip(of_txt, of_img, strict=True))
    out = attended(cfg, q, k, v, angle)
    t_out, i_out = out[:, : txt.shape[1]], out[:, txt.shape[1] :]
    img = img + i[2] * linear(block.img_attn.proj, i_out)
    img = img + i[5] * feed_forward(block.img_mlp, modulate(layer_norm(img), i[3], i[4]))
    txt = txt + t[2] * linear(block.txt_attn.proj, t_out)
    txt = txt + t[5] * feed_forward(block.txt_mlp, modulate(layer_norm(txt), t[3], t[4]))
    return img, txt


def feed_forward(layers: Any, x: Tensor) -> Tensor:
    return linear(layers[2], gelu_tanh(linear(layers[0], x)))


def single(block: Any, cfg: Any, x: Tensor, vec: Tensor, angle: Tensor) -> Tensor:
    """Attention and MLP side by side over the joined sequence x (b, n_text + n, d)."""
    shift, scale, gate = linear(block.modulation.lin, silu(vec))[:, None].chunk(3, dim=-1)
    y = modulate(layer_norm(x), shift, scale)
    d = x.shape[-1]
    if cfg.fused_qkv:
        every = linear(block.linear1, y)
        q, k, v, hidden = every[..., :d], every[..., d : 2 * d], every[..., 2 * d : 3 * d], every[..., 3 * d :]
    else:
        q, k, rest = linear(block.q_proj, y), linear(block.k_proj, y), linear(block.v_mlp, y)
        v, hidden = rest[..., :d], rest[..., d:]
    q, k, v = (heads(part, cfg.heads) for part in (q, k, v))
    q, k = rms_norm(q, block.norm.query_norm.scale), rms_norm(k, block.norm.key_norm.scale)
    out = attended(cfg, q, k, v, angle)
    return x + gate * linear(block.linear2, torch.cat([out, gelu_tanh(hidden)], dim=-1))
