"""Streams that Gradio breaks off in the middle."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fastapi.exceptions import HTTPException

from opensora_demo.service.local import LocalEngine
from opensora_demo.ui.context import PageContext
from opensora_demo.ui.doors import Doors
from tests.ui.conftest import FakeBundles

STREAM = {
    "type": "http",
    "method": "GET",
    "path": "/gradio_api/queue/data",
    "query_string": b"session_hash=abc",
    "headers": [],
}
START = {"type": "http.response.start", "status": 200, "headers": []}


async def sent(begun: bool, status: int, folder: Path) -> list[Any]:
    """What a listener is sent by a stream that ends in an error of this status, in its middle or before it begins."""
    events: list[Any] = []

    async def broken(_scope: Any, _receive: Any, send: Any) -> None:
        if begun:
            await send(START)
        raise RuntimeError("response already started") from HTTPException(status_code=status)

    async def receive() -> Any:
        await asyncio.sleep(60)

    async def send(event: Any) -> None:
        events.append(event)

    context = PageContext(LocalEngine(FakeBundles()))
    try:
        await Doors(broken, context, {}, folder)(STREAM, receive, send)
    finally:
        context.files.close()
    return events


def test_a_stream_of_a_session_that_is_no_more_ends(tmp_path: Path) -> None:
    end = {"type": "http.response.body", "body": b"", "more_body": False}
    assert asyncio.run(sent(True, 404, tmp_path)) == [START, end]


@pytest.mark.parametrize(("begun", "status"), [(True, 500), (False, 404)])
def test_any_other_fault_is_one(begun: bool, status: int, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="already started"):
        asyncio.run(sent(begun, status, tmp_path))
