"""An engine that has its clips made by another server, over /v1/videos: this demo, vLLM-Omni or SGLang Diffusion.

Such a server says how far a clip is, and shows nothing of its steps; each clip of a comparison is a job of its own,
from the same seed. What servers are known to do wrong ends as a sentence: one that is down, or slow, or in a state that
is none; a job that is not found at first, or gets lost; a file that is not there yet, or is no clip, or another than
was asked for; a deletion that stops nothing.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

from opensora_demo.catalog import ElsewhereWeights, ModelSpec, find_model, offer_only
from opensora_demo.catalog.served import served_model
from opensora_demo.errors import Cancelled, DeviceError, ServerError
from opensora_demo.explain.run import Part
from opensora_demo.media import lossless, read_mp4
from opensora_demo.messages import Message, message, plain
from opensora_demo.request.events import Clip, Decoding, Encoded, Finished, Started, StepPreview
from opensora_demo.request.request import GenerationRequest
from opensora_demo.request.video import Frames
from opensora_demo.runtime.cost.estimator import Estimator
from opensora_demo.service.dialect import DIALECT_LIMITS, field_of, read_limits, write_fields
from opensora_demo.service.engine import Job, Line, Loading, ModelOffer, Quiet, RunEvent, Waiting
from opensora_demo.service.folders import process_folder
from opensora_demo.service.jobs import BaseEngine, BaseJob, GoingJobs
from opensora_demo.service.options import ServerAddress
from opensora_demo.weights.options import WeightOptions

log = logging.getLogger(__name__)
ASK_S = 10.0  # how long an answer may take
BEGIN_S = 60.0  # the same of the one to a new job, and of a clip
LOST_S = 60.0  # how long a server may give no answer before its job is given up
FOUND_S = 5.0  # how long a job or its file may not be there yet
POLL_S = (0.1, 1.0)  # between two questions, at first and later
CLOSE_S = 5.0
MAX_ANSWER = 4_000_000  # bytes of JSON
MAX_CLIP = 400_000_000  # bytes
MAX_QUOTED = 300  # characters of what a server says
Video = Mapping[str, Any]  # a job as the server tells of it


class Faulty(Exception):
    """An answer that is an error: its status, and what it says."""

    def __init__(self, status: int, said: str) -> None:
        self.status, self.said = status, said


class VideoServer:
    """Requests to one server. Its address goes to the log, and to no visitor."""

    def __init__(self, address: ServerAddress) -> None:
        self._url, self._token = address.url, address.token
        self._forms_only = False

    def ask(
        self, method: str, path: str, body: bytes | None = None, kind: str = "application/json", wait_s: float = ASK_S
    ) -> Any:
        """The JSON of an answer. Raises Faulty, and ServerError where there is none."""
        text = self.fetch(method, path, body, kind, wait_s, MAX_ANSWER)
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            self._fail("run.server_answer", f"no JSON: {text[:100]!r}")

    def fetch(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        kind: str = "application/json",
        wait_s: float = BEGIN_S,
        most: int = MAX_CLIP,
    ) -> bytes:
        """The bytes of an answer, likewise."""
        headers = {"accept": "*/*"} | ({} if body is None else {"content-type": kind})
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        asked = urllib.request.Request(f"{self._url}/v1/{path}", body, headers, method=method)
        try:
            with urllib.request.urlopen(asked, timeout=wait_s) as answer:
                data: bytes = answer.read(most + 1)
        except urllib.error.HTTPError as error:
            with error:
                raise Faulty(error.code, error_text(_start_of(error))) from None
        except Exception as error:  # of sockets, of urllib and of http.client
            self._fail("run.server_down", error)
        if len(data) > most:
            self._fail("run.server_answer", f"more than {most} bytes")
        return data

    def _fail(self, code: str, why: object) -> NoReturn:
        log.warning("%s: %s", self._url, why)
        raise ServerError(message(code)) from None

    def models(self) -> tuple[ModelSpec, ...]:
        """What it runs, with its own limits where it says them. Raises ServerError."""
        try:
            listed = self.ask("GET", "models")
            found = [self._model(entry) for entry in listed["data"]]
        except Faulty as fault:
            raise refusal(fault) from None
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            self._fail("run.server_answer", error)
        if not found:
            raise ServerError(message("run.server_no_models"))
        return tuple(found)

    def _model(self, entry: Mapping[str, Any]) -> ModelSpec:
        model_id = str(entry["id"])
        if entry.get("limits") is None:
            return served_model(model_id, DIALECT_LIMITS, own_limits=False)
        summary = plain(str(entry["summary"])) if entry.get("summary") else None
        limits = read_limits(entry["limits"])
        return served_model(model_id, limits, own_limits=True, title=str(entry.get("title", "")), summary=summary)

    def extended(self, request: GenerationRequest) -> bool:
        """Whether it knows our settings, beyond the dialect's."""
        weights = find_model(request.model_id).weights
        return isinstance(weights, ElsewhereWeights) and weights.own_limits

    # --- jobs

    def begin(self, request: GenerationRequest) -> Video:
        """Ask for one clip. A server that takes only forms is sent one. Raises RequestError and ServerError."""
        extended = self.extended(request)
        fields, files = write_fields(request, extended=extended), _files(request)
        if not extended and files.keys() - {field_of("reference")}:
            raise ServerError(message("run.server_no_files"))
        try:
            if files or self._forms_only:
                video = self._post_form(fields, files)
            else:
                try:
                    video = self.ask("POST", "videos", json.dumps(fields).encode(), wait_s=BEGIN_S)
                except Faulty as fault:
                    if extended or fault.status not in (415, 422):
                        raise
                    video = self._post_form(fields, files)
                    self._forms_only = True
        except Faulty as fault:
            raise refusal(fault) from None
        if not isinstance(video, Mapping) or not isinstance(video.get("id"), str) or not video["id"]:
            self._fail("run.server_answer", f"no job: {str(video)[:100]}")
        return video

    def _post_form(self, fields: Mapping[str, Any], files: Mapping[str, tuple[str, bytes]]) -> Any:
        body, kind = form_data(fields, files)
        return self.ask("POST", "videos", body, kind, wait_s=BEGIN_S)

    def state(self, video: Video) -> Video:
        """The job as it stands now. Raises Faulty and ServerError."""
        found = self.ask("GET", _path(video))
        if not isinstance(found, Mapping):
            self._fail("run.server_answer", "no object")
        return {**found, "id": video["id"]}

    def content(self, video: Video) -> bytes:
        """The mp4 of a job that is done, likewise."""
        return self.fetch("GET", f"{_path(video)}/content")

    def delete(self, video: Video) -> bool:
        """Whether the server says that the job is no more there."""
        try:
            self.fetch("DELETE", _path(video), wait_s=ASK_S, most=MAX_ANSWER)
        except Faulty as fault:
            return fault.status in (404, 410)
        except ServerError:
            return False
        return True

    def abort(self, video: Video) -> bool:
        """Delete a job that is going on; whether it has ended by that, as far as the server says."""
        if not self.delete(video):
            return False
        for _ in range(2):
            try:
                if self.state(video).get("status") not in ("queued", "in_progress"):
                    return True
            except Faulty as fault:
                return fault.status in (404, 410)
            except ServerError:
                return False
            time.sleep(POLL_S[1] / 2)
        return False


