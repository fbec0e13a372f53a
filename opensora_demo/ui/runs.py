"""Who is running what: one cancel flag per run, found by the visitor's session; and the wait for the device."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from threading import Event as Flag
from typing import Protocol

from opensora_demo.bundle import ModelBundle
from opensora_demo.errors import Cancelled
from opensora_demo.types import Event, GenerationRequest

POLL_S = 0.2  # how often a waiting run looks at its cancel flag

Generate = Callable[..., Iterator[Event]]
"""(bundle, request, cancel flag, *, look=False), as `pipeline.generate`."""


class BundleSource(Protocol):
    def get(self, model_id: str) -> ModelBundle: ...


@dataclass(frozen=True, slots=True)
class Loading:
    """The model is being read; nothing holds the device yet."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Another run has the device."""


RunEvent = Loading | Waiting | Event


class Runs:
    """The cancel flags of the runs going on, by session; a run without a session cannot be found, only closed."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._flags: dict[str, set[Flag]] = defaultdict(set)

    def start(self, session: str | None) -> Flag:
        flag = Flag()
        if session:
            with self._guard:
                self._flags[session].add(flag)
        return flag

    def finish(self, session: str | None, flag: Flag) -> None:
        flag.set()  # whoever still polls it should stop
        if session:
            with self._guard:
                self._flags[session].discard(flag)
                if not self._flags[session]:
                    del self._flags[session]

    def stop(self, session: str | None) -> int:
        """Ask every run of a session to stop; how many there were."""
        with self._guard:
            flags = list(self._flags.get(session or "", ()))
        for flag in flags:
            flag.set()
        return len(flags)


def stream(bundles: BundleSource, generate: Generate, request: GenerationRequest, cancel: Flag) -> Iterator[RunEvent]:
    """Loading, Waiting while others use the device, then the pipeline's events. Raises Cancelled once `cancel` is set.

    The lock is released whichever way this ends: the end, an error, or its consumer closing it.
    """
    yield Loading()
    bundle = bundles.get(request.model_id)
    while not bundle.lock.acquire(timeout=POLL_S):
        if cancel.is_set():
            raise Cancelled("the run was stopped")
        yield Waiting()
    try:
        with closing(generate(bundle, request, cancel)) as events:  # type: ignore[type-var]
            yield from events
    finally:
        bundle.lock.release()
