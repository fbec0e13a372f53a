"""Cross-attention to prompts of different length stays linear in memory: no mask of video tokens by text tokens."""

from __future__ import annotations

import torch
from torch.profiler import ProfilerActivity, profile

from opensora_demo.models.stdit3 import STDiT3, STDiT3Config


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
