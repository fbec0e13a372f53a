"""Tiny models whose files are where those of published ones would be; `benchmarks.synthetic` writes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from opensora_demo.catalog import MODELS, ModelSpec
from opensora_demo.pipeline import run
from opensora_demo.request.parse import parse_request
from opensora_demo.runtime.bundle import build_bundle
from opensora_demo.weights.options import WeightOptions

CPU = torch.device("cpu")


def published(model: str) -> ModelSpec:
    """A tiny model whose weights are where its published kin's are."""
    kin = {"debug-1.0": "opensora-1.0-256", "debug-1.2": "opensora-1.2", "debug-2.0": "opensora-2.0"}[model]
    tiny, weights = MODELS[model], MODELS[kin].weights
    text = None if tiny.text is None else replace(tiny.text, vocabulary=256)
    clip = None
    if tiny.clip is not None:
        clip = replace(
            tiny.clip, vocabulary=256, **{k: getattr(MODELS[kin].clip, k) for k in ("bos", "eos", "pad", "unknown")}
        )
    return replace(tiny, weights=weights, text=text, clip=clip)


def options_of(folder: Path, **changes: Any) -> WeightOptions:
    """What the fixture `weights` sets up, for those that take it as an argument."""
    return replace(WeightOptions(weights_dir=folder, cache_dir=folder.parent / "embeddings"), **changes)


def clip_of(spec: ModelSpec, options: WeightOptions) -> np.ndarray:
    request = parse_request({"prompt": "a ball", "steps": 2, "seed": 3}, model_id=spec.id, limits=spec.limits)
    return run(build_bundle(spec, CPU, options), request).clips[0].frames
