"""Fixtures shared by all tests, and which of them a worker gets together."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

# As many workers as cores, or more: one thread each, also for what they start (the page of the browser tests).
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

os.environ["OPENSORA_PRECISION"] = "stored"  # the same numbers on every processor, and nothing measured first

import torch

from opensora_demo.catalog import NANO
from opensora_demo.memory import keep_for_good
from opensora_demo.runtime.bundle import ModelBundle, build_bundle
from opensora_demo.ui.stubs import write_no_stubs

write_no_stubs()  # whoever imports Gradio first


@pytest.fixture(scope="session")
def nano() -> ModelBundle:
    """The real model in assets."""
    return build_bundle(NANO, torch.device("cpu"))


class Tidy(asyncio.DefaultEventLoopPolicy):
    """Closes a thread's event loop when another takes its place: Gradio sets a new one for each lock that it makes, and
    leaves the last to the collector, whose warning failed whichever test ran then."""

    def set_event_loop(self, loop: asyncio.AbstractEventLoop | None) -> None:
        before = getattr(self._local, "_loop", None)
        super().set_event_loop(loop)
        if before not in (None, loop) and not before.is_running():
            before.close()


@pytest.fixture(scope="session", autouse=True)
def tidy_loops() -> Iterator[None]:
    asyncio.set_event_loop_policy(Tidy())
    yield
    asyncio.set_event_loop(None)


def together(nodeid: str) -> str:
    """What shares costly fixtures goes to one worker: a file, or all that needs the app and a browser, of which two
    would starve each other and fail for that."""
    file = nodeid.partition("::")[0]
    return "browser" if file.startswith("tests/browser/") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Workers are given what belongs together as a whole, with `-n`. (xdist's own groups are marks that it writes into
    names; pytest 9.2 does not read them there.)"""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return together(nodeid)

    return Together(config, log)


def pytest_configure() -> None:
    gc.disable()  # while test modules and what they need are imported


def pytest_collection_finish() -> None:
    """Everything that is imported at once is there."""
    keep_for_good()
    gc.enable()


modules_kept = [0]


@pytest.fixture(autouse=True)
def imports_are_kept_for_good() -> None:
    """PyAV has all garbage collected for each file that it closes, which walks through whatever is imported."""
    if len(sys.modules) > modules_kept[0] + 50:
        keep_for_good()
        modules_kept[0] = len(sys.modules)


# Tests that reach what has a floor under its coverage (Makefile). The others are not traced, which took a third longer.
COVERING = re.compile(
    "tests/(ui|unit|parity)/test_(actions|branch|cases|curve|dialect|folders|full_disk|gallery|given_video|hosting|iddpm|"
    "links|made_clips|pipeline|records|remote|request|sampling|scenes|service_\\w+|step_cache|storage|video_api|"
    "video_shelf|visitors|families[.]py::.*video).*"
)


def traced(item: pytest.Item) -> bool:
    """Whether a test counts for coverage."""
    return COVERING.match(item.nodeid) is not None and "slow" not in item.keywords


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest groups come first, so that no worker is left with one of them at the end."""
    for item in items:
        if not traced(item):
            item.add_marker("no_cover")
    slow = {together(item.nodeid) for item in items if "slow" in item.keywords}
    items.sort(key=lambda item: (not together(item.nodeid).startswith("browser"), together(item.nodeid) not in slow))
