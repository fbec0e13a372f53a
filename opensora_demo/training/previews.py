"""Fit how a published model's latents are shown as colours: least squares over clips of the toy worlds.

    python -m opensora_demo.training.previews opensora-1.2

Needs the weights of the model's VAE; writes `previews/<model>.safetensors` beside them, which the page then uses.
"""

from __future__ import annotations

import argparse
import os
import sys

import numpy as np
import torch
from torch import Tensor

from opensora_demo.catalog import ModelSpec, find_model
from opensora_demo.errors import DemoError, WeightsError
from opensora_demo.messages import message
from opensora_demo.preview import as_latents, fit_matrix
from opensora_demo.runtime.bundle import pick_device
from opensora_demo.service.options import WEIGHT_OPTIONS, add_options, read_weight_options
from opensora_demo.training.export import save_shards
from opensora_demo.training.train_vae import draw_clips
from opensora_demo.weights.options import DEFAULT_OPTIONS, WeightOptions
from opensora_demo.weights.reading import load_module
from opensora_demo.weights.store import find_part, fitted_preview

CLIPS = 16
SIDE_PX = 192  # a multiple of every codec's step


@torch.inference_mode()
def fit(
    spec: ModelSpec, clips: int, options: WeightOptions = DEFAULT_OPTIONS, side_px: int = SIDE_PX
) -> tuple[Tensor, float]:
    """The matrix (c + 1, 3), and the share of the colours' variance that it explains. Raises WeightsError."""
    if spec.published is None:
        raise WeightsError(message("weights.own_preview", model=spec.id))
    if (files := find_part(spec.published.codec, options)) is None:
        raise WeightsError(
            message("weights.no_vae", model=spec.id, command=f"python -m opensora_demo download {spec.id}")
        )
    device = pick_device()
    codec = load_module(spec.codec.build, files, f"{spec.id} VAE", dtype=None, device=device, published=True)
    dtype = next(codec.parameters()).dtype
    frames = min(frames for frames in spec.limits.frames if frames > 1)
    video, _ = draw_clips(np.random.default_rng(7), clips, frames, size_px=side_px)
    latents = torch.cat([codec.encode(part.to(device, dtype)).float().cpu() for part in video.split(1)])
    matrix = fit_matrix(latents, video)
    weight, bias = matrix[:-1], matrix[-1]
    shown = torch.einsum("bcthw,cr->brthw", latents, weight) + bias.view(1, 3, 1, 1, 1)
    true = as_latents(video, latents.shape[2:])
    return matrix, float(1 - (shown - true).square().mean() / true.var())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    add_options(parser, WEIGHT_OPTIONS)
    try:
        args = parser.parse_args()
        spec, options = find_model(args.model), read_weight_options(args, os.environ)
        matrix, explained = fit(spec, CLIPS, options)
        file = fitted_preview(spec, options)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_shards({"matrix": matrix}, [file], {"explained": f"{explained:.3f}"})
    except (DemoError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{file}: {100 * explained:.0f} % of the colours' variance")
    return 0


if __name__ == "__main__":
    sys.exit(main())
