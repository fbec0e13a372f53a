"""Train the codecs on freshly rendered clips: the two stages of the video VAE together, or a DC-AE.

For the VAE each clip is encoded whole, 17 frames, and a few of its frames are decoded to pixels: the temporal stage
sees all of time, the costly full-resolution decoder only a sample of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from opensora_demo.codecs.dc_ae import DcAe, DcAeConfig
from opensora_demo.codecs.video_vae import VideoVAE, VideoVaeConfig
from opensora_demo.frames import to_video
from opensora_demo.toy.worlds import FRAMES, SIZE_PX, render, sample_scene
from opensora_demo.training.diffusers_folder import load_image_vae
from opensora_demo.training.pool import load_pool
from opensora_demo.training.precision import half_precision
from opensora_demo.weights.reading import read_state

LATENT_NOISE = 0.03  # of a pool's latents, in units of their spread


@dataclass
class VaeJob:
    """Three phases, as Open-Sora 1.2 trained its own (report 3): the image VAE on frames, the temporal VAE on the
    image VAE's latents, then both together.

    `source` draws so many clips (b, 3, t, h, w) and masks (b, 1, t, h, w) in place of the renderer. With a `pool` of
    the latents that stay, only the frames that are compared are drawn, and nothing is encoded.

    Pixel loss: object-weighted L1 + L2. A weak KL keeps latents smooth; noise of the posterior is in every decode.
    """

    cfg: VideoVaeConfig
    image_steps: int
    temporal_steps: int
    start: tuple[Path, ...] = ()  # weight files to go on from, instead of from nothing
    image_vae: Path | None = None  # folder of a 2-D VAE as diffusers saves it, which the first stage starts as
    decoder_only: bool = False  # latents stay what they are, and with them a pool and what was trained on it
    pairs: float = 0.25
    batch: int = 4
    decoded_frames: int = 5
    object_weight: float = 3.0
    kl_weight: float = 1e-4
    device: str = "cpu"
    pool: Path | None = None
    source: Callable[[np.random.Generator, int], tuple[Tensor, Tensor]] | None = None

    def __post_init__(self) -> None:
        self.model = VideoVAE(self.cfg)
        for p in self.model.parameters():
            if p.ndim > 1:  # orthogonal kernels: signals keep their size through the untrained stack
                torch.nn.init.orthogonal_(p)
        if self.start:
            grow(self.model, read_state(list(self.start)))
        if self.image_vae is not None:
            grow(self.model.spatial_vae, load_image_vae(self.image_vae, subfolder="").state_dict())
        if self.decoder_only:
            for encoder in encoders(self.model):
                encoder.requires_grad_(False)
        self.latents: NDArray[np.float16] | None = None
        if self.pool is not None:
            self.latents, self.scenes = load_pool(self.pool)
        self.model.spatial_vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model.to(self.device)

    def clips(self, rng: np.random.Generator, count: int, frames: int = FRAMES) -> tuple[Tensor, Tensor]:
        """`count` clips and their masks, fresh ones or `source`'s."""
        if self.source is None:
            video, mask = draw_clips(rng, count, frames, self.pairs, SIZE_PX * self.cfg.image.upscale)
        else:
            video, mask = self.source(rng, count)
        return video[:, :, :frames].to(self.device), mask[:, :, :frames].to(self.device)

    def loss(self, rng: np.random.Generator, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        if step < self.image_steps:
            return self.image_loss(rng, generator)
        if step < self.image_steps + self.temporal_steps:
            return self.temporal_loss(rng, generator)
        return self.joint_loss(rng, generator)

    def image_loss(self, rng: np.random.Generator, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Two frames of each of many clips through the 2-D stage alone."""
        video, mask = self.clips(rng, self.batch * 6, 2)
        with half_precision(self.device):
            z = self.model.spatial_vae.encode(video).float()
            noisy = z + 0.1 * torch.randn(z.shape, generator=generator).to(z)
            decoded = self.model.spatial_vae.decode_frames(noisy)
        loss, psnr = pixel_loss(decoded, video, mask, self.object_weight)
        return loss + self.kl_weight * z.square().mean(), {"psnr": psnr, "z": float(z.detach().std())}

    def temporal_loss(self, rng: np.random.Generator, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Whole clips: the temporal stage reproduces the frozen image latents."""
        video, _ = self.clips(rng, self.batch * 2)
        with half_precision(self.device):
            with torch.no_grad():
                target = self.model.spatial_vae.encode(video).float()
            decoded, posterior, _ = self.model.temporal_vae(target, generator=generator)
        loss = (decoded.float() - target).square().mean() / target.var()
        kl = posterior.kl()
        return loss + self.kl_weight * kl, {"latent_error": float(loss.detach()), "kl": float(kl.detach())}

    def joint_loss(self, rng: np.random.Generator, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Whole clips through both stages; pixels are compared on a few frames."""
        if self.latents is not None:
            return self.pool_loss(rng, generator)
        video, mask = self.clips(rng, self.batch)
        keep = torch.from_numpy(np.sort(rng.choice(video.shape[2], self.decoded_frames, replace=False)))
        vae = self.model
        with half_precision(self.device):
            with torch.set_grad_enabled(not self.decoder_only):
                posterior = vae.temporal_vae.encode(vae.spatial_vae.encode(video))
            z = posterior.float().sample(generator)
            decoded = vae.spatial_vae.decode_frames(vae.temporal_vae.decode(z, video.shape[2])[:, :, keep])
        loss, psnr = pixel_loss(decoded, video[:, :, keep], mask[:, :, keep], self.object_weight)
        kl = posterior.kl()
        return loss + self.kl_weight * kl, {"psnr": psnr, "kl": float(kl.detach())}

    def pool_loss(self, rng: np.random.Generator, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The same for latents of a pool, with a little noise in the place of the posterior's."""
        assert self.latents is not None
        chosen = rng.integers(len(self.scenes), size=self.batch)
        keep = np.sort(rng.choice(FRAMES, self.decoded_frames, replace=False))
        size_px = SIZE_PX * self.cfg.image.upscale
        drawn = [render(self.scenes[i], FRAMES, size_px, keep.tolist()) for i in chosen]
        video = to_video(np.stack([clip for clip, _ in drawn])).to(self.device)
        mask = torch.from_numpy(np.stack([mask for _, mask in drawn])).float()[:, None].to(self.device) / 255
        z = torch.from_numpy(self.latents[chosen]).float()
        z = (z + LATENT_NOISE * z.std() * torch.randn(z.shape, generator=generator)).to(self.device)
        vae = self.model
        with half_precision(self.device):
            decoded = vae.spatial_vae.decode_frames(vae.temporal_vae.decode(z, FRAMES)[:, :, torch.from_numpy(keep)])
        loss, psnr = pixel_loss(decoded, video, mask, self.object_weight)
        return loss, {"psnr": psnr}


@dataclass
class DcAeJob:
    """Crops of clips through a DC-AE, some clips whole, and now and then lone frames, which it codes in another way.

    Now and then a clip is decoded with the latent of a lone frame, the last of the first group, in the place of the
    first: that is what a clip that goes on from a given frame looks like to the decoder.

    Most is learnt from crops of half the size: more steps in the same time (Chen et al. 2024 train their autoencoder
    small first). There is no posterior: a little noise on the latents and a weak pull to zero keep them
    smooth. `batch` counts whole clips.
    """

    cfg: DcAeConfig
    frames: int = 16
    size_px: int = 128
    start: tuple[Path, ...] = ()
    decoder_only: bool = False
    pairs: float = 0.25
    batch: int = 4
    object_weight: float = 3.0
    latent_noise: float = 0.05
    pull: float = 1e-4
    still_share: float = 0.05
    whole_share: float = 0.15
    given_share: float = 0.15

    def __post_init__(self) -> None:
        self.model = DcAe(self.cfg)
        for name, p in self.model.named_parameters():
            if p.ndim > 1 and p.shape[1] > 1:
                torch.nn.init.orthogonal_(p)
            elif name.endswith("norm.weight"):
                torch.nn.init.constant_(p, 0.5)
        if self.start:
            self.model.load_state_dict(read_state(list(self.start)))
        if self.decoder_only:
            self.model.encoder.requires_grad_(False)

    def loss(self, rng: np.random.Generator, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        kind = rng.random()
        still, whole = kind < self.still_share, kind > 1 - self.whole_share
        count = self.batch * (4 if still else 1 if whole else 3)
        video, mask = draw_clips(rng, count, 1 if still else self.frames, self.pairs, self.size_px)
        if not still and not whole:
            video, mask = crop_clips(rng, video, mask, self.size_px // 2)
        # In bfloat16 the gradients of convolutions over fewer places than their kernel has are not finite.
        with half_precision("cpu", enabled=not still):
            with torch.set_grad_enabled(not self.decoder_only):
                z = self.model.encoder(video).float()
            if not still and rng.random() < self.given_share:
                at = self.cfg.time_factor - 1
                with torch.no_grad():
                    lone = self.model.encoder(video[:, :, at : at + 1]).float()
                z = torch.cat([lone, z[:, :, 1:]], dim=2)
            noise = torch.randn(z.shape, generator=generator)
            decoded = self.model.decoder(z + self.latent_noise * z.detach().std() * noise)
        loss, psnr = pixel_loss(decoded, video, mask, self.object_weight)
        metrics = {"psnr": psnr, "z": float(z.detach().std())} if whole else {}
        return loss + self.pull * z.square().mean(), metrics


def crop_clips(rng: np.random.Generator, video: Tensor, mask: Tensor, size_px: int) -> tuple[Tensor, Tensor]:
    """A square of each clip and of its mask: three in four near a place where the object is at some time."""
    height, width = video.shape[3:]
    corners = []
    for path in mask[:, 0].amax(1).numpy():
        places = np.argwhere(path > 0.5)
        if len(places) and rng.random() < 0.75:
            y, x = places[rng.integers(len(places))] - size_px // 2 + rng.integers(-size_px // 4, size_px // 4 + 1, 2)
        else:
            y, x = rng.integers(0, (height - size_px + 1, width - size_px + 1))
        corners.append((int(np.clip(y, 0, height - size_px)), int(np.clip(x, 0, width - size_px))))
    squares = [(i, ..., slice(y, y + size_px), slice(x, x + size_px)) for i, (y, x) in enumerate(corners)]
    return torch.stack([video[s] for s in squares]), torch.stack([mask[s] for s in squares])


def pixel_loss(decoded: Tensor, video: Tensor, mask: Tensor, object_weight: float) -> tuple[Tensor, float]:
    """L1 + 12 L2, objects weighed more; and the PSNR in dB."""
    d = decoded.float() - video
    weight = 1 + object_weight * mask
    loss = (weight * (d.abs() + 12 * d.square())).sum() / (3 * weight.sum())
    return loss, float(-10 * torch.log10(d.detach().square().mean() / 4))


def encoders(vae: VideoVAE) -> tuple[nn.Module, ...]:
    """Whatever a latent depends on."""
    image, temporal = vae.spatial_vae.module, vae.temporal_vae
    return image.encoder, image.quant_conv, temporal.encoder, temporal.quant_conv


def grow(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load the weights of a smaller model; residual blocks and refining convolutions that it lacks start as the
    identity."""
    own = model.state_dict()
    if wrong := [name for name, value in state.items() if name in own and own[name].shape != value.shape]:
        raise ValueError(f"weights of another shape than the model's: {', '.join(wrong[:5])}")
    loaded = model.load_state_dict(state, strict=False)
    if loaded.unexpected_keys:
        raise ValueError(f"weights that the model has no place for: {', '.join(loaded.unexpected_keys[:5])}")
    for name in loaded.missing_keys:
        if ".conv2." in name or ".refine.2." in name:
            own[name].zero_()


def draw_clips(
    rng: np.random.Generator, count: int, frames: int | None = None, pairs: float = 0.0, size_px: int = SIZE_PX
) -> tuple[Tensor, Tensor]:
    """Fresh clips (b, 3, t, h, w) in [-1, 1] and object masks (b, 1, t, h, w) in [0, 1]; `frames` shortens them,
    `pairs` is the share of clips with two objects."""
    scenes = [sample_scene(rng, pairs=pairs) for _ in range(count)]
    clips, masks = zip(*(render(s, frames or FRAMES, size_px) for s in scenes), strict=True)
    return to_video(np.stack(clips)), torch.from_numpy(np.stack(masks)).float()[:, None] / 255
