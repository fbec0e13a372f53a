"""The jobs of /v1/videos: each is stored before its work begins, is a run like any other, and says how it stands.

A job is kept, with its clip, until it is deleted, or `KEEP` newer ones have ended, or the process does. Then the next
process has it if there is a gallery (`video_shelf`), and another one of the same cluster finds it by its id. That is
a secret: whoever knows it may ask for the job. A job goes on though nobody watches it, as long as it is asked for now
and then (`ALONE_S`).
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from opensora_demo.errors import RequestError
from opensora_demo.media import jpeg_strip
from opensora_demo.messages import Message, message, render
from opensora_demo.preview import Budget
from opensora_demo.request.events import Decoding, Encoded, Finished, StepPreview
from opensora_demo.request.request import GenerationRequest
from opensora_demo.service.dialect import Fields, in_dialect, read_fields, seconds_of
from opensora_demo.service.engine import Engine, Job, RunEvent, RunRecord, State
from opensora_demo.service.forms import open_request
from opensora_demo.service.gallery import Gallery
from opensora_demo.service.outputs import OutputFolder
from opensora_demo.service.runs import Run, Runs, part_id
from opensora_demo.service.video_shelf import StoredJob, VideoShelf

KEEP = 500  # jobs that have ended
KIND = "video"
ALONE_S = 2 * 3600.0  # how long a job goes on that nobody asks for
DELETE_S = 10.0  # how long a deletion waits for the device to be free
FIND_S = 20.0  # how long is waited for the clip of a job that another process ended
PREVIEW_PX = 48
DENOISED, DECODED = 90, 99  # percent, once all steps are done, and all clips decoded
Status = Literal["queued", "in_progress", "completed", "failed"]


@dataclass(frozen=True, slots=True)
class Preview:
    """What a step expects each clip to become: `pictures` are its latent frames side by side, JPEGs as data URIs."""

    step: int  # from 1
    noise_level: float
    pictures: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"step": self.step, "noise_level": round(self.noise_level, 4), "pictures": list(self.pictures)}


def new_video_id() -> str:
    return f"video_{secrets.token_urlsafe(18)}"


class VideoJob:
    """One job. Its work writes, everybody reads: each field is replaced as a whole."""

    def __init__(
        self, owner: str, request: GenerationRequest, video_id: str | None = None, begun_at: float | None = None
    ) -> None:
        """A new one, unless an id and a Unix time are given."""
        self.id = video_id or new_video_id()
        self.owner = owner
        self.request = request
        self.begun_at = time.time() if begun_at is None else begun_at
        self.created_at = int(self.begun_at)
        self.completed_at: int | None = None
        self.file: Path | None = None
        self.removed = False
        self.kept = False  # it and its clip are to outlive the process
        self.progress = 0  # percent
        self.step = 0
        self.unknown: tuple[str, ...] = ()
        self.refined: str | None = None  # as `Encoded` has it
        self.reused = 0  # steps whose prediction is that of the step before
        self.took: Mapping[str, float] = {}  # seconds by stage
        self.peak_bytes: int | None = None
        self.precision: Mapping[str, str] | None = None
        self.listeners = 0  # who wants previews
        self.previews: tuple[Preview, ...] = ()
        self.run: Run[int] | None = None
        self._budget = Budget()

    @property
    def steps(self) -> int:
        return self.request.stop_step or self.request.steps * self.request.scenes

    @property
    def over(self) -> bool:
        return self.run is not None and self.run.over

    @property
    def status(self) -> Status:
        """In progress only while a model works on it."""
        run = self.run
        if run is None:
            return "queued"
        if run.over:
            return "completed" if run.state == "done" else "failed"
        return "in_progress" if run.state == "running" else "queued"

    @property
    def failure(self) -> tuple[State, Message] | None:
        """How and why it ended without a clip."""
        run = self.run
        if run is None or not run.over or run.state == "done":
            return None
        return run.state, run.failure or message("run.was_stopped")

    def add(self, event: RunEvent) -> None:
        match event:
            case Encoded():
                self.unknown = tuple(dict.fromkeys((*self.unknown, *event.unknown)))
                self.refined = self.refined or event.refined
            case StepPreview():
                self.step = event.place + 1
                self.reused += event.reused[:1] == (True,)
                self._rise(DENOISED * self.step // self.steps)
                if self.listeners and event.previews and self._budget.allows(event.seconds):
                    self.previews = (*self.previews, self._budget.take(lambda: preview_of(event)))
            case Decoding(done=done, total=total):
                self._rise(DENOISED + (DECODED - DENOISED) * done // total)
            case Finished():
                self.took, self.peak_bytes, self.precision = event.seconds, event.peak_bytes, event.precision
            case _:
                pass

    def _rise(self, percent: int) -> None:
        self.progress = max(self.progress, min(percent, DECODED))

    def complete(self, file: Path, at: float) -> None:
        """Its clip is in this file, since a Unix time."""
        self.file, self.completed_at, self.progress = file, int(at), 100

    def to_json(self) -> dict[str, Any]:
        """The job as vLLM-Omni's VideoResponse has it; from `num_frames` on the fields are ours."""
        request, status, failure = self.request, self.status, self.failure
        run = self.run
        return {
            "id": self.id,
            "object": "video",
            "model": request.model_id,
            "prompt": request.prompt,
            "status": status,
            "progress": self.progress,
            "created_at": self.created_at,
            "completed_at": self.completed_at if status == "completed" else None,
            "expires_at": None,
            "remixed_from_video_id": None,
            "seconds": seconds_of(request.total_frames, request.fps),
            "size": f"{request.shape.width_px}x{request.shape.height_px}",
            "quality": "default",
            "media_type": "video/mp4",
            "file_name": self.file.name if self.file is not None else None,
            "error": None if failure is None else {"code": failure[0], "message": render(failure[1])},
            "inference_time_s": round(sum(self.took.values()), 3) if self.took else None,
            "stage_durations": {stage: round(seconds, 3) for stage, seconds in self.took.items()},
            "peak_memory_mb": round((self.peak_bytes or 0) / 1e6, 1),
            "precision": None if self.precision is None else dict(self.precision),
            "num_frames": request.total_frames,
            "fps": request.fps,
            "seed": request.seed,
            "step": self.step,
            "steps": self.steps,
            "place": 0 if run is None else run.place,
            "unknown_words": list(self.unknown),
            "refined_prompt": self.refined,
            "reused_steps": self.reused,
            "settings": request.settings(),
        }


