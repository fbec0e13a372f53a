"""A phone, with hostile words: every tab fits, in its order, and what was typed stays text."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.actions import Visit, box, open_compare, start, text, wait
from tests.browser.test_explain import inside, open_tab
from tests.browser.test_scope import DRAWN, open_scope

pytestmark = pytest.mark.browser
EVIL = "a ball ${alert(1)} {{value}} <img src=x onerror=alert(1)> with-a-very-long-unbreakable-" + "word" * 30
WIDTH = "document.documentElement.scrollWidth"


def made(visit: Visit) -> Any:
    """A page after its first run."""
    page = visit(width=390, height=844, scheme="dark")
    assert "dark" in page.evaluate("document.body.className")
    page.get_by_role("button", name="Settings").click()
    start(page, EVIL, steps=3)
    wait(page, "done")
    assert page.evaluate(WIDTH) <= 390
    order = ("#stage .os-frame", "#prompt", "#generate", "#composer", "#stage .os-shelf-box")
    tops = [box(page, selector)["y"] for selector in order]
    assert tops == sorted(tops)
    frame, last = box(page, "#stage .os-frame"), box(page, "#stage .os-transport > :last-child")
    assert frame["width"] >= 340
    assert last["x"] + last["width"] <= frame["x"] + frame["width"] + 1  # the row of controls ends where the clip does
    return page


def test_a_run_fits(visit: Visit) -> None:
    made(visit)


@pytest.mark.thorough
def test_every_tab_fits(visit: Visit) -> None:
    page = made(visit)
    open_scope(page)
    page.wait_for_selector("#scope .os-scope[data-state=done]")
    page.wait_for_function(DRAWN)
    assert text(page, ".os-scope-prompt") == EVIL
    assert page.locator("#scope img").count() == 0
    assert page.evaluate(WIDTH) <= 390
    assert box(page, ".os-scope-figure >> nth=0")["width"] > 100  # three beside each other, not six

    open_compare(page, "1, 2, 3, 4, 5, 6")
    page.fill("#compare-prompt textarea", EVIL)
    page.click("#compare")
    wait(page, "done", "grid")
    page.wait_for_function("() => document.querySelectorAll('#grid .os-compare-cell[data-state=done]').length === 6")
    assert page.evaluate(WIDTH) <= 390
    page.locator("#grid .os-compare-label").first.scroll_into_view_if_needed()
    dock = box(page, "#grid .os-compare-dock")
    assert dock["y"] + dock["height"] <= 845  # always in sight
    assert box(page, "#grid .os-compare-cell >> nth=0")["width"] >= 120

    open_tab(page)
    assert EVIL in str(page.locator(".os-explain-about").text_content())
    words = inside(page, "attention", ".os-explain-chip b").all_text_contents()
    assert {"$", "{", "alert", "<", "img", "onerror"} <= set(words)
    assert page.locator("#explain img").count() == 0
    assert page.evaluate(WIDTH) <= 390
    assert page.get_by_role("tab", name="How it works").is_visible()

    page.get_by_role("tab", name="Gallery").click()
    page.wait_for_function("(n) => document.querySelectorAll('#gallery .os-card').length >= n", arg=2)  # both are kept
    assert page.locator("#gallery .os-gallery-grid img[onerror]").count() == 0
    page.locator(".os-queue summary").click()
    page.fill(".os-queue-prompts textarea", "a red ball\n# not this one")
    page.click(".os-queue-add")
    page.wait_for_selector(".os-queue-run[data-state=done]")
    page.locator(".os-queue-run").get_by_role("button", name="Show").click()
    page.wait_for_selector("#gallery dialog[open]")
    assert text(page, ".os-gallery-prompt") == "a red ball"
    assert page.evaluate(WIDTH) <= 390
    page.get_by_role("button", name="Use these settings").click()
    page.wait_for_selector("#generate:visible")
    page.wait_for_function("() => document.querySelector('#prompt textarea').value === 'a red ball'")
