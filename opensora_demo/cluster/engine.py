"""An engine whose clips are made by the replicas of a cluster. See `service.engine`.

A job asks the cluster's line for its turn, hands its request to a replica, and reads what that one tells. A replica
that is lost in the middle of a run is replaced, and the run begun anew from its seed, once: what was told is not told
again. A job of a run that another page process began is found by its id: one that waits keeps its place, and of one
that runs or has ended the page is told all again, then what is new. Ray is behind `Cluster`; nothing here imports it.
"""

from __future__ import annotations

import logging
import pickle
import queue
import secrets
import threading
import time
from collections.abc import Iterator
from threading import Event as Flag
from typing import Any, Generic, Protocol, TypeVar

from opensora_demo.catalog import find_model
from opensora_demo.cluster.dispatcher import Place, Said, Standing, Turn
from opensora_demo.cluster.packing import Began, Ticket, heard, name_of, unpack
from opensora_demo.cluster.turns import Entry
from opensora_demo.errors import Cancelled, ServerError
from opensora_demo.explain.run import Part
from opensora_demo.messages import Message, message
from opensora_demo.request.events import Clip, Event, Finished, Started
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.cost.estimator import Estimator
from opensora_demo.service.engine import Line, Loading, ModelOffer, Quiet, RunRecord, Waiting
from opensora_demo.service.jobs import BaseEngine, BaseJob, GoingJobs
from opensora_demo.service.logs import public_id
from opensora_demo.weights.options import WeightOptions
from opensora_demo.weights.store import unavailable_reason

log = logging.getLogger(__name__)
PULSE_S = 0.5  # a job that waits says so at least this often
ALIVE_S = 1.0  # how often this process says that it is there
SILENT_S = 60.0  # how long the line may give no answer
LOST_REPLICA_S = 15.0  # a replica that the line has not heard for so long is lost, for who reads there
START_S = 900.0  # how long it may take until a replica begins: it may have to be started
CLOSE_S = 3.0  # how long `close` waits for the readers of jobs
TRIES = 2

E = TypeVar("E")


class ReplicaLost(Exception):
    """The process that made a clip is no more."""


class LineSilent(Exception):
    """The cluster's line does not answer."""


class Stream(Protocol):
    """What a replica tells of one job. Iterating raises ReplicaLost."""

    def __iter__(self) -> Iterator[bytes]: ...

    def cancel(self) -> None:
        """End the run there; nothing where it has ended."""
        ...


class Cluster(Protocol):
    """Replicas, and the line in front of them (`dispatcher.Dispatcher`)."""

    def turn(self, entry: Entry, seen: int, wait_s: float) -> Turn:
        """Raises LineSilent."""
        ...

    def leave(self, entry: Entry, took_s: float | None) -> None:
        """Nothing where another page has taken the job."""
        ...

    def stop(self, entry: Entry) -> bool:
        """The same now, and whether it was this page's. Raises LineSilent."""
        ...

    def alive(self, page: str, running: tuple[Entry, ...]) -> Standing:
        """Raises LineSilent."""
        ...

    def stream(self, ticket: Ticket) -> Stream: ...

    def write(self, run: str, page: str, data: bytes, alone_s: float) -> None:
        """As `Records.write`."""
        ...

    def take(self, run: str, page: str) -> bytes | None:
        """As `Records.take`. Raises LineSilent."""
        ...

    def forget(self, run: str, page: str) -> bool:
        """As `Records.forget`. Raises LineSilent."""
        ...

    def belongs(self, run: str, page: str) -> bool:
        """As `Records.belongs`. Raises LineSilent."""
        ...

    def began(self, run: str, job: str) -> bool:
        """Whether a replica works, or has worked, on a job. Raises LineSilent."""
        ...

    def read(self, run: str, job: str, place: Place, wait_s: float) -> Said:
        """See `Dispatcher.read`. Raises LineSilent."""
        ...

    def close(self, page: str) -> None: ...


class _Logged:
    """What the line has of a job whose replica speaks to another page. See `Stream`; who ends it leaves the run be."""

    def __init__(self, cluster: Cluster, entry: Entry) -> None:
        self._cluster, self._entry = cluster, entry
        self._over = Flag()

    def __iter__(self) -> Iterator[bytes]:
        place, heard_at = Place(), time.monotonic()
        while not self._over.is_set():
            try:
                said = self._cluster.read(self._entry.run, self._entry.job, place, PULSE_S)
            except LineSilent as error:
                if time.monotonic() - heard_at > SILENT_S:
                    raise ReplicaLost(f"the line does not answer: {error}") from None
                continue
            yield from said.words
            place = said.place
            if said.over:
                return
            if said.silent_s is not None:
                heard_at = time.monotonic() - said.silent_s
            if time.monotonic() - heard_at > LOST_REPLICA_S:
                raise ReplicaLost("the line has not heard it")

    def cancel(self) -> None:
        self._over.set()


class _Over:
    """A stream has ended."""


