"""What a visitor does and sees, in words: used by all browser tests. Waits are on conditions."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

Visit = Callable[..., Any]

PHASE = "([name, phase]) => document.querySelector('#' + name + ' section').dataset.phase === phase"
STEPPING = """([name]) => {
  const line = document.querySelector(`#${name} .os-text, #${name} .os-compare-text`);
  return /^Denoising [1-9]/.test(line?.textContent);
}"""
SEEN = """(name) => {
  const part = document.querySelector('#' + name);
  const notes = document.querySelector('.toast-wrap')?.innerText;
  const steps = document.querySelector("[aria-label='number input for Steps']")?.value;
  return [part?.querySelector('section')?.dataset.phase, steps, part?.innerText.slice(0, 300), notes];
}"""
FORM_HOLDS = """([selector, value]) => {
  const field = document.querySelector(selector);
  return field !== null && field.value === value;
}"""
PLANNED = """([scales, columns]) => {
  if (document.querySelector("#scales textarea, #scales input").value !== scales) return "lost";
  return document.querySelector("#plan").textContent.trim().startsWith(columns) && "planned";
}"""
PLAYING = """(name) => {
  const video = document.querySelector('#' + name + ' video.os-video'), stage = video.closest('.os-stage');
  if (stage.dataset.show !== 'clip' || !stage.classList.contains('os-ready') || video.paused) return false;
  const first = (window.firstTime ??= {}), now = video.currentTime;
  first[name] ??= now;
  return now !== first[name];
}"""


def set_steps(page: Any, steps: int) -> None:
    field = page.get_by_label("number input for Steps")
    field.fill(str(steps))
    field.blur()


def start(page: Any, prompt: str, steps: int | None = None) -> None:
    if steps is not None:
        set_steps(page, steps)
    page.fill("#prompt textarea", prompt)
    page.click("#generate")


def wait(page: Any, phase: str, name: str = "stage") -> None:
    """Until a stage or comparison is in a phase."""
    _wait(page, PHASE, phase, name)


def wait_for_steps(page: Any, name: str = "stage") -> None:
    """Until a stage or comparison says which step it is at."""
    _wait(page, STEPPING, "steps", name)


def _wait(page: Any, condition: str, what: str, name: str) -> None:
    """What is seen in place of it is said when it never comes."""
    from playwright.sync_api import TimeoutError as NeverComes

    try:
        page.wait_for_function(condition, arg=[name, what], polling=20)
    except NeverComes as error:
        seen = page.evaluate(SEEN, name)
        raise AssertionError(f"#{name} does not come to {what!r}: {seen}") from error


def wait_for_silence(page: Any, seconds: float = 2.0) -> None:
    """Until the page has asked the server for nothing for so long."""
    asked = [time.monotonic()]
    page.on("request", lambda request: asked.append(time.monotonic()) if "/gradio_api/" in request.url else None)
    while time.monotonic() - asked[-1] < seconds:
        page.wait_for_timeout(100)
        assert asked[-1] - asked[0] < 60, f"{len(asked)} requests in a minute"


def press_chips(page: Any, *words: str) -> None:
    for word in words:
        page.locator("#composer").get_by_role("button", name=word, exact=True).click()


def wait_for_prompt(page: Any, prompt: str) -> None:
    page.wait_for_function("(p) => document.querySelector('#prompt textarea').value === p", arg=prompt)


def text(page: Any, selector: str) -> str:
    return str(page.locator(selector).text_content())


def box(page: Any, selector: str) -> dict[str, float]:
    found: dict[str, float] = page.locator(selector).bounding_box()
    return found


def open_compare(page: Any, scales: str) -> None:
    """Turn to the second tab. Gradio draws a tab when it is first shown, and a field that is typed into while that goes
    on, faster than a person can, takes its first value again: then it is typed once more."""
    page.get_by_role("tab", name="Compare", exact=True).click()
    page.wait_for_selector("#grid .os-compare")
    field = page.locator("#scales textarea, #scales input")
    for _ in range(3):
        field.fill(scales)
        field.blur()
        if page.wait_for_function(PLANNED, arg=[scales, str(scales.count(",") + 1)], polling=20).json_value() != "lost":
            return
    raise AssertionError(f"what is typed into the scales is lost: {field.input_value()}")
