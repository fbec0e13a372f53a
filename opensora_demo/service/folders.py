"""Where this process keeps what it makes while it serves: one folder, gone when the process ends.

What a process that was killed has left behind is swept by the next one: a folder belongs to a process that lives as
long as its lock is held, which the system lets go of however the process ends.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)
PREFIX = "opensora-demo-"
LOCK = ".lock"


@cache
def process_folder() -> Path:
    """The folder of this process, which only its user may look into."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    lock = FileLock(folder / LOCK)
    lock.acquire()
    _held.append(lock)
    atexit.register(remove)
    return folder


_held: list[FileLock] = []


def remove() -> None:
    """Remove the folder of this process, as far as that goes; nothing where there is none."""
    if process_folder.cache_info().currsize:
        shutil.rmtree(process_folder(), ignore_errors=True)


def sweep(parent: Path | None = None) -> list[Path]:
    """Remove the folders of processes that have ended without doing so; which they were."""
    swept = []
    for folder in (parent or Path(tempfile.gettempdir())).glob(f"{PREFIX}*"):
        try:
            if folder.is_symlink() or not (folder / LOCK).is_file() or not _ours(folder):
                continue
            with FileLock(folder / LOCK, blocking=False):
                shutil.rmtree(folder)
        except Timeout:  # its process lives
            continue
        except OSError as error:
            log.warning("%s could not be removed: %s", folder, error)
            continue
        swept.append(folder)
    return swept


def lives(folder: Path) -> bool:
    """Whether the process of this folder, of this machine, has not ended."""
    if not (folder / LOCK).is_file():
        return False
    if process_folder.cache_info().currsize and folder == process_folder():
        return True
    try:
        with FileLock(folder / LOCK, blocking=False):
            return False
    except Timeout:
        return True
    except OSError:
        return False


def _ours(folder: Path) -> bool:
    return not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()
