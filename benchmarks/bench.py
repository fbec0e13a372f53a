"""All that is measured of speed, in one command of less than ten minutes:

    make bench                                        measures everything and writes docs/performance.md and .json
    python -m benchmarks.bench                        the same, and only prints it
    python -m benchmarks.bench --only models,page     some of models, pipeline, page, visitors
    python -m benchmarks.bench --quick                nano alone, one round of each: whether it works, no numbers

Every number stands beside a baseline that was measured in turn with it, in the same run: the networks and codecs beside
a reference-like formulation of the same arithmetic (`benchmarks.baseline`) and the processor's matrix products, a clip
as the page makes it beside the bare pipeline, the page's start beside `import torch`, many visitors beside one.
`--browser` adds a click in Chromium.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import bench_models, bench_pipeline, bench_server
from benchmarks.report import Report, write
from opensora_demo.runtime.bundle import fit_threads

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
PARTS = ("models", "pipeline", "page", "visitors")
ROUNDS = {"models": 9, "pipeline": 15, "page": 5, "visitors": 5}
TOTAL_S = 520.0  # after which no round begins but the first of a part
LIMIT_S = {"models": 240.0, "pipeline": 60.0, "page": 80.0, "visitors": 100.0, "browser": 30.0}


def measure(
    parts: Sequence[str], *, quick: bool = False, browser: bool = False, programs: bench_server.Programs | None = None
) -> Report:
    """Run these parts, each within its limit of time."""
    began = time.monotonic()
    report, programs = Report(quick=quick), programs or bench_server.Programs()
    for part in parts:
        rounds, limit_s = 1 if quick else ROUNDS[part], min(LIMIT_S[part], TOTAL_S + began - time.monotonic())
        match part:
            case "models":
                bench_models.measure(report, quick=quick, rounds=rounds, limit_s=limit_s)
            case "pipeline":
                bench_pipeline.measure(report, quick=quick, rounds=rounds, limit_s=limit_s)
            case "page":
                bench_server.measure_starts(report, programs, rounds=rounds, limit_s=limit_s)
            case _:
                bench_server.measure_visitors(report, programs, quick=quick, rounds=rounds, limit_s=limit_s)
    if browser:
        bench_server.measure_browser(report, programs, rounds=1 if quick else 5, limit_s=LIMIT_S["browser"])
    report.close(time.monotonic() - began)
    return report


def parts_of(text: str) -> tuple[str, ...]:
    """Names of parts, separated by commas, in the order in which they are measured. Raises ArgumentTypeError."""
    names = {name.strip() for name in text.split(",") if name.strip()}
    if wrong := sorted(names - set(PARTS)):
        raise argparse.ArgumentTypeError(f"{wrong[0]} is none of {', '.join(PARTS)}")
    return tuple(part for part in PARTS if part in names)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="nano alone, one round of each")
    parser.add_argument("--only", type=parts_of, default=PARTS, metavar="PARTS", help="some of " + ", ".join(PARTS))
    parser.add_argument("--browser", action="store_true", help="a click in Chromium too")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md and docs/performance.json")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to a file")
    args = parser.parse_args(argv)
    fit_threads()
    report = measure(args.only, quick=args.quick, browser=args.browser)
    print(report.tables())
    text = json.dumps(report.to_json(), indent=1)
    if args.json is None:
        print(text)
    else:
        args.json.write_text(text + "\n", "utf-8")
    if args.write:
        write(report, PAGE)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