def _path(video: Video) -> str:
    return f"videos/{quote(video['id'], safe='')}"


def _files(request: GenerationRequest) -> dict[str, tuple[str, bytes]]:
    """What is given with a request, as it is, by the dialect's names: (name of a file, its bytes)."""
    given = {"reference": request.reference, "last_frame": request.last_frame, "video": request.video}
    named = {
        name: ("given.png" if len(frames) == 1 else "given.webp", frames)
        for name, frames in given.items()
        if frames is not None
    }
    return {field_of(name): (file, lossless(frames, request.fps)) for name, (file, frames) in named.items()}


def form_data(fields: Mapping[str, Any], files: Mapping[str, tuple[str, bytes]]) -> tuple[bytes, str]:
    """A multipart form and its content type (RFC 7578)."""
    mark = secrets.token_hex(16)
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    for name, (file, data) in files.items():
        kind = f"image/{file.rpartition('.')[2]}"
        head = f'Content-Disposition: form-data; name="{name}"; filename="{file}"\r\nContent-Type: {kind}'
        parts.append(f"--{mark}\r\n{head}\r\n\r\n".encode() + data + b"\r\n")
    return b"".join((*parts, f"--{mark}--\r\n".encode())), f"multipart/form-data; boundary={mark}"


def _start_of(answer: Any) -> bytes:
    try:
        start: bytes = answer.read(10_000)
    except Exception:  # its connection broke
        return b""
    return start


