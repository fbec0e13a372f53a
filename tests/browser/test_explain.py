"""The tab "How it works" in a real browser, with the real model. Waits are on conditions."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.actions import Visit

pytestmark = pytest.mark.browser
FIGURES = ("tokens", "attention", "coding", "flow", "guidance")
OF_ARTICLES = ("halves", "channels", "gates", "causal", "scaled", "mask")
DRAWN = """(before) => ['done', 'stored'].includes(document.querySelector('.os-explain').dataset.phase)
  && [...document.querySelectorAll('.os-explain-fig:not([data-fig=trained], [data-fig=modes])')]
    .every((figure) => Number(figure.dataset.run ?? -1) > before)"""
LANE = "(stage) => document.querySelector(`.os-explain-lane[data-stage='${stage}']`).toDataURL()"
TRAINED = "(least) => Number(document.querySelector('[data-fig=trained]').dataset.steps) >= least"
WEIGHTS = "[...document.querySelectorAll('.os-explain-chip')].map((chip) => chip.dataset.weight).join()"


def open_tab(page: Any) -> None:
    """Open the tab; what came with the demo is there at once, the form's own prompt is run."""
    page.get_by_role("tab", name="How it works").click()
    page.wait_for_function(DRAWN, arg=-1)


def inside(page: Any, figure: str, selector: str) -> Any:
    return page.locator(f"[data-fig={figure}] {selector}")


def slide(page: Any, label: str, key: str) -> str:
    """Move a slider with a key; what it says then."""
    handle = page.get_by_role("slider", name=label, exact=True)
    handle.press(key)
    return str(handle.get_attribute("aria-valuetext"))


def stop_and_explain_again(page: Any) -> None:
    """Stopped, and run again: the figures keep their places."""
    before = int(page.eval_on_selector("[data-fig=coding]", "f => f.dataset.run"))
    heights = page.evaluate("[...document.querySelectorAll('.os-explain-fig')].map((f) => f.clientHeight)")
    page.get_by_role("button", name="Explain with this prompt").click()
    page.wait_for_selector(".os-explain[data-phase=working]")
    page.locator(".os-explain-stop").click()
    page.wait_for_selector(".os-explain[data-phase=stopped]")
    page.get_by_role("button", name="Explain with this prompt").click()
    page.wait_for_function(DRAWN, arg=before)
    assert page.evaluate("[...document.querySelectorAll('.os-explain-fig')].map((f) => f.clientHeight)") == heights


def of_articles_answer(page: Any) -> None:
    """Figures of what the articles describe, by keyboard."""
    assert inside(page, "halves", ".os-explain-frame").count() == 6
    assert "No second half" in inside(page, "channels", ".os-explain-body").text_content()
    gates = inside(page, "gates", ".os-explain-columns").first
    now = gates.get_attribute("data-values")
    page.get_by_role("button", name="before training").press("Enter")
    assert gates.get_attribute("data-values") != now

    # Zeros darken the first frame of a strip, copies do not.
    note = inside(page, "causal", ".os-explain-note")
    assert note.text_content() == "Output 1 reads: zeros 67 %, frame 1 33 %."
    page.get_by_role("button", name="copies").press("Enter")
    assert note.text_content() == "Output 1 reads: frame 1 100 %."
    page.get_by_role("button", name="Output frame 4").press("Enter")
    assert note.text_content() == "Output 4 reads: frame 2 33 %, frame 3 33 %, frame 4 33 %."
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Output frame 4"

    assert slide(page, "Latents times", "Home").startswith("x 0.25, std ")
    assert inside(page, "scaled", "canvas").first.get_attribute("data-factor") == "0.25"
    size = inside(page, "mask", ".os-explain-big")
    assert size.text_content() == "252 MB"
    page.get_by_role("button", name="patches and words").press("Enter")
    assert size.text_content() == "35 GB"
    assert slide(page, "Frames", "End") == "256"
    assert float(size.get_attribute("data-bytes")) > 1e12


