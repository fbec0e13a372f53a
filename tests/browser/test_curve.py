"""A curve of guidance over the steps: drawn, typed, and in the clip."""

from __future__ import annotations

import json

import pytest

from tests.browser.actions import FORM_HOLDS, Visit, start, text, wait

pytestmark = pytest.mark.browser

TYPED = "#curve textarea, #curve input"


@pytest.mark.thorough
def test_a_curve_is_drawn_typed_and_in_the_clip(visit: Visit) -> None:
    page = visit()
    page.get_by_role("button", name="Draw guidance over the steps").click()
    dots = page.locator(".os-curve-dot")
    page.get_by_role("button", name="Add a point").click()
    page.wait_for_function(FORM_HOLDS, arg=[TYPED, "0:1, 0.5:1, 1:1"])
    page.keyboard.press("ArrowUp")  # the new point has the focus
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(FORM_HOLDS, arg=[TYPED, "0:1, 0.45:1.1, 1:1"])
    dots.nth(2).focus()
    page.keyboard.press("Delete")
    page.wait_for_function(FORM_HOLDS, arg=[TYPED, "0:1, 0.45:1.1"])
    page.locator(TYPED).fill("0:0, 0.5:2, 0.8")
    start(page, "a red ball", steps=4)
    page.get_by_text("Guidance curve: must be points such as 0:0, 0.5:1, not '0.8'").first.wait_for()
    assert dots.count() == 2  # half typed: the drawing stays as it was
    page.locator(TYPED).fill("0:0, 0.5:2, 1:0")
    page.wait_for_function("() => document.querySelectorAll('.os-curve-dot').length === 3")
    assert dots.nth(1).get_attribute("aria-valuetext") == "2 × the pull, guidance 7"
    page.locator("#curve-plot").scroll_into_view_if_needed()
    plot = page.locator(".os-curve-plot").bounding_box()
    spot = dots.nth(1).bounding_box()
    assert plot is not None
    assert spot is not None
    x, y = spot["x"] + spot["width"] / 2, spot["y"] + spot["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, plot["y"] + plot["height"])
    page.mouse.up()
    page.wait_for_function(FORM_HOLDS, arg=[TYPED, "0:0, 0.5:0, 1:0"])
    start(page, "a red ball", steps=4)
    wait(page, "done")
    assert "curve0:0, 0.5:0, 1:0" in text(page, "#stage .os-chips")
    page.get_by_role("button", name="Copy settings").click()
    page.wait_for_selector(".os-action[data-copied]")
    assert json.loads(page.evaluate("navigator.clipboard.readText()"))["curve"] == "0:0, 0.5:0, 1:0"
    page.get_by_role("button", name="No curve").click()
    page.wait_for_function(FORM_HOLDS, arg=[TYPED, ""])