def error_text(body: bytes) -> str:
    """What an answer says is wrong: {"error": {"message"}} or {"detail"}, or its text."""
    try:
        value = json.loads(body)
        error = value.get("error") or value.get("detail")
        text = error.get("message", "") if isinstance(error, Mapping) else error
    except (ValueError, AttributeError, RecursionError):
        text = body.decode("utf-8", "replace")
    text = text if isinstance(text, str) else json.dumps(text)
    return " ".join(text.split())[:MAX_QUOTED]


def refusal(fault: Faulty) -> ServerError:
    """An answer that is an error, as a sentence."""
    match fault.status:
        case 401 | 403:
            return ServerError(message("run.server_token"))
        case 429 | 503:
            return ServerError(message("run.server_busy", said=fault.said))
        case _:
            return ServerError(message("run.server_refuses", status=fault.status, said=fault.said))


# --- one job


class RemoteJob(BaseJob[RunEvent]):
    """See `engine.Job`. Whoever reads its events asks the server, in his own thread."""

    def __init__(
        self, engine: RemoteEngine, request: GenerationRequest, owner: str | None, job_id: str | None = None
    ) -> None:
        super().__init__(job_id or secrets.token_urlsafe(12), request, owner, engine.going)
        self.place = 0
        self._server = engine.server
        self._encoded = False  # that the prompt has been read has been reported
        self._reported = 0  # steps that have been reported

    def _ended(self, ran_s: float | None) -> None:
        self.place = 0

    def _make(self) -> Iterator[RunEvent]:
        request, clips, unknown = self.request, list[Clip](), dict[str, None]()
        seconds: dict[str, float] = {}
        read: str | None = None
        reused: list[int] = []
        yield Loading()
        for index in range(len(request.columns)):
            clip, video = yield from self._column(index)
            clips.append(clip)
            unknown |= dict.fromkeys(_words(video))
            read = _refined(video)
            reused.append(_reused(video))
            for stage, took in _stages(video).items():
                seconds[stage] = seconds.get(stage, 0.0) + took
            yield Decoding(done=index + 1, total=len(request.columns), clip=clip, column=index)
        seconds = seconds or {"denoise": self._ran_s() or 0.0}
        taken = tuple(reused) if any(reused) else ()
        self._finish()
        yield Finished(clips=tuple(clips), seconds=seconds, unknown=tuple(unknown), refined=read, reused=taken)

    def _column(self, index: int) -> Generator[RunEvent, None, tuple[Clip, Video]]:
        """One clip, a job of the server: it is deleted there, whatever becomes of it."""
        self._check()
        request = self.request.column(index)
        video = self._server.begin(request)
        self.note("was begun elsewhere")
        began = answered = time.monotonic()
        pause_s, longest_s = POLL_S
        quiet = False
        try:
            while (status := video.get("status")) != "completed":
                yield from self._news(video, index)
                if status == "failed":
                    raise ServerError(message("run.server_failed", said=_error_of(video)))
                self._flag.wait(pause_s)
                self._check()
                pause_s = min(1.3 * pause_s, longest_s)
                asked = time.monotonic()
                try:
                    video = self._server.state(video)
                    answered = time.monotonic()
                except (Faulty, ServerError) as error:
                    self._judge(error, began, answered)
                if quiet != (answered < asked):
                    quiet = not quiet
                    yield Quiet(quiet)
            yield from self._news(video, index)
            frames = self._frames(video, request)
        except Cancelled:
            if not self._server.abort(video):
                raise Cancelled(message("run.server_no_abort")) from None
            raise
        except BaseException:
            self._server.delete(video)
            raise
        self._server.delete(video)
        return Clip(frames=frames, request=request), video

    def _judge(self, error: Faulty | ServerError, began: float, answered: float) -> None:
        """There was no answer to a question of how it stands, or a wrong one: whether that is the end."""
        now = time.monotonic()
        if isinstance(error, Faulty):
            if error.status == 404:
                if now - began > FOUND_S:
                    raise ServerError(message("run.server_lost")) from None
                return
            if error.status < 500 and error.status != 429:
                raise refusal(error) from None
        if now - answered > LOST_S:
            raise ServerError(message("run.server_silent", seconds=round(LOST_S))) from None

    def _news(self, video: Video, index: int) -> Iterator[RunEvent]:
        """What the state of the server's job says."""
        match video.get("status"):
            case "queued":
                place = video.get("place", 1)  # which others do not say
                self.place = place if isinstance(place, int) and not isinstance(place, bool) and place >= 0 else 1
                if index == 0:
                    self._become("queued" if self.place else "loading")
                    yield Waiting(self.place) if self.place else Loading()
            case "in_progress" | "completed":
                self.place = 0
                if self._ran_since is None:
                    self._began()
                    self._become("running")
                    yield Started(request=self.request)
                read_it = video.get("step") != 0 or video["status"] == "completed"  # ours may not have before a step
                if read_it and not self._encoded:
                    self._encoded = True
                    scenes, read = self.request.scenes, _refined(video)
                    yield Encoded(unknown=_words(video), cut_tokens=0, seconds=0.0, scenes=scenes, refined=read)
                yield from self._steps(video, index)
            case "failed":
                pass
            case other:
                log.warning("a job of another server is in the state %r", other)
                raise ServerError(message("run.server_state", state=repr(other)[:40]))

    def _steps(self, video: Video, index: int) -> Iterator[StepPreview]:
        """Steps that are done and were not reported yet: those of a clip after the other count as one run's."""
        request = self.request
        per_clip = request.stop_step or request.steps * request.scenes
        share = (index + _share(video)) / len(request.columns)
        done = min(int(share * per_clip + 1e-9), per_clip)
        while self._reported < done:
            place = self._reported
            self._reported += 1
            yield StepPreview(
                index=place % request.steps,
                total=request.steps,
                t=1 - (place % request.steps) / request.steps,
                previews=(),
                guidance=request.guidance[:1],
                seconds=self._ran_s() or 0.0,
                scene=place // request.steps,
                scenes=request.scenes,
            )

    def _frames(self, video: Video, request: GenerationRequest) -> Frames:
        """The clip of a job that is done. Its file may be a moment late."""
        until = time.monotonic() + FOUND_S
        while True:
            try:
                data = self._server.content(video)
                break
            except Faulty as fault:
                if fault.status in (401, 403) or time.monotonic() > until:
                    log.warning("the clip of a job of another server: %s %s", fault.status, fault.said)
                    raise ServerError(message("run.server_no_clip")) from None
            self._flag.wait(POLL_S[1])
            self._check()
        with tempfile.TemporaryDirectory(dir=process_folder(), prefix="served-") as folder:
            file = Path(folder) / "clip.mp4"
            file.write_bytes(data)
            try:
                frames, _ = read_mp4(file)
            except Exception as error:  # damaged files make the library raise nearly anything
                log.warning("the clip of a job of another server cannot be read: %s", error)
                raise ServerError(message("run.server_no_clip")) from None
        return as_asked(frames, request)


