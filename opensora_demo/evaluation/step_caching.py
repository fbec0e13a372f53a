"""What the step cache saves and costs, against every step computed, and against as many steps as it computes.

python -m opensora_demo.evaluation.step_caching nano                   128 prompts, the same noises everywhere
python -m opensora_demo.evaluation.step_caching nano --prompts 16
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opensora_demo.catalog import find_model
from opensora_demo.evaluation.adherence import held_out_prompts
from opensora_demo.evaluation.markdown import number, percent, table
from opensora_demo.evaluation.studies.base import Counts, Setup
from opensora_demo.metrics import psnr
from opensora_demo.pipeline import run
from opensora_demo.request.limits import STEP_CACHINGS
from opensora_demo.request.parse import parse_request
from opensora_demo.request.video import Frames
from opensora_demo.runtime.bundle import build_bundle, fit_threads
from opensora_demo.toy.reader import load_reader, read_clips
from opensora_demo.toy.worlds import Scene

PROMPTS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Runs of one kind: `computed` steps, a mean; `right` the share of prompts (0..1) whose clip shows all that they
    say; `psnr_db` of clips against those of every step computed, the mean over prompts (infinite for themselves);
    `denoise` the seconds of denoising, a share of theirs, the median over prompts, run one after the other."""

    name: str
    computed: float
    right: float
    psnr_db: float
    denoise: float


@dataclass(slots=True)
class _Runs:
    computed: list[int]
    clips: list[Frames]
    seconds: list[float]


def step_caching(setup: Setup, prompts: int = PROMPTS) -> list[Row]:
    """The kinds of the cache, "off" first; then as few steps as each of the others computed."""
    scenes = held_out_prompts(prompts, setup.fps)
    steps = int(setup.spec.limits.steps.default)
    rows = _rows(setup, scenes, {how: {"step_cache": how} for how in STEP_CACHINGS})
    counts = sorted({round(row.computed) for row in rows} - {steps}, reverse=True)
    fewer: dict[str, dict[str, Any]] = {"off": {}} | {f"{count} steps": {"steps": count} for count in counts}
    return [*rows, *_rows(setup, scenes, fewer)[1:]]


def _rows(setup: Setup, scenes: list[tuple[Scene, str]], kinds: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Of each prompt every kind in turn, so that noise of the machine hits all; the first is what the others are
    compared with."""
    runs = {name: _Runs([], [], []) for name in kinds}
    for seed, (scene, prompt) in enumerate(scenes):
        for name, more in kinds.items():
            raw = {"prompt": prompt, "fps": scene.fps, "seed": seed, **more}
            request = parse_request(raw, model_id=setup.spec.id, limits=setup.spec.limits)
            done, of_kind = run(setup.bundle, request), runs[name]
            of_kind.computed.append(request.steps - sum(done.reused))
            of_kind.clips.append(done.clips[0].frames)
            of_kind.seconds.append(done.seconds["denoise"])
    full = next(iter(runs.values()))
    return [
        Row(
            name=name,
            computed=float(np.mean(of_kind.computed)),
            right=float(_right(setup, scenes, of_kind.clips).mean()),
            psnr_db=float(np.mean([psnr(*pair) for pair in zip(of_kind.clips, full.clips, strict=True)])),
            denoise=float(np.median(np.divide(of_kind.seconds, full.seconds))),
        )
        for name, of_kind in runs.items()
    ]


def _right(setup: Setup, scenes: list[tuple[Scene, str]], clips: list[Frames]) -> NDArray[np.bool_]:
    """Whether a clip shows all that its prompt says, (n)."""
    readings = read_clips(setup.reader, clips)
    return np.array([min(r.matches(s).values()) == 1 for r, (s, _) in zip(readings, scenes, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m opensora_demo.evaluation.step_caching", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("model")
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    args = parser.parse_args()
    fit_threads()
    setup = Setup(bundle=build_bundle(find_model(args.model)), reader=load_reader(), counts=Counts())
    lines = [
        (row.name, number(row.computed, 1), percent(row.right), number(row.psnr_db, 1), number(row.denoise))
        for row in step_caching(setup, args.prompts)
    ]
    head = ("step cache", "steps computed", "all right", "PSNR, dB", "denoising, of the time without")
    print(*table(head, lines), sep="\n")


if __name__ == "__main__":
    main()