def preview_of(event: StepPreview) -> Preview:
    pictures = tuple(jpeg_strip(preview, PREVIEW_PX) for preview in event.previews)
    return Preview(event.place + 1, event.t, pictures)


class VideoJobs:
    """All jobs of this process. Thread-safe."""

    def __init__(self, engine: Engine, runs: Runs, files: OutputFolder, gallery: Gallery | None = None) -> None:
        """With a `gallery` there are also the jobs whose clips earlier processes kept in it."""
        self._engine, self._runs, self._files = engine, runs, files
        self._gallery = gallery
        self._shelf = None if gallery is None else VideoShelf(gallery)
        self._guard = threading.Lock()
        self._jobs: dict[str, VideoJob] = {}  # oldest first
        stored = [] if self._shelf is None else self._shelf.load()
        self._stored = {job.id: job for job in stored}  # of processes before, likewise

    def start(self, given: Fields, owner: str = "", visitor: str | None = None, *, keep: bool = False) -> VideoJob:
        """Store a job of these fields (`dialect.read_fields`) and begin its work. To `keep` it is to have it, and its
        clip in the gallery, outlive the process. Raises
        RequestError, with the field as the dialect calls it, WeightsError, DeviceError, and Cancelled once the server
        ends."""
        form = read_fields(given, self._engine.options)
        try:
            _, request = open_request(form, self._engine.estimator)
        except RequestError as error:
            raise in_dialect(error) from error
        record = RunRecord(kind=KIND, what=request, number=0, began_at=time.time(), owner=owner)
        return self._begin(new_video_id(), record, visitor, keep=keep)

    def _begin(
        self,
        video_id: str,
        record: RunRecord,
        visitor: str | None = None,
        *,
        keep: bool = False,
        found: bool = False,
    ) -> VideoJob:
        """The job of a record; `found` where another process began it."""
        request: GenerationRequest = record.what
        job = VideoJob(record.owner, request, video_id, record.began_at)
        ended_at = None if record.seconds is None else record.began_at + record.seconds

        def work(run: Run[int]) -> int:
            job.run = run
            version = 0
            assert turn is not None
            for event in run.follow(turn):
                job.add(event)
                if isinstance(event, Finished):
                    self._complete(job, event, ended_at)
                run.publish(version := version + 1)
            return version + 1

        def end(state: State, reason: Message, _seconds: float) -> int:
            ended = message("run.server_ended" if state == "interrupted" else "run.was_stopped")
            self._write(job, over=True, failure=(state, reason if state == "failed" else ended))
            return -1

        with self._guard:
            if found and video_id in self._jobs:  # another request was faster
                return self._jobs[video_id]
            self._forget()
            self._jobs[job.id] = job
            self._stored.pop(job.id, None)
        job.kept = keep
        self._write(job)
        turn: Job[RunEvent] | None = None
        try:
            # Here, so that jobs stand in line as they were asked for.
            turn = self._engine.submit(request, record.owner or None, job_id=part_id(video_id))
            job.run = self._runs.start(
                None,
                work,
                end,
                kind=KIND,
                run_id=video_id,
                visitor=visitor,
                keep=False,
                alone_s=ALONE_S,
                record=record,
                found=found,
            )
        except BaseException as error:
            with self._guard:
                self._jobs.pop(job.id, None)
            self._unwrite(job.id, kept=keep)
            if turn is not None:
                turn.cancel()
            if isinstance(error, RequestError):
                raise in_dialect(error) from error
            raise
        return job

    def _complete(self, job: VideoJob, done: Finished, ended_at: float | None) -> None:
        file, _ = self._files.write_run(job.request, done)
        with self._guard:
            removed = job.removed
            if not removed:
                job.complete(file, time.time() if ended_at is None else ended_at)
        if removed:
            self._files.delete(file)
        elif job.kept and self._gallery is not None:
            clip = self._gallery.keep(file)
            self._write(job, over=True, clip=None if clip is None else clip.name)

    def _write(
        self,
        job: VideoJob,
        *,
        over: bool = False,
        failure: tuple[State, Message] | None = None,
        clip: str | None = None,
    ) -> None:
        """How a job stands that is to outlive the process."""
        if self._shelf is None or not job.kept:
            return
        with self._guard:
            if not job.removed:
                video = job.to_json() | {"completed_at": job.completed_at}
                self._shelf.write(video, job.owner, job.begun_at, over=over, failure=failure, clip=clip)

    def _unwrite(self, job_id: str, *, kept: bool) -> None:
        if self._shelf is not None and kept:
            self._shelf.remove(job_id)

    def _forget(self) -> None:
        ended = [job_id for job_id, job in self._jobs.items() if job.over]
        for job_id in ended[: max(len(ended) - KEEP, 0)]:
            del self._jobs[job_id]

    def find(self, job_id: str) -> VideoJob | None:
        """The job of this id; who asks for it keeps it going."""
        with self._guard:
            job = self._jobs.get(job_id)
        if job is not None and job.run is not None:
            job.run.seen()
        return job

    def find_elsewhere(self, video_id: str) -> VideoJob | None:
        """The job of this id that another process of the same cluster began; it goes on here, and of one that is done
        the clip is waited for. Raises RequestError where too many runs are going on, Cancelled once the server ends."""
        if self._runs.refusal(None, None) or (record := self._runs.recall(video_id, KIND)) is None:
            return self.find(video_id)
        try:
            job = self._begin(video_id, record, found=True)
        except BaseException:
            self._runs.forget(video_id)
            raise
        if record.seconds is not None and job.run is not None:
            job.run.wait(FIND_S)
        return job

    def stored(self, video_id: str) -> StoredJob | None:
        """The job of this id of a process that has ended."""
        with self._guard:
            return self._stored.get(video_id)

    def clip_of(self, job: VideoJob | StoredJob) -> Path | None:
        """The mp4 of a job that is done; None once it was swept away."""
        if isinstance(job, VideoJob):
            file = job.file
        else:
            file = None if self._gallery is None else self._gallery.file(job.clip)
        return file if file is not None and file.is_file() else None

    def listed(
        self, owner: str, after: str | None, limit: int, *, rising: bool = False
    ) -> tuple[list[VideoJob | StoredJob], bool]:
        """An owner's jobs, the newest first or the oldest, at most so many from behind the job `after`; and whether
        there are more. Raises RequestError where that is none of them."""
        with self._guard:
            everybodys: list[VideoJob | StoredJob] = [*self._stored.values(), *self._jobs.values()]
        jobs = [job for job in everybodys if job.owner == owner]
        if not rising:
            jobs.reverse()
        if after is not None:
            at = next((k for k, job in enumerate(jobs) if job.id == after), None)
            if at is None:
                raise RequestError("after", message("request.no_job"))
            jobs = jobs[at + 1 :]
        return jobs[:limit], len(jobs) > limit

    def remove(self, job_id: str, wait_s: float = DELETE_S) -> bool:
        """Stop a job and forget it and its clip, and wait until the device is free of it; False where there is none."""
        with self._guard:
            stored = self._stored.pop(job_id, None)
            job = self._jobs.pop(job_id, None)
            if job is not None:
                job.removed = True
            file = None if job is None else job.file
        self._unwrite(job_id, kept=stored is not None or (job is not None and job.kept))
        if job is None:
            return stored is not None
        if job.run is not None:
            job.run.cancel()
            job.run.wait(wait_s)
        self._runs.forget(job_id)
        if file is not None:
            self._files.delete(file)
        return True
