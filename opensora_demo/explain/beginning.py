"""adaLN-Zero: how much each block adds before training has begun, and how much it adds now.

Measured on two networks of the same numbers: the loaded one, and one whose weights are those that training starts from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import nn

from opensora_demo.explain.modulation import Clock, Modulation, even_times, modulations
from opensora_demo.families.adapters.base import Adapter
from opensora_demo.families.base import Family

MOST_WEIGHTS = 30_000_000  # of a network that is made anew for this figure


@runtime_checkable
class Trainable(Protocol):
    """A network that knows the weights its training starts from."""

    def initialise(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Gate:
    """The gate of one part of one block, root mean square over channels and the mean of that over flow times."""

    modulation: Modulation
    start: float
    now: float


@dataclass(frozen=True, slots=True)
class Added:
    """What one block adds to its input in one call, root mean square of output minus input over that of the input:
    `part` counts the blocks of a layer."""

    layer: int
    part: int
    start: float
    now: float


@dataclass(frozen=True, slots=True)
class Beginning:
    """Gates and additions of every block, in the network's order; none where a network cannot be made anew: it is too
    large for it here (`too_large`), or this project does not train its kind."""

    gates: tuple[Gate, ...]
    added: tuple[Added, ...]
    too_large: bool = False


@contextmanager
def watching_blocks(adapter: Adapter[Any, Any]) -> Iterator[dict[tuple[int, int], float]]:
    """While entered, fills with what each block, (layer, part), adds in its first call: RMS(output - input) over
    RMS(input). A block is called with what it changes first."""
    found: dict[tuple[int, int], float] = {}

    def keep(at: tuple[int, int]) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            x, y = args[0].float(), (out[0] if isinstance(out, tuple) else out).float()
            size = float(x.square().mean().sqrt())
            found.setdefault(at, float((y - x).square().mean().sqrt()) / max(size, 1e-12))

        return hook

    hooks = [
        block.register_forward_hook(keep((i, k)))
        for i, layer in enumerate(adapter.layers())
        for k, block in enumerate(layer)
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def started_anew(family: Family[Any]) -> Family[Any] | None:
    """The same family around a new network of the same numbers, with the weights that training starts from; None where
    this project does not train its kind. The weights are random where they are not zero."""
    network = family.network
    if not isinstance(network, Trainable):
        return None
    weights = next(network.parameters())
    fresh = type(network)(family.adapter.cfg)
    fresh.initialise()
    fresh.to(device=weights.device, dtype=weights.dtype).eval()
    anew = copy(family)
    anew.adapter = type(family.adapter)(fresh)
    return anew


def is_large(network: nn.Module) -> bool:
    return sum(p.numel() for p in network.parameters()) > MOST_WEIGHTS


def begin(
    family: Family[Any],
    first_step: Callable[[Family[Any]], Any],
    now: dict[tuple[int, int], float],
    found: Sequence[Modulation],
) -> Beginning:
    """Compare the loaded network with one whose training has not begun.

    `first_step` runs the first step of this run with a family; `now` and `found` are what the loaded network's blocks
    add (`watching_blocks`) and its modulation over flow times that are evenly spread from 1 to 0."""
    if is_large(family.network):
        return Beginning((), (), too_large=True)
    anew = started_anew(family)
    if anew is None:
        return Beginning((), ())
    clock = Clock(anew.adapter, family.time_scale)
    with watching_blocks(anew.adapter) as start:
        clock.watch(lambda: first_step(anew))
    before = modulations(clock, even_times(len(found[0].gate)))
    gates = tuple(
        Gate(new, float(old.gate[:, 0].mean()), float(new.gate[:, 0].mean()))
        for old, new in zip(before, found, strict=True)
    )
    return Beginning(gates, tuple(Added(*at, start[at], now[at]) for at in now))
