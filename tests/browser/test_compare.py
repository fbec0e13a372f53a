"""The comparison in a real browser: clips that play in step, two on each other, marks, chart, rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from tests.browser.actions import Visit, box, open_compare, text

pytestmark = pytest.mark.browser

DONE = "(n) => document.querySelectorAll('#grid .os-compare-cell[data-state=done]').length >= n"
ENDED = "() => document.querySelector('#grid .os-compare').dataset.phase === 'done'"
SHOWS = "(text) => document.querySelector('#grid .os-compare-frame').textContent === text"
# A few numbers that tell one picture from another.
PICTURE = """(selector) => {
  const canvas = document.querySelector(selector), small = document.createElement('canvas');
  small.width = small.height = 8;
  small.getContext('2d').drawImage(canvas, 0, 0, 8, 8);
  return [...small.getContext('2d').getImageData(0, 0, 8, 8).data].join();
}"""
NOT_BLACK = """(selector) => (""" + PICTURE + """)(selector).split(',').some((v, i) => i % 4 < 3 && Number(v) > 0)"""
EVIL = "a red ball </script><img src=x onerror=alert(1)>"
CHANGED = """([selector, before]) => (""" + PICTURE + """)(selector) !== before"""


def compare(page: Any, prompt: str, scales: str = "1, 6", steps: int | None = 6) -> None:
    if steps is not None:
        page.get_by_label("number input for Steps").fill(str(steps))
        page.get_by_label("number input for Steps").blur()
    open_compare(page, scales)
    page.fill("#compare-prompt textarea", prompt)
    page.click("#compare")


def scales_that_cannot_be_run(page: Any) -> None:
    """What cannot be run is said while one types, and again when one insists."""
    open_compare(page, "1, 4")
    page.fill("#scales textarea, #scales input", "1, 2, x")
    page.get_by_text("must be numbers, as in 1, 2, 4, 7").first.wait_for()
    page.click("#compare")
    page.get_by_test_id("toast-text").get_by_text("Guidance scale: must be numbers").first.wait_for()
    page.wait_for_selector("#grid .os-compare[data-phase=stored]")  # what came with the demo, still
    page.locator(".toast-close").first.click()


def two_on_each_other(page: Any) -> None:
    """Two clips that stand still, one wiped over the other, and their difference."""
    boxes, pair = page.locator("#grid .os-compare-box"), "#grid .os-compare-pair-canvas"
    boxes.nth(0).click()
    boxes.nth(1).click()
    page.wait_for_selector(pair)
    wipe = page.get_by_label("Where one clip ends and the other begins")
    wipe.fill("100")
    only_first = page.evaluate(PICTURE, pair)
    wipe.fill("0")
    page.wait_for_function(CHANGED, arg=[pair, only_first])
    only_second = page.evaluate(PICTURE, pair)
    page.get_by_role("button", name="Difference").click()
    page.wait_for_function(CHANGED, arg=[pair, only_second])
    assert text(page, "#grid .os-compare-distance").startswith("RMS ")
    boxes.nth(1).click()
    page.wait_for_selector(pair, state="hidden")


def test_clips_appear_play_in_step_obey_one_transport_and_survive_a_reload(visit: Visit) -> None:
    page = visit(motion=True)
    scales_that_cannot_be_run(page)
    page.get_by_role("tab", name="Generate", exact=True).click()
    compare(page, "a red ball bouncing over a meadow")
    page.wait_for_function(ENDED)
    page.wait_for_function(DONE, arg=2)
    assert [cell.text_content() for cell in page.locator("#grid .os-compare-label").all()] == [
        "guidance 1",
        "guidance 6",
    ]
    first = page.evaluate(PICTURE, "#grid .os-compare-cell:nth-child(1) canvas")
    page.wait_for_function(CHANGED, arg=["#grid .os-compare-cell:nth-child(1) canvas", first])  # it plays
    page.get_by_role("button", name="Pause").click()
    for i in range(3):  # every clip stands at the frame the transport says
        page.locator("#grid").get_by_label("Frame", exact=True).fill(str(4 * i))
        page.wait_for_function(
            "(t) => document.querySelector('#grid .os-compare-frame').textContent === t", arg=f"{4 * i + 1} / 17"
        )
    page.locator("h1").click()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(SHOWS, arg="10 / 17")
    page.keyboard.press("Space")
    page.get_by_role("button", name="Pause").wait_for()
    assert page.locator("#grid .os-compare-mark").count() == 8
    assert set(page.locator("#grid .os-compare-mark").first.text_content() or "") >= set("colour")
    page.locator("#grid .os-compare-chart svg").first.wait_for()
    # Single steps of the process: every clip as it was expected then, and back to the clips.
    page.keyboard.press("Space")
    canvas = "#grid .os-compare-cell:nth-child(2) canvas"
    clip = page.evaluate(PICTURE, canvas)
    page.get_by_role("button", name="One step earlier").click()
    page.locator("#grid .os-compare-step-text", has_text="step 6 of 6").wait_for()
    page.get_by_label("Step of the process").fill("1")
    page.wait_for_function(CHANGED, arg=[canvas, clip])
    page.get_by_label("Step of the process").fill("7")
    page.locator("#grid .os-compare-step-text", has_text="clip").wait_for()
    # On a wall: labels are large, everything is in sight, keys move both axes.
    page.get_by_role("button", name="Present").click()
    page.wait_for_selector("#grid .os-compare[data-present=true]")
    page.wait_for_function(
        "() => parseFloat(getComputedStyle(document.querySelector('.os-compare-label')).fontSize) >= 28"
    )
    page.keyboard.press("ArrowUp")
    page.locator("#grid .os-compare-step-text", has_text="step 6 of 6").wait_for()
    dock = box(page, "#grid .os-compare-dock")
    assert dock["y"] + dock["height"] <= 901
    page.keyboard.press("Escape")
    page.wait_for_selector("#grid .os-compare[data-present=false]")
    page.keyboard.press("ArrowDown")
    two_on_each_other(page)
    page.reload()
    page.wait_for_selector("#stage .os-stage[data-show]")
    page.get_by_role("tab", name="Compare", exact=True).click()
    page.wait_for_function(DONE, arg=2)


@pytest.mark.thorough
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
    assert [row.text_content() for row in page.locator("#grid .os-compare-row-label").all()] == ["seed 5", "seed 6"]
    assert page.locator("#grid .os-compare-row").first.locator(".os-compare-label").all_text_contents() == [
        "guidance 1, plain", "guidance 8, plain", "guidance 1, APG", "guidance 8, APG",
    ]  # fmt: skip
    assert page.locator("#grid .os-compare-plots svg").count() == 2
    assert "Variety" in (page.locator("#grid .os-compare-plots svg").nth(1).get_attribute("aria-label") or "")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the table as mp4").click()
    assert download.value.suggested_filename.startswith("compare-a-white-star")
    page.locator("#grid .os-compare-box").nth(5).click()
    with page.expect_download() as download:
        page.locator("#grid .os-compare-chosen").get_by_role("link", name="mp4").click()
    assert "-6-" in download.value.suggested_filename
    page.get_by_role("button", name="Use these settings").click()
    page.get_by_role("tab", name="Generate", exact=True).click()
    page.wait_for_function("() => document.querySelector('#seed textarea, #seed input').value === '6'")


@pytest.mark.thorough
def test_a_comparison_is_shared_in_one_piece(visit: Visit, tmp_path: Path) -> None:
    """Its link fills the form and says so; saved as a page it plays alone, and runs nothing that was typed."""
    page = visit(query=f"?axis=steps&rows=2%2C+3&scales=1%2C+5&seed=7&prompt={quote(EVIL)}")
    page.get_by_text("From a link: press Compare").first.wait_for()
    page.wait_for_function("() => document.querySelector('#rows textarea, #rows input')?.value === '2, 3'")
    page.wait_for_function("() => document.querySelector('#plan').textContent.trim().startsWith('2 by 2: 4 clips')")
    page.click("#compare")
    page.wait_for_function(ENDED)
    page.get_by_role("button", name="Copy link").click()
    query = parse_qs(urlsplit(page.evaluate("navigator.clipboard.readText()")).query)
    assert {name: query[name] for name in ("axis", "rows", "scales", "seed", "prompt")} == {
        "axis": ["steps"], "rows": ["2, 3"], "scales": ["1, 5"], "seed": ["7"], "prompt": [EVIL],
    }  # fmt: skip
    page.locator("#grid .os-compare-box").first.click()
    with page.expect_download() as download:
        page.get_by_role("link", name="GIF: steps 2").click()
    assert download.value.path().read_bytes().startswith(b"GIF8")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as a page").click()
    saved = tmp_path / "saved.html"
    download.value.save_as(saved)
    assert saved.stat().st_size < 3_000_000
    elsewhere = page.context.browser.new_context(offline=True)
    alone = elsewhere.new_page()
    wrong: list[str] = []
    alone.on("pageerror", lambda error: wrong.append(str(error)))
    alone.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    alone.goto(saved.as_uri())
    alone.wait_for_function(DONE, arg=4)
    assert alone.locator("#grid .os-compare-prompt").text_content() == EVIL
    alone.get_by_label("Step of the process").fill("1")
    alone.locator("#grid .os-compare-step-text", has_text="step 1 of 3").wait_for()
    alone.wait_for_function(NOT_BLACK, arg="#grid .os-compare-cell canvas")
    assert alone.pdf().startswith(b"%PDF")
    elsewhere.close()
    assert wrong == []
