"""The wait for the model and for the device, then the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from threading import Event as Flag
from threading import Lock
from typing import Protocol, TypeVar

from opensora_demo.bundle import ModelBundle
from opensora_demo.errors import Cancelled
from opensora_demo.types import Event, GenerationRequest

POLL_S = 0.2  # how often a waiting run looks at its cancel flag

E = TypeVar("E")
Generate = Callable[..., Iterator[Event]]
"""(bundle, request, cancel flag, *, look=False), as `pipeline.generate`."""


class BundleSource(Protocol):
    @property
    def device(self) -> Lock: ...

    def get(self, model_id: str) -> ModelBundle: ...


@dataclass(frozen=True, slots=True)
class Loading:
    """The model is being read."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Another run has the device."""


RunEvent = Loading | Waiting | Event


def stream(
    bundles: BundleSource,
    generate: Callable[[ModelBundle, GenerationRequest, Flag], Iterator[E]],
    request: GenerationRequest,
    cancel: Flag,
) -> Iterator[Loading | Waiting | E]:
    """Waiting while others use the device, Loading, then what `generate` yields. Raises Cancelled once `cancel` is set.

    The device is released whichever way this ends: the end, an error, or its consumer closing it.
    """
    patience = 0.0
    while not bundles.device.acquire(timeout=patience):
        if cancel.is_set():
            raise Cancelled("the run was stopped")
        yield Waiting()
        patience = POLL_S
    try:
        yield Loading()
        bundle = bundles.get(request.model_id)
        with closing(generate(bundle, request, cancel)) as events:  # type: ignore[type-var]
            for event in events:
                if cancel.is_set():
                    raise Cancelled("the run was stopped")
                yield event
    finally:
        bundles.device.release()
