"""Causal 3-D VAE of Open-Sora 1.3: 8 x in space, 4 x in time, 16 channels, in chunks that share a frame.

Parameter names follow the published checkpoint. Source: Open-Sora v1.3 opensora/models/vae_v1_3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from opensora_demo.codecs.base import Codec
from opensora_demo.codecs.gaussian import sample_gaussian
from opensora_demo.codecs.vae_v13_stats import FIVE_MEAN, FIVE_STD, VIDEO_MEAN, VIDEO_STD
from opensora_demo.nn.causal_conv import CausalConv3d
from opensora_demo.nn.peers import in_turn


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeV13Config:
    """Numbers of the VAE; the defaults are the published OpenSora-VAE-v1.3.

    `down_in_time` and `up_in_time` name the levels that also halve and double time. `chunk_frames` frames are coded
    together (None: the whole clip); with `overlap` a chunk begins with the last frame of the one before, and the two
    decoded versions of that frame are averaged. `normalise` names the statistics that bring latents to zero mean and
    unit variance: of a channel, or of a channel and place in a chunk of five latent frames.
    A chunk counts as `chunk_latents` latent frames where sizes are told and latents are decoded (None: as many as it is
    encoded to; upstream has (chunk_frames - 1) // 4 + 1 at any time factor). From what is decoded together `cut_frames`
    are cut off in front (None: time_factor - 1, which leaves one frame of the first latent).
    """

    latent_channels: int = 16
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    res_blocks: int = 2
    down_in_time: tuple[int, ...] = (1, 2)
    up_in_time: tuple[int, ...] = (2, 3)
    chunk_frames: int | None = 17
    overlap: bool = True
    normalise: Literal["video", "video_5frames"] | None = "video"
    chunk_latents: int | None = None
    cut_frames: int | None = None

    @property
    def time_factor(self) -> int:
        return int(2 ** len(self.down_in_time))

    @property
    def space_factor(self) -> int:
        return int(2 ** (len(self.multipliers) - 1))

    def latents_of_chunk(self, frames: int) -> int:
        """How many latent frames are decoded together of a clip of `frames`, or of one that is coded at once."""
        if self.chunk_latents is not None:
            return self.chunk_latents
        return ((self.chunk_frames or frames) - 1) // self.time_factor + 1

    def latent_size(self, frames: int, height_px: int, width_px: int) -> tuple[int, int, int]:
        """(t', h', w'). Chunks of 17 frames that share one take 16 k + 1 frames to 5 k latents."""
        chunk = self.chunk_frames
        if frames == 1 or chunk is None:
            t = (frames - 1) // self.time_factor + 1
        else:
            t = ((frames - 1) // (chunk - 1) if self.overlap else frames // chunk) * self.latents_of_chunk(frames)
        return t, -(-height_px // self.space_factor), -(-width_px // self.space_factor)

    def build(self) -> VaeV13:
        return VaeV13(self)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResBlock(nn.Module):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.norm1 = _norm(channels)
        self.conv1 = CausalConv3d(channels, out, 3)
        self.norm2 = _norm(out)
        self.conv2 = CausalConv3d(out, out, 3)
        self.has_shortcut = channels != out
        if self.has_shortcut:
            self.nin_shortcut = CausalConv3d(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return (self.nin_shortcut(x) if self.has_shortcut else x) + h


class Attention(nn.Module):
    """One head over all tokens of a chunk, causal token by token in the order t, h, w (not frame by frame)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q = CausalConv3d(channels, channels, 1)
        self.k = CausalConv3d(channels, channels, 1)
        self.v = CausalConv3d(channels, channels, 1)
        self.proj_out = CausalConv3d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        t, h, w = x.shape[2:]
        y = self.norm(x)
        q, k, v = (rearrange(conv(y), "b c t h w -> b 1 (t h w) c") for conv in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.proj_out(rearrange(y, "b 1 (t h w) c -> b c t h w", t=t, h=h, w=w))


class Middle(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResBlock(channels, channels)
        self.attn_1 = Attention(channels)
        self.block_2 = ResBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class DownInSpace(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        b = x.shape[0]
        x = self.conv(F.pad(rearrange(x, "b c t h w -> (b t) c h w"), (0, 1, 0, 1)))
        return rearrange(x, "(b t) c h w -> b c t h w", b=b)


class DownInBoth(nn.Module):
    """Halves space and time; an odd length 2 k + 1 becomes k + 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = StridedConv3d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class StridedConv3d(nn.Module):
    """Kernel 3, stride 2; two zero frames in front, whatever the stride, unlike `CausalConv3d`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (1, 1, 1, 1, 2, 0)))


class UpInSpace(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        b = x.shape[0]
        x = self.conv(F.interpolate(rearrange(x, "b c t h w -> (b t) c h w"), scale_factor=2.0, mode="nearest"))
        return rearrange(x, "(b t) c h w -> b c t h w", b=b)


class Refine(nn.Module):
    """Two convolutions normed after, not before, and a shortcut inside the last activation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = CausalConv3d(channels, channels, 3)
        self.norm1 = nn.GroupNorm(32, channels)
        self.conv2 = CausalConv3d(channels, channels, 3)
        self.norm2 = nn.GroupNorm(32, channels)

    def forward(self, x: Tensor) -> Tensor:
        h = F.silu(self.norm1(self.conv1(x)))
        return F.silu(self.norm2(self.conv2(h)) + x)


class UpInBoth(nn.Module):
    """Doubles space and time; every frame becomes two, the decoder cuts the surplus off in front."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv3d = Refine(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return x + self.conv3d(x)


class Level(nn.Module):
    """The residual blocks of one resolution and the step to the next, under the checkpoint's names."""

    def __init__(self, blocks: list[ResBlock], name: str | None = None, step: nn.Module | None = None) -> None:
        super().__init__()
        self.block = nn.ModuleList(blocks)
        self.step_name = name
        if name is not None and step is not None:
            self.add_module(name, step)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        return x if self.step_name is None else getattr(self, self.step_name)(x)


class Encoder(nn.Module):
    def __init__(self, cfg: VaeV13Config) -> None:
        super().__init__()
        widths = [cfg.channels * m for m in cfg.multipliers]
        self.conv_in = CausalConv3d(3, cfg.channels, 3)
        levels, width = [], cfg.channels
        for i, out in enumerate(widths):
            blocks = [ResBlock(width if j == 0 else out, out) for j in range(cfg.res_blocks)]
            width = out if cfg.res_blocks else width
            if i == len(widths) - 1:
                levels.append(Level(blocks))
            else:
                step = DownInBoth(width) if i in cfg.down_in_time else DownInSpace(width)
                levels.append(Level(blocks, "downsample", step))
        self.down = nn.ModuleList(levels)
        self.mid = Middle(width)
        self.norm_out = _norm(width)
        self.conv_out = CausalConv3d(width, 2 * cfg.latent_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    def __init__(self, cfg: VaeV13Config) -> None:
        super().__init__()
        widths = [cfg.channels * m for m in cfg.multipliers]
        width = widths[-1]
        self.surplus = cfg.time_factor - 1 if cfg.cut_frames is None else cfg.cut_frames
        self.conv_in = CausalConv3d(cfg.latent_channels, width, 3)
        self.mid = Middle(width)
        levels: list[Level] = []
        for i in reversed(range(len(widths))):
            out = widths[i]
            blocks = [ResBlock(width if j == 0 else out, out) for j in range(cfg.res_blocks + 1)]
            width = out
            if i == 0:
                levels.insert(0, Level(blocks))
            else:
                step = UpInBoth(width) if i in cfg.up_in_time else UpInSpace(width)
                levels.insert(0, Level(blocks, "upsample", step))
        self.up = nn.ModuleList(levels)
        self.norm_out = _norm(width)
        self.conv_out = nn.Conv3d(width, 3, 3)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
        x = self.conv_out(F.pad(F.silu(self.norm_out(x)), (1, 1, 1, 1, 2, 0)))
        return x[:, :, self.surplus :]  # the first latent stands for one frame only


class VaeV13(Codec):
    """Video (b, 3, t, h, w) in [-1, 1] <-> latents (b, 16, t', h / 8, w / 8).

    Within a chunk the group norms pool over time, so a later frame changes earlier latents a little; chunks that do
    not share a frame know nothing of each other.
    """

    def __init__(self, cfg: VaeV13Config) -> None:
        super().__init__()
        self.cfg = cfg
        self.encoder = Encoder(cfg)
        self.decoder = Decoder(cfg)

    @property
    def latent_channels(self) -> int:
        return self.cfg.latent_channels

    @property
    def time_factor(self) -> int:
        return self.cfg.time_factor

    def chunks(self, frames: int) -> tuple[int, int]:
        chunk = self.cfg.chunk_frames or frames
        return chunk, chunk - 1 if self.cfg.overlap and 1 < chunk < frames else chunk

    def latent_size(self, frames: int, height_px: int, width_px: int) -> tuple[int, int, int]:
        return self.cfg.latent_size(frames, height_px, width_px)

    def _stats(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and std in float32 whatever the latents are in, as upstream's; (1, c, t or 1, 1, 1)."""
        if self.cfg.normalise == "video_5frames":
            tables, frames = (FIVE_MEAN, FIVE_STD), z.shape[2]
            tensors = [torch.tensor(table, device=z.device) for table in tables]  # (c, 5)
            tensors = [x[:, :1] if frames == 1 else x.repeat(1, frames // x.shape[1]) for x in tensors]
            mean, std = (x[None, :, :, None, None] for x in tensors)
        else:
            mean, std = (torch.tensor(v, device=z.device).view(1, -1, 1, 1, 1) for v in (VIDEO_MEAN, VIDEO_STD))
        return mean, std

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (clamped to [-30, 20]) of the posterior, before normalisation."""
        chunk, frames = self.cfg.chunk_frames, video.shape[2]
        if chunk is None or frames == 1:
            parts = [self.encoder(video)]
        elif self.cfg.overlap:
            parts = [self.encoder(video[:, :, at : at + chunk]) for at in range(0, frames - 1, chunk - 1)]
        else:
            parts = [self.encoder(part) for part in video.split(chunk, dim=2)]
        mean, log_variance = torch.cat(parts, dim=2).chunk(2, dim=1)
        return mean, log_variance.clamp(-30.0, 20.0)

    def scale_latents(self, z: Tensor) -> Tensor:
        if self.cfg.normalise is None:
            return z
        mean, std = self._stats(z)
        return ((z - mean) / std).to(z.dtype)

    def encode(self, video: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.scale_latents(sample_gaussian(*self.moments(video), generator))

    def decode_chunks(self, latents: Tensor, frames: int) -> Iterator[Tensor]:
        """Decoded chunks in order; the frame that two chunks share is the mean of both versions."""
        length = latents.shape[2] if self.cfg.chunk_frames is None else self.cfg.latents_of_chunk(frames)

        def decoded(first: int) -> Tensor:
            z = latents[:, :, first : first + length]
            if self.cfg.normalise is not None:
                mean, std = (x if x.shape[2] == 1 else x[:, :, first : first + length] for x in self._stats(latents))
                z = (z * std + mean).to(z.dtype)
            return self.decoder(z)

        starts = range(0, latents.shape[2], length)
        shared: Tensor | None = None
        left = frames
        for i, x in enumerate(in_turn(starts, decoded, self.peers, latents)):
            if shared is not None:
                x = torch.cat([0.5 * (shared + x[:, :, :1]), x[:, :, 1:]], dim=2)
            if self.cfg.overlap and i + 1 < len(starts):
                x, shared = x[:, :, :-1], x[:, :, -1:].clone()
            count = x.shape[2]
            if left > 0:
                yield x[:, :, :left]
            left -= count
            del x  # before the next chunk is made
