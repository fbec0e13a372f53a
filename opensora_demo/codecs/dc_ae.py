"""Deep-compression autoencoder for video: 32 x in space, 4 x in time, 128 channels, no posterior.

Residual stages at high resolution, linear attention at low; every step down or up has a shortcut without weights that
folds space into channels and averages them, or repeats channels and unfolds them (Chen et al., "Deep compression
autoencoder", 2024). Not causal: a clip has a multiple of 4 frames, or one.

`scaling_factor` is a divisor, the latent's standard deviation itself: encode divides by it and decode multiplies
(`codecs.scaling` has both conventions, and what notices a factor of the other one). The published inference settings
leave it out.
Source: Open-Sora v2.0 opensora/models/dc_ae/models/dc_ae.py, nn/ops.py; names follow the published checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from opensora_demo.codecs.base import Codec
from opensora_demo.codecs.tiling import Tiling, code_tiles, first_frames

HEAD_WIDTH = 32  # channels of a head of the linear attention
EXPANSION = 4  # hidden channels of the gated convolution over its input's
EPS = 1e-15


@dataclass(frozen=True, slots=True, kw_only=True)
class DcAeConfig:
    """Numbers of a DC-AE; the defaults are the published dc-ae-f32t4c128 with tiles of 256 px and 32 frames.

    `attention` gives the sizes of the neighbourhoods that a stage attends with beside each place itself, None where it
    has residual blocks; `time` says between which stages time is halved and doubled. Depths are blocks per stage.
    `pixel_unshuffle` > 1 folds squares of that many pixels into channels before the network, so that a tiny model
    spends no convolutions at full resolution. `scaling_factor` is the std of raw latents (a divisor; None: 1).
    """

    latent_channels: int = 128
    widths: tuple[int, ...] = (128, 256, 512, 512, 1024, 1024)
    encoder_depths: tuple[int, ...] = (2, 2, 2, 3, 3, 3)
    decoder_depths: tuple[int, ...] = (3, 3, 3, 3, 3, 3)
    attention: tuple[tuple[int, ...] | None, ...] = (None, None, None, (5,), (5,), (5,))
    time: tuple[bool, ...] = (False, False, False, True, True, False)
    scaling_factor: float | None = None
    pixel_unshuffle: int = 1
    tiling: Tiling = field(
        default_factory=lambda: Tiling(
            spatial=True, temporal=True, tile_px=256, tile_latent=8, tile_frames=32, tile_latent_frames=8
        )
    )

    @property
    def time_factor(self) -> int:
        return int(2 ** sum(self.time[: len(self.widths) - 1]))

    @property
    def space_factor(self) -> int:
        return int(self.pixel_unshuffle * 2 ** (len(self.widths) - 1))

    def latent_size(self, frames: int, height_px: int, width_px: int) -> tuple[int, int, int]:
        """(t', h', w') of a clip's latents."""
        space = self.space_factor
        return (frames - 1) // self.time_factor + 1, (height_px - 1) // space + 1, (width_px - 1) // space + 1

    def build(self) -> DcAe:
        return DcAe(self)


class ChannelNorm(nn.Module):
    """x / rms(x) * weight + bias over the channels of (b, c, t, h, w), eps 1e-5."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.float().square().mean(1, keepdim=True) + 1e-5).to(x.dtype)
        return torch.addcmul(self.bias.view(-1, 1, 1, 1), x * scale, self.weight.view(-1, 1, 1, 1))


class ConvLayer(nn.Module):
    """Convolution that keeps the size at stride 1 (zeros all around, also in time), then perhaps a norm."""

    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int = 3,
        *,
        stride: tuple[int, int, int] = (1, 1, 1),
        groups: int = 1,
        bias: bool = True,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, out, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=bias)
        self.norm = ChannelNorm(out) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x if self.norm is None else self.norm(x)


class Fold(nn.Module):
    """Space (and time) into channels, then the mean of neighbouring ones down to `out`; a lone frame keeps its time."""

    def __init__(self, out: int, factor: int, *, time: bool = False) -> None:
        super().__init__()
        self.out, self.factor, self.time = out, factor, time

    def forward(self, x: Tensor) -> Tensor:
        r = self.factor
        rt = r if self.time and x.shape[2] > 1 else 1
        x = rearrange(x, "b c (t rt) (h rh) (w rw) -> b (c rt rh rw) t h w", rt=rt, rh=r, rw=r)
        return x.unflatten(1, (self.out, -1)).mean(2)


