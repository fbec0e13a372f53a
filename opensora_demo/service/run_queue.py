"""Runs for the night: a queue on disk that outlives the process, and who works through it.

Each run is a JSON file, its name its place in the line; given frames and videos lie beside them. Whoever adds, removes
or works does so through these files, so that the page and the command line share one queue. One process at a time
works, as long as it holds a lock that the system lets go of however the process ends; the next one goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from filelock import FileLock, Timeout

from opensora_demo.errors import Cancelled, DemoError, RequestError
from opensora_demo.messages import Message, from_json, message, to_json
from opensora_demo.request.events import Finished, StepPreview
from opensora_demo.request.limits import MAX_SEED
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.cost.estimator import Estimator
from opensora_demo.service.engine import FINAL, Engine, State
from opensora_demo.service.forms import Form, given_names, parse_form, with_frames_of_form
from opensora_demo.service.gallery import Gallery

log = logging.getLogger(__name__)
MAX_WAITING = 1000  # runs
MAX_PROMPTS, MAX_EACH = 500, 16  # prompts at once, and clips of each
MAX_ENDED = 300  # runs that have ended and are still listed
MAX_TRIES = 3  # how often a run may end with its process before it is given up
LOOK_S = 1.0  # how often a process looks for what others have added
SPARE_BYTES = 65_536  # held back, so that the queue can be stopped and say why once the disk is full
RECENT = 5  # runs by whose time those that wait are told how long


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedRun:
    """A run of the queue. `settings` make it again (`GenerationRequest.settings`); `files` are what was given, by the
    name of the field, as names in the queue's folder. `tries`: how often it was begun. `clip` is its name in the
    gallery, `seconds` what it took."""

    id: str
    settings: dict[str, Any]
    files: dict[str, str] = field(default_factory=dict)
    state: State = "queued"
    tries: int = 0
    failure: Message | None = None
    clip: str = ""
    seconds: float = 0.0

    @property
    def over(self) -> bool:
        return self.state in FINAL

    def to_json(self) -> dict[str, Any]:
        return {
            "settings": self.settings,
            "files": self.files,
            "state": self.state,
            "tries": self.tries,
            "failure": None if self.failure is None else to_json(self.failure),
            "clip": self.clip,
            "seconds": self.seconds,
        }

    @classmethod
    def from_json(cls, run_id: str, value: Mapping[str, Any]) -> QueuedRun:
        """Raises LookupError, TypeError or ValueError for what `to_json` did not write."""
        if value["state"] not in get_args(State):
            raise ValueError(value["state"])
        return cls(
            id=run_id,
            settings=dict(value["settings"]),
            files=dict(value["files"]),
            state=value["state"],
            tries=int(value["tries"]),
            failure=None if value["failure"] is None else from_json(value["failure"]),
            clip=str(value["clip"]),
            seconds=float(value["seconds"]),
        )


# --- several prompts at once


def prompts_of(text: str) -> list[tuple[int, str]]:
    """(line, prompt) of a text with a prompt a line; empty lines and those that begin with # are left out. Raises
    RequestError("prompts")."""
    lines = enumerate(text.lstrip("\ufeff").splitlines(), 1)
    found = [(at, line.strip()) for at, line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not found:
        raise RequestError("prompts", message("request.no_prompts"))
    if len(found) > MAX_PROMPTS:
        raise RequestError("prompts", message("request.at_most", most=MAX_PROMPTS, got=len(found)))
    return found


def parse_each(value: Any) -> int:
    """Clips of each prompt; nothing is one. Raises RequestError("each")."""
    text = "1" if value is None else str(value).strip() or "1"
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MAX_EACH):
        raise RequestError("each", message("request.between", low=1, high=MAX_EACH, got=text[:20]))
    return int(text)


def parse_batch(form: Form, text: str, each: int, estimator: Estimator) -> list[GenerationRequest]:
    """The requests of a form with each line of `text` for its prompt, `each` clips of it: with a seed, from that one
    on. All of them or none: raises RequestError, which names the line, WeightsError and DeviceError."""
    requests = []
    for at, prompt in prompts_of(text):
        for k in range(each):
            try:
                _, request = parse_form(form, estimator, prompt=prompt)
            except RequestError as error:
                if error.field != "prompt":
                    raise
                raise RequestError("prompts", message("request.in_line", line=at, reason=error.problem)) from error
            given = str(form.get("seed") or "").strip() not in ("", "-1")
            requests.append(replace(request, seed=(request.seed + k) % (MAX_SEED + 1)) if given else request)
    return requests


# --- the queue


class RunQueue:
    """The queue in a folder. Safe to use from several threads and processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.changed = threading.Event()  # set where something was added or let go on here

    # What is there

    def runs(self) -> list[QueuedRun]:
        """All runs, in the order in which they were added. Files that nothing can be read from are passed over."""
        return [run for file in sorted(self.folder.glob("*.json")) if (run := self._read(file)) is not None]

    def find(self, run_id: str) -> QueuedRun | None:
        return self._read(self.folder / f"{run_id}.json") if _is_id(run_id) else None

    def wants(self, run_id: str) -> bool:
        """Whether a run that goes on is still to go on: it was not removed, and the queue not stopped."""
        return (self.folder / f"{run_id}.json").is_file() and not self._pause_file.is_file()

    @property
    def paused(self) -> bool:
        return self._pause_file.is_file()

    @property
    def pause_reason(self) -> Message | None:
        """Why the queue was stopped, where nobody did it."""
        try:
            return from_json(json.loads(self._pause_file.read_text("utf-8")))
        except (OSError, LookupError, ValueError, TypeError, AttributeError):
            return None

    def given(self, run: QueuedRun) -> dict[str, str]:
        """The paths of a run's given files."""
        return {name: str(self.folder / "files" / file) for name, file in run.files.items()}

    # Changing it

    def add(self, requests: Sequence[GenerationRequest], given: Mapping[str, Any] | None = None) -> list[QueuedRun]:
        """Put runs at the end of the line; `given` are the files they were read from, by the name of the field. Raises
        RequestError where too many wait, and OSError; then none was added."""
        self.folder.mkdir(parents=True, exist_ok=True)
        waiting = sum(not run.over for run in self.runs())
        if waiting + len(requests) > MAX_WAITING:
            raise RequestError("prompts", message("request.queue_full", most=MAX_WAITING, waiting=waiting))
        added: list[QueuedRun] = []
        self._hold_back()
        with self._changing():
            try:
                files = {name: self._copied(Path(str(file))) for name, file in (given or {}).items() if file}
                first = time.time_ns()
                for k, request in enumerate(requests):
                    settings = request.settings()
                    own = {name: file for name, file in files.items() if settings.get(name)}
                    run = QueuedRun(id=f"{first + k:019d}-{secrets.token_hex(4)}", settings=settings, files=own)
                    self._put(self._file_of(run), _written(run))
                    added.append(run)
            except OSError:  # what was added goes again, and with it what it took of the disk
                for run in added:
                    self._file_of(run).unlink(missing_ok=True)
                self._tidy()
                raise
        self.changed.set()
        return added

    def replace(self, run: QueuedRun) -> None:
        """Write what has become of a run, if it was not removed meanwhile."""
        with self._changing():
            if (self.folder / f"{run.id}.json").is_file():
                self._write(run)

    def remove(self, ids: Sequence[str]) -> int:
        """Take runs out of the queue; the one that goes on is stopped. How many there were."""
        if not self.folder.is_dir():
            return 0
        with self._changing():
            files = [file for i in ids if _is_id(i) and (file := self.folder / f"{i}.json").is_file()]
            for file in files:
                file.unlink()
            self._tidy()
        return len(files)

    def again(self, run_id: str) -> bool:
        """Put a run that has ended without a clip back into the line, at its place."""
        with self._changing():
            run = self.find(run_id)
            if run is None or not run.over or run.state == "done":
                return False
            self._write(replace(run, state="queued", tries=0, failure=None))
        self.changed.set()
        return True

    def pause(self, reason: Message | None = None) -> None:
        """Stop: the run that goes on is begun anew once the queue goes on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._surely(self._pause_file, "null" if reason is None else json.dumps(to_json(reason)))

    def go_on(self) -> None:
        self._pause_file.unlink(missing_ok=True)
        self._hold_back()
        self.changed.set()

    def recover(self) -> None:
        """Runs that were going on in a process which has ended wait again, or are given up."""
        for run in self.runs():
            if not run.over and run.state != "queued":
                lost = run.tries >= MAX_TRIES
                failure = message("note.queue.interrupted", tries=run.tries) if lost else None
                self.replace(replace(run, state="interrupted" if lost else "queued", failure=failure))

    def forget(self) -> None:
        """Drop the oldest of those that have ended beyond `MAX_ENDED`."""
        ended = [run.id for run in self.runs() if run.over]
        if len(ended) > MAX_ENDED:
            self.remove(ended[:-MAX_ENDED])

    # Files

    @property
    def _pause_file(self) -> Path:
        return self.folder / "paused"

    @property
    def _spare_file(self) -> Path:
        return self.folder / ".spare"

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with FileLock(self.folder / ".lock"):
            yield

    def _read(self, file: Path) -> QueuedRun | None:
        try:
            return QueuedRun.from_json(file.stem, json.loads(file.read_text("utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, LookupError, ValueError, TypeError, AttributeError) as error:
            log.warning("%s is no run of the queue: %s", file, error)
            return None

    def _file_of(self, run: QueuedRun) -> Path:
        return self.folder / f"{run.id}.json"

    def _write(self, run: QueuedRun) -> None:
        self._surely(self._file_of(run), _written(run))

    def _surely(self, file: Path, text: str) -> None:
        """`_put`, on a full disk into what was held back."""
        try:
            self._put(file, text)
        except OSError:
            self._spare_file.unlink(missing_ok=True)
            self._put(file, text)

    def _put(self, file: Path, text: str) -> None:
        """Write a file of the queue, whole or not at all. Raises OSError."""
        part = self.folder / f".{secrets.token_hex(8)}"
        try:
            part.write_text(text, "utf-8")
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)

    def _hold_back(self) -> None:
        with suppress(OSError):
            if not self._spare_file.is_file():
                self._spare_file.write_bytes(bytes(SPARE_BYTES))

    def _copied(self, file: Path) -> str:
        """A given file, kept under a name that is its content's."""
        with file.open("rb") as data:
            name = hashlib.file_digest(data, "sha256").hexdigest()[:24] + file.suffix.lower()[:8]
        target = self.folder / "files" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_file():
            part = target.with_name(f".{secrets.token_hex(8)}")
            try:
                shutil.copyfile(file, part)
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)
        return name

    def _tidy(self) -> None:
        """Given files that no run names any more go."""
        named = {name for run in self.runs() for name in run.files.values()}
        for file in (self.folder / "files").glob("*"):
            if file.name not in named:
                file.unlink(missing_ok=True)


