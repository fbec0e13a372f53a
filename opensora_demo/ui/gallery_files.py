"""Kept clips and their posters over HTTP, at "gallery/NAME.mp4" and "gallery/NAME.webp": for whoever may see them."""

from __future__ import annotations

import re
from typing import Any

from fastapi.concurrency import run_in_threadpool
from fastapi.datastructures import Headers
from fastapi.responses import Response

from opensora_demo.service.storage import Storage
from opensora_demo.ui.context import may
from opensora_demo.ui.served_files import ServedFiles, file_or_404


class GalleryFiles(ServedFiles):
    """Nothing is found by whoever may not look into the storage."""

    address = re.compile(r"/gallery/([\w.-]+)\.(mp4|webp)$")

    def __init__(self, app: Any, storage: Storage) -> None:
        super().__init__(app)
        self.storage = storage

    async def answer(self, found: re.Match[str], scope: Any) -> Response:
        if not may(self.storage.who, Headers(scope=scope)):
            return file_or_404(None)
        gallery = self.storage.gallery
        look = gallery.file if found[2] == "mp4" else gallery.poster
        return file_or_404(await run_in_threadpool(look, f"{found[1]}.mp4"))
