"""What the functions behind the page share: the engine, the runs and files of its visitors, and how errors are shown.

A run works in a thread of its own (`service.runs`), so that a page may be closed or loaded anew while it goes on; every
generator here and in `ui.actions` only watches one.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import gradio as gr

from opensora_demo.errors import DemoError
from opensora_demo.messages import message
from opensora_demo.runtime.cost.estimator import Estimator
from opensora_demo.service.engine import Engine, RunRecord, State
from opensora_demo.service.made import MadeClips
from opensora_demo.service.options import Downloads, Who
from opensora_demo.service.outputs import OutputFolder
from opensora_demo.service.runs import Run, Runs, reason_of
from opensora_demo.service.storage import Storage
from opensora_demo.service.visitors import Listener, Readers
from opensora_demo.ui.shown_error import ShownError
from opensora_demo.ui.values.common import FileValue, IdleValue, said
from opensora_demo.ui.values.compare import CellValue
from opensora_demo.ui.values.scope import ScopeValue
from opensora_demo.ui.values.stage import StageValue
from opensora_demo.weights.options import WeightOptions

log = logging.getLogger(__name__)
V = TypeVar("V")
Shown = tuple[StageValue, ScopeValue | None]  # values of the stage and the scope
UPDATE_S = 0.08  # the page is told at most this often
FIND_S = 20.0  # how long a page that was loaded anew waits for runs of other processes
REMEMBERED = 12  # runs a page may ask for after it was loaded anew
LOST_RUN: IdleValue = {"phase": "idle", "text": said(message("run.lost"))}  # its server is no more


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn errors into the one kind whose text Gradio shows; what nobody foresaw goes to the log."""
    try:
        yield
    except DemoError as error:
        raise ShownError(message("ui.error.not_run"), error) from error
    except gr.Error:
        raise
    except Exception as error:
        log.exception("a request failed")
        raise ShownError(message("ui.error.sorry"), reason_of(error)) from error


class PageContext:
    """Holds nothing of any one visitor but the runs, which are found by secret ids."""

    def __init__(
        self,
        engine: Engine,
        *,
        files: OutputFolder | None = None,
        clock: Callable[[], float] = time.monotonic,
        downloads: Downloads = "never",
        about: str = "",
        runs: Runs | None = None,
        storage: Storage | None = None,
    ) -> None:
        self.engine = engine
        self.storage = storage  # what is kept on disk; None is nothing
        self.downloads = downloads  # of weights, by whoever sees the page
        self.about = about  # what the host says about this instance
        self.files = files or OutputFolder()
        self.made = MadeClips()  # of comparisons
        self.runs = runs or Runs(clock, memory=engine)
        self.readers = Readers(clock)
        self.watches_readers = False  # who reads is known: `VisitorLimits` stands in front of the page
        self.clock = clock
        self.warmed = threading.Event()  # the default model has been loaded
        self.began_at = time.time()
        self.numbers = itertools.count(time.time_ns() // 1_000_000)  # also after a restart, later runs are larger

    @property
    def options(self) -> WeightOptions:
        return self.engine.options

    @property
    def estimator(self) -> Estimator:
        return self.engine.estimator

    def here(self, file: FileValue) -> bool:
        """Whether a file that was handed to a page has not been swept away since."""
        return self.files.find(file["orig_name"]) is not None

    def still_here(self, cell: CellValue) -> CellValue:
        return cell if cell["state"] != "done" or self.here(cell["file"]) else {"state": "missing"}

    def storage_of(self, visitor: gr.Request) -> Storage | None:
        """What is kept on disk, for one who may look into it."""
        storage = self.storage
        return storage if storage is not None and may(storage.who, visitor.headers) else None

    def find_again(
        self, ids: Sequence[str], kind: str, request: gr.Request, begin: Callable[[str, RunRecord], Run[Any]]
    ) -> None:
        """Have the runs of these ids that another process of the same cluster began go on here: `begin` is given the id
        and the record of each. Of those that are done is waited until they are shown again. Raises DemoError."""
        end = self.clock() + FIND_S
        for run_id in ids:
            if self.runs.find(run_id) is not None:
                continue
            if self.clock() > end or self.runs.refusal(request.session_hash, address_of(request)):
                return
            if (record := self.runs.recall(run_id, kind)) is None:
                continue
            try:
                run = begin(run_id, record)
            except BaseException:
                self.runs.forget(run_id)
                raise
            if record.seconds is not None:
                run.wait(end - self.clock())

    def listener(self, request: gr.Request) -> Listener:
        """Who reads what is answered to a request."""
        return Listener(self.readers, request.session_hash) if self.watches_readers else Listener()

    def follow(self, run: Run[V], request: gr.Request, pause_s: float = UPDATE_S) -> Iterator[V]:
        """What a run publishes, to its end; its failure is raised as the sentence the page shows."""
        yield from run.watch(pause_s, self.listener(request))
        if run.failure:
            raise ShownError(message("ui.error.not_finished"), run.failure)


def address_of(request: gr.Request) -> str | None:
    """Where a visitor is, as far as can be told: several may share an address."""
    client = getattr(request, "client", None)
    return client.host if client else None


# What proxies and content networks say of whom they speak for. Anybody may send one: it only takes away.
OF_PROXIES = frozenset((
    "cdn-loop", "cf-connecting-ip", "cf-ray", "fastly-client-ip", "fly-client-ip", "forwarded", "true-client-ip", "via",
    "x-amzn-trace-id", "x-appengine-user-ip", "x-azure-clientip", "x-client-ip", "x-cluster-client-ip",
    "x-envoy-external-address", "x-original-forwarded-for", "x-original-host", "x-proxyuser-ip", "x-real-ip",
    "x-remote-addr", "x-remote-ip",
))  # fmt: skip


def may(who: Who, headers: Mapping[str, str]) -> bool:
    """Whether a visitor is one of those who may: "alone" is not one who comes through a proxy, behind which anybody may
    be."""
    names = {name.lower() for name in headers}
    proxied = not names.isdisjoint(OF_PROXIES) or any(name.startswith("x-forwarded-") for name in names)
    return who == "always" or (who == "alone" and not proxied)


def phase_of(state: State) -> Literal["stopped", "failed"]:
    """How a page calls a run's end."""
    return "failed" if state == "failed" else "stopped"


def without_scope(value: Shown) -> Shown:
    """Only the newest run of a visit is asked for its scope."""
    return value[0], None


def payload(event: gr.EventData) -> dict[str, Any]:
    """What a script of the page sends with its event; nothing where that is no object."""
    return event._data if isinstance(event._data, dict) else {}


def known_ids(data: Mapping[str, Any]) -> list[str]:
    """The ids a page sends, whatever it sends."""
    found = data.get("jobs")
    return [i for i in found[:REMEMBERED] if isinstance(i, str)] if isinstance(found, list) else []