def _written(run: QueuedRun) -> str:
    return json.dumps(run.to_json(), ensure_ascii=False, indent=1)


def _is_id(text: object) -> bool:
    return isinstance(text, str) and text.replace("-", "").isalnum()


# --- working through it


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The run that goes on: steps that are done, of how many, and about how many seconds are left, where known."""

    run_id: str
    step: int
    steps: int
    left_s: float | None


class QueueWorker:
    """Makes the runs of a queue one after the other and puts the clips into the gallery. Each is a job of the engine,
    like a visitor's, so that both take turns."""

    def __init__(self, queue: RunQueue, gallery: Gallery, engine: Engine, estimator: Estimator) -> None:
        self.queue, self.gallery = queue, gallery
        self.progress: Progress | None = None
        self._engine, self._estimator = engine, estimator
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Work in a thread of its own, for as long as the process lives."""
        self._thread = threading.Thread(target=self._work, name="run-queue", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End. Call it before the engine is closed; the run that goes on is begun anew by the next process."""
        self._closed.set()
        self.queue.changed.set()

    def join(self, timeout_s: float | None = None) -> None:
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _work(self) -> None:
        while not self._closed.is_set():
            self.queue.changed.clear()
            try:
                self.run_all()
            except Exception:  # of the disk, most likely; it may come back
                log.exception("the queue of runs cannot be worked through")
            self.queue.changed.wait(LOOK_S)

    def run_all(self, news: Callable[[QueuedRun], None] = lambda _: None) -> bool:
        """Make all runs that wait, those that come meanwhile among them, until none is left or the queue is stopped.
        `news` is called whenever one has begun or ended. False where another process works through the queue."""
        if self._next() is None and not self._left_behind():
            return True
        try:
            with FileLock(self.queue.folder / ".worker.lock", blocking=False):
                self.queue.recover()
                while (run := self._next()) is not None and self._make(run, news):
                    pass
                self.queue.forget()
        except Timeout:
            return False
        return True

    def _next(self) -> QueuedRun | None:
        if self._closed.is_set() or not self.queue.folder.is_dir() or self.queue.paused:
            return None
        return next((run for run in self.queue.runs() if run.state == "queued"), None)

    def _left_behind(self) -> bool:
        return any(not run.over for run in self.queue.runs())

    def _make(self, run: QueuedRun, news: Callable[[QueuedRun], None]) -> bool:
        """Make one run; False where it was stopped and waits again."""
        run = replace(run, state="running", tries=run.tries + 1)
        self.queue.replace(run)
        news(run)
        failure: Message | None = None
        try:
            run = self._finished(run)
        except Cancelled:
            if self.queue.find(run.id) is None:
                return True
            run = replace(run, state="queued", tries=run.tries - 1)  # stopped with the queue or the process
        except DemoError as error:
            failure = error.message
        except OSError as error:  # the next run would not fare better, and may take hours to find out
            log.exception("a clip of the queue could not be written")
            failure = message("note.queue.disk", folder=str(self.gallery.clips), reason=error.strerror or str(error))
            self.queue.pause(failure)
        except Exception:
            log.exception("a run of the queue failed")
            failure = message("run.sorry")
        except BaseException:  # Ctrl+C on the command line
            self.queue.replace(replace(run, state="queued", tries=run.tries - 1))
            raise
        finally:
            self.progress = None
        if failure is not None:
            run = replace(run, state="failed", failure=failure)
        self.queue.replace(run)
        news(run)
        return run.over

    def _finished(self, run: QueuedRun) -> QueuedRun:
        """The run with its clip. Raises Cancelled where it is not wanted any more, and whatever makes it fail."""
        form = with_frames_of_form(run.settings, self.queue.given(run))
        spec, request = parse_form(form, self._estimator)
        self.progress = Progress(
            run_id=run.id, step=0, steps=request.stop_step or request.steps * request.scenes, left_s=None
        )
        job = self._engine.submit(request, None)
        with closing(job.events()) as events:  # type: ignore[type-var]
            for event in events:
                if self._closed.is_set() or not self.queue.wants(run.id):
                    job.cancel()
                match event:
                    case StepPreview():
                        done, total = event.place + 1, event.of_all
                        left_s = event.seconds / done * (total - done)
                        self.progress = Progress(run_id=run.id, step=done, steps=total, left_s=left_s)
                    case Finished():
                        file = self.gallery.write(request, event)
                        took_s = sum(event.seconds.values())
                        return replace(run, state="done", clip=file.name, seconds=round(took_s, 3))
                    case _:
                        pass
        raise RuntimeError(f"{spec.id} ended without a result")


def left_s(runs: Sequence[QueuedRun], progress: Progress | None) -> float | None:
    """About how long all that waits will take, if it is like what was made last; None before the first."""
    took = [run.seconds for run in runs if run.state == "done" and run.seconds > 0][-RECENT:]
    if not took:
        return None
    mean = sum(took) / len(took)
    going = mean if progress is None or progress.left_s is None else progress.left_s
    return sum(mean for run in runs if run.state == "queued") + (going if any(not r.over for r in runs) else 0.0)


def given_of(form: Form) -> dict[str, Any]:
    """The given files of a form by the name of the field, for `RunQueue.add`."""
    return {name: form.get(name) for name in given_names()}
