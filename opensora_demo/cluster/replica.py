"""A process that makes clips: the engine of one process, whose events go to a page somewhere else."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing, suppress
from typing import Any

from opensora_demo.catalog import DEFAULT_MODEL
from opensora_demo.cluster.packing import Began, Ticket, pack, packed
from opensora_demo.errors import DemoError
from opensora_demo.memory import few_arenas, keep_for_good
from opensora_demo.runtime.bundle import Bundles, fit_threads
from opensora_demo.service.engine import Job
from opensora_demo.service.local import LocalEngine
from opensora_demo.toy.tagger import grammar
from opensora_demo.weights.options import WeightOptions

log = logging.getLogger(__name__)
ASK_S = 2.0  # how often a replica asks whether a page still reads what it says
Wanted = Callable[[str], Awaitable[bool]]


class Replica:
    """Makes one clip at a time. Loads each model once."""

    def __init__(self, engine: LocalEngine, wanted: Wanted) -> None:
        """`wanted` says whether the job of an id is still read."""
        self._engine, self._wanted = engine, wanted

    async def run(self, ticket: Ticket) -> AsyncIterator[bytes]:
        """The events of a run, packed. Whoever closes this stops it, before the next block of its network."""
        told: asyncio.Queue[bytes | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(data: bytes | None) -> None:
            loop.call_soon_threadsafe(told.put_nowait, data)

        request = ticket.request
        job: Job[Any] = (
            self._engine.explain(request) if ticket.explain else self._engine.submit(request, look=ticket.look)
        )
        threading.Thread(target=work, args=(job, tell), name="run", daemon=True).start()
        try:
            yield pack(Began(os.getpid(), platform.node()))
            while (data := await self._next(told, ticket.job, job)) is not None:
                yield data
        finally:
            job.cancel()

    async def _next(self, told: asyncio.Queue[bytes | None], name: str, job: Job[Any]) -> bytes | None:
        while True:
            try:
                async with asyncio.timeout(ASK_S):
                    return await told.get()
            except TimeoutError:
                if not await self._is_wanted(name) and job.cancel():
                    log.warning("a run was stopped whose page is gone")

    async def _is_wanted(self, name: str) -> bool:
        try:
            return await self._wanted(name)
        except Exception as error:  # of the network between two machines
            log.warning("whether a job is wanted could not be asked: %s", error)
            return True


def work(job: Job[Any], tell: Callable[[bytes | None], object]) -> None:
    """Read a job to its end in this thread, and tell of it; None is the last word."""
    with suppress(RuntimeError):  # the loop that hears is gone
        with closing(packed(job.events())) as told:  # type: ignore[type-var]
            for data in told:
                tell(data)
        tell(None)


def local_engine(options: WeightOptions) -> LocalEngine:
    """The engine of this process, with the default model loaded."""
    few_arenas()
    fit_threads()
    bundles = Bundles(options)
    grammar()
    try:
        bundles.get(DEFAULT_MODEL)
    except DemoError as error:
        log.error("%s", error)
    keep_for_good()
    return LocalEngine(bundles)  # the page learns how long runs take
