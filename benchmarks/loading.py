"""What loading a published model takes, next to reading its files once:

    python -m benchmarks.loading opensora-1.2

Both in turn, with the files in the page cache; loading counts until every page of every weight has been touched. Memory
is what the process holds more than before. Works on synthetic checkpoints too (`python -m benchmarks.synthetic`).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import time
from pathlib import Path

import torch

from opensora_demo.catalog import find_model
from opensora_demo.memory import PeakMemory
from opensora_demo.runtime.bundle import ModelBundle, build_bundle
from opensora_demo.service.options import WEIGHT_OPTIONS, add_options, read_weight_options
from opensora_demo.weights.store import locate

CPU = torch.device("cpu")
_BLOCK = 1 << 24


def read_once(files: list[Path]) -> None:
    buffer = bytearray(_BLOCK)
    for file in files:
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass


def touch(bundle: ModelBundle) -> None:
    """One number of every page of every weight."""
    text = bundle.family.text.encoder  # type: ignore[attr-defined]
    for module in (bundle.family.network, text, bundle.codec):
        for value in module.state_dict().values():
            flat = value.detach().view(-1)
            flat[:: max(4096 // value.element_size(), 1)].sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--times", type=int, default=3)
    add_options(parser, WEIGHT_OPTIONS)
    args = parser.parse_args()
    spec, options = find_model(args.model), read_weight_options(args, os.environ)
    found = locate(spec, options)
    files = [f for f in dict.fromkeys(f for part in found.values() for f in part) if f.suffix != ".json"]
    size = sum(file.stat().st_size for file in files)
    read_once(files)
    build_bundle(find_model("debug-1.2"), CPU)  # imports
    rows = []
    for _ in range(args.times):
        begin = time.perf_counter()
        read_once(files)
        middle = time.perf_counter()
        before = PeakMemory(CPU).read() or 0
        memory = PeakMemory(CPU)
        bundle = build_bundle(spec, CPU, options)
        built = time.perf_counter()
        touch(bundle)
        end = time.perf_counter()
        peak = (memory.read() or 0) - before
        rows.append({"read_s": middle - begin, "build_s": built - middle, "load_s": end - middle, "peak_bytes": peak})
        del bundle
        gc.collect()
    print(
        json.dumps(
            {
                "model": spec.id,
                "bytes": size,
                "read_s": statistics.median(row["read_s"] for row in rows),
                "build_s": statistics.median(row["build_s"] for row in rows),
                "load_s": statistics.median(row["load_s"] for row in rows),
                "load_to_read": statistics.median(row["load_s"] / row["read_s"] for row in rows),
                "peak_to_bytes": max(row["peak_bytes"] for row in rows) / size,
            }
        )
    )


if __name__ == "__main__":
    main()
