"""What a replica tells a page, as bytes.

Events go as they are, except that what is made when somebody looks is made before: pictures of steps, and looks inside
them, which hold tensors of the replica's device. A clip goes whole with its `Decoding`; `Finished` is sent without, and
the page puts them back. The bytes are pickled: a cluster trusts its own processes, as Ray does.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from opensora_demo.errors import DemoError, OutOfMemory
from opensora_demo.memory import is_out_of_memory, let_go
from opensora_demo.messages import message
from opensora_demo.request.events import Clip, DecodedFrames, Decoding, Encoded, Finished, Started, StepPreview
from opensora_demo.request.request import GenerationRequest

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ready(Generic[T]):
    """Stands in for a function that computes a value when it is called."""

    value: T

    def __call__(self) -> T:
        return self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A job as a replica is handed it. `explain` is a run that is watched from inside; `run` is what it belongs to,
    where another page may find that (`records`)."""

    job: str
    request: GenerationRequest
    look: bool = False
    explain: bool = False
    run: str = ""


@dataclass(frozen=True, slots=True)
class Began:
    """The first that a replica says: which process it is, on which machine."""

    pid: int
    node: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The run ended with an error that has a sentence."""

    error: DemoError


@dataclass(frozen=True, slots=True)
class Fault:
    """It ended with one that has none: the traceback, for the log."""

    text: str


def pack(said: Any) -> bytes:
    """An event, or one of the above."""
    return pickle.dumps(portable(said), protocol=5)


def unpack(data: bytes) -> Any:
    """What was packed. Its arrays are the caller's own."""
    return pickle.loads(data)


def portable(event: T) -> T:
    """The event with all that it makes made, and nothing that is sent twice."""
    match event:
        case StepPreview():
            return replace(
                event,
                previews=tuple(event.previews),
                noisy=tuple(event.noisy),
                look=None if event.look is None else Ready(event.look()),
                latent=None if event.latent is None else Ready(event.latent()),
                decoded=None if event.decoded is None else Ready(dict(event.decoded())),
            )
        case Finished():
            return replace(event, clips=())
        case _:
            return event


class ReplicaFault(RuntimeError):
    """A replica failed in a way that has no sentence; the text is its traceback."""


def packed(events: Iterator[Any]) -> Iterator[bytes]:
    """A run's events, and what it failed of as the last word."""
    try:
        with closing(events) as said:  # type: ignore[type-var]
            for event in said:
                yield pack(event)
    except DemoError as error:
        yield pack(Failed(error))
    except Exception as error:
        no_memory = is_out_of_memory(error)
        yield pack(Failed(OutOfMemory(message("device.out_of_memory"))) if no_memory else Fault(traceback.format_exc()))
        let_go(error)


def heard(said: Any, clips: dict[int, Clip]) -> Any:
    """What was unpacked, `Finished` with the clips that came before, which are put into `clips`. Raises what the run
    failed of, ReplicaFault where that has no sentence."""
    match said:
        case Failed(error=error):
            raise error
        case Fault(text=text):
            raise ReplicaFault(text)
        case Decoding(column=column, clip=clip):
            clips[column] = clip
        case Finished():
            return completed(said, clips)
    return said


def completed(event: Finished, clips: Mapping[int, Clip]) -> Finished:
    """With the clips that came before, by their columns."""
    return replace(event, clips=tuple(clips[column] for column in sorted(clips)))


def name_of(event: object) -> tuple[object, ...]:
    """Which event of its run it is: a run that is begun anew says the same ones again."""
    match event:
        case Started():
            return (Started,)
        case Encoded(scene=scene):
            return (Encoded, scene)
        case StepPreview():
            return (StepPreview, event.place)
        case DecodedFrames(column=column, first=first):
            return (DecodedFrames, column, first)
        case Decoding(column=column):
            return (Decoding, column)
        case _:  # the parts of an explanation, of which each comes once, and its progress
            return (type(event), getattr(event, "done", None))