class Unfold(nn.Module):
    """Channels repeated, then out into space (and time): the way back of `Fold`."""

    def __init__(self, out: int, factor: int, *, time: bool = False) -> None:
        super().__init__()
        self.out, self.factor, self.time = out, factor, time

    def forward(self, x: Tensor) -> Tensor:
        r = self.factor
        rt = r if self.time and x.shape[2] > 1 else 1
        x = x.repeat_interleave(self.out * rt * r * r // x.shape[1], dim=1)
        return rearrange(x, "b (c rt rh rw) t h w -> b c (t rt) (h rh) (w rw)", rt=rt, rh=r, rw=r)


class Residual(nn.Module):
    def __init__(self, main: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.main = main
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x) + (x if self.shortcut is None else self.shortcut(x))


class ResBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = ConvLayer(width, width)
        self.conv2 = ConvLayer(width, width, bias=False, norm=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.silu(self.conv1(x)))


class LinearAttention(nn.Module):
    """relu(q) (relu(k)^T v) over all frames and places, divided by relu(q) relu(k)^T 1: linear in their number.

    Queries, keys and values are taken at each place and, for every scale, from its neighbourhood too.
    """

    def __init__(self, width: int, scales: tuple[int, ...]) -> None:
        super().__init__()
        heads = width // HEAD_WIDTH
        inner = heads * HEAD_WIDTH
        self.qkv = ConvLayer(width, 3 * inner, 1, bias=False)
        self.aggreg = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(3 * inner, 3 * inner, scale, padding=scale // 2, groups=3 * inner, bias=False),
                nn.Conv3d(3 * inner, 3 * inner, 1, groups=3 * heads, bias=False),
            )
            for scale in scales
        )
        self.proj = ConvLayer(inner * (1 + len(scales)), width, 1, bias=False, norm=True)

    def forward(self, x: Tensor) -> Tensor:
        t, h, w = x.shape[2:]
        qkv = self.qkv(x)
        qkv = torch.cat([qkv, *(op(qkv) for op in self.aggreg)], dim=1)
        q, k, v = rearrange(qkv, "b (heads three d) t h w -> three b heads d (t h w)", three=3, d=HEAD_WIDTH)
        q, k = F.relu(q), F.relu(k)
        v = F.pad(v, (0, 0, 0, 1), value=1.0)  # a last row of ones gathers the divisor
        out = ((v @ k.transpose(-1, -2)) @ q).float()
        out = out[:, :, :-1] / (out[:, :, -1:] + EPS)
        return self.proj(rearrange(out.to(x.dtype), "b heads d (t h w) -> b (heads d) t h w", t=t, h=h, w=w))


