"""Every tab, before and after a run, by day and by night: nothing that keeps somebody out (axe-core)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.test_page import Visit, start, wait

pytestmark = pytest.mark.browser


def violations(page: Any) -> list[str]:
    """Serious and critical ones, with the rule and the element."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{violation['id']}: {node['html'][:120]} {node['any'][0]['message'] if node['any'] else ''}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_violation_on_any_tab(visit: Visit, scheme: str) -> None:
    page = visit(scheme=scheme, reduced_motion="reduce")
    assert violations(page) == []
    page.get_by_role("button", name="Negative prompt and first frame").click()
    start(page, "a red ball and a dragon", steps=4)
    wait(page, "done")
    assert violations(page) == []
    page.get_by_role("tab", name="Compare", exact=True).click()
    page.wait_for_selector("#grid .oc")
    assert violations(page) == []
    page.click("#compare")
    wait(page, "done", "grid")
    boxes = page.locator("#grid .oc-box")
    boxes.nth(0).click()
    boxes.nth(1).click()
    page.get_by_role("button", name="The rules").click()
    assert violations(page) == []
    page.get_by_role("tab", name="Scope", exact=True).click()
    page.wait_for_selector("#scope canvas")
    assert violations(page) == []
    page.get_by_role("tab", name="How it works").click()
    page.wait_for_function("() => document.querySelector('#explain section')?.dataset.phase === 'done'")
    assert violations(page) == []
