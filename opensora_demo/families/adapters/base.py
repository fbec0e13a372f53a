"""What the rest of the package asks of a network: everything that differs between two of them is behind this class.

An adapter holds one network. Families call it, the tab "How it works" reads its attention and modulation, and the
estimate runs it on tensors without data; none of them knows which network it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from torch import Tensor, nn

from opensora_demo.catalog.spec import ModelSpec
from opensora_demo.nn.attention import CrossAttention, SelfAttention
from opensora_demo.nn.rope import RotaryTable
from opensora_demo.request.video import VideoShape

if TYPE_CHECKING:
    from opensora_demo.families.base import Encoders, Family

Keys = Literal["space", "time", "all"]
"""Over which keys a token attends: of its frame, of its place, of the whole clip."""


@dataclass(frozen=True, slots=True)
class SelfAttentionSite:
    """Attention among the clip's tokens. With a `window` (h, w) only those of the same window, of all frames; with
    `words` the prompt's tokens stand behind those of every frame."""

    layer: int
    keys: Keys
    module: SelfAttention
    window: tuple[int, int] | None = None
    words: bool = False


@dataclass(frozen=True, slots=True)
class CrossAttentionSite:
    """Attention of the clip's tokens to the prompt's."""

    layer: int
    module: CrossAttention


@dataclass(frozen=True, slots=True)
class JointAttentionSite:
    """Attention in one sequence, the prompt's tokens first. `block` is called with the rotary table as its last
    argument; `norms` are the modules (of queries, of keys) of each stream, in the order in which these are joined."""

    layer: int
    block: nn.Module
    norms: tuple[tuple[nn.Module, nn.Module], ...]
    rotate: Callable[[Tensor, RotaryTable], Tensor]


AttentionSite = SelfAttentionSite | CrossAttentionSite | JointAttentionSite

Part = Literal["space", "time", "attention", "mlp", "attention and mlp"]
Axis = Literal["space", "time", ""]


@dataclass(frozen=True, slots=True)
class ModulationVectors:
    """Of one block: vectors (n, 3 parts, d) for n times, the shift, scale and gate of each part. `axis` is the block's,
    where a layer has one for each."""

    layer: int
    axis: Axis
    parts: tuple[Part, ...]
    vectors: Tensor


N = TypeVar("N", bound=nn.Module)
C = TypeVar("C")


B = TypeVar("B", bound=nn.Module)


def numbered(blocks: Iterable[nn.Module], kind: type[B]) -> Iterator[tuple[int, B]]:
    """(layer, block) of a list of modules that are all of one class."""
    for i, block in enumerate(blocks):
        assert isinstance(block, kind)
        yield i, block


class Adapter(ABC, Generic[N, C]):
    """One network N of a family whose conditioning is C."""

    config: ClassVar[type[Any]]
    """The numbers whose networks this class holds."""
    streamable: ClassVar[bool] = False
    """Whether a layer's weights are used in its own call only, so that they may come and go with it."""

    def __init__(self, network: N) -> None:
        self.network = network

    # --- numbers

    @property
    def cfg(self) -> Any:
        return self.network.cfg

    @property
    def heads(self) -> int:
        return int(self.cfg.heads)

    @property
    def width(self) -> int:
        return int(self.cfg.width)

    @property
    def patch(self) -> tuple[int, int, int]:
        """Latent positions (t, h, w) that one token stands for."""
        t, h, w = self.cfg.patch
        return t, h, w

    # --- calls

    @abstractmethod
    def family(self, spec: ModelSpec, encoders: Encoders) -> Family[Any]:
        """The conventions of this network's version around it. Raises WeightsError where the entry lacks an encoder."""

    @abstractmethod
    def call(
        self, x: Tensor, time: Tensor, condition: C, rows: list[int], branches: list[int], x_mask: Tensor | None
    ) -> Tensor:
        """The network's own output (n, c', t, h, w) for a batch of (clip, branch) pairs: x (n, c, t, h, w), time (n) as
        the network counts it, x_mask (n, t) False for frames that are given."""

    @abstractmethod
    def call_without_data(self, x: Tensor, shape: VideoShape, tokens: int) -> Tensor:
        """A call with a made-up condition for a clip of `shape` and a prompt of that many tokens: what it costs is what
        a call costs."""

    # --- what skip-layer guidance leaves out

    @abstractmethod
    def layers(self) -> Sequence[tuple[nn.Module, ...]]:
        """The blocks of each layer, in the order in which a call runs them; a block is called with what it changes
        first."""

    def unchanged(self, block: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """What a block answers that changes nothing of its arguments."""
        return args[0]

    def middle(self) -> list[nn.Module]:
        """The blocks of an eighth of the layers, at least one, in the middle: there a picture's structure is made."""
        layers = self.layers()
        count = max(1, round(len(layers) / 8))
        first = (len(layers) - count + 1) // 2
        return [block for layer in layers[first : first + count] for block in layer]

    @contextmanager
    def without_middle(self) -> Iterator[None]:
        """Calls in this context run without those blocks: what one is given goes on to the next.

        Source: Stability AI, skip-layer guidance of Stable Diffusion 3.5; Hyung et al., "Spatiotemporal skip guidance
        for enhanced video diffusion sampling", 2024 (residual skip)."""
        blocks = self.middle()
        before = [block.__dict__.get("forward") for block in blocks]  # of those whose weights come and go
        for block in blocks:
            block.forward = partial(self.unchanged, block)
        try:
            yield
        finally:
            for block, forward in zip(blocks, before, strict=True):
                if forward is None:
                    del block.forward
                else:
                    block.forward = forward

    # --- what can be read from it while it works

    @abstractmethod
    def attention_sites(self) -> Iterator[AttentionSite]:
        """Every attention, in the order in which a call runs them."""

    @abstractmethod
    def time_modules(self) -> tuple[nn.Module, tuple[nn.Module, ...]]:
        """The module that embeds the time (n) -> (n, d), and those that make modulation of its output plus what a run
        holds fixed."""

    @abstractmethod
    def embed_times(self, times: Tensor) -> Tensor:
        """Times (n) as the network counts them -> (n, d), what the first of the time modules makes of them."""

    @abstractmethod
    def modulation(self, embedded: Sequence[Tensor]) -> Iterator[ModulationVectors]:
        """Every block's modulation, from the input (n, d) of each module that makes it."""
