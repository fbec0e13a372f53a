"""The codecs of 1.0, 1.3 and 2.0 under one interface: sizes, scale, order, causality, tiles, gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opensora_demo.catalog import MODELS
from opensora_demo.codecs.base import Codec
from opensora_demo.codecs.dc_ae import DcAe, DcAeConfig
from opensora_demo.codecs.hunyuan import HunyuanConfig, HunyuanVAE
from opensora_demo.codecs.image_vae import ImageVAE, ImageVaeConfig
from opensora_demo.codecs.temporal_vae import TemporalVaeConfig
from opensora_demo.codecs.tiling import Tiling, fade, spatial_tiles, temporal_tiles
from opensora_demo.codecs.vae_v13 import VaeV13, VaeV13Config
from opensora_demo.codecs.video_vae import VideoVAE, VideoVaeConfig
from opensora_demo.request.parse import parse_request
from opensora_demo.runtime.cost.estimator import Estimator, Machine
from opensora_demo.weights.reading import random_module
from tests.models import sampled

IMAGE = ImageVaeConfig(block_channels=(8, 16), layers_per_block=1, norm_groups=4)
V12 = VideoVaeConfig(
    image=IMAGE,
    temporal=TemporalVaeConfig(
        filters=8, res_blocks=1, channel_multipliers=(1, 1, 2), temporal_downsample=(True, True), norm_groups=4
    ),
)
V13 = VaeV13Config(channels=32, multipliers=(1, 1, 1), res_blocks=0, down_in_time=(0, 1), up_in_time=(1, 2))
V13 = replace(V13, chunk_frames=9)
V13_BY_2 = replace(V13, down_in_time=(1,), up_in_time=(2,))
V13_BY_8 = replace(V13, multipliers=(1, 1, 1, 1), down_in_time=(0, 1, 2), up_in_time=(1, 2, 3))
HUNYUAN = HunyuanConfig(
    latent_channels=4, block_channels=(4, 8, 8, 8), layers_per_block=1, norm_groups=2, tiling=Tiling()
)
DC_AE = DcAeConfig(
    latent_channels=8,
    widths=(8, 16, 32),
    encoder_depths=(1, 1, 1),
    decoder_depths=(1, 1, 1),
    attention=(None, None, (5,)),
    time=(False, True, False),
    tiling=Tiling(),
)


def make(build: Callable[[], Any]) -> Any:
    """Seeded weights, and norms that are not the identity, so that a wrong scale cannot hide."""
    torch.manual_seed(3)
    module = build().eval().requires_grad_(False)
    for name, value in module.named_parameters():
        if value.ndim == 1:
            value.normal_(1.0 if name.endswith("weight") else 0.0, 0.2)
    return module


CODECS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "1.0": (lambda: ImageVAE(IMAGE), (1, 6)),
    "1.2": (lambda: VideoVAE(V12), (1, 5, 17, 20)),
    "1.3": (lambda: VaeV13(V13), (1, 9, 17, 25)),
    "1.3 apart": (lambda: VaeV13(replace(V13, overlap=False)), (1, 9, 18)),
    "1.3 whole": (lambda: VaeV13(replace(V13, chunk_frames=None)), (1, 5, 13)),
    "1.3, 2 x in time": (lambda: VaeV13(V13_BY_2), (1, 9, 17, 25)),
    "1.3, 2 x in time, whole": (lambda: VaeV13(replace(V13_BY_2, chunk_frames=None)), (1, 3, 7)),
    "1.3, 8 x in time": (lambda: VaeV13(V13_BY_8), (1, 9, 17, 25)),
    "1.3, 8 x in time, apart": (lambda: VaeV13(replace(V13_BY_8, overlap=False, chunk_frames=17)), (1, 17, 34)),
    "2.0": (lambda: HunyuanVAE(HUNYUAN), (1, 5, 9)),
    "2.0 without attention": (lambda: HunyuanVAE(replace(HUNYUAN, mid_attention=False)), (1, 9)),
    "2.0 DC-AE": (lambda: DcAe(DC_AE), (1, 4, 8)),
    "2.0 DC-AE, no neighbourhoods": (lambda: DcAe(replace(DC_AE, attention=(None, None, ()))), (1, 4)),
}


# One of each kind, which `make test` tries.
SOME = ("1.0", "1.2", "1.3", "1.3 whole", "1.3, 2 x in time", "2.0", "2.0 DC-AE")


def clip(frames: int, *, batch: int = 1, seed: int = 0, height: int = 16, width: int = 24) -> Tensor:
    return torch.rand((batch, 3, frames, height, width), generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(CODECS, *SOME))
def test_sizes_agree_and_parts_make_the_clip(name: str) -> None:
    build, lengths = CODECS[name]
    codec: Codec = make(build)
    for frames in lengths:
        video = clip(frames)
        latents = codec.encode(video)
        assert tuple(latents.shape[1:]) == (codec.latent_channels, *codec.latent_size(frames, 16, 24))
        parts = list(codec.decode_chunks(latents, frames))
        assert torch.cat(parts, dim=2).shape == video.shape


@pytest.mark.parametrize("name", [case for case in sampled(CODECS, *SOME) if case.id != "1.2"])
@pytest.mark.slow
def test_no_more_frames_than_asked_for(name: str) -> None:
    """Also where the clip ends inside an early chunk. (1.2 pads and decodes by the length: it must be the clip's.)"""
    build, lengths = CODECS[name]
    codec: Codec = make(build)
    latents = codec.encode(clip(lengths[-1]))
    whole = torch.cat(list(codec.decode_chunks(latents, lengths[-1])), dim=2)
    few = torch.cat(list(codec.decode_chunks(latents, 2)), dim=2)
    assert few.shape[2] == 2
    assert torch.equal(few, whole[:, :, :2])


@pytest.mark.parametrize("name", CODECS)
def test_rows_of_a_batch_do_not_meet(name: str) -> None:
    build, lengths = CODECS[name]
    codec: Codec = make(build)
    video = clip(lengths[1], batch=2)
    both = codec.encode(video)
    alone = torch.cat([codec.encode(row[None]) for row in video])
    torch.testing.assert_close(both, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["1.0", "1.2", "1.3", "2.0"])
def test_draws_need_a_generator_and_repeat(name: str) -> None:
    codec: Codec = make(CODECS[name][0])
    video = clip(9)

    def draw(seed: int) -> Tensor:
        return codec.encode(video, torch.Generator().manual_seed(seed))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert torch.equal(codec.encode(video), codec.encode(video))


# --- the latent scale ----------------------------------------------------------------------------------------------


def _scaled_video_vae(scale: float, shift: float) -> VideoVAE:
    vae: VideoVAE = make(lambda: VideoVAE(V12))
    vae.scale.fill_(scale)
    vae.shift.fill_(shift)
    return vae


# A codec whose latents are raw, and one that shifts and scales them: (raw - shift) * factor, the last two numbers.
SCALES: dict[str, tuple[Callable[[], Any], Callable[[], Any], float, float]] = {
    "1.0 multiplies by 1 / std": (
        lambda: make(lambda: ImageVAE(replace(IMAGE, latent_scale=1.0))),
        lambda: make(lambda: ImageVAE(replace(IMAGE, latent_scale=0.18215))),
        0.0,
        0.18215,
    ),
    "1.2 divides by std": (lambda: _scaled_video_vae(1.0, 0.0), lambda: _scaled_video_vae(4.0, 0.3), 0.3, 0.25),
    "2.0 multiplies by 1 / std": (
        lambda: make(lambda: HunyuanVAE(replace(HUNYUAN, latent_scale=1.0))),
        lambda: make(lambda: HunyuanVAE(replace(HUNYUAN, latent_scale=0.5, latent_shift=0.2))),
        0.2,
        0.5,
    ),
    "DC-AE divides by std": (
        lambda: make(lambda: DcAe(DC_AE)),
        lambda: make(lambda: DcAe(replace(DC_AE, scaling_factor=0.493))),
        0.0,
        1 / 0.493,
    ),
}


@pytest.mark.parametrize("name", SCALES)
def test_a_round_trip_does_not_depend_on_the_scale(name: str) -> None:
    raw, scaled, shift, factor = SCALES[name]
    a, b = raw(), scaled()
    video = clip(8)
    za, zb = a.encode(video), b.encode(video)
    torch.testing.assert_close(zb, (za - shift) * factor, atol=1e-5, rtol=1e-5)
    back, scaled_back = (torch.cat(list(c.decode_chunks(z, 8)), dim=2) for c, z in ((a, za), (b, zb)))
    torch.testing.assert_close(scaled_back, back, atol=1e-4, rtol=1e-4)


def test_normalised_and_raw_latents_of_v13_decode_alike() -> None:
    raw, scaled = (make(lambda n=n: VaeV13(replace(V13, normalise=n))) for n in (None, "video"))
    video = clip(17)
    za, zb = raw.encode(video), scaled.encode(video)
    assert not torch.allclose(za, zb, atol=1e-2)
    torch.testing.assert_close(scaled.decode(zb, 17), raw.decode(za, 17), atol=1e-4, rtol=1e-4)


def test_chunks_of_v13_can_be_counted_as_upstream_counts_them() -> None:
    """Upstream's code decodes (chunk - 1) // 4 + 1 latents together at any time factor: here 3 of the 5 that a chunk of
    9 frames has at factor 2, so that clips come out longer or shorter than they went in."""
    codec = make(lambda: VaeV13(replace(V13_BY_2, chunk_latents=3)))
    z = codec.encode(clip(17))
    assert (z.shape[2], codec.latent_size(17, 16, 24)[0]) == (10, 6)
    parts = [codec.decode(part, 99) for part in z.split(3, dim=2)]
    assert [part.shape[2] for part in parts] == [5, 5, 5, 1]
    assert codec.decode(z, 99).shape[2] == 5 + 4 + 4 + 0
    less = make(lambda: VaeV13(replace(V13_BY_2, chunk_frames=None, cut_frames=0)))
    more = make(lambda: VaeV13(replace(V13_BY_2, chunk_frames=None, cut_frames=3)))
    latents = less.encode(clip(5))
    assert (less.decode(latents, 99).shape[2], more.decode(latents, 99).shape[2]) == (6, 3)
    torch.testing.assert_close(less.decode(latents, 99)[:, :, 3:], more.decode(latents, 99))


SIZES = {
    "1.0": (ImageVaeConfig(), ((1, 64, 64), (16, 72, 40), (3, 61, 100))),
    "1.2": (VideoVaeConfig(), ((1, 64, 64), (17, 48, 80), (20, 61, 100))),
    "1.3": (VaeV13Config(), ((1, 64, 64), (17, 48, 80), (33, 8, 24))),
    "1.3 by 2": (
        VaeV13Config(multipliers=(1, 2, 4), down_in_time=(1,), up_in_time=(2,)),
        ((1, 64, 64), (17, 44, 80), (33, 8, 24)),
    ),
    "1.3 by 8": (
        VaeV13Config(down_in_time=(0, 1, 2), up_in_time=(1, 2, 3)),
        ((1, 64, 64), (17, 48, 80), (49, 8, 24)),
    ),
    "2.0": (HunyuanConfig(), ((1, 64, 64), (9, 48, 80), (33, 61, 99))),
    "2.0 DC-AE": (DcAeConfig(), ((1, 64, 64), (4, 32, 96), (32, 256, 160))),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(SIZES, "1.0", "1.3", "2.0", "2.0 DC-AE"))
def test_a_codecs_latent_size_is_that_of_what_it_encodes(name: str) -> None:
    """Of pictures of any size that it takes, square or not, whole patches or not; its numbers alone say it."""
    config, sizes = SIZES[name]
    with torch.device("meta"):
        codec = config.build()
        for size in sizes:
            latents = codec.encode(torch.empty(1, 3, *size))
            assert tuple(latents.shape) == (1, codec.latent_channels, *config.latent_size(*size)), size
            assert codec.latent_size(*size) == config.latent_size(*size)


# --- causality -----------------------------------------------------------------------------------------------------


def without_norms(module: nn.Module) -> nn.Module:
    """Group norms pool over time: they are the one way in which a later frame reaches earlier outputs."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.GroupNorm):
                setattr(parent, name, nn.Identity())
    return module


def first_changed(a: Tensor, b: Tensor) -> int:
    """The first frame in which two clips differ."""
    return int(((a - b).abs().amax((0, 1, 3, 4)) > 0).nonzero()[0])


CAUSAL = {
    "1.3": lambda: VaeV13(replace(V13, chunk_frames=None)),
    "2.0": lambda: HunyuanVAE(HUNYUAN),
}


@pytest.mark.parametrize("name", CAUSAL)
def test_a_later_frame_cannot_change_earlier_outputs(name: str) -> None:
    codec = without_norms(make(CAUSAL[name]))
    a = clip(13)
    b = a.clone()
    b[:, :, 9:] += 0.5  # frames 9 to 12 are the last latent
    za, zb = codec.encode(a), codec.encode(b)
    assert first_changed(za, zb) == 3
    assert first_changed(codec.decode(za, 13), codec.decode(zb, 13)) == 9


@pytest.mark.parametrize("name", CAUSAL)
def test_group_norms_over_time_are_the_one_leak(name: str) -> None:
    codec = make(CAUSAL[name])
    a = clip(13)
    b = a.clone()
    b[:, :, 9:] += 0.5
    assert first_changed(codec.encode(a), codec.encode(b)) == 0


def test_chunks_of_v13_meet_in_one_frame_only() -> None:
    codec = make(lambda: VaeV13(V13))  # chunks of 9 frames: 0 to 8, 8 to 16
    a = clip(17)
    b = a.clone()
    b[:, :, 9:] += 0.5
    za, zb = codec.encode(a), codec.encode(b)
    assert first_changed(za, zb) == 3  # the second chunk's latents
    assert first_changed(codec.decode(za, 17), codec.decode(zb, 17)) == 8  # the shared frame, a mean of both chunks


def test_the_frame_that_chunks_of_v13_share_is_the_mean_of_both() -> None:
    codec = make(lambda: VaeV13(replace(V13, normalise=None)))
    latents = codec.encode(clip(17))
    whole = codec.decode(latents, 17)
    before, after = (codec.decode(part, 9) for part in latents.split(3, dim=2))
    torch.testing.assert_close(whole[:, :, :8], before[:, :, :8])
    torch.testing.assert_close(whole[:, :, 8], (before[:, :, 8] + after[:, :, 0]) / 2)
    torch.testing.assert_close(whole[:, :, 9:], after[:, :, 1:])


def test_dc_ae_is_not_causal() -> None:
    codec = make(lambda: DcAe(DC_AE))
    a = clip(8)
    b = a.clone()
    b[:, :, 7] += 0.5
    assert first_changed(codec.encode(a), codec.encode(b)) == 0


# --- Hunyuan's attention -------------------------------------------------------------------------------------------


def test_frame_by_frame_attention_is_the_masked_one() -> None:
    """diffusers' own middle block, with its mask of tokens by tokens, gives the same."""
    middle = make(lambda: HunyuanVAE(HUNYUAN)).encoder.mid_block
    x = torch.randn(2, 8, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(middle(x), type(middle).forward(middle, x), atol=1e-5, rtol=1e-4)


# --- tiles ---------------------------------------------------------------------------------------------------------


def test_fading_goes_from_one_tile_to_the_next() -> None:
    a, b = torch.zeros(1, 1, 1, 1, 8), torch.ones(1, 1, 1, 1, 8)
    fade(a, b, -1, 4)
    assert b.flatten().tolist() == [0, 0.25, 0.5, 0.75, 1, 1, 1, 1]
    fade(a[..., :2], b, -1, 4)  # a tile shorter than the overlap
    assert b.flatten().tolist()[:3] == [0, 0.125, 0.5]
    before = b.clone()
    fade(a, b, -1, 0)
    assert torch.equal(b, before)


@pytest.mark.parametrize(("height", "width"), [(8, 16), (40, 40), (24, 56)])
def test_tiles_of_a_local_map_leave_no_seam(height: int, width: int) -> None:
    """Where every tile is right, fading between tiles changes nothing: pooling by 8 and its way back."""
    x = torch.randn(1, 2, 3, height, width, generator=torch.Generator().manual_seed(2))
    small = F.avg_pool3d(x, (1, 8, 8))
    tiled = spatial_tiles(x, lambda tile: F.avg_pool3d(tile, (1, 8, 8)), 32, 4, 0.25)
    torch.testing.assert_close(tiled, small)
    large = F.interpolate(small, scale_factor=(1.0, 8.0, 8.0))
    back = spatial_tiles(small, lambda tile: F.interpolate(tile, scale_factor=(1.0, 8.0, 8.0)), 4, 32, 0.25)
    torch.testing.assert_close(back, large)


@pytest.mark.parametrize("frames", [5, 9, 17, 33])
def test_causal_tiles_in_time_leave_no_seam(frames: int) -> None:
    """A map that keeps the first frame and pools the others by 4, as a causal codec's lengths go."""

    def shorten(x: Tensor) -> Tensor:
        return torch.cat([x[:, :, :1], F.avg_pool3d(x[:, :, 1:], (4, 1, 1))], dim=2) if x.shape[2] > 1 else x

    x = torch.randn(1, 2, frames, 2, 2, generator=torch.Generator().manual_seed(2))
    tiled = torch.cat(list(temporal_tiles(x, shorten, 16, 4, 0.25, causal=True)), dim=2)
    torch.testing.assert_close(tiled, shorten(x))


@pytest.mark.parametrize("frames", [4, 16, 32])
def test_tiles_in_time_leave_no_seam(frames: int) -> None:
    x = torch.randn(1, 2, frames, 2, 2, generator=torch.Generator().manual_seed(2))
    tiled = torch.cat(list(temporal_tiles(x, lambda v: F.avg_pool3d(v, (4, 1, 1)), 16, 4, 0.25, causal=False)), dim=2)
    torch.testing.assert_close(tiled, F.avg_pool3d(x, (4, 1, 1)))


SMALL_TILES = Tiling(spatial=True, temporal=True, tile_px=32, tile_latent=4, tile_frames=16, tile_latent_frames=4)


def test_tiles_of_hunyuan_arrive_one_after_another() -> None:
    codec = make(lambda: HunyuanVAE(replace(HUNYUAN, tiling=SMALL_TILES)))
    video = clip(33, height=40, width=32)
    latents = codec.encode(video)
    assert tuple(latents.shape[2:]) == codec.latent_size(33, 40, 32)
    parts = list(codec.decode_chunks(latents, 33))
    assert len(parts) > 1
    assert torch.equal(torch.cat(parts, dim=2), codec.decode(latents, 33))
    assert codec.decode(latents, 33).shape == video.shape


def test_tiles_of_dc_ae_arrive_one_after_another() -> None:
    tiling = replace(SMALL_TILES, tile_px=16, tile_latent=4, tile_frames=8)
    codec = make(lambda: DcAe(replace(DC_AE, tiling=tiling)))
    video = clip(16, height=24, width=20)
    latents = codec.encode(video)
    assert tuple(latents.shape[2:]) == codec.latent_size(16, 24, 20)
    parts = list(codec.decode_chunks(latents, 16))
    assert len(parts) > 1
    assert torch.cat(parts, dim=2).shape == video.shape


# --- training a DC-AE ----------------------------------------------------------------------------------------------


def test_dc_ae_takes_one_frame_or_whole_groups() -> None:
    with pytest.raises(ValueError, match="multiple of 2"):
        make(lambda: DcAe(DC_AE)).encode(clip(5))


@pytest.mark.slow
def test_dc_ae_learns() -> None:
    torch.manual_seed(0)
    codec = DcAe(DC_AE).train()
    video = clip(4, batch=2)
    optimizer = torch.optim.Adam(codec.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = (codec.decode(codec.encode(video), 4) - video).square().mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in codec.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] < 3  # untrained: not far from a clip's own variance of 1 / 3
    assert losses[-1] < 0.9 * losses[0]


def test_dc_ae_starts_near_unit_variance() -> None:
    """The default initialisation neither fades nor explodes through six stages."""
    torch.manual_seed(0)
    codec = DcAe(
        replace(
            DC_AE,
            latent_channels=16,
            widths=(8, 16, 32, 32, 64),
            encoder_depths=(1,) * 5,
            decoder_depths=(1,) * 5,
            attention=(None, None, None, (5,), (5,)),
            time=(False, True, True, False, False),
        )
    )
    with torch.no_grad():
        latents = codec.encode(clip(8, height=32, width=32))
        assert 0.05 < float(latents.std()) < 20
        assert float(codec.decode(latents, 8).abs().max()) < 50


def test_hunyuan_tiles_in_time_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    tiling = Tiling(tile_latent_frames=4, tile_frames=16)
    codec = random_module(lambda: HunyuanVAE(replace(HUNYUAN, tiling=tiling)), 0)
    tiled = random_module(lambda: HunyuanVAE(replace(HUNYUAN, tiling=replace(tiling, temporal=True))), 0)
    z = torch.randn(1, 4, 9, 4, 4)
    whole = codec.decode(z, 33)
    assert len(list(codec.decode_chunks(z, 33))) == 1
    monkeypatch.setattr("opensora_demo.codecs.hunyuan.total_bytes", lambda device: 0)
    parts = list(codec.decode_chunks(z, 33))
    assert len(parts) == 3
    assert torch.equal(torch.cat(parts, 2), tiled.decode(z, 33))
    assert not torch.equal(torch.cat(parts, 2), whole)


@pytest.mark.slow
@pytest.mark.thorough
def test_what_hunyuan_takes_is_guessed_well() -> None:
    """The guess that decides about tiles, against the count."""
    spec = MODELS["opensora-2.0"]
    for resolution, frames in (("256px", 129), ("768px", 33)):
        raw = {"prompt": "a ball", "seed": 0, "resolution": resolution, "frames": frames}
        request = parse_request(raw, model_id=spec.id, limits=spec.limits)
        machine = Machine("a GPU", 1 << 62, torch.device("cuda"))
        counted = Estimator(machine=machine).work(spec, request)["decode"].peak_bytes
        s = request.shape
        guess = HunyuanConfig().whole_bytes(HunyuanConfig().latent_size(s.frames, s.height_px, s.width_px), 2)
        assert 0.95 < guess / counted < 1.15, (resolution, frames, guess / counted)
