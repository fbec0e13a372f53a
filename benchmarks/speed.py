"""How fast a model runs here: time to the first preview, per stage, and what guidance costs.

    python benchmarks/speed.py [--model nano] [--steps 30] [--runs 7]

Guidance 1 and guidance 4 alternate in one process, so that noise of the machine hits both; medians are reported.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

from opensora_demo.bundle import ModelBundle, build_bundle
from opensora_demo.catalog import DEFAULT_MODEL, find_model
from opensora_demo.pipeline import generate
from opensora_demo.types import Finished, StepPreview, parse_request


def measure(bundle: ModelBundle, steps: int, guidance: float, seed: int) -> dict[str, float]:
    request = parse_request(
        {"prompt": "a red ball bouncing on a meadow", "steps": steps, "guidance": guidance, "seed": seed},
        model_id=bundle.spec.id,
        limits=bundle.spec.limits,
    )
    started = time.perf_counter()
    first = 0.0
    for event in generate(bundle, request):
        if isinstance(event, StepPreview) and event.index == 0:
            first = time.perf_counter() - started
        if isinstance(event, Finished):
            return {**event.seconds, "first_preview": first, "total": time.perf_counter() - started}
    raise RuntimeError("no result")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    spec = find_model(args.model)
    started = time.perf_counter()
    bundle = build_bundle(spec)
    load = time.perf_counter() - started
    for guidance in (1.0, 4.0):
        measure(bundle, args.steps, guidance, 0)  # warm up
    rows: dict[float, list[dict[str, float]]] = {1.0: [], 4.0: []}
    for run in range(args.runs):
        for guidance, found in rows.items():
            found.append(measure(bundle, args.steps, guidance, run))
    report: dict[str, object] = {"model": spec.id, "steps": args.steps, "load_s": round(load, 3)}
    for guidance, found in rows.items():
        report[f"guidance_{guidance:g}"] = {k: round(statistics.median(r[k] for r in found), 4) for k in found[0]}
    ratios = [b["denoise"] / a["denoise"] for a, b in zip(rows[1.0], rows[4.0], strict=True)]
    report["guidance_4_over_1"] = round(statistics.median(ratios), 3)
    steps = statistics.median(r["denoise"] for r in rows[4.0]) / args.steps
    text = statistics.median(r["text"] for r in rows[4.0])
    first = statistics.median(r["first_preview"] for r in rows[4.0])
    report["first_preview_in_steps_after_text"] = round((first - text) / steps, 2)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
