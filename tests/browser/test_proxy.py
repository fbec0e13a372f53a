"""Our modules behind a proxy that serves the page under a path of its own, as a Space or a company's host does."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import gradio as gr
import pytest

from opensora_demo.ui.components import Composer
from opensora_demo.ui.language import spoken
from opensora_demo.ui.values.common import chips_value
from tests.ports import free_port

pytestmark = pytest.mark.browser
PREFIX = "/shown/here"


def proxy_to(port: int) -> type[BaseHTTPRequestHandler]:
    class Proxy(BaseHTTPRequestHandler):
        """GET only: `PREFIX` is taken off, everything else goes on; what lies outside of it is not there."""

        def do_GET(self) -> None:
            if not self.path.startswith(PREFIX + "/"):
                self.send_error(404)
                return
            address = f"http://127.0.0.1:{port}{self.path.removeprefix(PREFIX)}"
            try:
                with urllib.request.urlopen(address, timeout=20) as answer:
                    status, kind, body = answer.status, answer.headers["content-type"], answer.read()
            except urllib.error.HTTPError as error:
                status, kind, body = error.code, "text/plain", b""
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    return Proxy


@pytest.fixture
def proxied() -> Iterator[str]:
    """The address under which a page of chips is reached through the proxy."""
    with gr.Blocks(analytics_enabled=False) as page:
        Composer(chips_value(), elem_id="composer")
    page.launch(
        server_name="127.0.0.1",
        server_port=free_port(),
        prevent_thread_lock=True,
        quiet=True,
        ssr_mode=False,
        root_path=PREFIX,
        **spoken(),
    )
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), proxy_to(int(page.server_port)))
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{proxy.server_port}{PREFIX}/"
    proxy.shutdown()
    proxy.server_close()
    page.close()


def test_modules_are_found_where_the_page_is(chromium: Any, proxied: str) -> None:
    page = chromium.new_page()
    failed: list[str] = []
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.goto(proxied)
    page.wait_for_selector("#composer .os-word")
    modules = page.evaluate(
        "performance.getEntriesByType('resource').map((e) => e.name).filter((name) => name.endsWith('.js'))"
    )
    ours = [name for name in modules if "composer" in name or "/lib/" in name]
    assert ours
    assert all(name.startswith(proxied) for name in ours)
    assert failed == []
    page.close()
