"""One computation over several processes, which all run the same program: what they tell each other.

A network's tokens are split among them, and attention sees all of them all the same: before it each process gives away
part of another axis, and gets the tokens that it lacks (Jacobs et al., "DeepSpeed Ulysses", arXiv 2309.14509, swaps
heads for tokens; Open-Sora v1.2.0 opensora/acceleration/communications.py swaps places for frames). Sizes that do not
divide are padded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Peers:
    """Processes that share a computation: how many, and which of them this one is. They call the same methods in the
    same order."""

    size: int
    rank: int
    group: ProcessGroup | None = None

    def exchange(self, parts: Tensor) -> Tensor:
        """parts (size, ...), the i-th for the i-th process -> (size, ...), the i-th from the i-th process."""
        parts = parts.contiguous()
        received = torch.empty_like(parts)
        torch.distributed.all_to_all_single(received, parts, group=self.group)
        return received

    def gather(self, x: Tensor) -> tuple[Tensor, ...]:
        """x, of one shape everywhere -> that of each process, in order."""
        received = tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(self.size))
        torch.distributed.all_gather(list(received), x.contiguous(), group=self.group)
        return received

    def tell(self, x: Tensor | None, rank: int, like: Tensor) -> Tensor:
        """What the process `rank` has for x, of as many axes as `like`, of its dtype and on its device."""
        shape = torch.tensor(list(x.shape) if x is not None else [0] * like.ndim, device=like.device)
        torch.distributed.broadcast(shape, group_src=rank, group=self.group)
        told = like.new_empty(tuple(shape.tolist())) if x is None else x.contiguous()
        torch.distributed.broadcast(told, group_src=rank, group=self.group)
        return told


def in_turn(parts: Sequence[P], run: Callable[[P], Tensor], peers: Peers | None, like: Tensor) -> Iterator[Tensor]:
    """`run` of every part, in order. With `peers` each process computes one of as many in a row as they are, and tells
    the others, for whom the answer is a tensor of as many axes as `like`, of its dtype and on its device."""
    if peers is None:
        yield from map(run, parts)
        return
    for first in range(0, len(parts), peers.size):
        row = parts[first : first + peers.size]
        own = run(row[peers.rank]) if peers.rank < len(row) else None
        for rank in range(len(row)):
            yield peers.tell(own if rank == peers.rank else None, rank, like)
        own = None  # before the next one is made


@dataclass(frozen=True, slots=True)
class Split:
    """An axis of `length` places over the processes: `each` of them has as many, in order; the last are padding."""

    peers: Peers
    length: int
    each: int

    @classmethod
    def of(cls, peers: Peers, length: int) -> Split:
        return cls(peers, length, -(-length // peers.size))

    def take(self, x: Tensor, dim: int) -> Tensor:
        """This process's part of an axis; zeros in place of what there is not."""
        first = min(self.peers.rank * self.each, self.length)
        own = x.narrow(dim, first, min(self.each, self.length - first))
        return padded(own, dim, self.each)

    def join(self, x: Tensor, dim: int) -> Tensor:
        """The whole axis, of everyone's part x."""
        return torch.cat(self.peers.gather(x), dim=dim).narrow(dim, 0, self.length)


def padded(x: Tensor, dim: int, length: int) -> Tensor:
    """x with zeros behind it along an axis, up to `length`."""
    missing = length - x.shape[dim]
    return x if missing == 0 else F.pad(x, (0, 0) * (x.ndim - 1 - dim) + (0, missing))


def swap(x: Tensor, give: Split, give_dim: int, get: Split, get_dim: int) -> Tensor:
    """x has the whole of the axis `give_dim` and this process's part of `get_dim`; the answer has this process's part
    of `give_dim` and the whole of `get_dim`."""
    peers = give.peers
    x = padded(x, give_dim, peers.size * give.each).unflatten(give_dim, (peers.size, give.each))
    parts = peers.exchange(x.movedim(give_dim, 0))
    return torch.cat(parts.unbind(), dim=get_dim).narrow(get_dim, 0, get.length)


@dataclass(frozen=True, slots=True)
class FrameShards:
    """Tokens (b, t, s, d) of a clip, their frames over the processes."""

    frames: Split

    def take(self, x: Tensor) -> Tensor:
        """This process's frames of x (b, t, ...); x as it is where it is one for all frames."""
        return x if x.shape[1] != self.frames.length else self.frames.take(x, 1)

    def join(self, x: Tensor) -> Tensor:
        return self.frames.join(x, 1)

    def own(self, frames: list[int]) -> list[int]:
        """Which of some frames this process has, as it counts them."""
        first = self.frames.peers.rank * self.frames.each
        return [frame - first for frame in frames if 0 <= frame - first < self.frames.each]

    def over_time(self, x: Tensor, attend: Callable[[Tensor, Split], Tensor]) -> Tensor:
        """`attend` of all frames of part of the places: x (b, own frames, s, ...) -> the same shape. It is told which
        places those are."""
        places = Split.of(self.frames.peers, x.shape[2])
        y = attend(swap(x, places, 2, self.frames, 1), places)
        return swap(y, self.frames, 1, places, 2)

    def tokens(self, places: int) -> TokenShards:
        """The same tokens as one sequence (b, t s), for attention among all of them."""
        frames = self.frames
        return TokenShards(Split(frames.peers, frames.length * places, frames.each * places))


@dataclass(frozen=True, slots=True)
class TokenShards:
    """Tokens of one sequence over the processes. `order` (n): where in the parts, one behind the other, each of its
    tokens is; None where they stand as they are, with padding behind them."""

    tokens: Split
    order: Tensor | None = None

    @classmethod
    def joined(cls, peers: Peers, first: int, second: int, device: torch.device) -> tuple[TokenShards, Split, Split]:
        """Of two sequences, of which each process has a part of the first and then a part of the second."""
        a, b = Split.of(peers, first), Split.of(peers, second)
        each = a.each + b.each
        starts = each * torch.arange(peers.size)[:, None]
        of_first = (starts + torch.arange(a.each)).flatten()[:first]
        of_second = (starts + a.each + torch.arange(b.each)).flatten()[:second]
        whole = Split(peers, peers.size * each, each)
        return cls(whole, torch.cat([of_first, of_second]).to(device)), a, b

    def attend(self, q: Tensor, k: Tensor, v: Tensor, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """`attend` of all tokens, for part of the heads: q, k and v (b, heads, own tokens, d) -> the same shape."""
        heads = Split.of(self.tokens.peers, q.shape[1])
        out = attend(*(self._order(swap(x, heads, 1, self.tokens, 2)) for x in (q, k, v)))
        if self.order is not None:
            out = out.new_zeros(*out.shape[:2], self.tokens.length, out.shape[3]).index_copy(2, self.order, out)
        return swap(out, self.tokens, 2, heads, 1)

    def _order(self, x: Tensor) -> Tensor:
        return x if self.order is None else x[:, :, self.order]


def frame_shards(peers: Peers | None, frames: int) -> FrameShards | None:
    return None if peers is None else FrameShards(Split.of(peers, frames))


def attend_over_time(x: Tensor, shards: FrameShards | None, attend: Callable[[Tensor], Tensor]) -> Tensor:
    """`attend` of sequences (n, t, d) of all frames, one for each place of x (b, t, s, d)."""

    def whole(y: Tensor, _places: Split | None = None) -> Tensor:
        return rearrange(attend(rearrange(y, "b t s d -> (b s) t d")), "(b s) t d -> b t s d", b=len(y))

    return whole(x) if shards is None else shards.over_time(x, whole)
