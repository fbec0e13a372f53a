"""Finished clips and what belongs to them, at "clips/NAME.mp4"; as GIF, WebP and PNG, which are made of a clip when a
browser asks for them, at "clips/NAME.gif".

Who knows a clip's name, which ends in random letters, has seen it.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs

from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, Response

from opensora_demo.service.outputs import OutputFolder
from opensora_demo.ui.served_files import ServedFiles, file_or_404


class ClipForms(ServedFiles):
    """A file that was shown or saved by the page, or else what can be made of one."""

    address = re.compile(r"/clips/([\w.-]+)$")

    def __init__(self, app: Any, files: OutputFolder) -> None:
        super().__init__(app)
        self.files = files

    async def answer(self, found: re.Match[str], scope: Any) -> Response:
        if (file := await run_in_threadpool(self.files.find, found[1])) is not None:
            return file_or_404(file)
        frame = parse_qs(scope["query_string"].decode("latin-1")).get("frame", ["0"])[0]
        number = int(frame[:9]) if frame.isdecimal() else 0
        made = await run_in_threadpool(self.files.converted, found[1], number)
        return file_or_404(None) if made is None else FileResponse(made, filename=found[1])
