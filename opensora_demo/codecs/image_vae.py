"""2-D image VAE, applied to each frame of a clip in micro-batches. The network is diffusers' AutoencoderKL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from opensora_demo.codecs.base import Codec
from opensora_demo.codecs.gaussian import sample_gaussian
from opensora_demo.import_lock import IMPORT_LOCK
from opensora_demo.nn.peers import in_turn
from opensora_demo.nn.threads import side_by_side


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageVaeConfig:
    """Numbers of the image VAE. The defaults are the SDXL autoencoder that Open-Sora 1.2 starts from.

    `pixel_unshuffle` > 1 folds squares of that many pixels into channels before the network, so that a tiny model
    spends no convolutions at full resolution. `latent_scale` multiplies latents (0.18215 in 1.x, as in DiT).
    `decoder_layers` is the decoder's own `layers_per_block` where it differs from the encoder's (0: it does not).
    `upscale` > 1: frames are so many times as large as what the encoder looks at, which are means over squares of that
    many pixels, and the decoder makes the whole size of unchanged latents. `refine` is the width of two convolutions
    that then go over the picture before the last folding (0: none).
    """

    latent_channels: int = 4
    block_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    decoder_layers: int = 0
    norm_groups: int = 32
    mid_attention: bool = True
    pixel_unshuffle: int = 1
    latent_scale: float = 0.18215
    micro_batch: int = 4
    upscale: int = 1
    refine: int = 0

    @property
    def space_factor(self) -> int:
        return self.upscale * self.pixel_unshuffle * 2 ** (len(self.block_channels) - 1)

    def latent_size(self, frames: int, height_px: int, width_px: int) -> tuple[int, int, int]:
        """(t, h', w'): time is left as it is."""
        return frames, height_px // self.space_factor, width_px // self.space_factor

    def build(self) -> ImageVAE:
        return ImageVAE(self)


_OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


class ImageVAE(Codec):
    """Frames (b, 3, t, h, w) in [-1, 1] <-> latents (b, c, t, h / 8, w / 8), each frame by itself."""

    def __init__(self, cfg: ImageVaeConfig) -> None:
        super().__init__()
        with IMPORT_LOCK:
            from diffusers import AutoencoderKL
            from diffusers.models.autoencoders.vae import Decoder

        self.cfg = cfg
        self.splits_batches = False  # among threads that compute alone: faster for small networks on a CPU
        levels = len(cfg.block_channels)
        self.module = AutoencoderKL(
            in_channels=3 * cfg.pixel_unshuffle**2,
            out_channels=3 * (cfg.upscale * cfg.pixel_unshuffle) ** 2,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=cfg.block_channels,
            layers_per_block=cfg.layers_per_block,
            latent_channels=cfg.latent_channels,
            norm_num_groups=cfg.norm_groups,
            mid_block_add_attention=cfg.mid_attention,
        )
        if cfg.decoder_layers:
            self.module.decoder = Decoder(
                in_channels=cfg.latent_channels,
                out_channels=3 * (cfg.upscale * cfg.pixel_unshuffle) ** 2,
                up_block_types=("UpDecoderBlock2D",) * levels,
                block_out_channels=cfg.block_channels,
                layers_per_block=cfg.decoder_layers,
                norm_num_groups=cfg.norm_groups,
                mid_block_add_attention=cfg.mid_attention,
            )
        if cfg.refine:
            folded = 3 * cfg.upscale**2
            self.refine = nn.Sequential(
                nn.Conv2d(folded, cfg.refine, 3, padding=1), nn.SiLU(), nn.Conv2d(cfg.refine, folded, 3, padding=1)
            )

    @property
    def latent_channels(self) -> int:
        return self.cfg.latent_channels

    def latent_size(self, frames: int, height_px: int, width_px: int) -> tuple[int, int, int]:
        return self.cfg.latent_size(frames, height_px, width_px)

    def encode(self, video: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Latents times `latent_scale`; a draw from the posterior with a generator, its mean without."""
        b = video.shape[0]
        frames = rearrange(video, "b c t h w -> (b t) c h w")
        if self.cfg.upscale > 1:
            frames = F.avg_pool2d(frames, self.cfg.upscale)
        frames = F.pixel_unshuffle(frames, self.cfg.pixel_unshuffle)
        parts = []
        for part in frames.split(self.cfg.micro_batch):
            mean, log_variance = self.module.quant_conv(self.module.encoder(part)).chunk(2, dim=1)
            parts.append(sample_gaussian(mean, log_variance.clamp(-30.0, 20.0), generator))
        z = torch.cat(parts) * self.cfg.latent_scale
        return rearrange(z, "(b t) c h w -> b c t h w", b=b)

    def decode_chunks(self, latents: Tensor, frames: int) -> Iterator[Tensor]:
        """A few frames at a time."""
        parts = latents[:, :, :frames].split(self.cfg.micro_batch, dim=2)
        return in_turn(parts, self.decode_frames, self.peers, latents)

    def decode_frames(self, z: Tensor) -> Tensor:
        """All frames of all clips, in micro-batches; where there are enough of them, one on each thread."""
        b = z.shape[0]
        z = rearrange(z, "b c t h w -> (b t) c h w") / self.cfg.latent_scale
        parts = z.split(self.cfg.micro_batch)
        threads = torch.get_num_threads() if self.splits_batches and z.device.type == "cpu" else 1
        at_once = threads if len(parts) >= threads else 1
        groups = [parts[at : at + at_once] for at in range(0, len(parts), at_once)]
        frames = torch.cat([part for group in groups for part in side_by_side(self._decode_part, group)])
        return rearrange(frames, "(b t) c h w -> b c t h w", b=b)

    def _decode_part(self, z: Tensor) -> Tensor:
        frames = self.module.decoder(self.module.post_quant_conv(z))
        frames = F.pixel_shuffle(frames, self.cfg.pixel_unshuffle)  # (n, 3 u^2, h / u, w / u)
        if self.cfg.refine:
            frames = frames + self.refine(frames)
        return F.pixel_shuffle(frames, self.cfg.upscale)

    @staticmethod
    def published_name(name: str) -> str:
        """diffusers' AutoencoderKL had other names for its attention once."""
        for old, new in _OLD_ATTENTION.items():
            name = name.replace(old, new)
        return f"module.{name}"
