"""How the flow time speaks to the blocks: adaLN's shift, scale and gate over t, from the network's own weights.

All networks make these vectors from an embedding of time plus something that a run holds fixed (FPS, size, pooled
text). One real call shows that second part; the rest is a batch of times through the modules that do it in every step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opensora_demo.bundle import Network
from opensora_demo.models.dit import DiT
from opensora_demo.models.mmdit import TIME_FACTOR, DoubleBlock, MMDiT
from opensora_demo.models.stdit2 import STDiT2
from opensora_demo.nn.embeddings import sinusoid

Part = Literal["space", "time", "attention", "mlp", "attention and mlp"]


@dataclass(frozen=True, slots=True)
class Modulation:
    """One branch of one block: of shift, scale and gate, each (times, 2), the root mean square over channels of the
    vector, and of what has changed in it since the first time."""

    layer: int
    block: Literal["space", "time", ""]
    part: Part
    shift: Tensor
    scale: Tensor
    gate: Tensor


class Clock:
    """Remembers, from one call of the network, what is added to the embedded time; then gives the sum for any time.

    `timesteps` of the flow time 1: 1000 for flows, 999 for diffusion; MMDiT counts 0..1 itself.
    """

    def __init__(self, network: Network, timesteps: float) -> None:
        self.network = network
        self.timesteps = timesteps
        self._fixed: list[Tensor] = []

    def watch(self, call: Callable[[], Any]) -> Any:
        """Run `call`, which must call the network, and look at its first entry."""
        network = self.network
        seen: dict[str, Tensor] = {}

        def output(_module: nn.Module, _args: tuple[Any, ...], out: Tensor) -> None:
            seen.setdefault("time", out)

        def keep(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
            def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
                seen.setdefault(name, args[0])

            return hook

        match network:
            case MMDiT():
                embedder: nn.Module = network.time_in
                readers: list[nn.Module] = [network.double_blocks[0].img_mod]  # type: ignore[list-item]
            case DiT():
                embedder, readers = network.t_embedder, [network.blocks[0].adaLN_modulation]  # type: ignore[list-item]
            case STDiT2():
                embedder, readers = network.t_embedder, [network.t_block, network.t_block_temp]
            case _:
                embedder, readers = network.t_embedder, [network.t_block]
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
        network, times = self.network, times.to(self._fixed[reader].device)
        if isinstance(network, MMDiT):
            code = network.time_in(sinusoid(TIME_FACTOR * times).to(network.img_in.weight.dtype))
        else:
            code = network.t_embedder(self.timesteps * times)
        return code + self._fixed[reader]


def modulations(clock: Clock, times: Tensor) -> list[Modulation]:
    """Every block's modulation at the times (n), in the network's order."""
    network = clock.network
    vec = clock.embed(times)
    found: list[Modulation] = []

    def add(layer: int, block: Literal["space", "time", ""], parts: tuple[Part, ...], vectors: Tensor) -> None:
        """vectors (n, 3 parts, d): shift, scale and gate of each part."""
        both = torch.stack([vectors, vectors - vectors[:1]], dim=-1).float()  # (n, 3 parts, d, 2)
        size = both.square().mean(2).sqrt().cpu()
        for i, part in enumerate(parts):
            found.append(Modulation(layer, block, part, *size[:, 3 * i : 3 * i + 3].unbind(1)))

    match network:
        case MMDiT():
            for i, block in enumerate([*network.double_blocks, *network.single_blocks]):
                double = isinstance(block, DoubleBlock)
                linear: nn.Linear = (block.img_mod if double else block.modulation).lin
                parts: tuple[Part, ...] = ("attention", "mlp") if double else ("attention and mlp",)
                add(i, "", parts, linear(F.silu(vec)).unflatten(-1, (3 * len(parts), -1)))
        case DiT():
            for i, block in enumerate(network.blocks):
                # Of a Latte, two blocks make a layer: one over space, one over time.
                latte = network.cfg.alternate
                kind: Literal["space", "time", ""] = ("time" if i % 2 else "space") if latte else ""
                vectors = block.adaLN_modulation(vec).unflatten(-1, (6, -1))  # type: ignore[operator]
                add(i // 2 if latte else i, kind, ("attention", "mlp"), vectors)
        case _:
            shared = network.t_block(vec).unflatten(-1, (6, -1))  # adaLN-single: one for all blocks, plus a table each
            if hasattr(network, "spatial_blocks"):
                pairs = [("space", block, i) for i, block in enumerate(network.spatial_blocks)]  # type: ignore[arg-type]
                pairs += [("time", block, i) for i, block in enumerate(getattr(network, "temporal_blocks", ()))]
                for name, block, i in sorted(pairs, key=lambda pair: pair[2]):
                    add(i, name, ("attention", "mlp"), shared + block.scale_shift_table)  # type: ignore[arg-type]
                return found
            for i, block in enumerate(network.blocks):  # type: ignore[arg-type]
                parts = ("space", "mlp") if isinstance(network, STDiT2) else ("attention", "mlp")
                add(i, "", parts, shared + block.scale_shift_table)
                if isinstance(network, STDiT2):
                    in_time = network.t_block_temp(clock.embed(times, 1)).unflatten(-1, (3, -1))
                    add(i, "", ("time",), in_time + block.scale_shift_table_temporal)
    return found


def even_times(count: int) -> Tensor:
    """`count` flow times from 1 (noise) to 0 (data)."""
    return torch.linspace(1, 0, count)
