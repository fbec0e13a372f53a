"""Does a clip show what the prompt says? New prompts, clips by the model, answers by the reader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from opensora_demo.pipeline import run
from opensora_demo.request.limits import MAX_COMPARED
from opensora_demo.request.parse import parse_request
from opensora_demo.request.video import Frames
from opensora_demo.runtime.bundle import ModelBundle
from opensora_demo.toy.captions import caption
from opensora_demo.toy.reader import ATTRIBUTES, Reader, read_clips
from opensora_demo.toy.worlds import FRAMES, SIZE_PX, Scene, is_held_out, render, sample_scene

EVAL_SEED = 20_000_003  # training draws its scenes from other seeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One prompt, the scene it describes, and the clip that was made at each guidance scale."""

    scene: Scene
    prompt: str
    seed: int
    clips: dict[float, Frames]


def held_out_prompts(
    count: int,
    fps: int,
    seed: int = EVAL_SEED,
    *,
    pairs: float = 0.0,
    chinese: float = 0.0,
    unseen: bool = False,
) -> list[tuple[Scene, str]]:
    """Scenes and captions of their own random stream; one in ten is of a (shape, colour, motion) never trained on, or
    with `unseen` all of them.

    `pairs` is the share of scenes with two objects, `chinese` the share of captions in Chinese.
    """
    rng = np.random.default_rng(seed)
    held_out = True if unseen else None
    scenes = [sample_scene(rng, held_out=held_out, fps=fps, pairs=pairs) for _ in range(count)]
    return [(scene, caption(scene, rng, chinese=chinese)) for scene in scenes]


def clips_at(
    bundle: ModelBundle, raw: Mapping[str, Any], guidance: Sequence[float], reference: Frames | None = None
) -> dict[float, Frames]:
    """One clip of the request `raw` (with its seed) for each scale, all from the same noise."""
    made: dict[float, Frames] = {}
    for at in range(0, len(guidance), MAX_COMPARED):
        request = parse_request(
            {**raw, "guidance": list(guidance[at : at + MAX_COMPARED])},
            model_id=bundle.spec.id,
            limits=bundle.spec.limits,
            reference=reference,
        )
        made |= {clip.request.guidance[0]: clip.frames for clip in run(bundle, request).clips}
    return made


def run_trials(
    bundle: ModelBundle,
    count: int,
    guidance: Sequence[float],
    *,
    steps: int | None = None,
    fps: int | None = None,
    seed: int = EVAL_SEED,
    pairs: float = 0.0,
    chinese: float = 0.0,
    unseen: bool = False,
) -> Iterator[Trial]:
    """Generate: all scales of a prompt share its noise."""
    rate = fps or int(bundle.spec.limits.fps.default)
    prompts = held_out_prompts(count, rate, seed, pairs=pairs, chinese=chinese, unseen=unseen)
    for index, (scene, prompt) in enumerate(prompts):
        raw = {"prompt": prompt, "steps": steps, "fps": scene.fps, "seed": index}
        yield Trial(scene=scene, prompt=prompt, seed=index, clips=clips_at(bundle, raw, guidance))


def score(reader: Reader, pairs: list[tuple[Scene, Frames]]) -> dict[str, float]:
    """Share of objects whose shape, colour and motion the reader names right, share of clips with the right
    background, and of clips with all four right. Among scenes of two objects also their arrangement, which then
    belongs to "everything"."""
    readings = read_clips(reader, [clip for _, clip in pairs])
    right = [reading.matches(scene) for reading, (scene, _) in zip(readings, pairs, strict=True)]
    table = {name: float(np.mean([r[name] for r in right])) for name in ATTRIBUTES}
    if all(scene.companion is None for scene, _ in pairs):
        table["all four"] = float(np.mean([all(r[name] == 1 for name in ATTRIBUTES) for r in right]))
    else:
        table["arrangement"] = float(np.mean([r["arrangement"] for r in right]))
        table["everything"] = float(np.mean([all(value == 1 for value in r.values()) for r in right]))
    return table


def adherence_table(reader: Reader, trials: list[Trial]) -> dict[str, dict[str, float]]:
    """One row for each guidance scale; beside the scores, the share right on triples never trained on."""
    rows: dict[str, dict[str, float]] = {}
    for scale in trials[0].clips:
        row = score(reader, [(t.scene, t.clips[scale]) for t in trials])
        new = [(t.scene, t.clips[scale]) for t in trials if is_held_out(t.scene)]
        if new:
            name, share = list(score(reader, new).items())[-1]
            row[f"{name}, unseen"] = share
        rows[f"{scale:g}"] = row
    return rows


def reader_table(
    reader: Reader,
    count: int,
    seed: int = EVAL_SEED + 1,
    pairs: float = 0.0,
    *,
    fps: int | None = None,
    frames: int = FRAMES,
    size_px: int = SIZE_PX,
) -> dict[str, float]:
    """The reader's own accuracy on rendered clips that it never saw, of every object size and speed; `fps` None is of
    every frame rate."""
    rng = np.random.default_rng(seed)
    scenes = [sample_scene(rng, held_out=None, fps=fps, pairs=pairs) for _ in range(count)]
    return score(reader, [(s, render(s, frames, size_px)[0]) for s in scenes])


def format_table(rows: dict[str, dict[str, float]]) -> str:
    """A Markdown table, percent."""
    names = list(next(iter(rows.values())))
    lines = ["| guidance | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 1)]
    lines += [f"| {key} | " + " | ".join(f"{100 * row[n]:.0f} %" for n in names) + " |" for key, row in rows.items()]
    return "\n".join(lines)