def as_asked(frames: Frames, request: GenerationRequest) -> Frames:
    """The clip in the size of the request: a file has small ones enlarged by a whole number. Raises ServerError where
    it is another clip than was asked for."""
    shape = request.shape
    count, height, width = frames.shape[:3]
    times = max(height // shape.height_px, 1)
    same_size = (height, width) == (times * shape.height_px, times * shape.width_px)
    if not same_size or (count != request.total_frames and not request.given):  # given frames may count once
        got = message("note.clip_of", frames=count, width=width, height=height)
        asked = message("note.clip_of", frames=request.total_frames, width=shape.width_px, height=shape.height_px)
        raise ServerError(message("run.server_other_clip", got=got, asked=asked))
    return frames[:, times // 2 :: times, times // 2 :: times]


def _share(video: Video) -> float:
    """How much of a clip is done, 0 to 1: by steps where they are reported, else by percent."""
    if video.get("status") == "completed":
        return 1.0
    for done, of in ((video.get("step"), video.get("steps")), (video.get("progress"), 100)):
        try:
            share = float(done) / float(of)  # type: ignore[arg-type]
        except (TypeError, ValueError, ZeroDivisionError):
            continue
        if 0 <= share < math.inf:
            return min(share, 1.0)
    return 0.0


def _words(video: Video) -> tuple[str, ...]:
    words = video.get("unknown_words")
    return tuple(word for word in words if isinstance(word, str)) if isinstance(words, list) else ()


def _refined(video: Video) -> str | None:
    """What a server of ours read in place of a prompt that names no place."""
    found = video.get("refined_prompt")
    return found if isinstance(found, str) else None


def _reused(video: Video) -> int:
    """Steps that a server of ours did not compute."""
    found = video.get("reused_steps")
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else 0


def _stages(video: Video) -> dict[str, float]:
    """Seconds by stage, of a server whose stages are ours."""
    found = video.get("stage_durations")
    known = {name: found.get(name) for name in ("text", "denoise", "decode")} if isinstance(found, dict) else {}
    return {name: float(s) for name, s in known.items() if isinstance(s, int | float)}


def _error_of(video: Video) -> str:
    error = video.get("error")
    text = error.get("message") if isinstance(error, Mapping) else error
    return " ".join(str(text or "-").split())[:MAX_QUOTED]


# --- the engine


class RemoteEngine(BaseEngine):
    """See `engine.Engine`."""

    def __init__(self, server: VideoServer, options: WeightOptions) -> None:
        """`options` names the server's models, which are the catalog's (`catalog.offer_only`)."""
        super().__init__(GoingJobs())
        self.server, self.options = server, options
        self.estimator = Estimator(options)

    @property
    def blind(self) -> Message | None:
        return message("note.blind")

    def models(self) -> tuple[ModelOffer, ...]:
        return tuple(ModelOffer(spec, None) for spec in self.options.listed())

    def submit(
        self, request: GenerationRequest, owner: str | None = None, *, look: bool = False, job_id: str | None = None
    ) -> RemoteJob:
        """Raises RequestError for a setting that the server does not have, too."""
        write_fields(request.column(0), extended=self.server.extended(request))
        job = RemoteJob(self, request, owner, job_id)
        self.going.add(job)
        return job

    def explain(self, request: GenerationRequest, owner: str | None = None) -> Job[Part | Loading | Waiting]:
        raise DeviceError(message("note.blind"))

    def line(self) -> Line:
        with self.going.news:
            jobs = self.going.jobs
            running = sum(job.state == "running" for job in jobs)
            return Line(len(jobs) - running, running > 0, None if jobs else 0.0)

    def next_free_s(self) -> float | None:
        return None

    def close(self) -> bool:
        return self.going.close(CLOSE_S)


def connect(address: ServerAddress, *, public: bool = False) -> RemoteEngine:
    """An engine of this server, whose models become this process's catalog. Raises ServerError where it cannot be
    reached."""
    server = VideoServer(address)
    specs = server.models()
    offer_only(specs)
    return RemoteEngine(server, WeightOptions(models=frozenset(spec.id for spec in specs), public=public))
