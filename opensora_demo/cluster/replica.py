"""A process that makes clips: the engine of one process, whose events go to a page somewhere else."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing, suppress
from typing import Any, Protocol

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
ASK_S = 2.0  # a replica asks at least this often whether a page still reads what it says


class ReplicaLine(Protocol):
    """What a replica asks of the cluster's line, and tells it (`dispatcher.Dispatcher`)."""

    async def wanted(self, job: str, wait_s: float, run: str) -> bool: ...

    async def told(self, run: str, job: str, attempt: str, first: int, said: Sequence[bytes], over: bool) -> None: ...


class Replica:
    """Makes one clip at a time. Loads each model once."""

    def __init__(self, engine: LocalEngine, line: ReplicaLine) -> None:
        self._engine, self._line = engine, line
        self._writing: set[asyncio.Task[None]] = set()

    async def run(self, ticket: Ticket) -> AsyncIterator[bytes]:
        """The events of a run, packed. Whoever closes this stops it, before the next block of its network; so does the
        line, where no page reads it any more. What another page may find is told to the line as well."""
        told: asyncio.Queue[bytes | None] = asyncio.Queue()
        logged: asyncio.Queue[bytes | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def put(data: bytes | None) -> None:
            told.put_nowait(data)
            if ticket.run:
                logged.put_nowait(data)

        def tell(data: bytes | None) -> None:
            loop.call_soon_threadsafe(put, data)

        request = ticket.request
        job: Job[Any] = (
            self._engine.explain(request) if ticket.explain else self._engine.submit(request, look=ticket.look)
        )
        put(pack(Began(os.getpid(), platform.node())))
        threading.Thread(target=work, args=(job, tell), name="run", daemon=True).start()
        watch = asyncio.create_task(self._watch(ticket, job))
        if ticket.run:
            writing = asyncio.create_task(self._write(ticket, logged))
            self._writing.add(writing)
            writing.add_done_callback(self._writing.discard)
        try:
            while (data := await told.get()) is not None:
                yield data
        finally:
            job.cancel()
            watch.cancel()

    async def _watch(self, ticket: Ticket, job: Job[Any]) -> None:
        """Stop a run that no page reads any more."""
        while await self._is_wanted(ticket):
            pass
        if job.cancel():
            log.warning("a run was stopped whose page is gone")

    async def _is_wanted(self, ticket: Ticket) -> bool:
        try:
            return await self._line.wanted(ticket.job, ASK_S, ticket.run)
        except Exception as error:  # of the network between two machines
            log.warning("whether a job is wanted could not be asked: %s", error)
            await asyncio.sleep(ASK_S)
            return True

    async def _write(self, ticket: Ticket, logged: asyncio.Queue[bytes | None]) -> None:
        """Tell the line what the page is told, to the last word."""
        attempt, words, over = secrets.token_hex(8), 0, False
        try:
            while not over:
                said = [await logged.get()]
                while not logged.empty():
                    said.append(logged.get_nowait())
                new = [data for data in said if data is not None]
                over = len(new) < len(said)
                await self._line.told(ticket.run, ticket.job, attempt, words, new, over)
                words += len(new)
        except Exception as error:  # the run goes on, and its own page has it
            log.warning("a run cannot be found by other pages: %s", error)


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
