"""nano's codec: its encoder looks at half the size, its decoder gives the whole one, a part of the frames at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from opensora_demo.catalog import NANO
from opensora_demo.catalog.nano import CODEC
from opensora_demo.codecs.video_vae import VideoVAE
from opensora_demo.pipeline import run
from opensora_demo.request.parse import parse_request
from opensora_demo.runtime.bundle import ModelBundle
from opensora_demo.weights.reading import random_module


def test_the_encoder_looks_at_means_of_squares(nano: ModelBundle) -> None:
    rng = np.random.default_rng(1)
    means = torch.from_numpy(rng.uniform(-0.5, 0.5, (1, 3, 5, 64, 64))).float()
    plain = means.repeat_interleave(2, -1).repeat_interleave(2, -2)
    detail = torch.tensor([[0.3, -0.3], [-0.3, 0.3]]).repeat(64, 64)
    with torch.inference_mode():
        latents = [nano.codec.encode(video) for video in (plain, plain + detail)]
    assert latents[0].shape == (1, 16, 2, 8, 8)
    assert nano.codec.latent_size(5, 128, 128) == (2, 8, 8)
    assert torch.allclose(*latents, atol=1e-4)


def test_a_given_frame_is_kept(nano: ModelBundle) -> None:
    x = np.linspace(0, 255, 128, dtype=np.uint8)
    picture = np.broadcast_to(x[None, None, :, None], (1, 128, 128, 3)).copy()
    raw = {"prompt": "a red ball bouncing over a meadow", "seed": 3, "steps": 2, "frames": 9}
    request = parse_request(raw, model_id=NANO.id, limits=NANO.limits, reference=picture)
    clip = run(nano, request).clips[0].frames
    assert clip.shape == (9, 128, 128, 3)
    assert np.abs(clip[0].astype(int) - picture[0]).mean() < 35  # which is like nothing the codec has seen
    assert clip[0, :, 8:24].mean() < clip[0, :, 104:120].mean() - 100


def test_frames_go_through_in_parts_that_change_nothing() -> None:
    codec = random_module(lambda: VideoVAE(CODEC), 1)
    whole = random_module(lambda: VideoVAE(replace(CODEC, image=replace(CODEC.image, micro_batch=1000))), 1)
    seen: list[int] = []
    for module in (codec.spatial_vae.module.encoder, codec.spatial_vae.module.decoder):
        module.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    video = torch.rand(1, 3, 17, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = codec.encode(video)
    torch.testing.assert_close(latents, whole.encode(video), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(codec.decode(latents, 17), whole.decode(latents, 17), atol=1e-5, rtol=1e-4)
    assert seen == [9, 8, 9, 8]
