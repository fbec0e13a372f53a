"""What gradient checkpointing saves and costs in a step of training, on random latents:

    python -m benchmarks.checkpointing nano --batch 32

The most bytes that tensors held during a step, beyond what there was before it (torch's profiler counts them), and the
least CPU seconds of some more steps: without checkpointing and with it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from opensora_demo.codecs.dc_ae import DcAeConfig
from opensora_demo.memory import traced_peak_bytes
from opensora_demo.toy.captions import build_tokenizer
from opensora_demo.toy.worlds import sample_scene
from opensora_demo.training.recipes import RECIPES

CLIPS = 64


def measure(model: str, batch: int, steps: int, checkpointing: bool) -> dict[str, float]:
    recipe = RECIPES[model]
    spec = recipe.spec
    lone = isinstance(spec.codec, DcAeConfig)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_tokenizer(str(folder / "tokenizer.json"), recipe.extra_words)
        rng = np.random.default_rng(0)
        scenes = [sample_scene(rng, fps=recipe.fps) for _ in range(CLIPS)]
        (folder / "0000.json").write_text(json.dumps([asdict(scene) for scene in scenes]))
        codec = spec.codec.build()
        t, h, w = codec.latent_size(spec.limits.default_frames, *spec.limits.size_px)
        np.save(folder / "0000.npy", rng.normal(size=(CLIPS, codec.latent_channels, t + lone, h, w)).astype(np.float16))
        zero, one = torch.zeros(1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1)
        job = recipe.job(
            spec,
            folder / "tokenizer.json",
            folder,
            zero,
            one,
            batch=batch,
            lone=lone,
            short_share=0.0,
            objective=recipe.objective,
            checkpointing=checkpointing,
        )

        def step(number: int) -> float:
            start = time.process_time()
            loss, _ = job.loss(np.random.default_rng(number), torch.Generator().manual_seed(number), number)
            loss.backward()
            return time.process_time() - start

        step(0)  # makes the gradients, and whatever is made once
        peak = traced_peak_bytes(lambda: step(1))
        return {"bytes": peak, "cpu_s": min(step(number) for number in range(2, 2 + steps))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=[name for name, recipe in RECIPES.items() if recipe.dit is not None])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=3)
    args = parser.parse_args()
    for checkpointing in (False, True):
        found = measure(args.model, args.batch, args.steps, checkpointing)
        print(
            json.dumps({"model": args.model, "batch": args.batch, "checkpointing": checkpointing, **found}), flush=True
        )


if __name__ == "__main__":
    main()
