"""The branches of guidance: as many (clip, branch) pairs as fit go through the network in one batch, and are mixed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from opensora_demo.nn.peers import Peers
from opensora_demo.nn.threads import side_by_side
from opensora_demo.sampling import iddpm
from opensora_demo.sampling.guidance import SKIP, Guidance, guidance_changed
from opensora_demo.sampling.step import Prediction

Pair = tuple[int, int]
"""(row, branch)"""
Call = Callable[[list[int], list[int]], Tensor]
"""(rows, branches), one entry each for a batch -> the network's output (n, ...). Pairs of the branch `SKIP`, for which
the network is another one, come in batches of their own."""


def pairs_of(wanted: Tensor, *, shared: bool = False) -> list[Pair]:
    """The (row, branch) pairs that are evaluated, branch by branch; `shared` as for `evaluate`."""
    rows, branches = wanted.shape
    return [
        (row, k)
        for k in range(branches)
        for row in range(1 if shared else rows)
        if (wanted[:, k].any() if shared else wanted[row, k])
    ]


def evaluate(
    call: Call,
    wanted: Tensor,
    *,
    shared: bool = False,
    max_batch: int | None = None,
    peers: Peers | None = None,
    threads: int = 1,
) -> list[Tensor | None]:
    """Predictions of each branch, (rows, ...) or None where no row wants it; `wanted` is boolean (rows, branches).

    With `shared` all rows hold the same latent (the first step of a comparison): each branch is evaluated once. With
    `peers` each process calls the network for some of the pairs, at most `max_batch` each at once. With `threads` a
    batch of at least twice as many pairs is computed in so many parts side by side.
    """
    rows, branches = wanted.shape
    pairs = pairs_of(wanted, shared=shared)
    parts: list[list[Pair]] = []
    for alike in ([pair for pair in pairs if pair[1] != SKIP], [pair for pair in pairs if pair[1] == SKIP]):
        size = max_batch * (1 if peers is None else peers.size) if max_batch else max(len(alike), 1)
        parts += [alike[at : at + size] for at in range(0, len(alike), size)]
    pairs = [pair for part in parts for pair in part]
    if not pairs:
        return [None] * branches
    out = torch.cat([_outputs(call, part, peers, threads) for part in parts])
    predictions: list[Tensor | None] = []
    for k in range(branches):
        found = [i for i, (_, branch) in enumerate(pairs) if branch == k]
        if not found:
            predictions.append(None)
        elif shared:
            predictions.append(out[found].expand(rows, *out.shape[1:]))
        elif len(found) == rows:
            predictions.append(out[found[0] : found[-1] + 1])
        else:
            full = out.new_zeros(rows, *out.shape[1:])
            full[[pairs[i][0] for i in found]] = out[found]
            predictions.append(full)
    return predictions


def _outputs(call: Call, pairs: list[Pair], peers: Peers | None, threads: int) -> Tensor:
    """The network's output for each pair, of this process or of the one whose pair it is. A single pair is computed by
    all of them."""
    if peers is None or len(pairs) == 1:
        return _computed(call, pairs, threads)
    each = -(-len(pairs) // peers.size)
    own = [pairs[min(i, len(pairs) - 1)] for i in range(peers.rank * each, (peers.rank + 1) * each)]
    return torch.cat(peers.gather(_computed(call, own, threads)))[: len(pairs)]


def _computed(call: Call, pairs: list[Pair], threads: int) -> Tensor:
    """The same, here. (Layers are left out of the network itself, which threads share: those pairs stay together.)"""

    def batch(some: list[Pair]) -> Tensor:
        return call([row for row, _ in some], [k for _, k in some])

    if threads == 1 or len(pairs) < 2 * threads or pairs[0][1] == SKIP:
        return batch(pairs)
    each = -(-len(pairs) // threads)
    return torch.cat(side_by_side(batch, [pairs[at : at + each] for at in range(0, len(pairs), each)]))


def guide_noise(
    out: list[Tensor | None], guidance: Guidance, index: int, x: Tensor, timestep: float, guided: int | None
) -> Prediction:
    """The prompt branch's output with the first `guided` of its noise channels (None: all of them) replaced by the
    guided ones."""
    assert out[0] is not None
    channels = x.shape[1]
    count = channels if guided is None else guided
    noise = [None if o is None else o[:, :channels].float() for o in out]
    part = [None if n is None else n[:, :count] for n in noise]
    eps = guidance.guide(part, index, x[:, :count], iddpm.to_x0(timestep))
    return Prediction(guided=torch.cat([eps, out[0][:, count:].float()], dim=1), branches=tuple(noise))


def guide_velocity(branches: list[Tensor | None], guidance: Guidance, index: int, x: Tensor, t: float) -> Prediction:
    """The guided dx/dt of x at time t, from those of its branches."""
    return Prediction(
        guided=guidance.guide(branches, index, x, (1.0, -t)),
        branches=tuple(branches),
        guidance_changed=guidance_changed(guidance, index),
    )
