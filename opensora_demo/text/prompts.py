"""Prompts as the published models were trained on them: cleaned captions, scores, FPS.

Sources: Open-Sora v1.2.0 opensora/utils/inference_utils.py, opensora/models/text_encoder/t5.py (text_preprocessing);
Open-Sora v2.0 opensora/utils/inference.py.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from opensora_demo.import_lock import IMPORT_LOCK


@cache
def _cleaner() -> Any:
    """DeepFloyd's caption cleaning, which 1.x inherits through PixArt; diffusers keeps it. It has no state."""
    with IMPORT_LOCK:  # it takes seconds
        from diffusers import PixArtAlphaPipeline

    return PixArtAlphaPipeline.__new__(PixArtAlphaPipeline)


def clean_caption(text: str) -> str:
    """Lower case, without links, markup, file names, ids and CJK characters; applied twice, as in training."""
    cleaner = _cleaner()
    return str(cleaner._clean_caption(cleaner._clean_caption(text))).lower().strip()


def add_scores(
    text: str, *, aesthetic: float | None = None, motion: float | None = None, camera: str | None = None
) -> str:
    """1.2's conditions as words at the end of a prompt; one that the prompt names already is left as it is."""
    for name, value in (("aesthetic score: ", aesthetic), ("motion score: ", motion), ("camera motion: ", camera)):
        if value is not None and name not in text:
            text = f"{text} {name}{value if isinstance(value, str) else f'{value:.1f}'}."
    return text


def add_fps(text: str, fps: float) -> str:
    """2.0's FPS as words: "a cat. 24 FPS."; a prompt that ends so already keeps its own."""
    text = text.strip()
    text = text if text.endswith(".") else f"{text}."
    return text if re.search(r"\d+ FPS\.$", text) else f"{text} {fps:g} FPS."


def add_fps_and_motion(text: str, fps: float, motion: float | None) -> str:
    """2.0's suffix: FPS, then the motion score (4 in the published settings)."""
    text = add_fps(text, fps)
    return text if motion is None else f"{text} {motion:g} motion score."


def split_settings(text: str) -> tuple[str, dict[str, Any]]:
    """'A wave.{"reference_path": ...}' -> ("A wave.", {...}): settings that upstream lets stand behind a prompt."""
    found = re.search(r"\{.*\}$", text, re.DOTALL)
    if found is None:
        return text, {}
    return text[: found.start()].strip(), json.loads(found.group())
