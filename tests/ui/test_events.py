"""How the page listens: what Gradio's own script makes of it."""

from __future__ import annotations

from collections import defaultdict

import gradio as gr
import pytest

from opensora_demo.service.local import LocalEngine
from opensora_demo.ui.context import PageContext
from opensora_demo.ui.page import build_page
from tests.ui.conftest import FakeBundles, FakePipeline


@pytest.fixture(scope="module")
def page() -> gr.Blocks:
    return build_page(PageContext(LocalEngine(FakeBundles(), generate=FakePipeline())))


def test_what_waits_for_the_last_change_shares_no_event(page: gr.Blocks) -> None:
    """See `ui.events.on_last`."""
    listening = defaultdict(list)
    for function in page.fns.values():
        for target, event in (found[:2] for found in function.targets):
            if function.fn is not None:
                listening[target, event].append(function)
    shared = {
        (str(page.blocks.get(target or 0, "page")), event): [f.trigger_mode for f in functions]
        for (target, event), functions in listening.items()
        if target is not None and len(functions) > 1 and any(f.trigger_mode == "always_last" for f in functions)
    }
    assert not shared
    assert any(function.trigger_mode == "always_last" for function in page.fns.values())
