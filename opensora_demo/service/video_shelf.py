"""Jobs of /v1/videos on disk, beside the gallery that has their clips: one JSON file each, which outlives the process.

A job is written before its work begins and at its end. After a restart one that is done is there as long as its clip is
in the gallery, and one that was queued or running is said to have been ended by the server.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opensora_demo.messages import Message, catalog, from_json, message, render, to_json
from opensora_demo.service.folders import lives, process_folder
from opensora_demo.service.gallery import Gallery

log = logging.getLogger(__name__)
KEEP = 500  # jobs
MAX_BYTES = 1_000_000  # of one file
FOLDER = "videos"


@dataclass(slots=True, kw_only=True)
class StoredJob:
    """A job of a process that has ended. `video` is what it said of itself last; `failure` is None of one that is
    done, whose `clip` is a name in the gallery."""

    id: str
    owner: str
    video: dict[str, Any]
    failure: tuple[str, Message] | None
    clip: str | None

    def to_json(self) -> dict[str, Any]:
        """As `VideoJob.to_json`."""
        done = self.failure is None
        error = None if self.failure is None else {"code": self.failure[0], "message": render(self.failure[1])}
        status = {"status": "completed", "progress": 100} if done else {"status": "failed", "completed_at": None}
        return {**self.video, **status, "place": 0, "error": error}


class VideoShelf:
    """Job files in `gallery.folder`/videos, the newest `keep` of them. Where nothing can be written jobs are made all
    the same, and are gone with the process."""

    def __init__(self, gallery: Gallery, keep: int = KEEP) -> None:
        self.gallery, self.keep = gallery, keep

    @property
    def folder(self) -> Path:
        return self.gallery.folder / FOLDER

    def _file(self, job_id: str) -> Path:
        """Named by a hash: an id is a secret, and names of files are seen more easily than what is in them."""
        return self.folder / f"{hashlib.sha256(job_id.encode()).hexdigest()[:32]}.json"

    def write(
        self,
        video: Mapping[str, Any],
        owner: str,
        begun_at: float,
        *,
        over: bool = False,
        failure: tuple[str, Message] | None = None,
        clip: str | None = None,
    ) -> None:
        """How a job stands, whose `VideoJob.to_json` is `video`, and which was begun at this Unix time."""
        value = {
            "owner": owner,
            "video": dict(video),
            "over": over,
            "failure": None if failure is None else {"state": failure[0], "message": to_json(failure[1])},
            "clip": clip,
            "process": None if over else str(process_folder()),
            "begun_at": begun_at,
        }
        file = self._file(str(video["id"]))
        part = file.with_suffix(".part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            part.touch(mode=0o600)  # ids are secrets
            part.write_text(json.dumps(value), "utf-8")
            part.replace(file)
        except OSError as error:
            log.warning("a job could not be written to %s: %s", self.folder, error)
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def remove(self, job_id: str) -> None:
        """Nothing where there is none."""
        with suppress(OSError):
            self._file(job_id).unlink(missing_ok=True)

    def load(self) -> list[StoredJob]:
        """The jobs of processes that have ended, oldest first. What is no job, or is done and its clip is gone, is
        passed over; all but the newest `keep` files are removed."""
        jobs: list[tuple[float, StoredJob]] = []
        files = sorted(self.folder.glob("*.json"), key=_modified, reverse=True) if self.folder.is_dir() else []
        for file in files[self.keep :]:
            with suppress(OSError):
                file.unlink(missing_ok=True)
        for file in files[: self.keep]:
            try:
                at, job = self._read(file)
            except (OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
                log.warning("%s is no job of /v1/videos, and is passed over: %r", file, error)
                continue
            if job is None:  # another process works on it
                continue
            if job.failure is None and self.gallery.file(job.clip) is None:
                with suppress(OSError):
                    file.unlink(missing_ok=True)
                continue
            jobs.append((at, job))
        return [job for _, job in sorted(jobs, key=lambda made: made[0])]

    def _read(self, file: Path) -> tuple[float, StoredJob | None]:
        """When it was begun, and the job; None of one that a process that lives works on. Raises what is wrong."""
        if file.is_symlink() or file.stat().st_size > MAX_BYTES:
            raise ValueError("too large, or a link")
        value = json.loads(file.read_text("utf-8"))
        video, owner, clip = value["video"], value["owner"], value["clip"]
        if not (isinstance(video, dict) and isinstance(owner, str) and isinstance(clip, str | None)):
            raise TypeError("a field is of another kind")
        begun = float(value["begun_at"])
        if self._file(video["id"]) != file:
            raise ValueError("its name is another job's")
        if not value["over"]:
            if lives(Path(value["process"])):
                return begun, None
            failure: tuple[str, Message] | None = "interrupted", message("run.server_ended")
        elif value["failure"] is None:
            failure = None
        else:
            failure = str(value["failure"]["state"]), from_json(value["failure"]["message"])
            if failure[1].code not in catalog("en"):
                raise ValueError(failure[1].code)
        return begun, StoredJob(id=video["id"], owner=owner, video=video, failure=failure, clip=clip)


def _modified(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:  # another process was faster
        return 0.0
