"""What a host asks the page about itself, /health, /ready and /metrics, and what visitors are told of the line,
/status."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from opensora_demo import __version__
from opensora_demo.ui.context import PageContext
from opensora_demo.ui.guard import own_path

MIN_FREE_BYTES = 50_000_000  # below this a clip may not find room
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
NOT_KEPT = {"cache-control": "no-store"}


class Probes:
    """ASGI, in front of the page.

    /health: the server answers. /ready: whether it can take a run now (200 or 503, and what is lacking). /metrics:
    counts and times in Prometheus' format, where `metrics` allows it. /status: how many wait, and about how long.
    """

    def __init__(self, app: Any, context: PageContext, *, metrics: bool) -> None:
        self.app, self.context = app, context
        self.answers = {"/health": self.health, "/ready": self.ready, "/status": self.status}
        if metrics:
            self.answers["/metrics"] = self.metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        answer = self.answers.get(own_path(scope)) if scope["type"] == "http" else None
        if answer is None:
            await self.app(scope, receive, send)
        elif scope["method"] not in ("GET", "HEAD"):
            await PlainTextResponse("", 405, {"allow": "GET, HEAD"})(scope, receive, send)
        elif answer == self.health:  # of nothing but the loop that answers
            await answer()(scope, receive, send)
        else:
            await (await run_in_threadpool(answer))(scope, receive, send)

    def health(self) -> Response:
        return JSONResponse({"status": "ok", "version": __version__}, headers=NOT_KEPT)

    def ready(self) -> Response:
        free = free_bytes(self.context.files.path)
        checks = {
            "model": self.context.warmed.is_set(),
            "engine": not self.context.engine.closed,
            "disk": free is None or free >= MIN_FREE_BYTES,
        }
        ready = all(checks.values())
        return JSONResponse({"ready": ready, **checks}, 200 if ready else 503, headers=NOT_KEPT)

    def status(self) -> Response:
        line = self.context.engine.line()
        wait_s = None if line.wait_s is None else round(line.wait_s, 1)
        return JSONResponse({"waiting": line.waiting, "busy": line.busy, "wait_s": wait_s}, headers=NOT_KEPT)

    def metrics(self) -> Response:
        line = self.context.engine.line()
        gauges = {
            "jobs_waiting": ("Jobs that wait for the device.", float(line.waiting)),
            "device_busy": ("1 while a job has the device.", float(line.busy)),
            "process_start_time_seconds": ("When the server began, Unix time.", self.context.began_at),
        }
        if (resident := resident_bytes()) is not None:
            gauges["resident_memory_bytes"] = ("Resident memory of the process.", float(resident))
        with suppress(OSError):
            gauges["threads"] = ("Threads of the process.", float(len(os.listdir("/proc/self/task"))))  # noqa: PTH208
            gauges["open_files"] = ("Open files and connections.", float(len(os.listdir("/proc/self/fd"))))  # noqa: PTH208
        if (free := free_bytes(self.context.files.path)) is not None:
            gauges["disk_free_bytes"] = ("Room on the disk where clips are written.", float(free))
        with suppress(OSError):
            size = sum(file.stat().st_size for file in self.context.files.path.iterdir())
            gauges["clips_bytes"] = ("Size of the clips that are kept.", float(size))
        return Response(self.context.engine.monitor.exposition(gauges), media_type=EXPOSITION, headers=NOT_KEPT)


def free_bytes(folder: Path) -> int | None:
    """The room on the disk of a folder; None where it cannot be told, as when somebody has deleted it."""
    for place in (folder, *folder.parents):
        with suppress(OSError):
            return shutil.disk_usage(place).free
    return None


def resident_bytes() -> int | None:
    """Of this process; None where the system does not say (Linux does)."""
    with suppress(OSError):
        if found := re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text()):
            return 1024 * int(found[1])
    return None
