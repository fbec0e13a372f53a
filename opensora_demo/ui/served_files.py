"""Files that the page serves by itself, beside Gradio's."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from fastapi.responses import FileResponse, PlainTextResponse, Response

_CACHED = {"cache-control": "private, max-age=86400"}  # a name is never used again


class ServedFiles(ABC):
    """ASGI, in front of the page: what is asked for at an address that ends as `address` says. Where `answer` has none
    the page is asked."""

    address: re.Pattern[str]

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        http = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
        found = self.address.search(scope["path"]) if http else None
        answer = None if found is None else await self.answer(found, scope)
        await (answer or self.app)(scope, receive, send)

    @abstractmethod
    async def answer(self, found: re.Match[str], scope: Any) -> Response | None: ...


def file_or_404(file: Path | None) -> Response:
    return PlainTextResponse("", 404) if file is None else FileResponse(file, headers=_CACHED)
