"""/v1/videos and /v1/models beside the page: the dialect that vLLM-Omni and SGLang Diffusion speak
(`service.dialect`), with previews as server-sent events.

    POST /v1/videos               begin a job; JSON, or multipart with files     -> the job
    POST /v1/videos/sync          the same, answered by the mp4
    GET /v1/videos                one's own jobs: after, limit, order
    GET /v1/videos/ID             the job
    GET /v1/videos/ID/content     its mp4
    GET /v1/videos/ID/events      what becomes of it, and its previews, until it ends
    DELETE /v1/videos/ID          stop it, and forget it and its clip
    GET /v1/models                the models that can run, with their limits

Whatever is wrong is answered as {"error": {"message", "type", "param", "code"}}, in English.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import logging
import math
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse

from opensora_demo.errors import Cancelled, DemoError, RequestError
from opensora_demo.messages import Message, message, render
from opensora_demo.service.dialect import file_names, model_object
from opensora_demo.service.folders import process_folder
from opensora_demo.service.options import ServerOptions
from opensora_demo.service.runs import reason_of
from opensora_demo.service.video_jobs import VideoJob, VideoJobs
from opensora_demo.service.video_shelf import StoredJob
from opensora_demo.ui.context import PageContext, may
from opensora_demo.ui.doors import MAX_BODY, Doors, Refused, read_body, too_deep, visitor_of
from opensora_demo.ui.guard import own_path

log = logging.getLogger(__name__)
LOOK_S = 0.05  # how often a job is looked at for whoever waits for it
BEAT_S = 15.0  # a stream that says nothing for longer may be cut by a proxy
MAX_LISTED, LISTED = 100, 20
MAX_FIELDS, MAX_FILES = 60, 3
LEFT = 499  # the caller has gone
NOT_KEPT = {"cache-control": "no-store"}
Handler = Callable[[Request], Awaitable[Response]]


class VideoApi:
    """ASGI, directly in front of the doors, whose limits it shares."""

    def __init__(self, app: Any, context: PageContext, server: ServerOptions) -> None:
        self.app, self.context = app, context
        self.doors: Doors = app
        self.token, self.public = server.api_token, server.public
        gallery = None if context.storage is None else context.storage.gallery
        self.jobs = VideoJobs(context.engine, context.runs, context.files, gallery)
        self.api = api = FastAPI(openapi_url=None)
        routes: tuple[tuple[str, str, Handler], ...] = (
            ("POST", "/v1/videos", self.create),
            ("POST", "/v1/videos/sync", self.make),
            ("GET", "/v1/videos", self.listed),
            ("GET", "/v1/videos/{job_id}", self.state),
            ("GET", "/v1/videos/{job_id}/content", self.content),
            ("GET", "/v1/videos/{job_id}/events", self.events),
            ("DELETE", "/v1/videos/{job_id}", self.delete),
            ("GET", "/v1/models", self.models),
        )
        for method, path, handler in routes:
            api.add_route(path, self.answering(handler), methods=[method])
        api.add_exception_handler(404, self.nowhere)
        api.add_exception_handler(405, self.not_so)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        ours = scope["type"] == "http" and own_path(scope).startswith(("/v1/videos", "/v1/models"))
        await (self.api if ours else self.app)(scope, receive, send)

    def answering(self, handler: Handler) -> Handler:
        """The handler for whoever may call it; what goes wrong there as an answer."""

        async def answered(request: Request) -> Response:
            try:
                self.check_token(request)
                return await handler(request)
            except Refused as refused:
                more = {} if refused.retry_s is None else {"retry-after": str(math.ceil(refused.retry_s))}
                more |= {"www-authenticate": "Bearer"} if refused.status == 401 else {}
                return failed(refused.status, refused.said, headers=more)
            except RequestError as error:
                status = 429 if error.field == "run" else 400
                return failed(status, error.problem, param=error.field)
            except Cancelled as error:
                return failed(503, error.message)
            except DemoError as error:
                return failed(400, error.message)
            except Exception as error:
                log.exception("a request failed")
                return failed(500, reason_of(error))

        return answered

    async def nowhere(self, request: Request, _error: Exception) -> Response:
        return failed(404, message("request.not_found"))

    async def not_so(self, request: Request, _error: Exception) -> Response:
        return failed(405, message("request.no_method", method=request.method))

    # --- who calls

    def check_token(self, request: Request) -> None:
        """Raises Refused."""
        if self.token and not hmac.compare_digest(key_of(request).encode(), self.token.encode()):
            raise Refused(401, message("request.no_token"))

    def owner_of(self, request: Request) -> str:
        """Whose jobs a caller's are: those of the key that he sends, of which a hash is kept. Where one key is asked
        for all have it."""
        key = key_of(request)
        return hashlib.sha256(key.encode()).hexdigest() if key and not self.token else ""

    # --- what is asked for

    async def begin(self, request: Request) -> VideoJob:
        """The job of a request. Raises Refused and DemoError."""
        visitor, headers = visitor_of(request.scope), dict(request.headers)
        self.doors.check_visitor(headers, visitor)
        with tempfile.TemporaryDirectory(dir=process_folder(), prefix="given-") as folder:
            if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
                await run_in_threadpool(self.doors.check_upload, headers, visitor)
                fields = await read_form(request, Path(folder))
            else:
                fields = await read_json(request, Path(folder))
            self.doors.check_room(None, visitor)
            storage = self.context.storage
            keep = storage is not None and may(storage.who, request.headers)
            start = partial(self.jobs.start, keep=keep)
            return await run_in_threadpool(start, fields, self.owner_of(request), visitor or None)

    async def create(self, request: Request) -> Response:
        return answer((await self.begin(request)).to_json())

    async def make(self, request: Request) -> Response:
        """A caller who leaves takes his job with him."""
        job = await self.begin(request)
        while not job.over:
            if await request.is_disconnected():
                await run_in_threadpool(self.jobs.remove, job.id)
                return Response(status_code=LEFT)
            await asyncio.sleep(LOOK_S)
        if job.failure is not None:
            return failed(503 if job.failure[0] == "interrupted" else 500, job.failure[1], code=job.failure[0])
        return self.file_of(job)

    # --- what has become of it

    async def job_of(self, request: Request) -> VideoJob | StoredJob:
        """Raises Refused, and RequestError where it goes on here from now on and too many do."""
        video_id = str(request.path_params["job_id"])
        job: VideoJob | StoredJob | None = self.jobs.find(video_id) or await run_in_threadpool(
            self.jobs.find_elsewhere, video_id
        )
        job = job or self.jobs.stored(video_id)
        if job is None:
            raise Refused(404, message("request.no_job"))
        return job

    async def state(self, request: Request) -> Response:
        return answer((await self.job_of(request)).to_json())

    async def listed(self, request: Request) -> Response:
        asked = dict(request.query_params)
        if unknown := [name for name in asked if name not in ("after", "limit", "order")]:
            raise RequestError(unknown[0][:40], message("request.no_field", names=("after", "limit", "order")))
        order, limit = asked.get("order", "desc"), asked.get("limit", str(LISTED))
        if order not in ("asc", "desc"):
            raise RequestError("order", message("request.one_of_these", choices=("asc", "desc")))
        if not (limit.isascii() and limit.isdigit() and len(limit) < 4 and 1 <= int(limit) <= MAX_LISTED):
            raise RequestError("limit", message("request.between", low=1, high=MAX_LISTED, got=limit[:20]))
        owner = self.owner_of(request)
        jobs: list[VideoJob | StoredJob] = []
        more = False
        if owner or self.token or not self.public:  # who has no key on a public page may be anybody
            jobs, more = self.jobs.listed(owner, asked.get("after"), int(limit), rising=order == "asc")
        ends = {"first_id": jobs[0].id if jobs else None, "last_id": jobs[-1].id if jobs else None}
        return answer({"object": "list", "data": [job.to_json() for job in jobs], **ends, "has_more": more})

    async def content(self, request: Request) -> Response:
        job, asked = await self.job_of(request), dict(request.query_params)
        if asked.get("variant", "video") != "video":
            raise RequestError("variant", message("request.one_of_these", choices=("video",)))
        if job.failure is not None:
            raise Refused(409, message("request.job_failed", reason=job.failure[1]))
        if isinstance(job, VideoJob) and job.status != "completed":
            raise Refused(409, message("request.job_goes_on", percent=job.progress))
        return self.file_of(job)

    def file_of(self, job: VideoJob | StoredJob) -> Response:
        if (file := self.jobs.clip_of(job)) is None:
            raise Refused(410, message("request.clip_gone"))
        return FileResponse(file, media_type="video/mp4", filename=file.name, headers={"x-video-id": job.id})

    async def events(self, request: Request) -> Response:
        return StreamingResponse(
            events_of(await self.job_of(request)), media_type="text/event-stream", headers=NOT_KEPT
        )

    async def delete(self, request: Request) -> Response:
        self.doors.check_visitor(dict(request.headers), visitor_of(request.scope))
        job_id = (await self.job_of(request)).id
        gone = await run_in_threadpool(self.jobs.remove, job_id)
        if not gone:  # another was faster
            raise Refused(404, message("request.no_job"))
        return answer({"id": job_id, "object": "video.deleted", "deleted": True})

    async def models(self, request: Request) -> Response:
        offers = await run_in_threadpool(self.context.engine.models)
        return answer({"object": "list", "data": [model_object(offer) for offer in offers if offer.reason is None]})


async def events_of(job: VideoJob | StoredJob) -> AsyncIterator[str]:
    """Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html): `video` whenever the job
    says something new, `preview` for each step that was looked at."""
    if isinstance(job, StoredJob):
        yield f"event: video\ndata: {json.dumps(job.to_json())}\n\n"
        return
    job.listeners += 1
    shown, said, silent_s = 0, "", 0.0
    try:
        while True:
            over = job.over  # before what is said, so that the last word is
            if job.run is not None:
                job.run.seen()
            for preview in job.previews[shown:]:
                shown, silent_s = shown + 1, 0.0
                yield f"event: preview\ndata: {json.dumps(preview.to_json())}\n\n"
            if (now := json.dumps(job.to_json())) != said:
                said, silent_s = now, 0.0
                yield f"event: video\ndata: {now}\n\n"
            if over:
                return
            await asyncio.sleep(LOOK_S)
            if (silent_s := silent_s + LOOK_S) > BEAT_S:
                silent_s = 0.0
                yield ": still here\n\n"
    finally:
        job.listeners -= 1


def answer(value: Any) -> Response:
    return JSONResponse(value, headers=NOT_KEPT)


def failed(
    status: int, said: Message, *, param: str | None = None, code: str | None = None, headers: Any = None
) -> Response:
    """An error as OpenAI's clients read it."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    text = render(said) if param is None else f"{param}: {render(said)}"
    error = {"message": text, "type": kind, "param": param, "code": code or str(status)}
    return JSONResponse({"error": error}, status, {**NOT_KEPT, **(headers or {})})


