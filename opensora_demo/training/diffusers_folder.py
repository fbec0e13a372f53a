"""A 2-D VAE by itself, from a folder as diffusers' AutoencoderKL is saved in: config.json and one safetensors file.

Open-Sora 1.2 takes its 2-D stage from such a folder, `vae` of PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from opensora_demo.codecs.image_vae import ImageVAE, ImageVaeConfig
from opensora_demo.errors import WeightsError
from opensora_demo.messages import message
from opensora_demo.weights.reading import load_module

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"


def image_vae_config(folder: Path) -> ImageVaeConfig:
    """The numbers in config.json; `latent_scale` is its scaling_factor, by which encode multiplies. Frames that were
    folded into channels (12 = 3 x 2^2) are folded here too. Raises WeightsError for another network."""
    if not (file := folder / CONFIG).is_file():
        raise WeightsError(message("weights.missing_file", file=CONFIG, folder=folder.name))
    try:
        said: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise WeightsError(message("weights.damaged", file=CONFIG, reason=str(error))) from None
    channels = said.get("in_channels", 3)
    fold = math.isqrt(channels // 3)
    expected = {
        "_class_name": "AutoencoderKL",
        "in_channels": 3 * fold**2,
        "out_channels": channels,
        "act_fn": "silu",
        "down_block_types": ["DownEncoderBlock2D"] * len(said.get("block_out_channels", ())),
        "up_block_types": ["UpDecoderBlock2D"] * len(said.get("block_out_channels", ())),
        "use_quant_conv": True,
        "use_post_quant_conv": True,
        "shift_factor": None,
    }
    for name, value in expected.items():
        if said.get(name, value) != value:
            raise WeightsError(message("weights.other_vae", name=name, got=str(said[name]), expected=str(value)))
    return ImageVaeConfig(
        latent_channels=said["latent_channels"],
        block_channels=tuple(said["block_out_channels"]),
        layers_per_block=said.get("layers_per_block", 1),
        norm_groups=said.get("norm_num_groups", 32),
        mid_attention=said.get("mid_block_add_attention", True),
        pixel_unshuffle=fold,
        latent_scale=said.get("scaling_factor", 0.18215),
    )


def load_image_vae(folder: Path, *, subfolder: str = "vae", micro_batch: int = 4) -> ImageVAE:
    """Frames go through it `micro_batch` at a time. `subfolder` "" is the folder itself.

    Raises WeightsError where a file is missing or damaged, holds another network or does not fit its config.json.
    """
    folder = folder / subfolder
    cfg = replace(image_vae_config(folder), micro_batch=micro_batch)
    return load_module(cfg.build, [folder / WEIGHTS], message("weights.image_vae", folder=folder.name), published=True)
