"""Who makes a clip, as everything above sees it: the page, the command line and the API ask one of these.

A job that has been submitted runs while its events are read. Its states go one way:

    queued -> loading -> running -> done
      any of these three -> cancelled (somebody stopped it), failed, interrupted (the engine ended)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from opensora_demo.catalog import ModelSpec
from opensora_demo.explain.run import Part
from opensora_demo.messages import Message, message
from opensora_demo.request.events import Event
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.cost.estimator import Estimator
from opensora_demo.weights.options import WeightOptions

if TYPE_CHECKING:
    from opensora_demo.service.monitor import Monitor

State = Literal["queued", "loading", "running", "done", "cancelled", "failed", "interrupted"]
FINAL: frozenset[State] = frozenset(("done", "cancelled", "failed", "interrupted"))

E_co = TypeVar("E_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Others use the device; `place` is how many come before, at least 1, and `left_s` about how long they take, where
    that can be told."""

    place: int
    left_s: float | None = field(default=None, compare=False)

    @property
    def text(self) -> Message:
        return message("run.waiting") if self.place == 1 else message("run.waiting_place", place=self.place)


@dataclass(frozen=True, slots=True)
class Loading:
    """The model is being read."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """Another server, which makes the clip, does not answer for now, or what `text` says; or, where not `on`, it does
    again."""

    on: bool
    text: Message = field(default=message("run.server_quiet"), compare=False)


RunEvent = Loading | Waiting | Quiet | Event


@dataclass(frozen=True, slots=True)
class ModelOffer:
    """A model of the catalog; `reason` says why it cannot run there; None where it can."""

    spec: ModelSpec
    reason: Message | None


@dataclass(frozen=True, slots=True)
class Line:
    """How it stands with the device: how many jobs wait for it, whether one has it, and about how long a job that comes
    now will wait, where that can be told."""

    waiting: int
    busy: bool
    wait_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What begins a run again, under its id, in another process: its `kind`, `what` is made (a request, a comparison),
    the `form` it came from and the `number` that orders runs. `began_at` is a Unix time; `seconds` are those that a run
    took which is done, None of one that goes on, alone too where it is `kept`."""

    kind: str
    what: Any
    number: int
    began_at: float
    form: Mapping[str, Any] | None = None
    owner: str = ""
    kept: bool = False
    seconds: float | None = None

    def elapsed_s(self, now: float) -> float:
        """How long it has gone on, or took."""
        return max(now - self.began_at, 0.0) if self.seconds is None else self.seconds


class Job(Protocol[E_co]):
    """One run of one model; E are its events, Waiting and Loading among them."""

    @property
    def id(self) -> str:
        """A secret: whoever knows it may ask for the job."""
        ...

    @property
    def state(self) -> State: ...

    @property
    def place(self) -> int:
        """How many jobs come before; 0 once it has begun or ended."""
        ...

    def events(self) -> Iterator[E_co]:
        """What happens, from now to the end, for one reader. Closing it cancels the job.

        Raises Cancelled where the job was stopped, and whatever made it fail.
        """
        ...

    def cancel(self) -> bool:
        """Ask it to stop; False where it had ended, and then nothing changes. It is never "done" after a True."""
        ...


class Engine(Protocol):
    @property
    def options(self) -> WeightOptions:
        """Which models it offers."""
        ...

    @property
    def estimator(self) -> Estimator:
        """What a run takes on this machine."""
        ...

    @property
    def monitor(self) -> Monitor:
        """What it has done since it began."""
        ...

    @property
    def blind(self) -> Message | None:
        """Why nothing is seen of a run before its clip; None where its steps can be looked into."""
        ...

    @property
    def closed(self) -> bool:
        """It takes no more jobs."""
        ...

    def line(self) -> Line: ...

    def next_free_s(self) -> float | None:
        """About how long until the job that has the device ends, where that can be told."""
        ...

    def models(self) -> tuple[ModelOffer, ...]:
        """The catalog as it can run there."""
        ...

    def submit(
        self, request: GenerationRequest, owner: str | None = None, *, look: bool = False, job_id: str | None = None
    ) -> Job[RunEvent]:
        """Put a run into the queue, first come, first served. `owner` is whose it is, in the engine's own records;
        with `look` steps can be inspected (`pipeline.generate`). `job_id` is RUN.N for the N-th job of a run that is
        remembered: where that was recalled, its job is found again. Raises Cancelled once the engine has been
        closed."""
        ...

    def remember(self, run_id: str, record: RunRecord | None, alone_s: float = 0.0) -> bool:
        """Have other processes find a run by its id; `alone_s` is how long it goes on though this process is gone. None
        is not to be found any more. False where another process has taken it, and then nothing changes. Does nothing
        where there are no other processes."""
        ...

    def recall(self, run_id: str) -> RunRecord | None:
        """The record of a run that another process began; this one has it from now on. None where there is none."""
        ...

    def explain(self, request: GenerationRequest, owner: str | None = None) -> Job[Part | Loading | Waiting]:
        """A run that is watched from inside. Raises DeviceError where it is `blind`."""
        ...

    def close(self) -> bool:
        """End: what is queued or runs is interrupted. Whether nothing runs any more."""
        ...
