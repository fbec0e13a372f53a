"""Two-stage 3-D VAE of Open-Sora 1.2: a 2-D VAE per frame, then a causal temporal VAE, in chunks of 17 frames.

Names follow the published checkpoint: `spatial_vae.module.*`, `temporal_vae.*`, `scale`, `shift`.
Source: Open-Sora v1.2.0 opensora/models/vae/vae.py (VideoAutoencoderPipeline).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from opensora_demo.codecs.base import Codec
from opensora_demo.codecs.gaussian import sample_gaussian
from opensora_demo.codecs.image_vae import ImageVAE, ImageVaeConfig
from opensora_demo.codecs.temporal_vae import TemporalVAE, TemporalVaeConfig
from opensora_demo.nn.peers import in_turn


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoVaeConfig:
    """`chunk_frames` frames are coded together and know nothing of their neighbours (17 in 1.2)."""

    image: ImageVaeConfig = field(default_factory=ImageVaeConfig)
    temporal: TemporalVaeConfig = field(default_factory=TemporalVaeConfig)
    chunk_frames: int = 17

    def latent_size(self, frames: int, height_px: int, width_px: int) -> tuple[int, int, int]:
        """(t', h', w') of a clip's latents: every chunk is padded to a multiple of the time factor by itself."""
        size = self.image.latent_size(frames, height_px, width_px)
        full, rest = divmod(frames, self.chunk_frames)
        whole, last = (self.temporal.latent_size(count, *size[1:]) for count in (self.chunk_frames, rest))
        return full * whole[0] + last[0], *whole[1:]

    def build(self) -> VideoVAE:
        return VideoVAE(self)


class VideoVAE(Codec):
    """Video (b, 3, t, h, w) in [-1, 1] <-> latents (b, c, t', h / 8, w / 8) of about zero mean and unit variance.

    Latents leave as (z - shift) / scale, with `shift` and `scale` per channel measured on data, and enter `decode`
    the same way: nothing outside this class knows either number.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, cfg: VideoVaeConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.spatial_vae = ImageVAE(cfg.image)
        self.temporal_vae = TemporalVAE(cfg.temporal)
        channels = cfg.temporal.latent_channels
        self.register_buffer("scale", torch.ones(1, channels, 1, 1, 1))
        self.register_buffer("shift", torch.zeros(1, channels, 1, 1, 1))

    @property
    def latent_channels(self) -> int:
        return self.cfg.temporal.latent_channels

    @property
    def time_factor(self) -> int:
        return self.cfg.temporal.time_factor

    @property
    def causal(self) -> bool:
        return self.cfg.temporal.time_padding != "both sides"

    def chunks(self, frames: int) -> tuple[int, int]:
        return self.cfg.chunk_frames, self.cfg.chunk_frames

    def latent_size(self, frames: int, height_px: int, width_px: int) -> tuple[int, int, int]:
        return self.cfg.latent_size(frames, height_px, width_px)

    def encode(self, video: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Latents of a clip; posterior samples with a generator, posterior means without."""
        z = self.spatial_vae.encode(video, generator)
        parts = [self.temporal_vae.encode(part) for part in z.split(self.cfg.chunk_frames, dim=2)]
        latents = torch.cat([sample_gaussian(*posterior, generator) for posterior in parts], dim=2)
        return (latents - self.shift) / self.scale

    def decode_chunks(self, latents: Tensor, frames: int) -> Iterator[Tensor]:
        """Decoded frames, one chunk at a time, so that memory does not grow with the clip."""
        step = -(-self.cfg.chunk_frames // self.cfg.temporal.time_factor)
        counts = [min(self.cfg.chunk_frames, frames - at) for at in range(0, frames, self.cfg.chunk_frames)]

        def decoded(part: tuple[Tensor, int]) -> Tensor:
            z, count = part
            return self.spatial_vae.decode_frames(self.temporal_vae.decode(z * self.scale + self.shift, count))

        parts = list(zip(latents.split(step, dim=2), counts, strict=True))
        yield from in_turn(parts, decoded, self.peers, latents)

    def stages(self, video: Tensor) -> Iterator[tuple[str, Tensor]]:
        yield "2-D latents", self.spatial_vae.encode(video)

    def prepare_for_cpu(self) -> None:
        self.spatial_vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.spatial_vae.splits_batches = True
