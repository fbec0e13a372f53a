"""What it costs a small STDiT to let the text in, in each of three ways: measured side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from opensora_demo.catalog import ModelSpec
from opensora_demo.catalog.nano import NANO_CONCAT, NANO_CROSS, NANO_REPLACED
from opensora_demo.memory import traced_peak_bytes

THREE: Sequence[ModelSpec] = (NANO_CROSS, NANO_CONCAT, NANO_REPLACED)
TOKENS = 12  # of a prompt as they are
BATCH = 32  # clips of a training step
ROUNDS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Of one call with both branches of guidance: arithmetic and the median time; and the most memory that a step of
    training on BATCH clips holds beyond weights and gradients."""

    parameters: int
    gflop: float
    ms: float
    mb: float


def _call(network: Any, spec: ModelSpec, batch: int) -> Callable[[], Tensor]:
    """A call of an STDiT on random latents (batch, c, t, h, w) at its spec's default length and size."""
    cfg = network.cfg
    codec = spec.codec.build()
    size = codec.latent_size(spec.limits.default_frames, *spec.limits.size_px)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, cfg.in_channels, *size, generator=generator)
    y = torch.randn(batch, TOKENS, cfg.text_channels, generator=generator)
    height_px, width_px = spec.limits.size_px
    fps = torch.full((batch,), float(spec.limits.fps.default))
    lengths = torch.full((batch,), TOKENS)
    t = torch.full((batch,), 500.0)

    def call() -> Tensor:
        text = network.project_text(y, lengths)
        return network(x, t, text, fps=fps, height_px=height_px, width_px=width_px)

    return call


def measure_costs(specs: Sequence[ModelSpec], rounds: int = ROUNDS, batch: int = BATCH) -> dict[str, Costs]:
    """Of each network by its model's id; the calls that are timed take turns. Numbers of weights do not matter here."""
    networks = {spec.id: (spec.network.build(), spec) for spec in specs}
    calls = {name: _call(network, spec, 2) for name, (network, spec) in networks.items()}
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    flops: dict[str, int] = {}
    with torch.inference_mode():
        for name, call in calls.items():
            with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # the others are not counted
                call()
            flops[name] = counter.get_total_flops()
        for _ in range(rounds):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - start)
    held = {}
    for name, (network, spec) in networks.items():
        step = _call(network, spec, batch)
        step().sum().backward()  # makes the gradients
        held[name] = traced_peak_bytes(lambda step=step: step().sum().backward())  # type: ignore[misc]
        network.zero_grad()
    return {
        name: Costs(
            parameters=sum(p.numel() for p in network.parameters()),
            gflop=flops[name] / 1e9,
            ms=1000 * statistics.median(seconds[name]),
            mb=held[name] / 1e6,
        )
        for name, (network, _) in networks.items()
    }
