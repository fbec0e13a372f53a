"""Which part of a model is on the device when: all of them, one at a time, or a large one layer by layer.

Weights stay mapped from their files on the CPU; a part that leaves the device gives its memory back and is not copied.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

import torch
from torch import Tensor, nn

from opensora_demo.import_lock import IMPORT_LOCK
from opensora_demo.memory import give_back
from opensora_demo.request.events import Stage
from opensora_demo.weights.options import PlacementWish
from opensora_demo.weights.reading import EXACT

Placement = Literal["together", "in turn"]
# Shares of the free memory that weights may take, all of them together or one part alone; the rest is for what a run
# computes. As counted (docs/costs.md), the largest clip of 2.0 takes 21 GB in its VAE beside 34 GB of all weights, a
# share of 0.62, and 10 GB beside the 24 GB of its transformer, 0.7: the limits leave somewhat more than that.
_TOGETHER, _IN_TURN = 0.4, 0.65


def choose_placement(sizes_bytes: Mapping[Stage, int], room_bytes: int) -> tuple[Placement, frozenset[Stage]]:
    """All parts together where they leave room for a run, else each in its turn; and the stages whose weights are too
    large even so, and must be streamed."""
    if sum(sizes_bytes.values()) <= _TOGETHER * room_bytes:
        return "together", frozenset()
    return "in turn", frozenset(stage for stage, size in sizes_bytes.items() if size > _IN_TURN * room_bytes)


def plan_placement(
    sizes_bytes: Mapping[Stage, int],
    room_bytes: int | None,
    can_stream: Collection[Stage],
    wish: PlacementWish = "auto",
) -> tuple[Placement, frozenset[Stage]]:
    """What is wished for, else what suits the room; no room is a CPU, where nothing moves."""
    match wish:
        case "together" | "in turn":
            return wish, frozenset()
        case "streamed":
            return "in turn", frozenset(can_stream)
        case "auto":
            pass
        case never:
            assert_never(never)
    if room_bytes is None:
        return "together", frozenset()
    placement, streamed = choose_placement(sizes_bytes, room_bytes)
    return placement, streamed.intersection(can_stream)


@dataclass(slots=True)
class _Part:
    modules: Sequence[nn.Module]
    states: list[dict[str, Tensor]]  # as they were loaded, on the CPU
    on: bool = False


class Offloader:
    """The parts of one model and a device. `prepare` puts a stage's part there, and takes others away where they take
    turns. On a CPU nothing moves: there pages of mapped files are given back when another stage begins."""

    def __init__(
        self,
        parts: Mapping[Stage, Sequence[nn.Module]],
        device: torch.device,
        placement: Placement = "together",
        dtype: torch.dtype | None = None,
        streamed: Collection[Stage] = (),
    ) -> None:
        """`dtype` is what floating-point weights become on the device (None: they stay as they are). Of the stages
        in `streamed` the largest module's weights are there layer by layer, each only while it computes."""
        self.device, self.placement, self.dtype, self.streamed = device, placement, dtype, frozenset(streamed)
        self._parts = {
            stage: _Part(modules, [dict(m.state_dict(keep_vars=False)) for m in modules])
            for stage, modules in parts.items()
        }
        self._last: Stage | None = None

    def prepare(self, stage: Stage) -> None:
        """Before a stage begins."""
        if self.device.type == "cpu" and self.dtype is None and not self.streamed:
            if stage != self._last:
                others = (part.states for name, part in self._parts.items() if name != stage)
                give_back(value for states in others for state in states for value in state.values())
            self._last = stage
            return
        if self.placement != "together":
            for other, part in self._parts.items():
                if other != stage and part.on and other not in self.streamed:
                    self._take_off(part)
        part = self._parts[stage]
        if part.on:
            return
        part.on = True  # also half-way, should memory run out: what has moved must leave again
        sizes = [sum(value.nbytes for value in state.values()) for state in part.states]
        for module, state, size in zip(part.modules, part.states, sizes, strict=True):
            if stage in self.streamed and size == max(sizes):  # what is small beside it may stay
                self._stream(module, state)
            else:
                module.load_state_dict(self._moved(state), assign=True)
                module.requires_grad_(False)

    def _moved(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        done: dict[tuple[int, torch.Size], Tensor] = {}  # shared tensors stay shared
        for name, value in state.items():
            if (key := (value.data_ptr(), value.shape)) not in done:
                done[key] = value.to(self.device, self._dtype_of(name, value))
        return {name: done[value.data_ptr(), value.shape] for name, value in state.items()}

    def _dtype_of(self, name: str, value: Tensor) -> torch.dtype:
        """What a tensor becomes on the device."""
        exact = not value.is_floating_point() or name.endswith(EXACT)
        return value.dtype if exact else self.dtype or value.dtype

    def _take_off(self, part: _Part) -> None:
        for module, state in zip(part.modules, part.states, strict=True):
            module.load_state_dict(state, assign=True)
            module.requires_grad_(False)
        part.on = False
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _stream(self, module: nn.Module, state: dict[str, Tensor]) -> None:
        """With accelerate's hooks."""
        with IMPORT_LOCK:
            from accelerate import cpu_offload

        kept = {name: value.to(self._dtype_of(name, value)) for name, value in state.items()}
        cpu_offload(module, self.device, offload_buffers=True, state_dict=kept)
