"""Scenes of a prompt, as Open-Sora 1.1 to 1.3 write them: "|0|a sunny day|2|a rainy day".

A clip of several scenes is made one after the other, each going on from the end of the one before; the number before a
text is the scene that it begins with, and it holds up to the next. Upstream calls a scene a loop (`--loop`).
Source: Open-Sora v1.2.0 opensora/utils/inference_utils.py (split_prompt, merge_prompt, extract_prompts_loop).
"""

from __future__ import annotations

import re


def has_scenes(text: str) -> bool:
    """Whether a prompt is written in scenes."""
    return text.startswith("|0|")


def split_scenes(text: str) -> tuple[list[str], list[int] | None]:
    """ "|0|first|2|second" -> (["first", "second"], [0, 2]): prompts and the scene each begins with; a prompt without
    bars stands alone. Raises ValueError when a number is none."""
    if not has_scenes(text):
        return [text], None
    parts = text.split("|")[1:]
    return [part.strip() for part in parts[1::2]], [int(part) for part in parts[::2]]


def merge_scenes(scenes: list[str], starts: list[int] | None) -> str:
    """The inverse of `split_scenes`."""
    if starts is None:
        return scenes[0]
    return "".join(f"|{start}|{scene}" for start, scene in zip(starts, scenes, strict=True))


def scene_of(text: str, scene: int) -> str:
    """The prompt that holds in a scene, with its spaces as they were written."""
    if not has_scenes(text):
        return text
    parts = text.split("|")[1:]
    starts = [int(part) for part in parts[::2]]
    return [part for part, start in zip(parts[1::2], starts, strict=True) if start <= scene][-1]


def named_scenes(text: str) -> int:
    """How many scenes a prompt that has been checked names: up to the last that has a text of its own."""
    _, starts = split_scenes(text)
    return 1 if starts is None else starts[-1] + 1


def scene_spans(text: str) -> list[tuple[int, int]]:
    """Characters [start, end) of each text of a prompt that is being written in scenes, the marks before them left out;
    all of it where it is not. Never raises."""
    if not has_scenes(text):
        return [(0, len(text))]
    marks = [found.span() for found in re.finditer(r"\|[^|]*\|?", text)]
    ends = [start for start, _ in marks[1:]] + [len(text)]
    return [(after, end) for (_, after), end in zip(marks, ends, strict=True)]
