"""Prompts and mask strategies: what the reference implementation makes of the recorded texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import astuple
from typing import Any

import pytest

from opensora_demo.catalog import MODELS
from opensora_demo.codecs.video_vae import VideoVaeConfig
from opensora_demo.request import scenes
from opensora_demo.sampling.mask_strategy import nearest_multiple, parse_strategy
from opensora_demo.text import prompts

from .options import Options
from .reference import FOLDER

FILE = FOLDER / "text_utils" / "cases.json"
pytestmark = pytest.mark.skipif(not FILE.is_file(), reason="this folder holds no text cases")


def settings(case: Options) -> list[list[str]]:
    """Prompts, references and strategies, the latter two taken from behind a prompt where it has them."""
    found = [prompts.split_settings(text) for text in case["input"]]
    columns = [
        [options.get(name, old) for (_, options), old in zip(found, case[key], strict=True)]
        for name, key in (("reference_path", "reference"), ("mask_strategy", "mask_strategy"))
    ]
    return [[text for text, _ in found], *columns]


def scores(case: Options) -> str:
    k = case["kwargs"]
    return prompts.add_scores(
        case["input"], aesthetic=k.get("aes"), motion=k.get("flow"), camera=k.get("camera_motion")
    )


@pytest.mark.parametrize("model", ["opensora-1.1", "opensora-1.2", "opensora-1.3"])
def test_sizes_of_1x(model: str) -> None:
    """Those of the reference's table, both sides cut to what the codec takes."""
    version, suffix, multiple = {
        "opensora-1.1": ("v1.1.0", "", 8),
        "opensora-1.2": ("v1.2.0", "", 8),
        "opensora-1.3": ("v1.3", "_16d", 16),
    }[model]
    table = json.loads(FILE.with_name("aspect_tables.json").read_text())[version]["ASPECT_RATIOS"]
    keys = {"16:9": "0.56", "9:16": "1.78", "1:1": "1.00", "4:3": "0.75", "3:4": "1.33", "21:9": "0.43"}
    for size in MODELS[model].limits.sizes:
        wanted = table[size.resolution + suffix]["sizes_h_w"][keys[size.aspect]]
        assert [size.height_px, size.width_px] == [side // multiple * multiple for side in wanted], size


@pytest.mark.parametrize(("model", "multiple"), [("opensora-2.0", 16), ("opensora-2.0-dcae", 32)])
def test_sizes_of_20(model: str, multiple: int) -> None:
    table = json.loads(FILE.with_name("aspect_tables.json").read_text())["v2.0"][f"D={multiple},training=False"]
    for size in MODELS[model].limits.sizes:
        assert [size.height_px, size.width_px] == table[size.resolution][size.aspect], size


def frames_of(case: Options) -> int:
    """How many frames so many latent frames of 1.2 stand for, whole chunks as they are."""
    latents = case["input"]
    return next(n for n in range(17 * latents + 1) if VideoVaeConfig().latent_size(n, 8, 8)[0] == latents)


FUNCTIONS: dict[str, Callable[[Options], Any]] = {
    "text_preprocessing": lambda c: prompts.clean_caption(c["input"]),
    "append_score_to_prompts": scores,
    "split_prompt": lambda c: list(scenes.split_scenes(c["input"])),
    "merge_prompt_of_split": lambda c: scenes.merge_scenes(*scenes.split_scenes(c["input"])),
    "extract_prompts_loop": lambda c: scenes.scene_of(c["input"], c["loop"]),
    "extract_json_from_prompts": settings,
    "parse_mask_strategy": lambda c: [list(astuple(entry)) for entry in parse_strategy(c["input"])],
    "dframe_to_frame": frames_of,
    "find_nearest_point": lambda c: nearest_multiple(*c["args"]),
    "v2_add_fps_info_to_text": lambda c: prompts.add_fps(c["input"], c["fps"]),
    "v2_fps_then_motion": lambda c: prompts.add_fps_and_motion(c["input"], c["fps"], float(c["motion_score"])),
}
ELSEWHERE = {
    "clean_caption_once": "cleaning is always applied twice",
}


def test_every_group_is_known() -> None:
    groups = set(json.loads(FILE.read_text()))
    assert groups <= set(FUNCTIONS) | set(ELSEWHERE)


@pytest.mark.parametrize("group", FUNCTIONS)
def test_texts(group: str) -> None:
    cases = json.loads(FILE.read_text()).get(group, [])
    for case in cases:
        options = Options(case, f"{group}.")
        assert FUNCTIONS[group](options) == options["output"], case
        assert options.unread() == []
