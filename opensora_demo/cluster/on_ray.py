"""The cluster as Ray has it: replicas of Ray Serve, and the line as one named actor. The only module that imports Ray.

Without an address a cluster of this machine is started, which ends with this process. With one this process joins a
cluster that is there: the first to come puts the replicas up, and they stay when it ends; those that come later find
them. Serve's proxy and Ray's dashboard are left out, so that visitors are answered by the page alone.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray import serve
from ray.exceptions import GetTimeoutError, RayError, RayTaskError, TaskCancelledError
from ray.serve.config import AutoscalingConfig
from ray.serve.exceptions import RayServeException

from opensora_demo.cluster.dispatcher import Dispatcher, Place, Said, Standing, Turn
from opensora_demo.cluster.engine import ClusterEngine, LineSilent, ReplicaLost, Stream
from opensora_demo.cluster.join import shares
from opensora_demo.cluster.packing import Ticket
from opensora_demo.cluster.replica import Replica, local_engine
from opensora_demo.cluster.turns import Entry
from opensora_demo.errors import RequestError, ServerError
from opensora_demo.messages import message, plain
from opensora_demo.service.options import ClusterOptions
from opensora_demo.weights.options import WeightOptions

log = logging.getLogger(__name__)
NAMESPACE = "opensora-demo"
APP, LINE = "opensora-demo", "line"
ANSWER_S = 10.0  # how long the line may take beyond what it was told to wait
GOODBYE_S = 2.0  # how long a page that ends waits until the line has heard so
DRAIN_S = 900.0  # how long a replica that is to go may work on what it has begun
IDLE_S = 120.0  # how long a replica that autoscaling does not need stays
MAX_WAITERS = 4000  # calls to the line that wait at once, one of each job that waits


class _LineOfReplica:
    """See `replica.ReplicaLine`."""

    def __init__(self) -> None:
        self._line = ray.get_actor(LINE, namespace=NAMESPACE)

    async def wanted(self, job: str, wait_s: float, run: str) -> bool:
        return await self._line.wanted.remote(job, wait_s, run)

    async def told(self, run: str, job: str, attempt: str, first: int, said: Sequence[bytes], over: bool) -> None:
        await self._line.told.remote(run, job, attempt, first, said, over)


class Generator:
    """What Serve runs in each replica."""

    def __init__(self, options: WeightOptions) -> None:
        self._replica = Replica(local_engine(options), _LineOfReplica())

    async def run(self, ticket: Ticket) -> AsyncIterator[bytes]:
        """See `Replica.run`."""
        async for data in self._replica.run(ticket):
            yield data


class _Told:
    """See `engine.Stream`."""

    def __init__(self, response: Any) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._response
        except TaskCancelledError:
            return
        except (RayError, RayServeException) as error:
            if isinstance(error, RayTaskError):  # its own code failed
                raise
            raise ReplicaLost(f"{type(error).__name__}: {error}") from None

    def cancel(self) -> None:
        with suppress(RayError, RayServeException):
            self._response.cancel()


class RayCluster:
    """See `engine.Cluster`."""

    def __init__(self, handle: Any, line: Any) -> None:
        self._run = handle.options(stream=True, method_name="run")
        self._line = line
        self._closed = False  # after which asking Ray would start a new cluster

    def turn(self, entry: Entry, seen: int, wait_s: float) -> Turn:
        self._check()
        return _answer(self._line.turn.remote(entry, seen, wait_s), wait_s)

    def leave(self, entry: Entry, took_s: float | None) -> None:
        if not self._closed:
            with suppress(RayError):
                self._line.leave.remote(entry, took_s)

    def stop(self, entry: Entry) -> bool:
        self._check()
        return _answer(self._line.leave.remote(entry), 0.0)

    def alive(self, page: str, running: tuple[Entry, ...]) -> Standing:
        self._check()
        return _answer(self._line.alive.remote(page, running), 0.0)

    def stream(self, ticket: Ticket) -> Stream:
        if self._closed:
            raise ReplicaLost("the cluster was left")
        return _Told(self._run.remote(ticket))

    def write(self, run: str, page: str, data: bytes, alone_s: float) -> None:
        if not self._closed:
            with suppress(RayError):
                self._line.write.remote(run, page, data, alone_s)

    def take(self, run: str, page: str) -> bytes | None:
        self._check()
        return _answer(self._line.take.remote(run, page), 0.0)

    def forget(self, run: str, page: str) -> bool:
        self._check()
        return _answer(self._line.forget.remote(run, page), 0.0)

    def belongs(self, run: str, page: str) -> bool:
        self._check()
        return _answer(self._line.belongs.remote(run, page), 0.0)

    def began(self, run: str, job: str) -> bool:
        self._check()
        return _answer(self._line.began.remote(run, job), 0.0)

    def read(self, run: str, job: str, place: Place, wait_s: float) -> Said:
        self._check()
        return _answer(self._line.read.remote(run, job, place, wait_s), wait_s)

    def close(self, page: str) -> None:
        self._closed = True
        with suppress(RayError):  # it may be gone, or be silent
            ray.get(self._line.gone.remote(page), timeout=GOODBYE_S)
        ray.shutdown()

    def _check(self) -> None:
        if self._closed:
            raise LineSilent("the cluster was left")


def _answer(asked: Any, wait_s: float) -> Any:
    try:
        return ray.get(asked, timeout=wait_s + ANSWER_S)
    except RayTaskError:
        raise
    except (GetTimeoutError, RayError) as error:
        raise LineSilent(f"{type(error).__name__}: {error}") from None


def connect(options: ClusterOptions, weights: WeightOptions) -> ClusterEngine:
    """An engine of this cluster, which is started or joined. Raises RequestError and ServerError."""
    with _said_at_fault():
        _enter(options.address)
        line, handle = _found(options, weights)
    return ClusterEngine(RayCluster(handle, line), weights, learn=True)


def replace_replicas(options: ClusterOptions, weights: WeightOptions) -> None:
    """Those of a cluster that is there, with as many as are asked for now. Raises the same."""
    with _said_at_fault():
        _enter(options.address or "auto")
        if APP not in serve.status().applications:
            raise ValueError("no replicas of this demo run there")
        deploy(options, weights)
        ray.shutdown()


@contextmanager
def _said_at_fault() -> Iterator[None]:
    """What goes wrong with a cluster ends as a sentence, and this process's signals stay its own."""
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except RequestError:
        ray.shutdown()
        raise
    except (RayError, RayServeException, RuntimeError, ConnectionError, ValueError) as error:
        log.warning("the cluster: %s", error)
        ray.shutdown()
        raise ServerError(message("run.cluster_start", said=plain(" ".join(str(error).split())[:300]))) from None
    finally:
        for number, handler in signals.items():  # which Ray takes for itself
            signal.signal(number, handler)


