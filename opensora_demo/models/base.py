"""What the numbers of every network say."""

from __future__ import annotations

from typing import ClassVar, Literal, Protocol

from torch import nn

TextMode = Literal["cross-attention", "token concatenation", "pooled vector", "class label", "unknown"]
"""How the prompt reaches a network; unknown of one on another machine."""


class NetworkConfig(Protocol):
    """The numbers of one network, a frozen dataclass."""

    @property
    def text_mode(self) -> TextMode: ...

    reads_fps: ClassVar[bool]
    """Whether the network has a place for the frame rate (words of the prompt count)."""
    takes_loras: ClassVar[bool]
    """Whether low-rank additions are published for it."""

    def build(self) -> nn.Module:
        """The network with these numbers, its weights not read yet."""
        ...
