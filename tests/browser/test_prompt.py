"""Writing a prompt: chips and sentence are one state, what is not understood shows, nothing typed is lost."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.actions import Visit, press_chips, text, wait_for_prompt

pytestmark = pytest.mark.browser

MARKED = """([field, kind]) => [...document.querySelectorAll(field + ' .os-behind [data-kind=' + kind + ']')]
  .map((node) => node.textContent).join('|')"""
SAME_LINES = """() => {
  const field = document.querySelector('#prompt textarea'), layer = document.querySelector('#prompt .os-behind');
  const a = field.getBoundingClientRect(), b = layer.getBoundingClientRect();
  const edge = field.clientLeft;
  return layer.scrollHeight === field.scrollHeight && layer.scrollTop === field.scrollTop
    && Math.abs(a.left + edge - b.left) < 1 && Math.abs(a.top + edge - b.top) < 1
    && layer.clientWidth === field.clientWidth;
}"""


def wait_for_marked(page: Any, kind: str, words: str, field: str = "#prompt") -> None:
    page.wait_for_function(f"([field, kind, words]) => ({MARKED})([field, kind]) === words", arg=[field, kind, words])


def pressed(page: Any) -> list[str]:
    return [str(node.text_content()) for node in page.locator("#composer [aria-pressed=true]").all()]


def test_chips_and_the_sentence_are_one_state(visit: Visit) -> None:
    page = visit()
    field = page.locator("#prompt textarea")
    field.click()
    page.keyboard.type("a red elephant dancing")
    wait_for_marked(page, "colour", "red")
    wait_for_marked(page, "unknown", "elephant")  # the last word is still being typed
    press_chips(page, "blue")
    wait_for_prompt(page, "a blue elephant dancing")  # nothing else that was typed has changed
    wait_for_marked(page, "unknown", "elephant|dancing")
    assert pressed(page) == ["blue"]
    press_chips(page, "at night", "blue", "green")  # in one go: they wait for each other
    wait_for_prompt(page, "a green elephant dancing at night")
    field.press("Control+z")
    field.press("Control+z")
    field.press("Control+z")
    wait_for_prompt(page, "a blue elephant dancing")
    page.get_by_role("button", name="elephant → ball").click()
    wait_for_prompt(page, "a blue ball dancing")
    field.fill("|0|a blue ball bouncing|1|a blue ball spinning")
    page.wait_for_function("() => document.querySelector('#scenes-line').textContent.includes('2 scenes, 25 frames')")
    wait_for_marked(page, "motion", "bouncing|spinning")
    field.fill("a blue ball dancing")
    page.wait_for_function("() => !document.querySelector('#scenes-line')?.textContent.trim()")
    page.click("#die")
    page.wait_for_function("() => document.querySelectorAll('#composer [aria-pressed=true]').length === 4")
    field.press("Control+z")
    wait_for_prompt(page, "a blue ball dancing")
    page.locator("#stage .os-card").nth(1).click()
    wait_for_prompt(page, text(page, "#stage .os-card:nth-child(2) .os-card-text"))
    page.wait_for_function("() => document.querySelector('#seed textarea, #seed input').value !== ''")
    page.wait_for_function("() => document.querySelectorAll('#composer [aria-pressed=true]').length === 4")
    page.wait_for_selector("#stage .os-stage[data-show=clip].os-ready")
    field.press("Control+z")
    wait_for_prompt(page, "a blue ball dancing")


def test_the_colours_stand_under_their_words(visit: Visit) -> None:
    page = visit(width=390, height=700)
    field = page.locator("#prompt textarea")
    field.fill("a blue star spinning, and a wug <b>that</b> moves slowly to the left " * 4)
    page.wait_for_function("() => document.querySelectorAll('#prompt .os-behind span').length > 20")
    page.wait_for_function(SAME_LINES)
    field.evaluate("node => { node.style.height = '60px'; node.style.overflowY = 'scroll'; node.scrollTop = 40 }")
    page.wait_for_function(SAME_LINES)
    assert page.locator("#prompt .os-behind b").count() == 0
    page.set_viewport_size({"width": 900, "height": 700})
    page.wait_for_function(SAME_LINES)
    page.get_by_role("tab", name="Compare", exact=True).click()
    page.locator("#compare-prompt textarea").fill("a red ball")
    wait_for_marked(page, "colour", "red", "#compare-prompt")
    page.keyboard.type(" at sea")
    assert page.locator("#compare-prompt textarea").input_value() == "a red ball at sea"
    wait_for_marked(page, "shape", "ball", "#compare-prompt")