class GatedConv(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = EXPANSION * width
        self.inverted_conv = ConvLayer(width, 2 * hidden, 1)
        self.depth_conv = ConvLayer(2 * hidden, 2 * hidden, groups=2 * hidden)
        self.point_conv = ConvLayer(hidden, width, 1, bias=False, norm=True)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.depth_conv(F.silu(self.inverted_conv(x))).chunk(2, dim=1)
        return self.point_conv(x * F.silu(gate))


class AttentionBlock(nn.Module):
    def __init__(self, width: int, scales: tuple[int, ...]) -> None:
        super().__init__()
        self.context_module = Residual(LinearAttention(width, scales))
        self.local_module = Residual(GatedConv(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.local_module(self.context_module(x))


class Up(nn.Module):
    """Nearest neighbours, then a convolution; a lone frame stays one."""

    def __init__(self, channels: int, out: int, *, time: bool) -> None:
        super().__init__()
        self.time = time
        self.conv = ConvLayer(channels, out)

    def forward(self, x: Tensor) -> Tensor:
        scale = (2.0 if self.time and x.shape[2] > 1 else 1.0, 2.0, 2.0)
        return self.conv(F.interpolate(x, scale_factor=scale, mode="nearest"))


class Stage(nn.Module):
    def __init__(self, ops: list[nn.Module]) -> None:
        super().__init__()
        self.op_list = nn.ModuleList(ops)

    def forward(self, x: Tensor) -> Tensor:
        for op in self.op_list:
            x = op(x)
        return x


def _blocks(cfg: DcAeConfig, stage: int, depth: int) -> list[nn.Module]:
    width = cfg.widths[stage]
    scales = cfg.attention[stage]
    if scales is not None:
        return [AttentionBlock(width, scales) for _ in range(depth)]
    return [Residual(ResBlock(width)) for _ in range(depth)]


class Encoder(nn.Module):
    def __init__(self, cfg: DcAeConfig) -> None:
        super().__init__()
        self.fold = cfg.pixel_unshuffle
        self.project_in = ConvLayer(3 * cfg.pixel_unshuffle**2, cfg.widths[0])
        self.stages = nn.ModuleList()
        for i, depth in enumerate(cfg.encoder_depths):
            ops = _blocks(cfg, i, depth)
            if i < len(cfg.widths) - 1:
                stride = (2 if cfg.time[i] else 1, 2, 2)
                down = ConvLayer(cfg.widths[i], cfg.widths[i + 1], stride=stride)
                ops.append(Residual(down, Fold(cfg.widths[i + 1], 2, time=cfg.time[i])))
            self.stages.append(Stage(ops))
        project = Stage([ConvLayer(cfg.widths[-1], cfg.latent_channels)])
        self.project_out = Residual(project, Fold(cfg.latent_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = rearrange(x, "b c t (h ph) (w pw) -> b (c ph pw) t h w", ph=self.fold, pw=self.fold)
        x = self.project_in(x)
        for stage in self.stages:
            x = stage(x)
        return self.project_out(x)


class Decoder(nn.Module):
    def __init__(self, cfg: DcAeConfig) -> None:
        super().__init__()
        self.fold = cfg.pixel_unshuffle
        self.project_in = Residual(ConvLayer(cfg.latent_channels, cfg.widths[-1]), Unfold(cfg.widths[-1], 1))
        self.stages = nn.ModuleList()
        for i, depth in enumerate(cfg.decoder_depths):
            ops = _blocks(cfg, i, depth)
            if i < len(cfg.widths) - 1:
                up = Up(cfg.widths[i + 1], cfg.widths[i], time=cfg.time[i])
                ops.insert(0, Residual(up, Unfold(cfg.widths[i], 2, time=cfg.time[i])))
            self.stages.append(Stage(ops))
        self.project_out = Stage(
            [ChannelNorm(cfg.widths[0]), nn.ReLU(), ConvLayer(cfg.widths[0], 3 * cfg.pixel_unshuffle**2)]
        )

    def forward(self, z: Tensor) -> Tensor:
        x = self.project_in(z)
        for stage in reversed(self.stages):
            x = stage(x)
        x = self.project_out(x)
        return rearrange(x, "b (c ph pw) t h w -> b c t (h ph) (w pw)", ph=self.fold, pw=self.fold)


class DcAe(Codec):
    """Video (b, 3, t, h, w) in [-1, 1] <-> latents (b, c, t / 4, h / 32, w / 32); one frame is one latent frame."""

    def __init__(self, cfg: DcAeConfig) -> None:
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

    @property
    def copies(self) -> int:
        return self.cfg.time_factor - 1

    def latent_size(self, frames: int, height_px: int, width_px: int) -> tuple[int, int, int]:
        return self.cfg.latent_size(frames, height_px, width_px)

    def encode(self, video: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Latents; there is no posterior to draw from, so `generator` changes nothing.

        Raises ValueError for a clip whose length is neither 1 nor a multiple of the time factor.
        """
        frames = video.shape[2]
        if frames > 1 and frames % self.cfg.time_factor:
            raise ValueError(f"a clip must have 1 frame or a multiple of {self.cfg.time_factor}, not {frames}")
        z = torch.cat(
            list(code_tiles(video, self.encoder, self.cfg.tiling, decode=False, causal=False, peers=self.peers)), dim=2
        )
        return z if self.cfg.scaling_factor is None else z / self.cfg.scaling_factor

    def decode_chunks(self, latents: Tensor, frames: int) -> Iterator[Tensor]:
        """Decoded tiles in time where the configuration has them and the clip is longer than one; else all frames at
        once."""
        parts = code_tiles(latents, self._decode_tile, self.cfg.tiling, decode=True, causal=False, peers=self.peers)
        yield from first_frames(parts, frames)

    def _decode_tile(self, z: Tensor) -> Tensor:
        return self.decoder(z if self.cfg.scaling_factor is None else z * self.cfg.scaling_factor)