def _enter(address: str | None) -> None:
    """Join the cluster there, or start one."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    ray.init(
        address=address or "local",
        namespace=NAMESPACE,
        log_to_driver=False,
        logging_level=logging.WARNING,
        **({} if address else {"include_dashboard": False}),
    )
    logging.setLogRecordFactory(logging.LogRecord)  # Ray's own adds a time to every line of the log


def _found(options: ClusterOptions, weights: WeightOptions) -> tuple[Any, Any]:
    """The line and the replicas: those that are there, else new ones."""
    serve.start(proxy_location="Disabled")
    line = (
        ray.remote(Dispatcher)
        .options(
            name=LINE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
            max_concurrency=MAX_WAITERS,
        )
        .remote(options.most)
    )
    if APP in serve.status().applications:
        return line, serve.get_app_handle(APP)
    return line, deploy(options, weights)


def deploy(options: ClusterOptions, weights: WeightOptions) -> Any:
    """Put the replicas up; where there are some they are replaced, each once it has finished what it had begun. Jobs
    that wait go on waiting. Answers when all are up."""
    began = time.monotonic()
    ray.get(ray.get_actor(LINE, namespace=NAMESPACE).set_limit.remote(options.most))
    scaling: dict[str, Any] = {"num_replicas": options.least}
    if options.least < options.most:
        scaling = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=options.least,
                initial_replicas=options.least,
                max_replicas=options.most,
                target_ongoing_requests=1,
                upscale_delay_s=2.0,
                downscale_delay_s=IDLE_S,
                metrics_interval_s=1.0,
                look_back_period_s=2.0,
            )
        }
    deployment = serve.deployment(
        Generator,
        name="generator",
        max_ongoing_requests=1,
        ray_actor_options=shares(ray.cluster_resources(), options.most),
        graceful_shutdown_timeout_s=DRAIN_S,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=5.0,
        health_check_timeout_s=30.0,
        **scaling,
    )
    handle = serve.run(deployment.bind(weights), name=APP, route_prefix=None)
    log.info("the replicas are up", extra={"took_s": round(time.monotonic() - began, 1)})
    return handle
