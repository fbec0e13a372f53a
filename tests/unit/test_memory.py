"""Memory that is not taken: no mask of video tokens by text tokens, no pages of weights that have had their turn."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.profiler import ProfilerActivity, profile

from opensora_demo.memory import give_back
from opensora_demo.models.stdit3 import STDiT3, STDiT3Config
from opensora_demo.placement import Placed
from opensora_demo.weights import load_module


def peak_bytes(run) -> int:  # type: ignore[no-untyped-def]
    """The most memory that was held at once beyond what `run` started with."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, record_shapes=False) as trace:
        run()
    held = peak = 0
    for event in trace.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def test_prompts_of_different_length_cost_no_dense_mask() -> None:
    # An early Open-Sora expanded the mask to (b, heads, video tokens, text tokens): about 1 TB for one 512 px clip.
    heads, frames, side, long = 8, 16, 48, 300
    network = STDiT3(STDiT3Config(width=64, depth=1, heads=heads, text_channels=16, max_tokens=long)).eval()
    x = torch.randn(2, 4, frames, side, side)
    arguments = {"fps": torch.full((2,), 8.0), "height_px": 384, "width_px": 384}
    peaks = []
    for tokens in (8, long):
        with torch.inference_mode():
            text = network.project_text(torch.randn(2, tokens, 16), torch.tensor([tokens, 7]))
            peaks.append(peak_bytes(lambda text=text: network(x, torch.full((2,), 500.0), text, **arguments)))
    dense = 2 * heads * frames * (side // 2) ** 2 * long  # bytes of a boolean mask; the scores would take 4 x as much
    assert peaks[1] - peaks[0] < dense / 20, (peaks, dense)


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
    placed = Placed({"text": [parts["text"]], "denoise": [parts["denoise"]]}, torch.device("cpu"))
    sums: list[float] = []
    for stage in ("text", "denoise", "text", "denoise"):
        placed.use(stage)  # type: ignore[arg-type]
        assert all(mapped_bytes(blobs[name]) == 0 for name in parts if name != stage)
        sums.append(float(parts[stage].weight.sum()))
        assert mapped_bytes(blobs[stage]) >= size
    assert sums[:2] == sums[2:]
    assert sums[0] != 0


def test_memory_that_is_not_of_a_file_is_left_alone() -> None:
    kept = torch.full((1024, 1024), 3.0)
    give_back([kept])
    assert bool((kept == 3).all())
