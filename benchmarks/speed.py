"""How fast a model runs here: time to the first preview, per stage, and what guidance costs.

    python -m benchmarks.speed [--model nano] [--steps 16] [--runs 7] [--page]

Guidance 1 and guidance 4 alternate in one process, so that noise of the machine hits both; medians are reported.
`--page` also starts the app and asks for its front page while a clip is generated, and while nothing is.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

from gradio_client import Client

from opensora_demo.catalog import DEFAULT_MODEL, find_model
from opensora_demo.pipeline import generate
from opensora_demo.request.events import Finished, StepPreview
from opensora_demo.request.parse import parse_request
from opensora_demo.runtime.bundle import ModelBundle, build_bundle, fit_threads


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
            both = event.seconds["denoise"] + event.seconds["decode"]
            return {
                **event.seconds,
                "denoise_and_decode": both,
                "first_preview": first,
                "total": time.perf_counter() - started,
            }
    raise RuntimeError("no result")


def page_latency(steps: int) -> dict[str, float]:
    """Seconds to fetch the front page, idle and while the longest run goes on: median and worst."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, "app.py", "--port", str(port)], stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/"

    def fetch() -> float:
        started = time.perf_counter()
        urllib.request.urlopen(url, timeout=60).read()
        return time.perf_counter() - started

    try:
        for _ in range(600):
            try:
                fetch()
                break
            except OSError:
                time.sleep(0.2)
        client = Client(url, verbose=False)
        client.predict("a red ball", steps=1, api_name="/generate")  # the model is loaded
        idle = [fetch() for _ in range(20)]
        job = client.submit("a red ball", guidance="2, 3, 4, 5, 6, 7", steps=steps, api_name="/compare")
        busy = []
        while not job.done():
            busy.append(fetch())
            time.sleep(0.05)
    finally:
        server.terminate()
        server.wait()
    return {
        "page_idle": statistics.median(idle),
        "page_busy": statistics.median(busy),
        "page_busy_worst": max(busy),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--steps", type=int, help="the model's default without it")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--page", action="store_true", help="also measure how fast the page answers")
    args = parser.parse_args()
    fit_threads()
    spec = find_model(args.model)
    steps_taken = args.steps or int(spec.limits.steps.default)
    started = time.perf_counter()
    bundle = build_bundle(spec)
    load = time.perf_counter() - started
    for guidance in (1.0, 4.0):
        measure(bundle, steps_taken, guidance, 0)  # warm up
    rows: dict[float, list[dict[str, float]]] = {1.0: [], 4.0: []}
    for run in range(args.runs):
        for guidance, found in rows.items():
            found.append(measure(bundle, steps_taken, guidance, run))
    report: dict[str, object] = {"model": spec.id, "steps": steps_taken, "load_s": round(load, 3)}
    for guidance, found in rows.items():
        report[f"guidance_{guidance:g}"] = {k: round(statistics.median(r[k] for r in found), 4) for k in found[0]}
    ratios = [b["denoise"] / a["denoise"] for a, b in zip(rows[1.0], rows[4.0], strict=True)]
    report["guidance_4_over_1"] = round(statistics.median(ratios), 3)
    steps = statistics.median(r["denoise"] for r in rows[4.0]) / steps_taken
    text = statistics.median(r["text"] for r in rows[4.0])
    first = statistics.median(r["first_preview"] for r in rows[4.0])
    report["first_preview_in_steps_after_text"] = round((first - text) / steps, 2)
    if args.page:
        report |= {k: round(v, 4) for k, v in page_latency(100).items()}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
