"""A 2-D VAE from a folder that diffusers wrote: read by itself, and what training goes on from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from opensora_demo.codecs.temporal_vae import TemporalVaeConfig
from opensora_demo.codecs.video_vae import VideoVaeConfig
from opensora_demo.errors import WeightsError
from opensora_demo.training.diffusers_folder import load_image_vae
from opensora_demo.training.train_vae import VaeJob

NUMBERS = {"block_out_channels": (8, 16), "layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `pixart_sigma_sdxlvae_T5_diffusers` is laid out: the VAE in `vae`."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("pixart")
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    AutoencoderKL(**NUMBERS, **kinds, scaling_factor=0.13025).save_pretrained(root / "vae")
    return root


def test_a_vae_of_its_own_is_diffusers_frame_by_frame(folder: Path) -> None:
    from diffusers import AutoencoderKL

    theirs = AutoencoderKL.from_pretrained(folder, subfolder="vae").eval().requires_grad_(False)
    ours = load_image_vae(folder, micro_batch=2)
    assert (ours.cfg.latent_scale, ours.cfg.micro_batch, ours.cfg.block_channels) == (0.13025, 2, (8, 16))
    video = torch.rand(1, 3, 5, 16, 24) * 2 - 1
    seen: list[int] = []
    ours.module.encoder.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    latents = ours.encode(video)
    assert seen == [2, 2, 1]
    assert latents.shape == (1, 4, 5, 8, 12)
    frames = video[0].movedim(1, 0)
    expected = theirs.encode(frames).latent_dist.mode() * theirs.config.scaling_factor
    torch.testing.assert_close(latents[0].movedim(1, 0), expected, atol=1e-6, rtol=1e-4)
    decoded = theirs.decode(expected / theirs.config.scaling_factor).sample
    torch.testing.assert_close(ours.decode(latents, 5)[0].movedim(1, 0), decoded, atol=1e-5, rtol=1e-4)


def test_other_networks_and_missing_files_are_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"config\.json is missing"):
        load_image_vae(tmp_path)
    said = json.loads((folder / "vae" / "config.json").read_text())
    config = tmp_path / "config.json"
    for name, value in (("_class_name", "AutoencoderKLWan"), ("act_fn", "gelu"), ("shift_factor", 0.1)):
        config.write_text(json.dumps(said | {name: value}))
        with pytest.raises(WeightsError, match=name):
            load_image_vae(tmp_path, subfolder="")
    config.write_text(json.dumps(said))
    with pytest.raises(WeightsError, match=r"diffusion_pytorch_model\.safetensors is missing"):
        load_image_vae(tmp_path, subfolder="")
    (tmp_path / "diffusion_pytorch_model.safetensors").symlink_to(
        folder / "vae" / "diffusion_pytorch_model.safetensors"
    )
    config.write_text(json.dumps(said | {"latent_channels": 8}))
    with pytest.raises(WeightsError, match="do not fit"):
        load_image_vae(tmp_path, subfolder="")
    config.write_text("{")
    with pytest.raises(WeightsError, match="damaged"):
        load_image_vae(tmp_path, subfolder="")


def test_training_goes_on_from_a_2d_vae_and_teaches_the_temporal_one_first(folder: Path) -> None:
    pretrained = load_image_vae(folder)
    temporal = TemporalVaeConfig(filters=8, res_blocks=1, channel_multipliers=(1, 1), temporal_downsample=(True,),
                                 norm_groups=4)  # fmt: skip
    cfg = VideoVaeConfig(image=pretrained.cfg, temporal=temporal, chunk_frames=5)
    source = torch.rand(2, 3, 5, 8, 8) * 2 - 1
    job = VaeJob(
        cfg, 0, 10, image_vae=folder / "vae", batch=1, source=lambda rng, count: (source, torch.ones(2, 1, 5, 8, 8))
    )
    for name, value in pretrained.state_dict().items():
        assert torch.equal(job.model.spatial_vae.state_dict()[name], value), name
    loss, metrics = job.loss(np.random.default_rng(0), torch.Generator().manual_seed(0), 0)
    assert {"latent_error", "kl"} == set(metrics)
    loss.backward()
    trained = {name for name, p in job.model.named_parameters() if p.grad is not None}
    assert trained
    assert all(name.startswith("temporal_vae.") for name in trained)
    other = VideoVaeConfig(image=replace(pretrained.cfg, block_channels=(8, 8)), temporal=temporal)
    with pytest.raises(ValueError, match=r"another shape|no place"):
        VaeJob(other, 0, 10, image_vae=folder / "vae")
