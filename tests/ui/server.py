"""The real server on a free port, a pipeline without a model, and plain requests to it."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi.middleware import Middleware

from opensora_demo import serve
from opensora_demo.media import MAX_VIDEO_BYTES
from opensora_demo.request import settings as table
from opensora_demo.service.local import LocalEngine
from opensora_demo.service.options import ServerOptions
from opensora_demo.ui.clip_forms import ClipForms
from opensora_demo.ui.context import PageContext
from opensora_demo.ui.doors import Doors
from opensora_demo.ui.language import spoken
from opensora_demo.ui.page import build_page
from opensora_demo.ui.sessions import keep_little
from opensora_demo.ui.theme import build_theme, page_css
from opensora_demo.ui.video_api import VideoApi
from tests.ports import free_port
from tests.ui.conftest import FakeBundles, FakePipeline

WAIT_S = 60.0


@dataclass(frozen=True)
class Answer:
    status: int
    text: str
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass
class Server:
    """`url` ends with a slash."""

    url: str
    pipeline: FakePipeline
    context: PageContext
    page: Any
    uploads: Path
    doors: dict[str, Any] = field(default_factory=dict)

    def ask(
        self, path: str, body: Any = None, headers: dict[str, str] | None = None, method: str | None = None
    ) -> Answer:
        """GET, or POST of bytes or a JSON value."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json"} | (headers or {}), method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
                return Answer(answer.status, answer.read().decode(), dict(answer.headers))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read().decode(), dict(error.headers))

    def begin(self, name: str = "generate", **settings: Any) -> Answer:
        """A call of an endpoint, not yet read."""
        values = [settings.get(setting) for setting in table.names()]
        return self.ask(f"gradio_api/call/{name}", {"data": values})

    def call(self, name: str = "generate", **settings: Any) -> tuple[str, Any]:
        """The last event of a call, and its data."""
        begun = self.begin(name, **settings)
        assert begun.status == 200, begun
        return last_event(self.ask(f"gradio_api/call/{name}/{begun.json['event_id']}").text)

    def function(self, name: str) -> int:
        """The number of a function of the page."""
        return next(number for number, function in self.page.fns.items() if function.api_name == name)


def last_event(text: str) -> tuple[str, Any]:
    *_, last = text.strip().split("\n\n")
    kind, data = last.split("\n", 1)
    return kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))


@contextmanager
def serving(
    folder: Path,
    pipeline: FakePipeline | None = None,
    server: ServerOptions | None = None,
    *,
    for_browsers: bool = False,
) -> Iterator[Server]:
    """`for_browsers` also answers with the style and the files of clips, as `serve` does."""
    pipeline = pipeline or FakePipeline()
    context = PageContext(LocalEngine(FakeBundles(), generate=pipeline))
    uploads, before = folder / "gradio", os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = serve.NEVER
    page = build_page(context).queue(max_size=None)
    _, url, _ = page.launch(
        server_name="127.0.0.1",
        server_port=free_port(),
        prevent_thread_lock=True,
        quiet=True,
        ssr_mode=False,
        show_error=False,
        run_history=False,
        enable_monitoring=False,
        max_file_size=MAX_VIDEO_BYTES,
        max_threads=100,
        theme=build_theme() if for_browsers else None,
        css=page_css() if for_browsers else None,
        **spoken(
            *([Middleware(ClipForms, files=context.files)] if for_browsers else []),
            Middleware(VideoApi, context=context, server=server or ServerOptions()),
            Middleware(Doors, context=context, functions=page.fns, uploads=uploads, private=True),
        ),
    )
    keep_little(page)
    yield Server(url, pipeline, context, page, uploads)
    context.engine.close()
    page.close(verbose=False)
    context.files.close()
    if before is None:
        del os.environ["GRADIO_TEMP_DIR"]
    else:
        os.environ["GRADIO_TEMP_DIR"] = before


def going(server: Server) -> list[Any]:
    return [run for run in server.context.runs._runs.values() if not run.over]


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)
