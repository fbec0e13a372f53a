"""What the latent scope costs: of a run on this machine, and on the wire.

    python -m benchmarks.scope [--model nano] [--steps 16] [--runs 9] [--guidance 4]

Runs with and without looks alternate in one process, so that noise of the machine hits both; the median of the ratios
of neighbours is reported. The share is also measured directly: the time spent in `ScopeView` over the time of the
whole run. Times are of the thread that samples, so that whatever else the machine does counts little.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

from opensora_demo import pipeline
from opensora_demo.catalog import DEFAULT_MODEL, find_model
from opensora_demo.request.events import Finished
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.bundle import ModelBundle, build_bundle, fit_threads
from opensora_demo.ui.values.scope import ScopeView


def measure(bundle: ModelBundle, request: GenerationRequest, look: bool) -> tuple[float, float, ScopeView]:
    """Seconds of a run, seconds of it spent for the scope, and what the scope holds at its end."""
    spent = 0.0
    scope = ScopeView(1, request)
    started = time.thread_time()
    for event in pipeline.generate(bundle, request, look=look):
        if look:
            began = time.thread_time()
            scope.add(event)
            scope.value(done=isinstance(event, Finished))
            spent += time.thread_time() - began
    return time.thread_time() - started, spent, scope


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--steps", type=int, help="the model's default without it")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--guidance", type=float, default=4.0)
    args = parser.parse_args()
    fit_threads()
    spec = find_model(args.model)
    raw = {"prompt": "a red ball bouncing on a meadow", "steps": args.steps, "guidance": args.guidance, "seed": 0}
    request = parse_request(raw, model_id=spec.id, limits=spec.limits)
    bundle = build_bundle(spec)
    measure(bundle, request, True)  # warm up
    ratios, shares, per_step = [], [], []
    for _ in range(args.runs):
        without, _, _ = measure(bundle, request, False)
        with_look, spent, scope = measure(bundle, request, True)
        ratios.append(with_look / without)
        shares.append(spent / with_look)
        per_step.append(spent / request.steps)
    value = scope.value(done=True)
    step_bytes = [len(json.dumps(step)) for step in value["steps"]]
    report = {
        "model": spec.id,
        "steps": request.steps,
        "guidance": args.guidance,
        "with_over_without": round(statistics.median(ratios), 4),
        "share_of_run": round(statistics.median(shares), 5),
        "microseconds_per_step": round(statistics.median(per_step) * 1e6, 1),
        "bytes_per_step": round(statistics.mean(step_bytes)),
        "bytes_per_step_and_latent_frame": round(statistics.mean(step_bytes) / value["latent"]),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
