"""The lesson in a real browser: a link opens a step, which runs on the real tab and then shows its answer."""

from __future__ import annotations

import re

import pytest

from tests.browser.actions import FORM_HOLDS, Visit
from tests.browser.test_accessible import violations

pytestmark = pytest.mark.browser


@pytest.mark.thorough
def test_a_step_is_predicted_run_and_checked(visit: Visit) -> None:
    page = visit(scheme="dark", query="?lesson=6")
    lesson = page.locator(".os-lesson")
    lesson.wait_for()
    page.wait_for_function(FORM_HOLDS, arg=["#prompt textarea", "a red elephant dancing on the moon"])
    assert lesson.locator("h2").text_content().endswith("Where it fails")
    go = lesson.get_by_role("button", name="Try it")
    assert go.is_disabled()  # predict first
    lesson.get_by_role("radio", name="An elephant, badly drawn").click()
    go.click()
    answer = lesson.locator(".os-lesson-answer")
    page.wait_for_function("() => document.querySelector('.os-lesson-answer').textContent !== ''")
    assert page.locator("#stage section").get_attribute("data-phase") == "done"
    assert answer.text_content().startswith("It knows red")
    assert lesson.get_by_role("radio", name="An elephant").get_attribute("data-right") == "false"
    assert lesson.get_by_role("radio", name="Something it knows").get_attribute("data-right") == "true"

    # The lesson's own clip solves no exercise.
    lesson.get_by_role("button", name="Check my clips").click()
    lesson.get_by_text("The reader has no clip of yours").wait_for()

    assert violations(page, "html") == []

    # Another step is another address and another tab; closed, it leaves the address.
    lesson.get_by_role("button", name="4 Guidance").click()
    assert page.url.endswith("?lesson=4")
    assert page.get_by_role("tab", name="Compare", exact=True).get_attribute("aria-selected") == "true"
    assert lesson.locator(".os-lesson-answer").text_content() == ""
    lesson.get_by_role("button", name="Close").click()
    assert not lesson.is_visible()
    assert "lesson" not in page.url


def test_a_phone_in_chinese(visit: Visit) -> None:
    page = visit(width=390, height=844, locale="zh-CN", query="?lesson=1")
    lesson = page.locator(".os-lesson")
    lesson.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert not re.findall(r"[a-z]{8,}", lesson.inner_text())
