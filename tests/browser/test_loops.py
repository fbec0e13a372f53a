"""Nothing on the page draws sixty times a second where nobody can see it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.actions import Visit, open_compare, start, wait

pytestmark = pytest.mark.browser

COUNT = """() => {
  window.frames_asked = 0;
  const ask = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (act) => ((window.frames_asked += 1), ask(act));
}"""
# Whether nothing asks for a frame of the screen in the next 400 ms. (Playwright itself does, unless told how to poll.)
QUIET = """async () => {
  const before = window.frames_asked;
  await new Promise((then) => setTimeout(then, 400));
  return window.frames_asked === before;
}"""
DRAWS = "async () => !(await (" + QUIET + ")())"


def show(page: Any, tab: str) -> None:
    page.get_by_role("tab", name=tab, exact=True).click()


@pytest.mark.thorough
def test_loops_stop_where_nobody_sees_them(visit: Visit) -> None:
    page = visit(motion=True)
    start(page, "a red ball", steps=2)
    wait(page, "done")
    page.evaluate(COUNT)
    page.wait_for_function(QUIET, polling=100)  # a finished clip is a video

    open_compare(page, "1, 6")
    page.click("#compare")
    wait(page, "done", "grid")
    page.wait_for_function(DRAWS, polling=100)  # it plays
    show(page, "Generate")
    page.wait_for_function(QUIET, polling=100)
    show(page, "Compare")
    page.wait_for_function(DRAWS, polling=100)  # and goes on
    page.get_by_role("button", name="Pause").click()
    page.wait_for_function(QUIET, polling=100)

    show(page, "Scope")
    page.locator("#scope").get_by_role("button", name="Play").click()
    page.wait_for_function(DRAWS, polling=100)
    show(page, "Generate")
    page.wait_for_function(QUIET, polling=100)