class ClusterJob(BaseJob[Loading | Waiting | E], Generic[E]):
    """See `engine.Job`. A thread of its own reads the replica, so that Stop need not wait for what it says next."""

    def __init__(self, engine: ClusterEngine, request: GenerationRequest, owner: str | None, ticket: Ticket) -> None:
        super().__init__(ticket.job, request, owner, engine.going)
        self.ticket = ticket
        self.entry = Entry(ticket.job, owner or f"nobody of {engine.page}", engine.page, request.scenes, ticket.run)
        self.place = 0
        self.replica: Began | None = None  # the one that makes it, once it has begun
        self.holds = False  # a turn
        self._engine, self._cluster = engine, engine.cluster
        self._let_go_of = False
        self._found = False  # another page began it, and a replica
        self._seen: set[tuple[object, ...]] = set()  # events that have been passed on
        self._news: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()

    def _stopped(self) -> None:
        self._news.put((0, None))  # who waits for the replica looks at the flag
        if not self.holds and not self._goes_on:
            self._cluster.leave(self.entry, None)

    @property
    def _goes_on(self) -> bool:
        """It is not stopped, though this page ends: another may find it."""
        return bool(self.ticket.run) and self._stopped_as == "interrupted" and self._flag.is_set()

    def _make(self) -> Iterator[Loading | Waiting | E]:
        if self._engine.has_begun(self.ticket):
            self._found = self.holds = True
            self._become("loading")
        else:
            yield from self._wait()
        yield Loading()
        yield from self._run()

    def _left(self) -> None:
        self._let_go(None)

    def _wait(self) -> Iterator[Waiting]:
        answered = time.monotonic()
        while True:
            self._check()
            try:
                turn = self._cluster.turn(self.entry, self.place, PULSE_S)
                answered = time.monotonic()
            except LineSilent:
                if time.monotonic() - answered > SILENT_S:
                    raise ServerError(message("run.cluster_silent", seconds=round(SILENT_S))) from None
                continue
            if turn.taken:
                raise Cancelled(message("run.taken"))
            if turn.granted:
                self.holds = True
                self.place = 0
                self._become("loading")
                return
            self.place = max(turn.place, 1)
            yield Waiting(self.place, turn.left_s)

    def _run(self) -> Iterator[Loading | E]:
        for tried in range(1, TRIES + 1):
            self._check()
            try:
                yield from self._once(tried)
                return
            except ReplicaLost as error:
                self._check()
                if not self._engine.has(self.ticket.run):
                    raise Cancelled(message("run.taken")) from None
                log.warning("a replica was lost in a job: %s", error, extra={"job": public_id(self.id)})
                if tried == TRIES:
                    raise ServerError(message("run.replica_lost")) from None
                yield from self._hush(True)

    def _once(self, tried: int) -> Iterator[Loading | E]:
        """One run of it. Raises ReplicaLost."""
        found = self._found and tried == 1
        stream = _Logged(self._cluster, self.entry) if found else self._cluster.stream(self.ticket)
        threading.Thread(target=self._read, args=(stream, tried), name="replica", daemon=True).start()
        clips = dict[int, Clip]()
        quiet = tried > 1
        try:
            for said in self._heard(tried):
                if said is None:
                    if not quiet and self._ran_since is None:
                        yield Loading()
                    continue
                event = self._take(said, clips)
                if event is None:
                    continue
                if quiet:  # until something new is said
                    quiet = False
                    yield from self._hush(False)
                yield event
                if isinstance(event, Finished):
                    self._engine.learn(self.request, event)
                    return
        finally:
            if self._state != "done" and (self._is_to_stop() or found):
                stream.cancel()

    def _is_to_stop(self) -> bool:
        """Whether the replica is to stop, since this page does not read it any more; the line knows of it then."""
        if not self.ticket.run:
            return True
        if self._goes_on:
            return False
        try:
            return self._cluster.stop(self.entry)
        except LineSilent:
            return True

    def _hush(self, on: bool) -> Iterator[Any]:
        """That it is begun anew, to whom that can be told: an explanation only waits."""
        if not self.ticket.explain:
            yield Quiet(on, message("run.replica_again"))

    def _heard(self, tried: int) -> Iterator[Any]:
        """What the replica of this try says, and None now and then while it says nothing. Raises what ends it."""
        asked, began = time.monotonic(), False
        while True:
            try:
                of, said = self._news.get(timeout=PULSE_S)
            except queue.Empty:
                of, said = tried, None
            self._check()
            if of != tried:  # of a try before
                continue
            if isinstance(said, Exception):
                raise said
            if isinstance(said, _Over):
                if self.ticket.explain and began:
                    self._finish()
                    return
                raise ReplicaLost("it ended before its clip")
            began = began or said is not None
            if not began and time.monotonic() - asked > START_S:
                raise ServerError(message("run.cluster_silent", seconds=round(START_S)))
            yield said

    def _take(self, said: Any, clips: dict[int, Clip]) -> E | None:
        """The event to be told of what a replica said, None where there is none. Raises what made the run fail."""
        said = heard(said, clips)
        match said:
            case Began():
                self.replica = said
                self._has_replica()
                return None
            case Waiting() | Loading():  # for the device, which a stopped run lets go of after a block
                return None
            case Started():
                self._become("running")
            case Finished():
                self._finish()
        name = name_of(said)
        if name in self._seen:
            return None
        self._seen.add(name)
        return said

    def _read(self, stream: Stream, tried: int) -> None:
        """In a thread of its own, until the replica says no more."""
        try:
            for data in stream:
                self._news.put((tried, unpack(data)))
            self._news.put((tried, _Over()))
        except Exception as error:
            self._news.put((tried, error))

    def _has_replica(self) -> None:
        self._began()
        where = {"pid": self.replica.pid, "node": self.replica.node} if self.replica else {}
        self.note("has a replica", **where)

    def _finish(self) -> None:
        super()._finish()
        self._let_go(None if self._found else self._ran_for)

    def _let_go(self, ran_s: float | None) -> None:
        """Of the turn, or of the place in the line."""
        if self._let_go_of:
            return
        self._let_go_of, self.holds = True, False
        if not self._goes_on:
            self._cluster.leave(self.entry, None if ran_s is None else ran_s / self.request.scenes)

    def _ended(self, ran_s: float | None) -> None:
        self.place = 0


