"""Can steps be saved before anything is distilled? The same prompts and noises at fewer and fewer steps.

python -m opensora_demo.evaluation.few_steps nano                    512 prompts at 4, 6, 8 and 12 steps
python -m opensora_demo.evaluation.few_steps nano --prompts 64 --steps 8

A question about training, not about a model: it is no part of study.json.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from opensora_demo.catalog import find_model
from opensora_demo.evaluation.adherence import held_out_prompts
from opensora_demo.evaluation.markdown import percent, table
from opensora_demo.evaluation.studies.base import Counts, Setup
from opensora_demo.runtime.bundle import build_bundle, fit_threads
from opensora_demo.toy.reader import load_reader, read_clips

PROMPTS, STEPS = 512, (4, 6, 8, 12)
NORMAL_95 = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """A number of steps against the model's default: prompts that are right there and no longer are, and the other way
    round; the difference of the shares in -1..1 with its 95 % interval, Wald's for matched pairs (Agresti & Min,
    "Simple improved confidence intervals for comparing matched proportions",
    2005); it is 0 wide where no prompt differs. Seconds of the clock a clip, decoding included."""

    steps: int
    right: float
    seconds: float
    lost: int
    gained: int
    difference: float
    low: float
    high: float


def compare(steps: int, right: NDArray[np.bool_], default: NDArray[np.bool_], seconds: float) -> Against:
    """`right` and `default` (n) say of each prompt whether everything is right at `steps` and at the default."""
    lost, gained, count = int((default & ~right).sum()), int((right & ~default).sum()), len(right)
    difference = (gained - lost) / count
    width = NORMAL_95 * math.sqrt(gained + lost - (gained - lost) ** 2 / count) / count
    return Against(
        steps=steps,
        right=float(right.mean()),
        seconds=seconds,
        lost=lost,
        gained=gained,
        difference=difference,
        low=difference - width,
        high=difference + width,
    )


def few_steps(setup: Setup, prompts: int = PROMPTS, steps: Sequence[int] = STEPS) -> list[Against]:
    """The default number of steps first, against itself; then the others in order."""
    scenes = held_out_prompts(prompts, setup.fps)
    default = int(setup.spec.limits.steps.default)

    def right_at(count: int) -> tuple[NDArray[np.bool_], float]:
        clock = time.perf_counter()
        clips = [setup.made({"prompt": p, "fps": s.fps, "seed": i, "steps": count}) for i, (s, p) in enumerate(scenes)]
        seconds = (time.perf_counter() - clock) / len(clips)
        readings = read_clips(setup.reader, clips)
        right = [min(r.matches(s).values()) == 1 for r, (s, _) in zip(readings, scenes, strict=True)]
        return np.array(right), seconds

    reference, seconds = right_at(default)
    found = [compare(default, reference, reference, seconds)]
    for count in sorted(set(steps) - {default}):
        right, seconds = right_at(count)
        found.append(compare(count, right, reference, seconds))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m opensora_demo.evaluation.few_steps", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("model")
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    args = parser.parse_args()
    fit_threads()
    setup = Setup(bundle=build_bundle(find_model(args.model)), reader=load_reader(), counts=Counts())
    rows = [
        (str(r.steps), percent(r.right), f"{r.seconds:.2f}", str(r.lost), str(r.gained), f"{100 * r.difference:+.1f} "
         f"({100 * r.low:+.1f} to {100 * r.high:+.1f})")
        for r in few_steps(setup, args.prompts, args.steps)
    ]  # fmt: skip
    print(*table(("steps", "all right", "s a clip", "lost", "gained", "difference, points (95 %)"), rows), sep="\n")


if __name__ == "__main__":
    main()
