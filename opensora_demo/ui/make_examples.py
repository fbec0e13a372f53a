"""Make the clips the page shows before the first run: `python -m opensora_demo.ui.make_examples`.

Files are small (256 px, H.264), named by their number, and listed in examples.json with prompt, seed and settings.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from opensora_demo.bundle import Bundles
from opensora_demo.catalog import DEFAULT_MODEL, find_model
from opensora_demo.media import write_mp4
from opensora_demo.pipeline import run
from opensora_demo.types import parse_request
from opensora_demo.ui.components import UI_ASSETS

EXAMPLES: tuple[tuple[str, int], ...] = (
    ("a red ball bouncing over a meadow", 7),
    ("a yellow star spinning in the night sky", 21),
    ("a big blue ring moving in a circle at sunset", 3),
    ("a pink heart growing on a white background", 12),
    ("an orange diamond falling over the sea", 5),
    ("a green triangle zigzagging in the desert", 18),
    ("a white ball rising among the clouds", 9),
    ("一个紫色的方块在夜空中向右移动", 30),
)


def make(folder: Path, model_id: str = DEFAULT_MODEL) -> None:
    """Write every example into `folder`; examples.json comes last, so that it never names a missing file."""
    spec = find_model(model_id)
    bundle = Bundles().get(spec.id)
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for i, (prompt, seed) in enumerate(EXAMPLES, 1):
        request = parse_request({"prompt": prompt, "seed": seed}, model_id=spec.id, limits=spec.limits)
        file = folder / f"{i:02}.mp4"
        write_mp4(file, run(bundle, request).clips[0].frames, request.fps, request.settings())
        settings = {k: v for k, v in request.settings().items() if k not in ("prompt", "seed", "reference")}
        entries.append({"file": file.name, "prompt": prompt, "seed": seed, "settings": settings})
        print(f"{file.name}  {file.stat().st_size / 1000:.0f} kB  {prompt}")
    (folder / "examples.json").write_text(json.dumps(entries, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=UI_ASSETS / "examples")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    arguments = parser.parse_args()
    make(arguments.folder, arguments.model)
