"""Decoding of the two video VAEs, 1.2's and 2.0's, computed as upstream's arithmetic says, without thrift.

They read the weights of this package's own codecs. Norms are computed in float32 by their formula, attention writes
its scores out, and 2.0's attention, of which a frame sees itself and those before, has a mask of tokens by tokens.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.baseline.arithmetic import attention, group_norm, linear, silu

MICRO_BATCH = 4  # frames that upstream decodes at once in 2-D


def video_vae_decode(codec: Any, latents: Tensor, frames: int) -> Tensor:
    """What `codecs.video_vae.VideoVAE` makes of latents (b, c, t', h', w'): (b, 3, t, h, w). Raises ValueError for
    other padding than zeros in time, which is not the published model's."""
    cfg = codec.cfg
    if cfg.temporal.time_padding != "zeros":
        raise ValueError("the reference pads with zeros in time")
    z = latents * codec.scale + codec.shift
    step = -(-cfg.chunk_frames // cfg.temporal.time_factor)
    clip = []
    for at, part in enumerate(z.split(step, dim=2)):
        count = min(cfg.chunk_frames, frames - at * cfg.chunk_frames)
        between = temporal_decode(codec.temporal_vae, part, count)
        clip.append(image_vae_decode(codec.spatial_vae, between))
    return torch.cat(clip, dim=2)


def image_vae_decode(codec: Any, latents: Tensor) -> Tensor:
    """What `codecs.image_vae.ImageVAE` makes of latents (b, c, t, h', w'), each frame by itself."""
    cfg = codec.cfg
    b, c, t, h, w = latents.shape
    z = latents.permute(0, 2, 1, 3, 4).reshape(b * t, c, h, w) / cfg.latent_scale
    frames = torch.cat([_image(codec, part) for part in z.split(MICRO_BATCH)])
    return frames.reshape(b, t, *frames.shape[1:]).permute(0, 2, 1, 3, 4)


def _image(codec: Any, z: Tensor) -> Tensor:
    decoder, cfg = codec.module.decoder, codec.cfg
    x = conv2d(decoder.conv_in, conv2d(codec.module.post_quant_conv, z))
    x = middle(decoder.mid_block, x, resnet2d, spatial_attention)
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            x = resnet2d(resnet, x)
        for up in block.upsamplers or ():
            x = conv2d(up.conv, x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
    x = conv2d(decoder.conv_out, silu(group_norm(decoder.conv_norm_out, x)))
    x = F.pixel_shuffle(x, cfg.pixel_unshuffle)
    if cfg.refine:
        x = x + conv2d(codec.refine[2], silu(conv2d(codec.refine[0], x)))
    return F.pixel_shuffle(x, cfg.upscale)


def middle(block: Any, x: Tensor, resnet: Any, attend: Any) -> Tensor:
    x = resnet(block.resnets[0], x)
    for attn, after in zip(block.attentions, block.resnets[1:], strict=True):
        x = resnet(after, x if attn is None else attend(attn, x))
    return x


def conv2d(conv: Any, x: Tensor) -> Tensor:
    return F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding)


def resnet2d(block: Any, x: Tensor) -> Tensor:
    h = conv2d(block.conv1, silu(group_norm(block.norm1, x)))
    h = conv2d(block.conv2, silu(group_norm(block.norm2, h)))
    return h + (x if block.conv_shortcut is None else conv2d(block.conv_shortcut, x))


def spatial_attention(attn: Any, x: Tensor) -> Tensor:
    """Every place of a frame (b, c, h, w) sees all others."""
    return x + _attend(attn, x, None)


def _attend(attn: Any, x: Tensor, mask: Tensor | None) -> Tensor:
    """Attention among all places of x (b, c, ...), of the same shape."""
    y = group_norm(attn.group_norm, x.flatten(2)).transpose(1, 2)  # (b, n, c)
    q, k, v = (
        linear(layer, y).unflatten(-1, (attn.heads, -1)).transpose(1, 2) for layer in (attn.to_q, attn.to_k, attn.to_v)
    )
    y = linear(attn.to_out[0], attention(q, k, v, mask).transpose(1, 2).flatten(2))
    return y.transpose(1, 2).reshape(x.shape)


def temporal_decode(vae: Any, z: Tensor, frames: int) -> Tensor:
    """What `codecs.temporal_vae.TemporalVAE` makes of latents (b, c', t', h, w): (b, c, frames, h, w)."""
    decoder = vae.decoder
    x = causal(decoder.conv1, causal(vae.post_quant_conv, z))
    for block in decoder.res_blocks:
        x = temporal_block(block, x)
    for i in reversed(range(len(decoder.block_res_blocks))):
        for block in decoder.block_res_blocks[i]:
            x = temporal_block(block, x)
        if i > 0 and hasattr(decoder.conv_blocks[i - 1], "conv"):
            x = causal(decoder.conv_blocks[i - 1], x)  # (b, 2 c, t, h, w): twice the frames
            b, c, t, h, w = x.shape
            x = x.reshape(b, c // 2, 2, t, h, w).permute(0, 1, 3, 2, 4, 5).reshape(b, c // 2, 2 * t, h, w)
    x = causal(decoder.conv_out, silu(temporal_norm(decoder.norm1, x)))
    return x[:, :, x.shape[2] - frames :]


def temporal_block(block: Any, x: Tensor) -> Tensor:
    h = causal(block.conv1, silu(temporal_norm(block.norm1, x)))
    h = causal(block.conv2, silu(temporal_norm(block.norm2, h)))
    return h + (causal(block.conv3, x) if block.has_shortcut else x)


def temporal_norm(norm: Any, x: Tensor) -> Tensor:
    """Over all frames together, or over each by itself."""
    if not norm.per_frame:
        return group_norm(norm, x)
    return torch.stack([group_norm(norm, frame) for frame in x.unbind(2)], dim=2)


def causal(layer: Any, x: Tensor) -> Tensor:
    """A convolution of x (b, c, t, h, w) with zeros in front in time and around in space."""
    conv = layer.conv
    kt, kh, kw = conv.kernel_size
    x = F.pad(x, (kw // 2, kw // 2, kh // 2, kh // 2, kt - 1, 0))
    return F.conv3d(x, conv.weight, conv.bias)


def hunyuan_decode(codec: Any, latents: Tensor, frames: int) -> Tensor:
    """What `codecs.hunyuan.HunyuanVAE` makes of latents (b, c, t', h', w'): (b, 3, t, h, w). Raises ValueError for
    latents that would be decoded in tiles."""
    cfg, decoder = codec.cfg, codec.decoder
    if max(latents.shape[-2:]) > cfg.tiling.tile_latent:
        raise ValueError("latents larger than a tile")
    z = latents / cfg.latent_scale + cfg.latent_shift
    conv = codec.post_quant_conv
    x = replicated(decoder.conv_in, F.conv3d(z, conv.weight, conv.bias))
    x = middle(decoder.mid_block, x, resnet3d, causal_attention)
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            x = resnet3d(resnet, x)
        for up in block.upsamplers or ():
            x = replicated(up.conv, enlarged(x, tuple(int(n) for n in up.upsample_factor)))
    x = replicated(decoder.conv_out, silu(group_norm(decoder.conv_norm_out, x)))
    return x[:, :, :frames]


def enlarged(x: Tensor, factors: tuple[int, ...]) -> Tensor:
    """x (b, c, t, h, w) with every place repeated, the first frame in space alone."""
    t, h, w = factors
    x = x.repeat_interleave(h, dim=3).repeat_interleave(w, dim=4)
    return torch.cat([x[:, :, :1], x[:, :, 1:].repeat_interleave(t, dim=2)], dim=2)


def replicated(layer: Any, x: Tensor) -> Tensor:
    """A convolution of x (b, c, t, h, w) with copies of the nearest place around, in time in front alone."""
    conv = layer.conv
    kt, kh, kw = conv.kernel_size
    x = F.pad(x, (kw // 2, kw // 2, kh // 2, kh // 2, kt - 1, 0), mode="replicate")
    return F.conv3d(x, conv.weight, conv.bias)


def resnet3d(block: Any, x: Tensor) -> Tensor:
    h = replicated(block.conv1, silu(group_norm(block.norm1, x)))
    h = replicated(block.conv2, silu(group_norm(block.norm2, h)))
    return h + (x if block.conv_shortcut is None else replicated(block.conv_shortcut, x))


def causal_attention(attn: Any, x: Tensor) -> Tensor:
    """Every place of x (b, c, t, h, w) sees its own frame and those before."""
    b, _, t, h, w = x.shape
    frame = torch.arange(t, device=x.device).repeat_interleave(h * w)
    mask = (frame[:, None] >= frame[None, :]).expand(b, 1, -1, -1)
    return x + _attend(attn, x, mask)
