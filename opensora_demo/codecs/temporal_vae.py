"""Causal temporal VAE of Open-Sora 1.2: latents of single frames <-> latents of a clip, 4x shorter in time.

Parameter names and shapes follow the published checkpoint (OpenSora-VAE-v1.2, `temporal_vae.*`).
Source: Open-Sora v1.2.0 opensora/models/vae/vae_temporal.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from opensora_demo.codecs.gaussian import Posterior
from opensora_demo.nn.causal_conv import (
    CausalConv3d,
    ReplicateConv3d,
    set_padding_more_frame,
    set_padding_one_frame,
)

Activation = Literal["swish", "relu"]
_ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {"swish": F.silu, "relu": F.relu}


@dataclass(frozen=True, slots=True, kw_only=True)
class TemporalVaeConfig:
    """Numbers of a temporal VAE. The defaults are the published 1.2 model (VAE_Temporal_SD).

    `norm_per_frame` computes the group statistics of every frame by itself. The published model pools them over
    time, so that a later frame changes earlier latents a little; with the switch on, coding is strictly causal and
    the latent of a lone first frame equals the first latent of its clip. `decoder_extra` adds residual blocks to the
    decoder's levels, the one at the full frame rate first (none in the published model).

    `latent_channels` are those of what `encode` gives; `embed_channels` those between the encoder, or the decoder, and
    the convolution of kernel 1 that leads from or to the latents (None: as many). `time_padding` says what stands
    beside the frames of a convolution: "zeros" in front (the published model), copies of the "first frame" in front, or
    zeros on "both sides", where a frame sees later ones.
    """

    in_channels: int = 4
    latent_channels: int = 4
    embed_channels: int | None = None
    filters: int = 128
    res_blocks: int = 4
    channel_multipliers: tuple[int, ...] = (1, 2, 2, 4)
    temporal_downsample: tuple[bool, ...] = (False, True, True)
    norm_groups: int = 32
    norm_per_frame: bool = False
    decoder_extra: tuple[int, ...] = ()
    activation: Activation = "swish"
    time_padding: Literal["zeros", "first frame", "both sides"] = "zeros"

    @property
    def time_factor(self) -> int:
        return 2 ** sum(self.temporal_downsample)

    def latent_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """(t', h, w) of the latents of a clip that is 2-D latents itself, whose places stay as they are."""
        return -(-frames // self.time_factor), height, width

    @property
    def between_channels(self) -> int:
        """Those of `embed_channels`, whether said or not."""
        return self.latent_channels if self.embed_channels is None else self.embed_channels

    def conv(
        self, channels: int, out: int, kernel: int, *, stride: tuple[int, int, int] = (1, 1, 1), bias: bool = True
    ) -> nn.Module:
        """A convolution that keeps the size of space, with this VAE's padding in time."""
        if self.time_padding == "zeros":
            return CausalConv3d(channels, out, kernel, stride=stride, bias=bias)
        return ReplicateConv3d(channels, out, kernel, stride=stride, padding=None, bias=bias)

    def activate(self, x: Tensor) -> Tensor:
        return _ACTIVATIONS[self.activation](x)


class Norm(nn.GroupNorm):
    """Group norm over (c, t, h, w), or over (c, h, w) of each frame."""

    def __init__(self, channels: int, cfg: TemporalVaeConfig) -> None:
        super().__init__(cfg.norm_groups, channels, eps=1e-5)
        self.per_frame = cfg.norm_per_frame

    def forward(self, x: Tensor) -> Tensor:
        if not self.per_frame:
            return super().forward(x)
        b = x.shape[0]
        x = rearrange(x, "b c t h w -> (b t) c h w")
        return rearrange(super().forward(x), "(b t) c h w -> b c t h w", b=b)


class ResBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, cfg: TemporalVaeConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.norm1 = Norm(in_channels, cfg)
        self.conv1 = cfg.conv(in_channels, out_channels, 3, bias=False)
        self.norm2 = Norm(out_channels, cfg)
        self.conv2 = cfg.conv(out_channels, out_channels, 3, bias=False)
        if in_channels != out_channels:
            self.conv3 = cfg.conv(in_channels, out_channels, 1, bias=False)
        self.has_shortcut = in_channels != out_channels

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(self.cfg.activate(self.norm1(x)))
        h = self.conv2(self.cfg.activate(self.norm2(h)))
        return h + (self.conv3(x) if self.has_shortcut else x)


class Encoder(nn.Module):
    def __init__(self, cfg: TemporalVaeConfig) -> None:
        super().__init__()
        self.cfg = cfg
        widths = [cfg.filters * m for m in cfg.channel_multipliers]
        self.conv_in = cfg.conv(cfg.in_channels, cfg.filters, 3, bias=False)
        self.block_res_blocks = nn.ModuleList()
        self.conv_blocks = nn.ModuleList()
        previous = cfg.filters
        for i, width in enumerate(widths):
            self.block_res_blocks.append(
                nn.ModuleList(ResBlock(previous if j == 0 else width, width, cfg) for j in range(cfg.res_blocks))
            )
            if i < len(widths) - 1:
                down = cfg.temporal_downsample[i]
                self.conv_blocks.append(cfg.conv(width, width, 3, stride=(2, 1, 1)) if down else nn.Identity())
            previous = width
        self.res_blocks = nn.ModuleList(ResBlock(previous, previous, cfg) for _ in range(cfg.res_blocks))
        self.norm1 = Norm(previous, cfg)
        self.conv2 = cfg.conv(previous, 2 * cfg.between_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for i, blocks in enumerate(self.block_res_blocks):
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x)
            if i < len(self.conv_blocks):
                x = self.conv_blocks[i](x)  # (b, c, t / 2, h, w) where the stage shortens time
        for block in self.res_blocks:
            x = block(x)
        return self.conv2(self.cfg.activate(self.norm1(x)))  # (b, 2 * embed_channels, t / 4, h, w)


class Decoder(nn.Module):
    def __init__(self, cfg: TemporalVaeConfig) -> None:
        super().__init__()
        self.cfg = cfg
        widths = [cfg.filters * m for m in cfg.channel_multipliers]
        previous = widths[-1]
        self.conv1 = cfg.conv(cfg.between_channels, previous, 3)
        self.res_blocks = nn.ModuleList(ResBlock(previous, previous, cfg) for _ in range(cfg.res_blocks))
        blocks: list[nn.Module] = []
        ups: list[nn.Module] = []
        for i in reversed(range(len(widths))):
            width = widths[i]
            count = cfg.res_blocks + (cfg.decoder_extra[i] if cfg.decoder_extra else 0)
            blocks.insert(0, nn.ModuleList(ResBlock(previous if j == 0 else width, width, cfg) for j in range(count)))
            if i > 0:
                up = cfg.temporal_downsample[i - 1]
                ups.insert(0, cfg.conv(width, 2 * width, 3) if up else nn.Identity())
            previous = width
        self.block_res_blocks = nn.ModuleList(blocks)
        self.conv_blocks = nn.ModuleList(ups)
        self.norm1 = Norm(previous, cfg)
        self.conv_out = cfg.conv(previous, cfg.in_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for block in self.res_blocks:
            x = block(x)
        for i in reversed(range(len(self.block_res_blocks))):
            for block in self.block_res_blocks[i]:  # type: ignore[attr-defined]
                x = block(x)
            if i > 0 and not isinstance(self.conv_blocks[i - 1], nn.Identity):
                x = rearrange(self.conv_blocks[i - 1](x), "b (c u) t h w -> b c (t u) h w", u=2)
        return self.conv_out(self.cfg.activate(self.norm1(x)))  # (b, in_channels, 4 t, h, w)


class TemporalVAE(nn.Module):
    """(b, c, t, h, w) latents of frames <-> (b, c', ceil(t / 4), h, w) latents of the clip.

    The length is padded in front with zeros to a multiple of 4 when encoding; decoding cuts the same frames off.
    """

    def __init__(self, cfg: TemporalVaeConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.encoder = Encoder(cfg)
        self.quant_conv = cfg.conv(2 * cfg.between_channels, 2 * cfg.latent_channels, 1)
        self.post_quant_conv = cfg.conv(cfg.latent_channels, cfg.between_channels, 1)
        self.decoder = Decoder(cfg)

    def padding(self, frames: int) -> int:
        return -frames % self.cfg.time_factor

    def get_latent_size(self, input_size: Sequence[int | None]) -> list[int | None]:
        """(t', h, w) of the latents of (t, h, w); what is None, not known yet, stays None."""
        frames, height, width = input_size
        return [None if frames is None else -(-frames // self.cfg.time_factor), height, width]

    def _set_padding(self, frames: int) -> None:
        if self.cfg.time_padding == "both sides":
            (set_padding_one_frame if frames == 1 else set_padding_more_frame)(self)

    def encode(self, x: Tensor) -> Posterior:
        """The diagonal Gaussian posterior, its log-variance clamped to [-30, 20]."""
        self._set_padding(x.shape[2])
        x = F.pad(x, (0, 0, 0, 0, self.padding(x.shape[2]), 0))
        mean, log_variance = self.quant_conv(self.encoder(x)).chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(-30.0, 20.0))

    def decode(self, z: Tensor, frames: int) -> Tensor:
        self._set_padding(frames)
        x = self.decoder(self.post_quant_conv(z))
        return x[:, :, self.padding(frames) :]

    def forward(
        self, x: Tensor, *, sample_posterior: bool = True, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Posterior, Tensor]:
        """The reconstruction of x, the posterior, and the latent z that was decoded: a draw, or without
        `sample_posterior` the mean. Training calls it; draws are in float32.

        Raises ValueError where a draw is asked for without a generator.
        """
        posterior = self.encode(x)
        z = posterior.float().sample(generator) if sample_posterior else posterior.mode()
        return self.decode(z, x.shape[2]), posterior, z
