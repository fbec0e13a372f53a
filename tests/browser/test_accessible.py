"""Every tab, before and after a run, by day and by night: nothing that keeps somebody out (axe-core)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.actions import Visit, set_steps, start, text, wait

pytestmark = pytest.mark.browser
VISIBLE_TAB = "[role=tabpanel]"  # what is hidden is passed over


def violations(page: Any, part: str, *rules: str) -> list[str]:
    """Serious and critical ones of a part of the page, with the rule and the element; of all rules, or of these."""
    from axe_playwright_python.sync_playwright import Axe

    options: dict[str, object] = {"resultTypes": ["violations"]}
    if rules:
        options["runOnly"] = [*rules]
    found = Axe().run(page, context=part, options=options).response["violations"]
    return [
        f"{violation['id']}: {node['html'][:120]} {node['any'][0]['message'] if node['any'] else ''}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def settled(page: Any) -> None:
    page.wait_for_function("() => document.getAnimations().every((a) => a.playState !== 'running')")  # fades


@pytest.mark.thorough
def test_no_serious_violation_before_a_run(visit: Visit) -> None:
    page = visit()
    page.get_by_role("button", name="Negative prompt, given frames, video").click()
    settled(page)
    assert violations(page, "html") == []


@pytest.mark.thorough
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_violation_on_any_tab(visit: Visit, scheme: str) -> None:
    """All of a tab at first, then what has changed of it."""
    page = visit(scheme=scheme)
    assert page.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
    rules = () if scheme == "light" else ("color-contrast",)  # nothing but colours differs

    def found(part: str) -> list[str]:
        settled(page)
        return violations(page, part, *rules)

    page.get_by_role("button", name="Negative prompt, given frames, video").click()
    assert found("html") == []
    start(page, "a red ball and a dragon", steps=4)
    wait(page, "done")
    assert found("#stage") == []
    page.get_by_role("tab", name="Compare", exact=True).click()
    page.wait_for_selector("#grid .os-compare")
    page.get_by_role("button", name="The rules").click()
    assert found(VISIBLE_TAB) == []
    page.click("#compare")
    wait(page, "done", "grid")
    boxes = page.locator("#grid .os-compare-box")
    boxes.nth(0).click()
    boxes.nth(1).click()
    assert found("#grid") == []
    page.get_by_role("tab", name="Scope", exact=True).click()
    page.wait_for_selector("#scope canvas")
    assert found(VISIBLE_TAB) == []
    page.get_by_role("tab", name="How it works").click()
    page.wait_for_function("() => document.querySelector('#explain section')?.dataset.phase === 'done'")
    assert found(VISIBLE_TAB) == []
    page.get_by_role("tab", name="Gallery").click()
    page.locator(".os-queue summary").click()
    assert found(VISIBLE_TAB) == []
    page.locator("#gallery .os-card").first.click()
    page.wait_for_selector("#gallery dialog[open]")
    assert found("#gallery dialog") == []


def test_the_keyboard_is_quick_and_runs_the_example_that_is_shown(visit: Visit) -> None:
    page = visit()
    page.wait_for_selector("#composer .os-word")
    page.wait_for_selector("[role=tab][tabindex='-1']")
    # Tabs that are drawn anew are followed like the first ones.
    tabs = page.evaluate_handle("() => document.querySelector('.os-tabs [role=tablist]')")
    tabs.evaluate(
        "(node) => { const copy = node.cloneNode(true); node.hidden = true; node.after(copy);"
        " for (const tab of copy.children) tab.tabIndex = 0; }"
    )
    page.wait_for_selector("[role=tablist]:not([hidden]) [role=tab][tabindex='-1']")
    tabs.evaluate("(node) => { node.nextSibling.remove(); node.hidden = false; }")
    presses = 0
    while page.evaluate("document.activeElement.id") != "generate":
        page.keyboard.press("Tab")
        presses += 1
        assert presses <= 15, page.evaluate("document.activeElement.outerHTML")
    page.locator("#composer .os-word").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.textContent") == "square"  # the second of the next row
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "square"
    assert page.locator("#stage .os-video").get_attribute("aria-label") == "Clip: red ball, bouncing, meadow"
    page.get_by_role("tab", name="Generate", exact=True).focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#compare-prompt textarea:visible")
    assert page.get_by_role("button", name="The rules").get_attribute("aria-expanded") == "false"

    page.get_by_role("tab", name="Generate", exact=True).click()
    set_steps(page, 2)
    examples = page.locator("#stage .os-card-text").all_text_contents()
    page.locator("#generate").press("Enter")
    wait(page, "done")
    prompt = text(page, "#stage .os-prompt")
    assert prompt in examples
    assert page.locator("#prompt textarea").input_value() == prompt
    assert "seed" in text(page, "#stage .os-chips")
    assert " of 4" in text(page, "#stage .os-verdict")
