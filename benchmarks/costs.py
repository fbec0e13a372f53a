"""What clips of the published models take, counted and not run, as a table:

    python -m benchmarks.costs [MODEL ...]

In bfloat16, parts in turn, at the model's usual number of steps. Memory is weights and the most bytes beside them,
of the transformer's stage and of the VAE's; a denoising step is a forward pass of every branch, which by an oscillating
rule not every step needs. Time is arithmetic: the FLOPs of the whole run on a device that does 100 TFLOP/s of them.
"""

from __future__ import annotations

import argparse

import torch

from opensora_demo.catalog import ModelSpec
from opensora_demo.catalog.published import PUBLISHED
from opensora_demo.messages import render
from opensora_demo.request.parse import parse_request
from opensora_demo.runtime.cost.estimator import Estimator, Machine
from opensora_demo.runtime.cost.words import duration, short

# What is counted there is the same without one; so large that nothing is decoded in tiles of time for want of memory.
COSTS = Estimator(machine=Machine("a GPU", 1 << 62, torch.device("cuda")))
RATE = 100e12
# Resolutions and lengths besides the usual one.
MORE: dict[str, tuple[tuple[str, int], ...]] = {
    "opensora-1.1": (("480p", 16), ("480p", 64), ("720p", 16)),
    "opensora-1.2": (("240p", 102), ("480p", 51), ("480p", 102), ("720p", 51), ("720p", 102)),
    "opensora-1.3": (("360p", 1), ("360p", 49)),
    "opensora-2.0": (("256px", 33), ("768px", 33), ("768px", 129)),
    "opensora-2.0-dcae": (("768px", 32),),
}


def row(spec: ModelSpec, resolution: str | None, frames: int | None) -> str:
    raw = {"prompt": "a ball", "seed": 0, "resolution": resolution, "frames": frames}
    request = parse_request(raw, model_id=spec.id, limits=spec.limits)
    work, s = COSTS.work(spec, request), request.shape
    memory = [f"{short(work[stage].bytes / 1e9)} GB" for stage in ("denoise", "decode")]
    flops = sum(part.flops for part in work.values())
    calls = COSTS.counter.calls(spec, request)
    step = float(f"{work['denoise'].flops * max(calls) / sum(calls) / 1e12:.3g}")
    cells = [f"`{spec.id}`", f"{s.frames} x {s.width_px} x {s.height_px}", *memory]
    cells += [f"{step:,g}", str(request.steps), f"{flops / 1e15:.3g}", render(duration(flops / RATE))]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*")
    args = parser.parse_args()
    print("| model | frames, px | denoising | decoding | TFLOP a step | steps | PFLOP | at 100 TFLOP/s |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for spec in PUBLISHED:
        if not args.models or spec.id in args.models:
            print(row(spec, None, None), flush=True)
            for resolution, frames in MORE.get(spec.id, ()):
                print(row(spec, resolution, frames), flush=True)


if __name__ == "__main__":
    main()
