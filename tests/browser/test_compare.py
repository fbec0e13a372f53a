"""The comparison in a real browser: clips that play in step, two on each other, marks, chart, rows."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.test_page import Visit, box, open_compare, text

pytestmark = pytest.mark.browser

DONE = "(n) => document.querySelectorAll('#grid .oc-cell[data-state=done]').length >= n"
ENDED = "() => document.querySelector('#grid .oc').dataset.phase === 'done'"
SHOWS = "(text) => document.querySelector('#grid .oc-frame').textContent === text"
# A few numbers that tell one picture from another.
PICTURE = """(selector) => {
  const canvas = document.querySelector(selector), small = document.createElement('canvas');
  small.width = small.height = 8;
  small.getContext('2d').drawImage(canvas, 0, 0, 8, 8);
  return [...small.getContext('2d').getImageData(0, 0, 8, 8).data].join();
}"""
CHANGED = """([selector, before]) => (""" + PICTURE + """)(selector) !== before"""


def compare(page: Any, prompt: str, scales: str = "1, 6", steps: int | None = 6) -> None:
    if steps is not None:
        page.get_by_label("number input for Steps").fill(str(steps))
        page.get_by_label("number input for Steps").blur()
    open_compare(page, scales)
    page.fill("#compare-prompt textarea", prompt)
    page.click("#compare")


def test_clips_appear_play_in_step_and_obey_one_transport(visit: Visit) -> None:
    page = visit()
    compare(page, "a red ball bouncing over a meadow")
    page.wait_for_function(ENDED)
    page.wait_for_function(DONE, arg=2)
    assert [cell.text_content() for cell in page.locator("#grid .oc-label").all()] == ["guidance 1", "guidance 6"]
    first = page.evaluate(PICTURE, "#grid .oc-cell:nth-child(1) canvas")
    page.wait_for_function(CHANGED, arg=["#grid .oc-cell:nth-child(1) canvas", first])  # it plays
    page.get_by_role("button", name="Pause").click()
    for i in range(3):  # every clip stands at the frame the transport says
        page.get_by_label("Frame", exact=True).fill(str(4 * i))
        page.wait_for_function(
            "(t) => document.querySelector('#grid .oc-frame').textContent === t", arg=f"{4 * i + 1} / 17"
        )
    page.locator("h1").click()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(SHOWS, arg="10 / 17")
    page.keyboard.press("Space")
    page.get_by_role("button", name="Pause").wait_for()
    assert page.locator("#grid .oc-mark").count() == 8
    assert set(page.locator("#grid .oc-mark").first.text_content() or "") >= set("colour")
    page.locator("#grid .oc-chart svg").first.wait_for()


def test_two_clips_on_each_other(visit: Visit) -> None:
    page = visit()
    compare(page, "a green square falling at sunset", "1, 9")
    page.wait_for_function(ENDED)
    page.wait_for_function(DONE, arg=2)
    page.get_by_role("button", name="Pause").click()
    boxes, canvas = page.locator("#grid .oc-box"), "#grid .oc-pair-canvas"
    boxes.nth(0).click()
    boxes.nth(1).click()
    page.wait_for_selector(canvas)
    wipe = page.get_by_label("Where one clip ends and the other begins")
    wipe.fill("100")
    only_first = page.evaluate(PICTURE, canvas)
    wipe.fill("0")
    page.wait_for_function(CHANGED, arg=[canvas, only_first])
    only_second = page.evaluate(PICTURE, canvas)
    page.get_by_role("button", name="Difference").click()
    page.wait_for_function(CHANGED, arg=[canvas, only_second])
    assert text(page, "#grid .oc-distance").startswith("RMS ")
    boxes.nth(1).click()
    page.wait_for_selector(canvas, state="hidden")


def test_rows_and_rules_make_a_table_with_a_chart(visit: Visit) -> None:
    page = visit()
    page.get_by_label("number input for Steps").fill("3")
    open_compare(page, "1, 8")
    page.click("#axis input")
    page.get_by_role("option", name="seed", exact=True).click()
    page.fill("#rows textarea, #rows input", "5, 6")
    page.locator("#rules").get_by_text("APG").click()
    page.wait_for_function("() => document.querySelector('#plan').textContent.trim().startsWith('4 by 2: 8 clips')")
    page.fill("#compare-prompt textarea", "a white star ${alert(1)} <img src=x onerror=alert(2)>")
    page.click("#compare")
    page.wait_for_function(ENDED)
    page.wait_for_function(DONE, arg=8)
    assert [row.text_content() for row in page.locator("#grid .oc-row-label").all()] == ["seed 5", "seed 6"]
    assert page.locator("#grid .oc-row").first.locator(".oc-label").all_text_contents() == [
        "guidance 1, plain", "guidance 8, plain", "guidance 1, APG", "guidance 8, APG",
    ]  # fmt: skip
    assert page.locator("#grid .oc-plots svg").count() == 2
    assert "Variety" in (page.locator("#grid .oc-plots svg").nth(1).get_attribute("aria-label") or "")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the table as mp4").click()
    assert download.value.suggested_filename.startswith("compare-a-white-star")
    with page.expect_download() as download:
        page.locator("#grid .oc-cell").nth(5).get_by_role("link", name="mp4").click()
    assert "-6-" in download.value.suggested_filename
    page.locator("#grid .oc-cell").nth(5).get_by_role("button", name="use").click()
    page.get_by_role("tab", name="Generate", exact=True).click()
    page.wait_for_function("() => document.querySelector('#seed textarea, #seed input').value === '6'")


def test_what_cannot_be_run_is_said_while_one_types(visit: Visit) -> None:
    page = visit()
    open_compare(page, "1, 4")
    page.fill("#scales textarea, #scales input", "1, 2, x")
    page.get_by_text("must be numbers, as in 1, 2, 4, 7").wait_for()
    page.click("#compare")
    page.locator(".toast-body").wait_for()
    assert page.locator("#grid .oc").get_attribute("data-phase") == "idle"


def test_a_comparison_survives_a_reload(visit: Visit) -> None:
    page = visit()
    compare(page, "a blue ring", steps=2)
    page.wait_for_function(ENDED)
    page.reload()
    page.wait_for_selector("#stage .os-stage[data-show]")
    page.get_by_role("tab", name="Compare", exact=True).click()
    page.wait_for_function(DONE, arg=2)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone(visit: Visit, scheme: str) -> None:
    page = visit(width=390, height=844, scheme=scheme)
    compare(page, "a pink heart " + "word" * 30, "1, 2, 3, 4, 5, 6", steps=None)  # the settings are folded
    page.wait_for_function(ENDED)
    page.wait_for_function(DONE, arg=6)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert box(page, "#grid .oc-cell >> nth=0")["width"] >= 120
