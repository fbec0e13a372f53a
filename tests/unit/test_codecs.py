"""The two-stage VAE: causality, lengths, the scale that latents leave with."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from opensora_demo.bundle import ModelBundle
from opensora_demo.codecs.image_vae import ImageVaeConfig
from opensora_demo.codecs.temporal_vae import TemporalVAE, TemporalVaeConfig
from opensora_demo.codecs.video_vae import VideoVAE, VideoVaeConfig
from opensora_demo.preview import fit_matrix, latent_to_rgb

TEMPORAL = TemporalVaeConfig(
    in_channels=4,
    latent_channels=4,
    filters=8,
    res_blocks=1,
    channel_multipliers=(1, 2, 2),
    temporal_downsample=(True, True),
    norm_groups=4,
    norm_per_frame=True,
)
IMAGE = ImageVaeConfig(block_channels=(8, 16), layers_per_block=1, norm_groups=4, mid_attention=False)


@pytest.fixture
def vae() -> VideoVAE:
    torch.manual_seed(1)
    vae = VideoVAE(VideoVaeConfig(image=IMAGE, temporal=TEMPORAL)).eval().requires_grad_(False)
    vae.shift.normal_()
    vae.scale.uniform_(0.5, 3)
    return vae


def test_a_later_frame_cannot_change_earlier_latents() -> None:
    torch.manual_seed(0)
    vae = TemporalVAE(TEMPORAL).eval().requires_grad_(False)
    x = torch.randn(1, 4, 17, 4, 4)
    y = x.clone()
    y[:, :, 9:] += 1  # frames 9 to 16 are latents 3 and 4
    a, b = vae.encode(x)[0], vae.encode(y)[0]
    assert torch.equal(a[:, :, :3], b[:, :, :3])
    assert not torch.allclose(a[:, :, 3:], b[:, :, 3:])


def test_norms_over_time_are_the_one_leak_of_the_published_model() -> None:
    torch.manual_seed(0)
    vae = TemporalVAE(replace(TEMPORAL, norm_per_frame=False)).eval().requires_grad_(False)
    x = torch.randn(1, 4, 17, 4, 4)
    y = x.clone()
    y[:, :, 9:] *= 3
    assert not torch.equal(vae.encode(x)[0][:, :, 0], vae.encode(y)[0][:, :, 0])


def test_a_lone_frame_has_the_first_latent_of_its_clip(vae: VideoVAE) -> None:
    video = torch.rand(1, 3, 17, 16, 16) * 2 - 1
    torch.testing.assert_close(vae.encode(video[:, :, :1])[:, :, 0], vae.encode(video)[:, :, 0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("frames", [1, 4, 5, 16, 17, 18, 34, 40])
def test_any_length_goes_in_and_comes_out(vae: VideoVAE, frames: int) -> None:
    latents = vae.encode(torch.rand(1, 3, frames, 8, 8) * 2 - 1)
    assert latents.shape[2:] == vae.latent_size(frames, 8, 8)
    assert vae.decode(latents, frames).shape == (1, 3, frames, 8, 8)


def test_scale_and_shift_close_the_round_trip(vae: VideoVAE) -> None:
    video = torch.rand(1, 3, 5, 8, 8) * 2 - 1
    expected = vae.decode(vae.encode(video), 5)
    vae.shift.zero_()
    vae.scale.fill_(1)
    torch.testing.assert_close(vae.decode(vae.encode(video), 5), expected, atol=1e-4, rtol=1e-4)


def test_posterior_samples_differ_and_repeat(vae: VideoVAE) -> None:
    video = torch.rand(1, 3, 5, 8, 8) * 2 - 1

    def draw(seed: int) -> torch.Tensor:
        return vae.encode(video, torch.Generator().manual_seed(seed))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert torch.equal(vae.encode(video), vae.encode(video))


def test_decoding_in_chunks_is_decoding(vae: VideoVAE) -> None:
    latents = torch.randn(1, 4, 10, 4, 4)
    assert torch.equal(torch.cat(list(vae.decode_chunks(latents, 34)), 2), vae.decode(latents, 34))


def test_nano_reproduces_rendered_clips(nano: ModelBundle) -> None:
    import numpy as np

    from opensora_demo.training.train_vae import draw_clips

    video, _ = draw_clips(np.random.default_rng(99), 8)
    latents = nano.codec.encode(video)
    error = (nano.codec.decode(latents, 17).clamp(-1, 1) - video).square().mean()
    assert -10 * torch.log10(error / 4) > 27
    assert abs(float(latents.mean())) < 0.15
    assert 0.8 < float(latents.std()) < 1.25
    rgb = latent_to_rgb(latents[0], nano.preview_matrix)
    small = torch.nn.functional.adaptive_avg_pool3d(video[0], (17, 8, 8))[:, ::4]
    rough = torch.from_numpy(rgb).permute(3, 0, 1, 2).float() / 127.5 - 1
    assert float((rough - small).square().mean()) < 0.25 * float(small.var())


def test_preview_matrix_finds_a_linear_code() -> None:
    torch.manual_seed(0)
    true = torch.randn(5, 3) * 0.2
    latents = torch.randn(4, 4, 1, 8, 8)
    video = torch.einsum("bcthw,cr->brthw", latents, true[:4]) + true[4].view(1, 3, 1, 1, 1)
    torch.testing.assert_close(fit_matrix(latents, video), true, atol=1e-4, rtol=1e-3)
