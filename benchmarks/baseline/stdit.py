"""STDiT2 (Open-Sora 1.1) and STDiT3 (1.2) computed as their papers and upstream's arithmetic say, without thrift.

Both read the weights of this package's own networks, so that the same input must give the same output. What they do
that the package spares itself: text goes through the caption projection and every block's keys and values at every
call; the texts of a batch lie packed in one row; the mask of generated frames is always there, so that each block
modulates twice, for the step and for t = 0, and then chooses; scores of attention are written out; positions and
rotary angles are made anew at every call.
Shapes: b c t h w as everywhere, s patches of a frame, n text tokens, d width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.baseline.arithmetic import (
    THETA,
    attention,
    heads,
    joined,
    layer_norm,
    linear,
    mlp,
    modulate,
    number,
    rms_norm,
    rotated_pairs,
    silu,
    sinusoid,
)

Vectors = tuple[Tensor, ...]


def stdit3(
    net: Any,
    x: Tensor,
    timestep: Tensor,
    y: Tensor,
    lengths: Tensor | None = None,
    *,
    fps: Tensor,
    height_px: float,
    width_px: float,
) -> Tensor:
    """What `models.stdit3.STDiT3` says of x (b, c, t, h, w); y (b, n, c_text) are the text encoder's features, of which
    `lengths` (b) count; timestep and fps (b). Text by cross-attention alone, as published.

    Raises ValueError for the ways of text that are this repository's own.
    """
    if net.cfg.conditioning != "cross-attention":
        raise ValueError("the reference reads text by cross-attention")
    size = x.shape[2:]
    x = patches(net, x, height_px, width_px)  # (b, t, s, d)
    if net.cfg.frame_position:
        index = sinusoid(torch.arange(x.shape[1], device=x.device), net.cfg.width)
        x = x + linear(net.frame_embedder, index)[:, None]
    generated = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)  # (b, t)

    extra = number(net.fps_embedder, fps)
    time = number(net.t_embedder, timestep) + extra  # (b, d)
    zero = number(net.t_embedder, torch.zeros_like(timestep)) + extra
    at, at_zero = (linear(net.t_block[1], silu(e)) for e in (time, zero))  # (b, 6 d)
    text, counts = packed(net, y, lengths)

    for spatial, temporal in zip(net.spatial_blocks, net.temporal_blocks, strict=True):
        for block, attend in ((spatial, over_space), (temporal, over_time)):
            now, given = (vectors(block.scale_shift_table, m) for m in (at, at_zero))
            h = chosen(layer_norm(x), generated, lambda y, v: modulate(y, v[0], v[1]), now, given)
            h = attend(net, block.attn, h)
            x = x + chosen(h, generated, lambda y, v: v[2] * y, now, given)
            x = x + to_text(block.cross_attn, x, text, counts)
            h = chosen(layer_norm(x), generated, lambda y, v: modulate(y, v[3], v[4]), now, given)
            x = x + chosen(mlp(block.mlp, h), generated, lambda y, v: v[5] * y, now, given)
    return last(net, x, time, zero, generated, (size[0], size[1], size[2]))


def stdit2(
    net: Any,
    x: Tensor,
    timestep: Tensor,
    y: Tensor,
    lengths: Tensor | None = None,
    *,
    fps: Tensor,
    frames: Tensor,
    height_px: float,
    width_px: float,
    aspect: float,
) -> Tensor:
    """What `models.stdit2.STDiT2` says of x (b, c, t, h, w); the rest as for `stdit3`, with the frames of the video (b)
    and its aspect, height to width."""
    size = x.shape[2:]
    x = patches(net, x, height_px, width_px)  # (b, t, s, d)
    generated = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)

    one = torch.ones_like(timestep)
    sizes = [number(net.csize_embedder, height_px * one), number(net.csize_embedder, width_px * one)]
    of_space = torch.cat([*sizes, number(net.ar_embedder, aspect * one)], dim=-1)  # (b, d)
    of_time = number(net.fl_embedder, frames) + number(net.fps_embedder, fps)
    time, zero = number(net.t_embedder, timestep), number(net.t_embedder, torch.zeros_like(timestep))
    at, at_zero = (linear(net.t_block[1], silu(e + of_space)) for e in (time, zero))  # (b, 6 d)
    in_time, in_time_zero = (linear(net.t_block_temp[1], silu(e + of_time)) for e in (time, zero))  # (b, 3 d)
    text, counts = packed(net, y, lengths)

    for block in net.blocks:
        now, given = (vectors(block.scale_shift_table, m) for m in (at, at_zero))
        then, given_then = (vectors(block.scale_shift_table_temporal, m) for m in (in_time, in_time_zero))
        h = chosen(layer_norm(x), generated, lambda y, v: modulate(y, v[0], v[1]), now, given)
        x = x + chosen(over_space(net, block.attn, h), generated, lambda y, v: v[2] * y, now, given)
        h = chosen(layer_norm(x), generated, lambda y, v: modulate(y, v[0], v[1]), then, given_then)
        h = over_time(net, block.attn_temp, h, rotate_first=True)
        x = x + chosen(h, generated, lambda y, v: v[2] * y, then, given_then)
        x = x + to_text(block.cross_attn, x, text, counts)
        h = chosen(layer_norm(x), generated, lambda y, v: modulate(y, v[3], v[4]), now, given)
        x = x + chosen(mlp(block.mlp, h), generated, lambda y, v: v[5] * y, now, given)
    return last(net, x, time, zero + of_space, generated, (size[0], size[1], size[2]))


def patches(net: Any, x: Tensor, height_px: float, width_px: float) -> Tensor:
    """x (b, c, t, h, w) -> tokens (b, t, s, d) with their places: a convolution whose stride is its kernel."""
    pt, ph, pw = net.cfg.patch
    t, h, w = x.shape[2:]
    conv = net.x_embedder.proj
    x = F.pad(x.to(conv.weight.dtype), (0, -w % pw, 0, -h % ph, 0, -t % pt))
    x = F.conv3d(x, conv.weight, conv.bias, stride=(pt, ph, pw))  # (b, d, t', h', w')
    rows, columns = x.shape[3:]
    scale = (height_px * width_px) ** 0.5 / net.cfg.base_px
    places = positions(net.cfg.width, rows, columns, scale).to(x)
    return x.flatten(3).permute(0, 2, 3, 1) + places


def positions(width: int, rows: int, columns: int, scale: float) -> Tensor:
    """(rows * columns, width): the code of a patch's column, then of its row; sines, then cosines. Places are stretched
    to a square of as many patches and divided by the picture's size over the base (Open-Sora 1.1)."""
    side = round((rows * columns) ** 0.5)
    frequencies = 1 / THETA ** (torch.arange(0, width // 2, 2).float() / (width // 2))

    def code(count: int) -> Tensor:
        angle = (torch.arange(count).float() * side / count / scale)[:, None] * frequencies
        return torch.cat([torch.sin(angle), torch.cos(angle)], dim=-1)  # (count, width / 2)

    of_row, of_column = code(rows), code(columns)
    both = [torch.cat([of_column[j], of_row[i]]) for i in range(rows) for j in range(columns)]
    return torch.stack(both)


def vectors(table: Tensor, modulation: Tensor) -> Vectors:
    """A block's table (k, d) plus the network's modulation (b, k d): k vectors (b, 1, 1, d)."""
    both = table[None] + modulation.reshape(len(modulation), *table.shape)
    return tuple(v[:, None, None] for v in both.unbind(1))


def chosen(
    x: Tensor, generated: Tensor, change: Callable[[Tensor, Vectors], Tensor], now: Vectors, given: Vectors
) -> Tensor:
    """x (b, t, s, d) changed by the vectors of the step in frames that are generated, by those of t = 0 in others:
    both are computed."""
    return torch.where(generated[:, :, None, None], change(x, now), change(x, given))


def over_space(_net: Any, attn: Any, x: Tensor) -> Tensor:
    """Self-attention among the patches of each frame; x (b, t, s, d)."""
    b, t, s, d = x.shape
    return self_attention(attn, x.reshape(b * t, s, d), None, rotate_first=False).reshape(b, t, s, d)


def over_time(net: Any, attn: Any, x: Tensor, *, rotate_first: bool = False) -> Tensor:
    """Self-attention among the frames of each place, with rotary positions of the network's frequencies; x
    (b, t, s, d)."""
    b, t, s, d = x.shape
    angle = torch.arange(t, device=x.device).float()[:, None] * net.rope.freqs.float()  # (t, d / heads / 2)
    h = x.permute(0, 2, 1, 3).reshape(b * s, t, d)
    h = self_attention(attn, h, angle, rotate_first=rotate_first)
    return h.reshape(b, s, t, d).permute(0, 2, 1, 3)


def self_attention(attn: Any, x: Tensor, angle: Tensor | None, *, rotate_first: bool) -> Tensor:
    """x (b, n, d); queries and keys are normalised where the network does so, then turned, or (1.1) before it."""
    q, k, v = (heads(part, attn.heads) for part in linear(attn.qkv, x).chunk(3, dim=-1))
    if angle is not None and rotate_first:
        q, k = rotated_pairs(q, angle), rotated_pairs(k, angle)
    if hasattr(attn.q_norm, "weight"):
        q, k = rms_norm(q, attn.q_norm.weight), rms_norm(k, attn.k_norm.weight)
    if angle is not None and not rotate_first:
        q, k = rotated_pairs(q, angle), rotated_pairs(k, angle)
    return linear(attn.proj, joined(attention(q, k, v)))


def packed(net: Any, y: Tensor, lengths: Tensor | None) -> tuple[Tensor, list[int]]:
    """Features (b, n, c) through the caption projection, the tokens that count in one row (1, sum of n, d), and how
    many each item has."""
    counts = [y.shape[1]] * len(y) if lengths is None else [int(n) for n in lengths]
    y = mlp(net.y_embedder.y_proj, y)
    kept = torch.arange(y.shape[1], device=y.device)[None] < torch.tensor(counts, device=y.device)[:, None]
    return y[kept][None], counts


def to_text(cross: Any, x: Tensor, text: Tensor, counts: list[int]) -> Tensor:
    """Attention of x (b, t, s, d) to the packed text (1, sum of n, d), whose keys and values are made here. Each item
    sees its own tokens, as the blocks of a block-diagonal mask say."""
    b, t, s, d = x.shape
    q = heads(linear(cross.q_linear, x.reshape(1, b * t * s, d)), cross.heads)
    k, v = (heads(part, cross.heads) for part in linear(cross.kv_linear, text).chunk(2, dim=-1))
    items = zip(q.split(t * s, dim=2), k.split(counts, dim=2), v.split(counts, dim=2), strict=True)
    out = torch.cat([attention(*item) for item in items], dim=2)
    return linear(cross.proj, joined(out)).reshape(b, t, s, d)


def last(net: Any, x: Tensor, time: Tensor, zero: Tensor, generated: Tensor, size: tuple[int, int, int]) -> Tensor:
    """The final layer on x (b, t, s, d), and patches back to (b, c, t, h, w) of `size`; time and zero (b, d)."""
    layer = net.final_layer
    now, given = (vectors(layer.scale_shift_table, torch.cat([e, e], dim=-1)) for e in (time, zero))
    x = chosen(layer_norm(x), generated, lambda y, v: modulate(y, v[0], v[1]), now, given)
    x = linear(layer.linear, x)  # (b, t, s, pt ph pw c)
    pt, ph, pw = net.cfg.patch
    b, t = x.shape[:2]
    rows, columns = -(-size[1] // ph), -(-size[2] // pw)
    x = x.reshape(b, t, rows, columns, pt, ph, pw, -1).permute(0, 7, 1, 4, 2, 5, 3, 6)
    x = x.reshape(b, x.shape[1], t * pt, rows * ph, columns * pw)
    return x[:, :, : size[0], : size[1], : size[2]].float()
