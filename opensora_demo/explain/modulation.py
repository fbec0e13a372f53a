"""How the flow time speaks to the blocks: adaLN's shift, scale and gate over t, from the network's own weights.

All networks make these vectors from an embedding of time plus something that a run holds fixed (FPS, size, pooled
text). One real call shows that second part; the rest is a batch of times through the modules that do it in every step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from opensora_demo.families.adapters.base import Adapter, Axis, Part


@dataclass(frozen=True, slots=True)
class Modulation:
    """One branch of one block: of shift, scale and gate, each (times, 2), the root mean square over channels of the
    vector, and of what has changed in it since the first time."""

    layer: int
    block: Axis
    part: Part
    shift: Tensor
    scale: Tensor
    gate: Tensor


class Clock:
    """Remembers, from one call of the network, what is added to the embedded time; then gives the sum for any time.

    `time_scale` is what the network calls the flow time 1 (`Family.time_scale`).
    """

    def __init__(self, adapter: Adapter[Any, Any], time_scale: float) -> None:
        self.adapter = adapter
        self.time_scale = time_scale
        self._fixed: list[Tensor] = []

    def watch(self, call: Callable[[], Any]) -> Any:
        """Run `call`, which must call the network, and look at its first entry."""
        seen: dict[str, Tensor] = {}

        def output(_module: nn.Module, _args: tuple[Any, ...], out: Tensor) -> None:
            seen.setdefault("time", out)

        def keep(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
            def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
                seen.setdefault(name, args[0])

            return hook

        embedder, readers = self.adapter.time_modules()
        hooks = [embedder.register_forward_hook(output)]
        hooks += [reader.register_forward_pre_hook(keep(str(i))) for i, reader in enumerate(readers)]
        try:
            result = call()
        finally:
            for hook in hooks:
                hook.remove()
        self._fixed = [seen[str(i)][:1] - seen["time"][:1] for i in range(len(readers))]
        return result

    def embed(self, times: Tensor, reader: int = 0) -> Tensor:
        """(n) flow times in 0..1 -> (n, d), what the modulation is made of."""
        fixed = self._fixed[reader]
        return self.adapter.embed_times(self.time_scale * times.to(fixed.device)) + fixed

    def embedded(self, times: Tensor) -> list[Tensor]:
        """The same for every module that makes modulation."""
        return [self.embed(times, reader) for reader in range(len(self._fixed))]


def modulations(clock: Clock, times: Tensor) -> list[Modulation]:
    """Every block's modulation at the times (n), in the network's order."""
    found: list[Modulation] = []
    for block in clock.adapter.modulation(clock.embedded(times)):
        both = torch.stack([block.vectors, block.vectors - block.vectors[:1]], dim=-1).float()  # (n, 3 parts, d, 2)
        size = both.square().mean(2).sqrt().cpu()
        for i, part in enumerate(block.parts):
            found.append(Modulation(block.layer, block.axis, part, *size[:, 3 * i : 3 * i + 3].unbind(1)))
    return found


def even_times(count: int) -> Tensor:
    """`count` flow times from 1 (noise) to 0 (data)."""
    return torch.linspace(1, 0, count)