@pytest.mark.thorough
def test_every_figure_answers_and_a_run_can_be_stopped(visit: Visit) -> None:
    page = visit()
    open_tab(page)
    assert (
        page.locator(".os-explain-about").text_content() == "“a red ball bouncing over a meadow”, nano · STDiT3, seed 7"
    )
    for figure in FIGURES + OF_ARTICLES:
        assert inside(page, figure, ".os-explain-body[data-state=full]").count() == 1
        assert inside(page, figure, ".os-explain-fact").text_content()

    # 2: another patch reads the words in other shares, by a click and by an arrow key
    words = inside(page, "attention", ".os-explain-chips").first.locator("b").all_text_contents()
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
        "[...document.querySelectorAll('.os-explain-chips')].map((r) => [...r.children].map((c) => +c.dataset.weight))"
    )
    assert [sum(row) for row in rows] == pytest.approx([1, 1], abs=0.002)

    # 1, 3, 4, 5: sliders
    values = inside(page, "tokens", ".os-explain-key small").all_text_contents()
    assert slide(page, "Flow time", "Home") == "t = 1.00"
    assert inside(page, "tokens", ".os-explain-key small").all_text_contents() != values
    stages = ("clip", "2-D latents", "latents", "decoded")
    lanes = [page.evaluate(LANE, stage) for stage in stages]
    assert slide(page, "Negative from", "Home") == "frame 2"
    for stage, before in zip(stages, lanes, strict=True):  # every row follows the negative
        page.wait_for_function(f"([stage, before]) => ({LANE})(stage) !== before", arg=[stage, before])
    moved = page.evaluate("[...document.querySelectorAll('.os-explain-move')].map((m) => +m.dataset.moved)")
    assert moved[0] < 1e-4
    assert min(moved[1:]) > 0.1
    assert inside(page, "flow", "input").press("End") is None
    assert inside(page, "flow", "output").text_content().startswith("16 of 16, t = 0.")
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

    of_articles_answer(page)

    # Figures of an older prompt say so, until they are of the one that stands there.
    older = page.locator(".os-explain-older")
    assert not older.is_visible()
    page.fill("#explain-prompt textarea, #explain-prompt input", "a blue star")
    older.wait_for()
    page.fill("#explain-prompt textarea, #explain-prompt input", "a red ball bouncing over a meadow")
    older.wait_for(state="hidden")

    # Coming back shows the same figures and runs nothing.
    run = page.eval_on_selector("[data-fig=flow]", "f => f.dataset.run")
    page.get_by_role("tab", name="Generate").click()
    page.get_by_role("tab", name="How it works").click()
    page.wait_for_selector(".os-explain[data-phase=stored]")
    assert page.eval_on_selector("[data-fig=flow]", "f => f.dataset.run") == run
    stop_and_explain_again(page)


@pytest.mark.thorough
def test_a_network_is_trained_in_the_browser(visit: Visit) -> None:
    """Another scale sends its points elsewhere, and so does data of one's own."""
    page = visit(query="?model=debug-1.0", motion=True)
    page.get_by_role("tab", name="How it works").click()
    figure = page.locator("[data-fig=trained]")
    figure.scroll_into_view_if_needed()
    page.wait_for_function(TRAINED, arg=1)
    figure.get_by_role("button", name="Pause").click()
    spread = figure.get_attribute("data-spread")
    figure.get_by_role("slider", name="Scale").press("End")
    assert figure.get_attribute("data-spread") != spread
    figure.get_by_role("button", name="draw your own").click()
    assert figure.get_by_role("button", name="Train").is_disabled()
    for y, name in ((0.2, "A"), (0.8, "B")):
        figure.get_by_role("button", name=name, exact=True).click()
        bounds = figure.locator("canvas").bounding_box()
        page.mouse.move(bounds["x"] + 0.1 * bounds["width"], bounds["y"] + y * bounds["height"])
        page.mouse.down()
        page.mouse.move(bounds["x"] + 0.9 * bounds["width"], bounds["y"] + y * bounds["height"], steps=20)
        page.mouse.up()
    figure.get_by_role("button", name="Train").click()
    page.wait_for_function(TRAINED, arg=1)
