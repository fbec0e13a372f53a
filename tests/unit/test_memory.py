"""Memory that is not taken: no mask of video tokens by text tokens, no pages of weights that have had their turn."""

from __future__ import annotations

import gc
import re
import weakref
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from opensora_demo.memory import give_back, keep_for_good, traced_peak_bytes
from opensora_demo.models.stdit3 import STDiT3, STDiT3Config
from opensora_demo.nn.mask_cost import mask_bytes
from opensora_demo.runtime.placement import Offloader
from opensora_demo.weights.reading import load_module
from tests.unit.test_imports import ROOT


def test_prompts_of_different_length_cost_no_dense_mask() -> None:
    heads, frames, side, long = 8, 16, 48, 300
    network = STDiT3(STDiT3Config(width=64, depth=1, heads=heads, text_channels=16, max_tokens=long)).eval()
    x = torch.randn(2, 4, frames, side, side)
    arguments = {"fps": torch.full((2,), 8.0), "height_px": 384, "width_px": 384}
    peaks = []
    for tokens in (8, long):
        with torch.inference_mode():
            text = network.project_text(torch.randn(2, tokens, 16), torch.tensor([tokens, 7]))
            peaks.append(traced_peak_bytes(lambda text=text: network(x, torch.full((2,), 500.0), text, **arguments)))
    dense = 2 * heads * frames * (side // 2) ** 2 * long  # bytes of a boolean mask; the scores would take 4 x as much
    assert peaks[1] - peaks[0] < dense / 20, (peaks, dense)


def test_the_bytes_of_masks_are_those_of_their_tensors() -> None:
    costs = mask_bytes(2, 3, 4, 5, batch=2, heads=3, blocks=2, score_bytes=4)
    for cost in costs:
        dtype = torch.bool if "mask" in cost.name or cost.element_bytes == 1 else torch.float32
        assert cost.bytes == torch.empty(cost.shape, dtype=dtype).nbytes
    q, k = torch.randn(2, 3, 24, 8), torch.randn(2, 3, 5, 8)
    assert costs[2].bytes == (q @ k.transpose(-1, -2)).nbytes
    assert costs[4].bytes == (q @ q.transpose(-1, -2)).nbytes


def test_what_comes_to_1000_gb_is_what_the_documents_say() -> None:
    """32 frames of 512 px, 120 words, XL/2 in half precision."""
    sizes = [cost.bytes for cost in mask_bytes(32, 512 // 16, 512 // 16, 120)]
    assert sizes[0] == 120
    assert [round(size / 1e6, 1) for size in sizes[1:3]] == [3.9, 125.8]
    assert [round(size / 1e9, 1) for size in sizes[3:]] == [1.1, 34.4, 962.1]
    said = " ".join((mask_bytes.__doc__ or "").split())
    for number in ("120 bytes", "3.9 MB", "34 GB", "962 GB"):
        assert number in said
    for name in ("articles.md", "articles.zh.md"):
        text = (ROOT / "docs" / name).read_text("utf-8")
        assert all(number in text for number in ("3.9 MB", "34 GB", "962 GB")), name


def mapped_bytes(file: Path) -> int:
    """Of a file's pages in this process, counted page by page."""
    found = re.search(rf"{re.escape(str(file))}\n(?:.*\n)*?Rss:\s+(\d+) kB", Path("/proc/self/smaps").read_text())
    assert found is not None
    return 1024 * int(found.group(1))


def test_mapped_weights_are_given_back_after_their_stage(tmp_path: Path) -> None:
    size = 4 * 4096 * 1024
    parts: dict[str, nn.Linear] = {}
    blobs: dict[str, Path] = {}
    for name in ("text", "denoise"):
        blobs[name], file = tmp_path / f"{name}-blob", tmp_path / f"{name}.safetensors"
        save_file({"weight": torch.randn(1024, 4096)}, blobs[name])
        file.symlink_to(blobs[name])  # as in the hub's cache
        parts[name] = load_module(lambda: nn.Linear(4096, 1024, bias=False), (file,), name, dtype=None)
    offloader = Offloader({"text": [parts["text"]], "denoise": [parts["denoise"]]}, torch.device("cpu"))
    sums: list[float] = []
    for stage in ("text", "denoise", "text", "denoise"):
        offloader.prepare(stage)  # type: ignore[arg-type]
        assert all(mapped_bytes(blobs[name]) == 0 for name in parts if name != stage)
        sums.append(float(parts[stage].weight.sum()))
        assert mapped_bytes(blobs[stage]) >= size
    assert sums[:2] == sums[2:]
    assert sums[0] != 0


def test_memory_that_is_not_of_a_file_is_left_alone() -> None:
    kept = torch.full((1024, 1024), 3.0)
    give_back([kept])
    assert bool((kept == 3).all())


def test_what_lives_at_the_start_is_not_walked_through_again() -> None:
    class Node:
        other: Node

    def tracked() -> bool:
        return any(value is old for value in gc.get_objects())

    old = Node()
    assert tracked()
    keep_for_good()
    assert not tracked()
    first, second = Node(), Node()  # which name each other
    first.other, second.other = second, first
    gone = weakref.ref(first)
    del first, second
    gc.collect()
    assert gone() is None  # what comes later is collected as ever
