"""What stands in front of the page's endpoints: how much and how often a visitor may ask, and who still listens.

Gradio takes a request of any size, keeps what nobody reads, and answers a visitor's mistake with "Internal Server
Error". Here a request is looked at before Gradio sees it; whoever is turned away is told why, as JSON with a sentence
in "detail" (which the page shows), and when to come back, in the header Retry-After.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from fastapi.exceptions import HTTPException
from fastapi.responses import JSONResponse, PlainTextResponse

from opensora_demo.media import MAX_VIDEO_BYTES
from opensora_demo.messages import Language, Message, language_of, message, render
from opensora_demo.service.visitors import Rate, RateLimit
from opensora_demo.ui.context import PageContext
from opensora_demo.ui.events import RUNS

MAX_BODY = 2_000_000  # bytes of a request that is no upload: a form with everything in it has a few thousand
MOST_DISCARDED = 20_000_000  # bytes of a request that is too large which are still received
MAX_DEPTH = 50  # of a JSON value
ASKING = Rate(burst=200, per_s=20)  # of one address: whoever types asks a few times a second
STARTING = Rate(burst=60, per_s=2)  # runs
UPLOADING = Rate(burst=600e6, per_s=5e6)  # bytes
UPLOAD_BYTES = MAX_VIDEO_BYTES + 1_000_000  # of one request
LEAST_BYTES = 1_000_000  # that an upload counts as
UPLOADED_BYTES = 2_000_000_000  # of all visitors together; the oldest make room
FREE_BYTES = 300_000_000  # that must remain on the disk
LEFT_S = 600.0  # after so long a part of an upload that nobody sends any more is removed
BUSY_S = 5.0  # when to ask again while too many runs are going on and nobody knows how long
API = "/gradio_api/"


class Refused(Exception):
    """A request that goes no further."""

    def __init__(self, status: int, said: Message, retry_s: float | None = None) -> None:
        self.status, self.said, self.retry_s = status, said, retry_s


class Doors:
    """ASGI, in front of the page."""

    def __init__(
        self, app: Any, context: PageContext, functions: Mapping[int, Any], uploads: Path, *, private: bool = False
    ) -> None:
        """`functions` are Gradio's of the page, by number; `uploads` is where it puts files. On a `private`
        page, which only who started it should reach, no other site may send it anything."""
        self.app = app
        self.context = context
        self.uploads = uploads
        self.private = private
        self.functions = functions
        self.sent_up = 0  # uploads that go on
        self.asking, self.starting, self.uploading = RateLimit(ASKING), RateLimit(STARTING), RateLimit(UPLOADING)
        context.watches_readers = True

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or API not in path:
            await self.app(scope, receive, send)
            return
        inner = path[path.index(API) + len(API) :].strip("/")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            if scope["method"] == "POST":
                receive = await self.posted(inner, headers, scope, receive)
            elif inner.startswith("deep_link"):  # writes a file for every visitor who asks
                raise Refused(404, message("request.not_found"))
        except Refused as refused:
            await self.turn_away(refused, inner, headers)(scope, receive, send)
            return
        session = self.session_of(inner, scope)
        if session is not None:
            await self.listened(session, scope, receive, send)
        elif inner == "upload":
            await self.uploaded(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    # --- who listens

    def session_of(self, inner: str, scope: Any) -> str | None:
        """The session whose stream a request opens; a call without one goes by its event."""
        if scope["method"] != "GET":
            return None
        if inner == "queue/data":
            return parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [None])[0]
        parts = inner.split("/")
        return parts[-1] if parts[0] == "call" and len(parts) >= 3 else None

    async def listened(self, session: str, scope: Any, receive: Any, send: Any) -> None:
        readers, begun = self.context.readers, False

        async def noted(event: Any) -> None:
            nonlocal begun
            begun = True
            readers.sending(session)
            await send(event)
            readers.sent(session)

        async def until_left() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        readers.opened(session)
        answering, left = asyncio.ensure_future(self.app(scope, receive, noted)), asyncio.ensure_future(until_left())
        try:
            await asyncio.wait((answering, left), return_when=asyncio.FIRST_COMPLETED)
            if answering.done() and (error := answering.exception()) is not None:
                if not begun or not is_gone(error):
                    raise error
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            readers.closed(session)
            left.cancel()
            answering.cancel()  # Gradio itself looks for a visitor who has left every ten seconds
            await asyncio.gather(answering, left, return_exceptions=True)

    async def uploaded(self, scope: Any, receive: Any, send: Any) -> None:
        """Of an upload that was broken off Gradio keeps the part."""
        self.sent_up += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.sent_up -= 1
            if self.sent_up == 0:
                remove_parts(self.uploads, 0.0)

    # --- what is asked

    async def posted(self, inner: str, headers: Mapping[str, str], scope: Any, receive: Any) -> Any:
        """What the rest of the way receives. Raises Refused."""
        visitor = visitor_of(scope)
        self.check_visitor(headers, visitor)
        if inner == "upload":
            self.check_upload(headers, visitor)
            return receive
        body = await read_body(receive)
        return replay(self.checked(inner, body, visitor), receive)

    def check_visitor(self, headers: Mapping[str, str], visitor: str) -> None:
        """Whether one may send anything now. Raises Refused."""
        if self.private and headers.get("sec-fetch-site") == "cross-site":
            raise Refused(403, message("request.other_site"))
        if wait_s := self.asking.take(visitor):
            raise Refused(429, message("request.too_often", seconds=math.ceil(wait_s)), wait_s)

    def check_upload(self, headers: Mapping[str, str], visitor: str) -> None:
        length = headers.get("content-length", "")
        if not length.isdecimal():
            raise Refused(411, message("request.no_length"))
        if int(length) > UPLOAD_BYTES:
            raise Refused(413, message("request.too_large", most_mb=UPLOAD_BYTES // 1_000_000))
        if wait_s := self.uploading.take(visitor, max(int(length), LEAST_BYTES)):
            raise Refused(429, message("request.too_often", seconds=math.ceil(wait_s)), wait_s)
        make_room(self.uploads)
        if shutil.disk_usage(self.uploads if self.uploads.is_dir() else self.uploads.parent).free < FREE_BYTES:
            raise Refused(507, message("request.no_room"))

    def checked(self, inner: str, body: bytes, visitor: str) -> bytes:
        """The body as Gradio gets it. Raises Refused."""
        kind, *names = inner.split("/")
        if kind not in ("call", "queue", "run", "api") or names == ["status"]:
            return body
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            raise Refused(400, message("request.no_json")) from None
        if not isinstance(asked, dict):
            raise Refused(422, message("request.no_json"))
        if too_deep(asked):
            raise Refused(422, message("request.too_deep"))
        function = self.called(kind, names, asked)
        if function.concurrency_id == RUNS:
            self.check_start(asked, kind, visitor)
        if kind == "call":  # it is listened to by its event
            asked.pop("session_hash", None)
        for value in nested(asked):
            if not self.is_upload(value):
                value["meta"] = {}
        return json.dumps(asked).encode()

    def called(self, kind: str, names: Sequence[str], asked: Mapping[str, Any]) -> Any:
        """What Gradio would call. Raises Refused where that is not there, or gets other values than it takes."""
        if kind == "call" and names[:1] == ["v2"]:
            function = self.function_of(kind, names[1:], asked)
            parameters = parameter_names(function)
            if unknown := [name for name in asked if name not in (*parameters, "oauth_token")]:
                raise Refused(422, message("request.unknown_names", got=unknown[0][:40], names=parameters))
            return function
        function = self.function_of(kind, names, asked)
        data, needed = asked.get("data"), len(function.inputs)
        got = len(data) if isinstance(data, list) else 0
        if not isinstance(data, list) or got != needed:
            raise Refused(
                422, message("request.values_needed", needed=needed, got=got, names=parameter_names(function))
            )
        return function

    def function_of(self, kind: str, names: Sequence[str], asked: Mapping[str, Any]) -> Any:
        """What Gradio would call. Raises Refused for what is not there."""
        if kind == "queue":
            index = asked.get("fn_index")
            if isinstance(index, int) and index in self.functions:
                return self.functions[index]
            raise Refused(404, message("request.not_found"))
        for function in self.functions.values():
            if names == [function.api_name] and (kind != "call" or function.api_visibility == "public"):
                return function
        if kind == "run" and asked.get("fn_index") in self.functions:
            return self.functions[asked["fn_index"]]
        public = tuple(f"/{f.api_name}" for f in self.functions.values() if f.api_visibility == "public")
        raise Refused(404, message("request.no_endpoint", names=public))

    def check_start(self, asked: Mapping[str, Any], kind: str, visitor: str) -> None:
        session = asked.get("session_hash") if kind == "queue" else None
        self.check_room(session if isinstance(session, str) else None, visitor)

    def check_room(self, owner: str | None, visitor: str) -> None:
        """Whether one may begin a run now. Raises Refused."""
        why = self.context.runs.refusal(owner, visitor)
        if why is not None:
            wait_s = self.context.engine.next_free_s() or BUSY_S
            raise Refused(429, message("request.later", why=why, seconds=math.ceil(wait_s)), wait_s)
        if wait_s := self.starting.take(visitor):
            raise Refused(429, message("request.too_often", seconds=math.ceil(wait_s)), wait_s)

    def is_upload(self, value: Mapping[str, Any]) -> bool:
        """Whether a value that says that it is a file is one of Gradio's: of others the form says what is wanted."""
        path = value.get("path")
        if not isinstance(path, str) or not path or "\0" in path:
            return False
        try:
            file = Path(path).resolve()
            return file.is_file() and file.is_relative_to(self.uploads.resolve())
        except (OSError, ValueError):
            return False

    def turn_away(self, refused: Refused, inner: str, headers: Mapping[str, str]) -> Any:
        """Programs are answered in English."""
        language: Language = "en" if inner.startswith("call") else language_of(headers.get("accept-language", ""))
        said = render(refused.said, language)
        more = {} if refused.retry_s is None else {"retry-after": str(math.ceil(refused.retry_s))}
        if inner == "upload":  # of which the page shows the text as it is
            return PlainTextResponse(said, refused.status, more)
        return JSONResponse({"detail": said, "error": said}, refused.status, more)


