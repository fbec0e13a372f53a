"""The two-stage VAE: causality, lengths, the scale that latents leave with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from opensora_demo.codecs.gaussian import Posterior
from opensora_demo.codecs.image_vae import ImageVaeConfig
from opensora_demo.codecs.temporal_vae import TemporalVAE, TemporalVaeConfig
from opensora_demo.codecs.video_vae import VideoVAE, VideoVaeConfig
from opensora_demo.nn.causal_conv import ReplicateConv3d
from opensora_demo.preview import fit_matrix, latent_to_rgb
from opensora_demo.runtime.bundle import ModelBundle

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


@pytest.mark.parametrize("padding", ["zeros", "first frame", "both sides"])
def test_only_padding_on_both_sides_looks_ahead(padding: Any) -> None:
    torch.manual_seed(0)
    vae = TemporalVAE(replace(TEMPORAL, time_padding=padding)).eval().requires_grad_(False)
    x = torch.randn(1, 4, 16, 4, 4)
    y = x.clone()
    y[:, :, 12:] += 1  # frames 12 to 15 are latent 3
    a, b = vae.encode(x).mean, vae.encode(y).mean
    causal = padding != "both sides"
    assert torch.equal(a[:, :, :3], b[:, :, :3]) == causal
    assert VideoVAE(VideoVaeConfig(image=IMAGE, temporal=vae.cfg)).causal == causal
    still = vae.decode(a, 16)
    moved = vae.decode(b, 16)
    assert torch.equal(still[:, :, :12], moved[:, :, :12]) == (torch.equal(a[:, :, :3], b[:, :, :3]))


def test_padding_on_both_sides_is_set_by_the_number_of_frames() -> None:
    vae = TemporalVAE(replace(TEMPORAL, time_padding="both sides")).requires_grad_(False)
    flags = []
    for frames in (1, 8, 1):
        vae.encode(torch.zeros(1, 4, frames, 4, 4))
        flags.append({part.padding_flag for part in vae.modules() if isinstance(part, ReplicateConv3d)})
        vae.decode(torch.zeros(1, 4, -(-frames // 4), 4, 4), frames)
    assert flags == [{1}, {2}, {1}]


def test_copies_of_the_first_frame_show_a_still_clip_as_still() -> None:
    torch.manual_seed(0)
    vae = TemporalVAE(replace(TEMPORAL, time_padding="first frame")).eval().requires_grad_(False)
    latents = vae.encode(torch.randn(1, 4, 1, 4, 4).expand(-1, -1, 8, -1, -1)).mean
    torch.testing.assert_close(latents[:, :, 1], latents[:, :, 0])
    zeros = TemporalVAE(TEMPORAL).eval().requires_grad_(False)
    latents = zeros.encode(torch.randn(1, 4, 1, 4, 4).expand(-1, -1, 8, -1, -1)).mean
    assert not torch.allclose(latents[:, :, 1], latents[:, :, 0], atol=1e-3)


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


@pytest.mark.slow
def test_nano_reproduces_rendered_clips(nano: ModelBundle) -> None:
    import numpy as np

    from opensora_demo.training.train_vae import draw_clips

    video, _ = draw_clips(np.random.default_rng(99), 8, size_px=128)
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


# --- what the article's class offers --------------------------------------------------------------------------------


def article_latent_size(input_size: tuple[int | None, ...], factor: int) -> list[int | None]:
    """VAE_Temporal.get_latent_size of "Open-Sora code in detail (2)", retyped."""
    patch_size, latent_size = (factor, 1, 1), []
    for i in range(3):
        n = input_size[i]
        if n is None:
            lsize = None
        elif i == 0:
            time_padding = 0 if n % factor == 0 else factor - n % factor
            lsize = (n + time_padding) // patch_size[i]
        else:
            lsize = n // patch_size[i]
        latent_size.append(lsize)
    return latent_size


def test_the_size_of_latents_is_the_articles_and_what_encode_gives() -> None:
    vae = TemporalVAE(TEMPORAL).eval().requires_grad_(False)
    for frames in range(1, 21):
        size = vae.get_latent_size((frames, 2, 3))
        assert size == article_latent_size((frames, 2, 3), 4)
        assert size == list(vae.encode(torch.zeros(1, 4, frames, 2, 3)).mean.shape[2:])
    for unknown in ((None, 2, 3), (5, None, 3), (5, 2, None), (None, None, None)):
        assert vae.get_latent_size(unknown) == article_latent_size(unknown, 4)


def test_the_whole_vae_knows_its_sizes_in_part(vae: VideoVAE) -> None:
    for frames in (1, 3, 16, 17, 18, 33, 34, 35, 51):
        shape = vae.encode(torch.zeros(1, 3, frames, 4, 8)).shape[2:]
        assert vae.get_latent_size((frames, 4, 8)) == list(shape)
        assert vae.get_latent_size((frames, None, None)) == [shape[0], None, None]
    assert vae.get_latent_size((None, 4, None)) == [None, 2, None]


def test_forward_gives_reconstruction_posterior_and_latent() -> None:
    torch.manual_seed(0)
    vae = TemporalVAE(TEMPORAL).eval().requires_grad_(False)
    x = torch.randn(1, 4, 6, 4, 4)
    expected = vae.encode(x)
    decoded, posterior, z = vae(x, sample_posterior=False)
    assert torch.equal(z, expected.mean)
    assert torch.equal(posterior.log_variance, expected.log_variance)
    assert torch.equal(decoded, vae.decode(expected.mean, 6))
    decoded, posterior, z = vae(x, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(z, posterior.mean + torch.exp(0.5 * posterior.log_variance) * noise)
    assert torch.equal(decoded, vae.decode(z, 6))
    assert decoded.shape == x.shape
    with pytest.raises(ValueError, match="generator"):
        vae(x)


def test_the_divergence_of_a_posterior_is_that_of_torch() -> None:
    torch.manual_seed(0)
    posterior = Posterior(torch.randn(2, 3, 4), torch.randn(2, 3, 4))
    normal = torch.distributions.Normal(posterior.mean, (0.5 * posterior.log_variance).exp())
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(posterior.kl(), expected)


def test_latents_may_be_narrower_than_what_the_encoder_says() -> None:
    vae = TemporalVAE(replace(TEMPORAL, latent_channels=3, embed_channels=6)).requires_grad_(False)
    shapes = {name: list(value.shape) for name, value in vae.state_dict().items()}
    assert shapes["encoder.conv2.conv.weight"][0] == 2 * 6
    assert shapes["quant_conv.conv.weight"] == [2 * 3, 2 * 6, 1, 1, 1]  # 2 embed_dim from 2 latent_embed_dim
    assert shapes["post_quant_conv.conv.weight"] == [6, 3, 1, 1, 1]
    assert shapes["decoder.conv1.conv.weight"][1] == 6
    posterior = vae.encode(torch.zeros(1, 4, 8, 2, 2))
    assert posterior.mean.shape == (1, 3, 2, 2, 2)
    assert vae.decode(posterior.mean, 8).shape == (1, 4, 8, 2, 2)


@pytest.mark.parametrize(("name", "activation"), [("swish", torch.nn.SiLU()), ("relu", torch.nn.ReLU())])
def test_the_activation_is_the_one_that_is_named(name: Any, activation: torch.nn.Module) -> None:
    torch.manual_seed(0)
    block = TemporalVAE(replace(TEMPORAL, activation=name)).encoder.res_blocks[0].requires_grad_(False)
    x = torch.randn(1, 16, 4, 3, 3)
    h = block.conv1(activation(block.norm1(x)))
    assert torch.equal(block(x), x + block.conv2(activation(block.norm2(h))))
