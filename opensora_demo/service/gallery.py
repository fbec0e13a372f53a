"""What was made, kept: a folder of mp4 files that outlives the process and stays below a stated size.

The files are all there is: each has its settings inside, so that a folder which is copied, thinned out or added to by
hand is still a gallery. Several processes may use one folder.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opensora_demo.media import read_mp4, read_settings, write_poster
from opensora_demo.messages import Message, message
from opensora_demo.request.events import Finished
from opensora_demo.request.request import GenerationRequest
from opensora_demo.service.outputs import file_name, write_run

log = logging.getLogger(__name__)
POSTER_PX = 240  # the shorter side
NAME = re.compile(r"[\w-][\w.-]*\.mp4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A clip of the gallery: its mp4 by name, when it was made (seconds since 1970), and the settings inside it."""

    name: str
    made_s: float
    settings: dict[str, Any]


class Gallery:
    """Clips in `folder`/clips, which take at most `max_bytes`: beyond that the oldest go. Thread-safe."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.trouble: Message | None = None  # why the newest clip could not be kept
        self._guard = threading.Lock()

    @property
    def clips(self) -> Path:
        return self.folder / "clips"

    def keep(self, file: Path) -> Path | None:
        """Copy a finished clip. None where that fails, which is not worth the clip: `trouble` says why."""
        target = self.clips / file.name
        part = target.with_name(f".{secrets.token_hex(8)}")
        try:
            self.clips.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, part)
            part.replace(target)
        except OSError as error:
            log.warning("a clip could not be kept in %s: %s", self.clips, error)
            with suppress(OSError):
                part.unlink(missing_ok=True)
            reason = error.strerror or str(error)
            self.trouble = message("note.gallery.trouble", folder=str(self.clips), reason=reason)
            return None
        self.trouble = None
        self.sweep()
        return target

    def write(self, request: GenerationRequest, done: Finished) -> Path:
        """The mp4 of a finished run, made in the gallery itself. Raises OSError."""
        self.clips.mkdir(parents=True, exist_ok=True)
        file = self.clips / file_name(request.model_id, request.prompt, request.seed)
        write_run(file, request, done)
        self.sweep()
        return file

    def names(self) -> list[str]:
        """All clips, the newest first."""
        return [name for _, name, _ in reversed(self._listed())]

    def kept(self, names: Sequence[str]) -> list[Kept]:
        """Those of the names that are clips of this demo, with their settings."""
        found = []
        for name in names:
            file = self.file(name)
            settings = None if file is None else read_settings(file)
            if file is not None and settings is not None:
                found.append(Kept(name=name, made_s=_modified(file), settings=settings))
        return found

    def file(self, name: object) -> Path | None:
        """The mp4 of this name, where it is one of this folder."""
        if not isinstance(name, str) or not NAME.fullmatch(name):
            return None
        file = self.clips / name
        return file if file.is_file() and not file.is_symlink() else None

    def poster(self, name: object) -> Path | None:
        """Its middle frame as a small WebP, made when it is first asked for; None where there is no such clip, or
        nothing can be read from it or written."""
        file = self.file(name)
        if file is None:
            return None
        picture = file.with_suffix(".webp")
        if not picture.is_file():
            try:
                frames, _ = read_mp4(file)
                write_poster(picture, frames[len(frames) // 2], min(POSTER_PX, *frames.shape[1:3]))
            except (OSError, ValueError, IndexError):  # av's errors are OSErrors or ValueErrors
                log.exception("no poster of %s", file)
                return None
        return picture

    def delete(self, names: Sequence[object]) -> int:
        """Remove clips; how many there were."""
        files = [file for name in names if (file := self.file(name)) is not None]
        for file in files:
            self._remove(file.name)
        return len(files)

    @property
    def used_bytes(self) -> int:
        return sum(size for _, _, size in self._listed())

    def sweep(self) -> None:
        """Delete the oldest clips until the rest fits; the newest stays, however large."""
        with self._guard:
            listed = self._listed()
            used = sum(size for _, _, size in listed)
            for _, name, size in listed[:-1]:
                if used <= self.max_bytes:
                    return
                self._remove(name)
                used -= size

    def _remove(self, name: str) -> None:
        for file in (self.clips / name, (self.clips / name).with_suffix(".webp")):
            file.unlink(missing_ok=True)

    def _listed(self) -> list[tuple[float, str, int]]:
        """(when it was made, name, bytes with its poster) of every clip, the oldest first."""
        clips: dict[str, tuple[float, int]] = {}
        posters: dict[str, int] = {}
        try:
            with os.scandir(self.clips) as files:
                for file in files:
                    if not file.is_file(follow_symlinks=False):
                        continue
                    about = file.stat(follow_symlinks=False)
                    if NAME.fullmatch(file.name):
                        clips[file.name[: -len(".mp4")]] = about.st_mtime, about.st_size
                    elif file.name.endswith(".webp"):
                        posters[file.name[: -len(".webp")]] = about.st_size
        except FileNotFoundError:  # nothing was made yet, or a clip went meanwhile
            if not self.clips.is_dir():
                return []
            return self._listed()
        return sorted((made, f"{stem}.mp4", size + posters.get(stem, 0)) for stem, (made, size) in clips.items())


def _modified(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:  # another process was faster
        return 0.0
