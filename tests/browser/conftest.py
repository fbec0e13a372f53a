"""The real app in a process of its own, and a real Chromium that looks at it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
Open = Callable[..., Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A browser, a server and another worker share two cores for a quarter of an hour: what fails here for once is run
    once more, and the report says so ("rerun"). What fails twice has failed."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(scope="package")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the app answers; it is started on a free port and ended with its children."""
    port = free_port()
    log, gallery = tmp_path_factory.mktemp("app") / "log.txt", str(tmp_path_factory.mktemp("gallery"))
    # Waiting threads that spin starve a machine which also runs the browser, and a run that is to be stopped should not
    # be over before the browser has shown that it goes.
    environment = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ
    with log.open("wb") as sink:
        process = subprocess.Popen(
            ["nice", "-n", "5", sys.executable, "app.py", "--port", str(port), "--debug-models", "--gallery", gallery],
            cwd=ROOT,
            stdout=sink,
            stderr=sink,
            env=environment,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(1800):
            assert process.poll() is None, log.read_text()
            try:
                with urllib.request.urlopen(url, timeout=5):
                    break
            except OSError:
                time.sleep(0.1)
        else:
            pytest.fail("the app did not answer within three minutes")
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
    assert "Traceback" not in log.read_text()


@pytest.fixture(scope="package")
def chromium() -> Iterator[Any]:
    """Chromium, driven by Playwright, whose event loop runs in this thread until the last of these tests. Without one
    they are skipped, on a build server they fail."""
    if CHROMIUM is None:
        message = "no Chromium found"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def contexts(chromium: Any) -> Callable[..., Any]:
    """The browser context of some options, such as a locale. Pages of one context share what they have loaded and
    compiled, a third of what a page costs; our page leaves nothing there that the next could find."""
    made: dict[tuple[Any, ...], Any] = {}

    def context(**options: Any) -> Any:
        key = tuple(sorted(options.items()))
        if key not in made:
            made[key] = chromium.new_context(permissions=["clipboard-read", "clipboard-write"], **options)
        return made[key]

    return context


def complains(message: Any) -> bool:
    """Gradio itself says that a stream was cut off when a page is loaded anew, or closed, during a run."""
    said = ("signal is aborted", "BodyStreamBuffer was aborted", "Connection errored out", "(reading 'params')")
    cut_off = any(text in message.text for text in said)
    return message.type == "error" and not cut_off


@pytest.fixture
def visit(contexts: Callable[..., Any], address: str) -> Iterator[Open]:
    """Open the page as a new visitor, who wants no motion where a test is not about it: a clip that plays takes a third
    of a core. At the end no page may have logged an error or asked another host."""
    pages: list[Any] = []
    complaints: list[str] = []

    def open_page(
        width: int = 1280,
        height: int = 900,
        scheme: str = "light",
        query: str = "",
        motion: bool = False,
        **options: Any,
    ) -> Any:
        page = contexts(**options).new_page()
        pages.append(page)
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme, reduced_motion="no-preference" if motion else "reduce")
        page.set_default_timeout(90_000)  # beside the other worker, lint and an installation on two slow cores
        page.on("console", lambda m: complaints.append(f"console: {m.text}") if complains(m) else None)
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        ours = (address, "data:", "blob:")
        page.on("request", lambda r: None if r.url.startswith(ours) else complaints.append(r.url))
        page.goto(address + query)
        page.wait_for_selector("#stage .os-stage[data-show]", state="attached")  # a link may have turned to another tab
        return page

    yield open_page
    for page in pages:
        if not page.is_closed():
            page.evaluate("localStorage.clear()")  # also where a test ended before it had tidied up
        page.close()
    assert not complaints
