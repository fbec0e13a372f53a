"""The tab "How it works" in a real browser, with the real model. Waits are on conditions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.browser
Visit = Callable[..., Any]
FIGURES = ("tokens", "attention", "coding", "flow", "guidance")
DRAWN = """(before) => document.querySelector('.ox').dataset.phase === 'done'
  && [...document.querySelectorAll('.ox-fig')].every((figure) => Number(figure.dataset.run || 0) > before)"""
WEIGHTS = "[...document.querySelectorAll('.ox-chip')].map((chip) => chip.dataset.weight).join()"


def open_tab(page: Any) -> None:
    """Open the tab; the first time it runs by itself."""
    page.get_by_role("tab", name="How it works").click()
    page.wait_for_function(DRAWN, arg=0, timeout=120_000)


def inside(page: Any, figure: str, selector: str) -> Any:
    return page.locator(f"[data-fig={figure}] {selector}")


def slide(page: Any, label: str, key: str) -> str:
    """Move a slider with a key; what it says then."""
    handle = page.get_by_role("slider", name=label, exact=True)
    handle.press(key)
    return str(handle.get_attribute("aria-valuetext"))


def test_it_runs_once_and_every_figure_answers(visit: Visit) -> None:
    page = visit()
    open_tab(page)
    assert page.locator(".ox-about").text_content() == "“a red ball bouncing over a meadow”, nano · STDiT3, seed 7"
    for figure in FIGURES:
        assert inside(page, figure, ".ox-body[data-state=full]").count() == 1
        assert inside(page, figure, ".ox-fact").text_content()

    # 2: another patch reads the words in other shares, by a click and by an arrow key
    words = inside(page, "attention", ".ox-chips").first.locator("b").all_text_contents()
    assert words == ["a", "red", "ball", "bouncing", "over", "a", "meadow", "end"]
    weights = page.evaluate(WEIGHTS)
    page.get_by_role("option", name="frame 1, row 1, column 1").click()
    page.wait_for_function(f"(before) => {WEIGHTS} !== before", arg=weights)
    weights = page.evaluate(WEIGHTS)
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"(before) => {WEIGHTS} !== before", arg=weights)
    chosen = page.get_by_role("option", selected=True)
    assert chosen.get_attribute("aria-label") == "frame 1, row 1, column 2"
    assert page.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"
    weights = page.evaluate(WEIGHTS)
    page.get_by_role("group", name="Layer").get_by_role("button", name="3").click()
    page.wait_for_function(f"(before) => {WEIGHTS} !== before", arg=weights)
    rows = page.evaluate(
        "[...document.querySelectorAll('.ox-chips')].map((r) => [...r.children].map((c) => +c.dataset.weight))"
    )
    assert [sum(row) for row in rows] == pytest.approx([1, 1], abs=0.002)

    # 1, 3, 4, 5: sliders
    values = inside(page, "tokens", ".ox-key small").all_text_contents()
    assert slide(page, "Flow time", "Home") == "t = 1.00"
    assert inside(page, "tokens", ".ox-key small").all_text_contents() != values
    assert slide(page, "Negative from", "Home") == "frame 2"
    moved = page.evaluate("[...document.querySelectorAll('.ox-move')].map((m) => +m.dataset.moved)")
    assert moved[0] < 1e-4
    assert min(moved[1:]) > 0.1
    assert inside(page, "flow", "input").press("End") is None
    assert inside(page, "flow", "output").text_content() == "16 of 16"
    scale = inside(page, "guidance", "input").first
    scale.press("Home")
    norms = dict(
        zip(
            inside(page, "guidance", "dt").all_text_contents(),
            inside(page, "guidance", "dd").all_text_contents(),
            strict=True,
        )
    )
    assert norms["|u + s (c − u)|"] == norms["|u|"]

    # Coming back shows the same figures and runs nothing.
    run = page.eval_on_selector("[data-fig=flow]", "f => f.dataset.run")
    page.get_by_role("tab", name="Generate").click()
    page.get_by_role("tab", name="How it works").click()
    page.wait_for_selector(".ox[data-phase=done]")
    assert page.eval_on_selector("[data-fig=flow]", "f => f.dataset.run") == run


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_and_a_hostile_prompt(visit: Visit, scheme: str) -> None:
    page = visit(width=390, height=844, scheme=scheme)
    prompt = "a ball ${alert(1)} <img src=x onerror=alert(1)> " + "long" * 40
    page.fill("#prompt textarea", prompt)
    open_tab(page)
    assert prompt.strip() in page.locator(".ox-about").text_content()
    words = inside(page, "attention", ".ox-chip b").all_text_contents()
    assert {"$", "{", "alert", "<", "img", "onerror"} <= set(words)
    assert page.locator("#explain img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.get_by_role("tab", name="How it works").is_visible()


def test_stop_and_explain_again(visit: Visit) -> None:
    page = visit()
    open_tab(page)
    before = int(page.eval_on_selector("[data-fig=coding]", "f => f.dataset.run"))
    heights = page.evaluate("[...document.querySelectorAll('.ox-fig')].map((f) => f.clientHeight)")
    page.get_by_role("button", name="Explain with this prompt").click()
    page.wait_for_selector(".ox[data-phase=working]")
    page.locator(".ox-stop").click()
    page.wait_for_selector(".ox[data-phase=stopped]")
    page.get_by_role("button", name="Explain with this prompt").click()
    page.wait_for_function(DRAWN, arg=before, timeout=120_000)
    assert page.evaluate("[...document.querySelectorAll('.ox-fig')].map((f) => f.clientHeight)") == heights
