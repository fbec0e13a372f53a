"""Make what the page shows before the first run, clips and stored runs: `python -m opensora_demo.ui.make_examples`.

For each embedded model a folder of small files: mp4 (256 px, H.264), one frame of each as a poster, and examples.json
with prompt, seed, settings and what the reader sees in them. Beside them the picture that a link to the page shows, and
the runs of `stored_runs`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opensora_demo.catalog import DEFAULT_MODEL, ModelSpec, find_model
from opensora_demo.media import write_card, write_mp4, write_poster
from opensora_demo.pipeline import run
from opensora_demo.request.parse import parse_request
from opensora_demo.request.video import Frames
from opensora_demo.runtime.bundle import Bundles
from opensora_demo.service.local import LocalEngine
from opensora_demo.service.outputs import marks_of
from opensora_demo.toy.chips import TOY_MODELS
from opensora_demo.ui import stored_runs
from opensora_demo.ui.actions.all import actions_of
from opensora_demo.ui.context import PageContext
from opensora_demo.ui.head import CARD, CARD_PX
from opensora_demo.ui.scripts import UI_ASSETS

EXAMPLES: tuple[tuple[str, int], ...] = (
    ("a red ball bouncing over a meadow", 7),
    ("a yellow star spinning in the night sky", 21),
    ("a big blue ring moving in a circle at sunset", 5),
    ("a pink heart growing on a white background", 12),
    ("an orange diamond falling over the sea", 5),
    ("a yellow star spins on the left, a blue ball bounces on the right, in the desert", 19),
    ("a red heart above a green square in the sky", 9),
    ("一个紫色的方块在夜空中向右移动", 30),
)
FEWER = 5  # of another model than the default one
POSTER_PX = 208  # twice its size on the page


def examples_of(spec: ModelSpec) -> tuple[tuple[str, int], ...]:
    """Prompts and seeds. Of a model that knows classes, their names."""
    if spec.labels:
        return tuple((name, seed) for seed, (name, _) in enumerate(spec.labels[:FEWER], 1))
    return EXAMPLES if spec.id == DEFAULT_MODEL else EXAMPLES[:FEWER]


def middle_of(clip: Frames) -> Frames:
    return clip[len(clip) // 2]


def make(folder: Path, model_id: str) -> list[Frames]:
    """Write the examples of a model into `folder`, and answer their clips; examples.json comes last, so that it never
    names a missing file."""
    spec = find_model(model_id)
    bundle = Bundles().get(spec.id)
    folder.mkdir(parents=True, exist_ok=True)
    entries: list[Mapping[str, Any]] = []
    clips = []
    for i, (prompt, seed) in enumerate(examples_of(spec), 1):
        request = parse_request({"prompt": prompt, "seed": seed}, model_id=spec.id, limits=spec.limits)
        (clip,) = run(bundle, request).clips
        file, poster = folder / f"{i:02}.mp4", folder / f"{i:02}.webp"
        write_mp4(file, clip.frames, request.fps, request.settings())
        write_poster(poster, middle_of(clip.frames), POSTER_PX)
        settings = {k: v for k, v in request.settings().items() if k not in ("prompt", "seed", "reference")}
        names = {"file": file.name, "poster": poster.name, "prompt": prompt, "seed": seed}
        entries.append({**names, "settings": settings, "marks": marks_of(clip)})
        clips.append(clip.frames)
        print(f"{model_id}/{file.name}  {file.stat().st_size / 1000:.0f} kB  {prompt}")
    (folder / "examples.json").write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return clips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=TOY_MODELS, help="this one's alone")
    parser.add_argument("--figures", action="store_true", help="the stored figures of How it works alone")
    arguments = parser.parse_args()
    actions = actions_of(PageContext(LocalEngine(Bundles())))
    for model in [arguments.model] if arguments.model else TOY_MODELS:
        has_runs = model in stored_runs.MODELS
        if arguments.figures:
            if has_runs:
                stored_runs.make_figures(stored_runs.FOLDER / model, actions, model)
            continue
        made = make(UI_ASSETS / "examples" / model, model)
        if model == DEFAULT_MODEL:
            write_card(CARD, [middle_of(frames) for frames in made], CARD_PX, across=4)
        if has_runs:
            runs = stored_runs.make(stored_runs.FOLDER / model, actions, model)
            print(f"{model}: {', '.join(runs)}")
    actions.context.files.close()
    stored_runs.write_index()


if __name__ == "__main__":
    main()
