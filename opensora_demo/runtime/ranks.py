"""One clip on several devices: processes that `torchrun` starts, a device each, which all run the same pipeline.

They draw the same noise and encode the same prompt. Of the network's calls each process makes some: the branches of
guidance, and the clips of a comparison, go to different ones, and the tokens of one call are split among the others
(`nn.peers`). The codec's tiles, or its chunks of time, are shared by all.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh

from opensora_demo.errors import RequestError
from opensora_demo.families.base import RunSettings
from opensora_demo.messages import message
from opensora_demo.nn.peers import Peers
from opensora_demo.runtime.bundle import ModelBundle

T = TypeVar("T")
PATIENCE = timedelta(hours=1)  # of a process for the others: one of them may be reading its weights from a slow disk


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among all that run together."""

    size: int
    rank: int

    @property
    def first(self) -> bool:
        """Whether this is the one that speaks and writes."""
        return self.rank == 0

    def agree(self, make: Callable[[], T]) -> T:
        """What the first process makes, told to the others. What it raises ends them too, in silence."""
        told: list[bytes | None] = [None]
        if self.first:
            try:
                made = make()
                told = [pickle.dumps(made)]
            finally:
                distributed.broadcast_object_list(told)
            return made
        distributed.broadcast_object_list(told)
        if told[0] is None:
            raise SystemExit(2)
        return pickle.loads(told[0])  # of our own first process

    def layout(self, run: RunSettings, branch_ranks: int | None = None) -> Layout:
        """How the processes share a run. `branch_ranks` of them take a part of the batch each; without it as many as
        there is work for, a clip and a branch each, since these need to tell each other only what comes out.

        Raises RequestError for a number that does not divide the processes.
        """
        if branch_ranks is not None and (branch_ranks < 1 or self.size % branch_ranks):
            raise RequestError("branch-ranks", message("request.branch_ranks", value=branch_ranks, count=self.size))
        pairs = sum(1 if scale == 1 else 2 for scale, _ in run.columns)
        fitting = [n for n in range(1, self.size + 1) if self.size % n == 0 and n <= pairs]
        return Layout(self, branch_ranks or fitting[-1])


@dataclass(frozen=True, slots=True)
class Layout:
    """The processes as a grid: rows share the batch of a call, columns the tokens of it."""

    ranks: Ranks
    branch_ranks: int

    def share(self, bundle: ModelBundle) -> None:
        """Let a loaded model share its work. Every process calls it."""
        shape = (self.branch_ranks, self.ranks.size // self.branch_ranks)
        mesh = init_device_mesh(bundle.device.type, shape, mesh_dim_names=("branches", "tokens"))

        def peers(name: str) -> Peers | None:
            group = mesh.get_group(name)
            return Peers(group.size(), mesh.get_local_rank(name), group) if group.size() > 1 else None

        families = [bundle.family] if bundle.family.weaker is None else [bundle.family, bundle.family.weaker]
        for family in families:
            family.peers = peers("branches")
            family.network.peers = peers("tokens")  # type: ignore[assignment]
        bundle.codec.peers = Peers(self.ranks.size, self.ranks.rank)


@contextmanager
def joined(environ: Mapping[str, str]) -> Iterator[Ranks | None]:
    """This process among those that `torchrun` started beside it, while it lasts; None where it is alone."""
    size = int(environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield None
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    try:
        yield Ranks(size, distributed.get_rank())
    finally:
        distributed.destroy_process_group()
