"""Hunyuan's causal 3-D VAE, which Open-Sora 2.0 uses: 8 x in space, 4 x in time (4 k + 1 frames), 16 channels.

The network is diffusers' AutoencoderKLHunyuanVideo, whose parameter names are the checkpoint's; tiling and the latent
scale are Open-Sora's. Source: Open-Sora v2.0 opensora/models/hunyuan_vae/autoencoder_kl_causal_3d.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from opensora_demo.codecs.base import Codec
from opensora_demo.codecs.gaussian import sample_gaussian
from opensora_demo.codecs.tiling import Tiling, code_tiles, first_frames
from opensora_demo.import_lock import IMPORT_LOCK
from opensora_demo.memory import total_bytes

_DECODING = 0.7  # of a device's memory may be taken by what is computed while decoding


@dataclass(frozen=True, slots=True, kw_only=True)
class HunyuanConfig:
    """Numbers of the VAE; the defaults are the published one.

    Open-Sora's settings tile in space only (256 px); tiling in time too (64 frames) takes a fraction of the memory, but
    cuts the causal past at each tile, so that the numbers differ a little. A clip is decoded so on a device that has no
    room for it otherwise, and one of more than `whole_frames` frames, which are the most that Open-Sora 2.0 makes, on
    every device: the group norms pool over a tile's time, so that there is no other way to bound the memory.
    DiT's convention: latents leave as latent_scale (z - latent_shift).
    """

    latent_channels: int = 16
    block_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_groups: int = 32
    mid_attention: bool = True
    time_factor: int = 4
    space_factor: int = 8
    latent_scale: float = 0.476986
    latent_shift: float = 0.0
    tiling: Tiling = field(default_factory=lambda: Tiling(spatial=True))
    whole_frames: int = 129

    def latent_size(self, frames: int, height_px: int, width_px: int) -> tuple[int, int, int]:
        space = self.space_factor
        return (frames - 1) // self.time_factor + 1, (height_px - 1) // space + 1, (width_px - 1) // space + 1

    def whole_bytes(self, size: Sequence[int], itemsize: int) -> int:
        """About what decoding latents of `size` (t, h, w) takes without tiles in time: nine tensors of the last block
        in a tile of full size, and the clip twice (as `estimate` counts the published one)."""
        t, h, w = size
        side = self.tiling.tile_latent if self.tiling.spatial else max(h, w)
        tile = min(h, side) * min(w, side) * self.block_channels[0]
        return t * self.time_factor * self.space_factor**2 * itemsize * (9 * tile + 2 * 3 * h * w)

    def too_large(self, size: Sequence[int], itemsize: int, memory_bytes: int) -> bool:
        """Whether latents must be decoded in tiles of time on a device of so much memory (the same clip always comes
        out the same on it, whatever else it holds)."""
        too_long = size[0] > (self.whole_frames - 1) // self.time_factor + 1
        return too_long or self.whole_bytes(size, itemsize) > _DECODING * memory_bytes

    def build(self) -> HunyuanVAE:
        return HunyuanVAE(self)


def _frame_causal_attention(attn: Any, x: Tensor) -> Tensor:
    """Every token sees all tokens of its own frame and of those before. Frame by frame, so that no mask of tokens by
    tokens is made (129 frames in a tile of 256 px would need 4.6 GB for it)."""
    t, h, w = x.shape[2:]
    y = attn.group_norm(x.flatten(2)).transpose(1, 2)  # (b, t h w, c)
    q, k, v = (
        rearrange(project(y), "b n (heads d) -> b heads n d", heads=attn.heads)
        for project in (attn.to_q, attn.to_k, attn.to_v)
    )
    size = h * w
    frames = [
        F.scaled_dot_product_attention(q[:, :, at : at + size], k[:, :, : at + size], v[:, :, : at + size])
        for at in range(0, t * size, size)
    ]
    y = attn.to_out[0](rearrange(torch.cat(frames, dim=2), "b heads n d -> b n (heads d)"))
    return x + rearrange(y, "b (t h w) c -> b c t h w", t=t, h=h)


def _middle_forward(middle: Any, x: Tensor) -> Tensor:
    x = middle.resnets[0](x)
    for attn, resnet in zip(middle.attentions, middle.resnets[1:], strict=True):
        x = resnet(x if attn is None else _frame_causal_attention(attn, x))
    return x


class HunyuanVAE(Codec):
    """Video (b, 3, t, h, w) in [-1, 1] <-> latents (b, 16, (t - 1) / 4 + 1, h / 8, w / 8).

    Convolutions and attention look back only; the group norms pool over time, so that within a tile a later frame
    changes earlier latents a little.
    """

    def __init__(self, cfg: HunyuanConfig) -> None:
        super().__init__()
        with IMPORT_LOCK:
            from diffusers import AutoencoderKLHunyuanVideo

        self.cfg = cfg
        levels = len(cfg.block_channels)
        vae = AutoencoderKLHunyuanVideo(
            latent_channels=cfg.latent_channels,
            down_block_types=("HunyuanVideoDownBlock3D",) * levels,
            up_block_types=("HunyuanVideoUpBlock3D",) * levels,
            block_out_channels=cfg.block_channels,
            layers_per_block=cfg.layers_per_block,
            norm_num_groups=cfg.norm_groups,
            mid_block_add_attention=cfg.mid_attention,
            spatial_compression_ratio=cfg.space_factor,
            temporal_compression_ratio=cfg.time_factor,
        )
        self.encoder, self.decoder = vae.encoder, vae.decoder
        self.quant_conv, self.post_quant_conv = vae.quant_conv, vae.post_quant_conv
        for side in (self.encoder, self.decoder):
            side.mid_block.forward = partial(_middle_forward, side.mid_block)

    @property
    def latent_channels(self) -> int:
        return self.cfg.latent_channels

    @property
    def time_factor(self) -> int:
        return self.cfg.time_factor

    def latent_size(self, frames: int, height_px: int, width_px: int) -> tuple[int, int, int]:
        return self.cfg.latent_size(frames, height_px, width_px)

    def _encode_tile(self, video: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(video))

    def _decode_tile(self, latents: Tensor) -> Tensor:
        z = latents / self.cfg.latent_scale + self.cfg.latent_shift
        return self.decoder(self.post_quant_conv(z))

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (clamped to [-30, 20]) of the posterior, before the scale."""
        out = torch.cat(
            list(code_tiles(video, self._encode_tile, self.cfg.tiling, decode=False, causal=True, peers=self.peers)),
            dim=2,
        )
        mean, log_variance = out.chunk(2, dim=1)
        return mean, log_variance.clamp(-30.0, 20.0)

    def scale_latents(self, z: Tensor) -> Tensor:
        return self.cfg.latent_scale * (z - self.cfg.latent_shift)

    def encode(self, video: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.scale_latents(sample_gaussian(*self.moments(video), generator))

    def decode_chunks(self, latents: Tensor, frames: int) -> Iterator[Tensor]:
        """Decoded tiles in time where the configuration, the length or a lack of memory asks for them; else all frames
        at once."""
        tiling, memory = self.cfg.tiling, self.memory_bytes or total_bytes(latents.device)
        if self.cfg.too_large(latents.shape[2:], latents.element_size(), memory):
            tiling = replace(tiling, temporal=True)
        parts = code_tiles(latents, self._decode_tile, tiling, decode=True, causal=True, peers=self.peers)
        yield from first_frames(parts, frames)