class ClusterEngine(BaseEngine):
    """See `engine.Engine`."""

    blind: Message | None = None

    def __init__(self, cluster: Cluster, options: WeightOptions, *, learn: bool = False) -> None:
        """With `learn` the estimates of later runs go by how long earlier ones took (counting a run takes a while)."""
        super().__init__(GoingJobs())
        self.cluster, self.options = cluster, options
        self.page = secrets.token_hex(8)  # this process
        self.estimator = Estimator(options)
        self._learn = learn
        self._standing = Standing()
        self._found: set[str] = set()  # runs that another page process began
        self._over = Flag()
        self._alive = threading.Thread(target=self._say_alive, name="alive", daemon=True)
        self._alive.start()

    def models(self) -> tuple[ModelOffer, ...]:
        """By the weights and the memory of this machine, which those of the replicas should be like."""
        return tuple(ModelOffer(spec, unavailable_reason(spec, self.options)) for spec in self.options.listed())

    def submit(
        self,
        request: GenerationRequest,
        owner: str | None = None,
        *,
        look: bool = False,
        job_id: str | None = None,
    ) -> ClusterJob[Event | Quiet]:
        name = job_id or secrets.token_urlsafe(12)
        run = "" if job_id is None else job_id.rpartition(".")[0]
        return self._join(request, owner, Ticket(job=name, request=request, look=look, run=run))

    def explain(self, request: GenerationRequest, owner: str | None = None) -> ClusterJob[Part]:
        return self._join(request, owner, Ticket(job=secrets.token_urlsafe(12), request=request, explain=True))

    def _join(self, request: GenerationRequest, owner: str | None, ticket: Ticket) -> ClusterJob[Any]:
        job = ClusterJob[Any](self, request, owner, ticket)
        self.going.add(job)
        return job

    def remember(self, run_id: str, record: RunRecord | None, alone_s: float = 0.0) -> bool:
        if record is not None:
            self.cluster.write(run_id, self.page, pickle.dumps(record, protocol=5), alone_s)
            return True
        self._found.discard(run_id)
        try:
            return self.cluster.forget(run_id, self.page)
        except LineSilent:
            return True

    def recall(self, run_id: str) -> RunRecord | None:
        try:
            data = self.cluster.take(run_id, self.page)
        except LineSilent as error:
            log.warning("runs of other pages cannot be found: %s", error)
            return None
        if data is None:
            return None
        self._found.add(run_id)
        record: RunRecord = pickle.loads(data)
        return record

    def has_begun(self, ticket: Ticket) -> bool:
        """Whether a replica works, or has worked, on this job of a run that another page process began."""
        try:
            return ticket.run in self._found and self.cluster.began(ticket.run, ticket.job)
        except LineSilent:
            return False

    def has(self, run_id: str) -> bool:
        """Whether no other page process has taken this run."""
        try:
            return not run_id or self.cluster.belongs(run_id, self.page)
        except LineSilent:
            return True

    def line(self) -> Line:
        """Of the whole cluster, as it was a second ago."""
        now = self._standing
        return Line(now.waiting, now.running > 0, now.left_s)

    def next_free_s(self) -> float | None:
        return self._standing.free_s

    def learn(self, request: GenerationRequest, done: Finished) -> None:
        """A run is done."""
        if not self._learn:
            return
        try:
            self.estimator.remember(find_model(request.model_id), request, done.seconds)
        except Exception:  # an estimate is not worth a finished clip
            log.exception("a run could not be remembered")

    def _say_alive(self) -> None:
        silent = False
        while not self._over.wait(ALIVE_S):
            with self.going.news:
                running = tuple(job.entry for job in self.going.jobs if job.holds)
            try:
                self._standing = self.cluster.alive(self.page, running)
                silent = False
            except LineSilent as error:
                if not silent:
                    log.warning("the line of the cluster does not answer: %s", error)
                silent = True

    def close(self) -> bool:
        ended = self.going.close(CLOSE_S)
        self._over.set()
        self._alive.join(ALIVE_S)
        self.cluster.close(self.page)
        return ended
