"""Hooks that a call has left on a network."""

from __future__ import annotations

from torch import nn

from opensora_demo.nn.abort import _ask


def added_hooks(network: nn.Module) -> list[object]:
    """All hooks but those that every network has, by which a run is stopped before its next block."""
    before = [hook for module in network.modules() for hook in module._forward_pre_hooks.values() if hook is not _ask]
    return [*before, *(hook for module in network.modules() for hook in module._forward_hooks.values())]