def visitor_of(scope: Any) -> str:
    """Where a request is from, as far as can be told."""
    return scope["client"][0] if scope.get("client") else ""


async def read_body(receive: Any) -> bytes:
    """Raises Refused for more than `MAX_BODY`."""
    body, got, more = bytearray(), 0, True
    while more and got <= MOST_DISCARDED:  # whoever sends on while he is answered does not hear the answer
        event = await receive()
        part = event.get("body", b"")
        got += len(part)
        body += part if got <= MAX_BODY else b""
        more = event.get("more_body", False)
    if got > MAX_BODY:
        raise Refused(413, message("request.too_large", most_mb=MAX_BODY // 1_000_000))
    return bytes(body)


def replay(body: bytes, rest: Any) -> Any:
    """A `receive` that gives this body, and then what `rest` gives."""
    given = False

    async def receive() -> Any:
        nonlocal given
        if given:
            return await rest()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def parameter_names(function: Any) -> tuple[str, ...]:
    """The parameters of an endpoint, in their order."""
    if function.api_visibility != "public":
        return ()
    return tuple(str(block.label) for block in function.inputs)


def nested(value: Any) -> Iterator[dict[str, Any]]:
    """Everything in a value that says that it is a file."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case dict() as one:
                meta = one.get("meta")
                if isinstance(meta, dict) and meta.get("_type") == "gradio.FileData":
                    yield one
                waiting += one.values()
            case list() as several:
                waiting += several


def too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            part
            for one in level
            if isinstance(one, dict | list)
            for part in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return True


def make_room(uploads: Path, most_bytes: int = UPLOADED_BYTES) -> None:
    """Remove parts of uploads that nobody sends any more, and of whole files the oldest until `most_bytes` hold."""
    remove_parts(uploads, LEFT_S)
    whole = sorted((state.st_mtime, state.st_size, file) for file, state in files_of(uploads, "*/*"))
    total = sum(size for _, size, _ in whole)
    for _, size, file in whole:
        if total <= most_bytes:
            return
        file.unlink(missing_ok=True)
        total -= size


def remove_parts(uploads: Path, after_s: float) -> None:
    """Parts of uploads, which lie beside the folders of whole ones, that have not grown for so long."""
    now = time.time()
    for file, state in files_of(uploads, "*"):
        if not 0 <= now - state.st_mtime < after_s:  # a clock that was set back counts too
            file.unlink(missing_ok=True)


def files_of(folder: Path, pattern: str) -> Iterator[tuple[Path, os.stat_result]]:
    for file in folder.glob(pattern):
        try:
            state = file.stat()
        except OSError:  # another request was faster
            continue
        if stat.S_ISREG(state.st_mode):
            yield file, state


def is_gone(error: BaseException) -> bool:
    """Whether Gradio says, in the middle of a stream, that there is nothing left for its session: of a page that was
    loaded anew, or closed."""
    cause = error.__cause__
    return isinstance(cause, HTTPException) and cause.status_code == 404