def key_of(request: Request) -> str:
    kind, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if kind.lower() == "bearer" else ""


async def read_json(request: Request, folder: Path) -> dict[str, Any]:
    """The fields of a JSON object; a file among them is a data URI, alone or as vLLM-Omni has it, {"image_url": ...}.
    Raises Refused and RequestError."""
    body = await read_body(request.receive)
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, message("request.no_json")) from None
    if not isinstance(fields, dict):
        raise Refused(400, message("request.no_json"))
    if too_deep(fields):
        raise Refused(400, message("request.too_deep"))
    for name in file_names():
        value = fields.get(name)
        if isinstance(value, dict) and list(value) == ["image_url"]:
            value = value["image_url"]
        if value is None:
            continue
        head, found, data = value.partition(";base64,") if isinstance(value, str) else ("", "", "")
        if not found or not head.startswith("data:"):
            raise RequestError(name, message("request.data_uri", most_mb=MAX_BODY // 1_000_000))
        try:
            content = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise RequestError(name, message("request.data_uri", most_mb=MAX_BODY // 1_000_000)) from None
        fields[name] = str(written(folder / name, content))
    return fields


async def read_form(request: Request, folder: Path) -> dict[str, Any]:
    """The fields of a multipart form; its files are put into the folder. Raises Refused and RequestError."""
    fields: dict[str, Any] = {}
    try:
        form = await request.form(max_files=MAX_FILES, max_fields=MAX_FIELDS)
    except Exception:  # of a parser that has several
        raise Refused(400, message("request.no_form")) from None
    try:
        for name, value in form.multi_items():
            if name in fields:
                raise RequestError(name[:40], message("request.given_twice"))
            if isinstance(value, str) == (name in file_names()):
                raise RequestError(
                    name[:40], message("request.file_field" if isinstance(value, str) else "request.text")
                )
            if isinstance(value, str):
                fields[name] = value
            else:
                fields[name] = str(await run_in_threadpool(copied, folder / name, value.file))
    finally:
        await form.close()
    return fields


def copied(file: Path, source: BinaryIO) -> Path:
    with file.open("wb") as target:
        shutil.copyfileobj(source, target)
    return file


def written(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file
