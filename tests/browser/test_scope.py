"""The latent scope in a real browser: pointing, keys, quantities, channels, a phone, hostile words."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.actions import Visit, start, text, wait

pytestmark = pytest.mark.browser

PICTURE = "(n) => document.querySelectorAll('.os-scope-figure canvas')[n].toDataURL()"
CHANGED = "([n, before]) => document.querySelectorAll('.os-scope-figure canvas')[n].toDataURL() !== before"
SAYS = "(words) => document.querySelector('.os-scope-grid').getAttribute('aria-valuetext').startsWith(words)"
DRAWN = """() => {
  const canvas = document.querySelector('.os-scope-grid canvas'), pen = canvas.getContext('2d');
  const total = Number(document.querySelector('.os-scope-grid').getAttribute('aria-valuemax'));
  for (let i = 0; i < total; i++) {
    if (!pen.getImageData(canvas.width / 2, ((i + 0.4) * canvas.height) / total, 1, 1).data[3]) return false;
  }
  return total > 0;
}"""


def open_scope(page: Any) -> None:
    page.get_by_role("tab", name="Scope", exact=True).click()
    page.wait_for_selector("#scope .os-scope")


def finished(page: Any, prompt: str = "a red ball bouncing over a meadow", steps: int = 6) -> None:
    """A finished run, seen in the scope with every row drawn."""
    start(page, prompt, steps=steps)
    wait(page, "done")
    open_scope(page)
    page.wait_for_selector("#scope .os-scope[data-state=done]")
    page.wait_for_function(DRAWN)


def cell(page: Any, step: int, frame: int, of: tuple[int, int]) -> dict[str, float]:
    """Where a cell lies in the map; both count from 1."""
    bounds = page.locator(".os-scope-grid").bounding_box()
    return {"x": (frame - 0.5) / of[1] * bounds["width"], "y": (step - 0.5) / of[0] * bounds["height"]}


def test_a_finished_run_is_looked_at_by_step_frame_quantity_and_channel(visit: Visit) -> None:
    page = visit()
    open_scope(page)
    page.wait_for_selector("#scope .os-scope[data-state=stored]")
    page.wait_for_function(DRAWN)
    assert page.locator(".os-scope-empty").is_visible()
    assert text(page, ".os-scope-empty").count(". ") == 1
    assert "Made earlier" in text(page, ".os-scope-prompt")
    page.get_by_role("tab", name="Generate", exact=True).click()
    finished(page)
    page.wait_for_function(SAYS, arg="step 6 of 6, latent frame 3 of 5")
    before = page.evaluate(PICTURE, 0)
    grid = page.locator(".os-scope-grid")
    grid.hover(position=cell(page, 2, 4, (6, 5)))
    page.wait_for_function(SAYS, arg="step 2 of 6, latent frame 4 of 5")
    page.wait_for_function(CHANGED, arg=[0, before])
    assert "at step 2" in page.locator(".os-scope-plot").first.get_attribute("aria-label")
    # The curves are in sight without scrolling, and say where their steps begin and end.
    assert page.locator(".os-scope-ends").last.bounding_box()["y"] < 800
    assert page.locator(".os-scope-ends").last.text_content().startswith("step 1")
    page.locator("h1").hover()  # pointing only borrows the view
    page.wait_for_function(SAYS, arg="step 6 of 6, latent frame 3 of 5")
    grid.click(position=cell(page, 3, 2, (6, 5)))
    page.locator("h1").hover()
    page.wait_for_function(SAYS, arg="step 3 of 6, latent frame 2 of 5")
    for key, where in (
        ("ArrowDown", "step 4 of 6, latent frame 2"),
        ("ArrowRight", "step 4 of 6, latent frame 3"),
        ("Home", "step 1 of 6, latent frame 3"),
        ("ArrowUp", "step 1 of 6"),
        ("End", "step 6 of 6"),
    ):
        page.keyboard.press(key)
        page.wait_for_function(SAYS, arg=where)
    page.locator(".os-scope-plot").nth(3).hover(position={"x": 2, "y": 30})
    page.wait_for_function(SAYS, arg="step 1 of 6")
    map_before = page.eval_on_selector(".os-scope-grid canvas", "c => c.toDataURL()")
    assert page.locator(".os-scope-clip canvas").get_attribute("aria-label").startswith("The finished clip at latent")
    page.get_by_role("radio", name="where they differ").click()
    changed = "(before) => document.querySelector('.os-scope-grid canvas').toDataURL() !== before"
    page.wait_for_function(changed, arg=map_before)
    page.wait_for_selector(".os-scope-figure[aria-checked=true] >> text=/peak [0-9.]+/")
    channel = page.evaluate(PICTURE, 5)
    page.locator(".os-scope-channels summary").click()
    page.locator(".os-scope-sheet").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(CHANGED, arg=[5, channel])
    assert page.locator(".os-scope-sheet").get_attribute("aria-valuetext") == "channel 2 of 16"
    assert page.locator(".os-scope-figure[aria-checked=true]").text_content().startswith("channel 2")
    first = page.locator(".os-scope-grid").get_attribute("aria-valuetext")
    page.get_by_role("button", name="Play").click()
    page.wait_for_function(
        "(first) => document.querySelector('.os-scope-grid').getAttribute('aria-valuetext') !== first", arg=first
    )
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Play").wait_for()


@pytest.mark.thorough
def test_it_fills_while_the_run_goes_and_keeps_its_size(visit: Visit) -> None:
    page = visit(query="?model=nano-dit")
    open_scope(page)
    page.wait_for_selector("#scope .os-scope[data-state=stored]")
    page.get_by_role("tab", name="Generate", exact=True).click()
    start(page, "a blue star at night", steps=250)
    open_scope(page)
    page.wait_for_selector("#scope .os-scope[data-state=running]")
    size = page.locator(".os-scope-body").bounding_box()
    page.wait_for_function("() => Number(document.querySelector('.os-scope-grid').getAttribute('aria-valuenow')) > 5")
    assert page.locator(".os-scope-body").bounding_box() == size
    page.keyboard.press("Escape")
    wait(page, "stopped")
    page.wait_for_selector("#scope .os-scope[data-state=done]")

    # With guidance 1 nothing else than the prompt's branch is evaluated, and that is said.
    page.get_by_role("tab", name="Generate").click()
    page.get_by_label("number input for Guidance scale").fill("1")
    page.get_by_label("number input for Guidance scale").blur()
    finished(page, steps=2)
    page.wait_for_function("() => document.querySelectorAll('.os-scope-missing:not(:empty)').length === 2")
    assert "not evaluated" in text(page, ".os-scope-figure:nth-child(4) .os-scope-missing")
