"""Models of other families through the page: tiny random ones, and published ones whose weights are not here."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from opensora_demo.catalog import find_model
from opensora_demo.messages import render
from opensora_demo.ui.controls import listed_title
from opensora_demo.weights.options import DEFAULT_OPTIONS
from opensora_demo.weights.store import unavailable_reason
from tests.browser.actions import FORM_HOLDS, Visit, box, open_compare, text, wait

pytestmark = pytest.mark.browser

TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def choose(page: Any, model: str) -> None:
    """Pick a model as a visitor does; done when its controls are there.

    The stage is told last, and a control that was hidden takes its value with the next frames: what is typed before
    would be lost.
    """
    title = render(listed_title(find_model(model)))
    page.click("#model input")
    page.get_by_role("option", name=title, exact=True).click()
    page.wait_for_function(FORM_HOLDS, arg=["#model input", title])
    page.wait_for_selector(f"#stage .os-stage[data-model='{model}']")
    page.evaluate(TWO_FRAMES)


def set_number(page: Any, label: str, value: float) -> None:
    field = page.get_by_label(f"number input for {label}")
    field.fill(str(value))
    field.blur()


def holds(page: Any, selector: str, value: str) -> None:
    page.wait_for_function(FORM_HOLDS, arg=[selector, value])


def holds_number(page: Any, label: str, value: float) -> None:
    holds(page, f"[aria-label='number input for {label}']", str(value))


def run(page: Any, prompt: str) -> None:
    page.fill("#prompt textarea", prompt)
    page.click("#generate")
    page.wait_for_function("(p) => document.querySelector('#stage .os-prompt').textContent === p", arg=prompt)
    wait(page, "done")
    page.wait_for_selector("#stage .os-stage[data-show=clip].os-ready")


def settings_of(page: Any, name: str = "stage") -> dict[str, Any]:
    page.locator(f"#{name}").get_by_role("button", name="Copy settings").click()
    page.wait_for_selector(f"#{name} .os-action[data-copied]")
    found: dict[str, Any] = json.loads(page.evaluate("navigator.clipboard.readText()"))
    return found


def give(page: Any, field: str, colour: tuple[int, int, int]) -> None:
    data = io.BytesIO()
    Image.fromarray(np.full((40, 60, 3), colour, np.uint8)).save(data, "PNG")
    picture = {"name": "frame.png", "mimeType": "image/png", "buffer": data.getvalue()}
    page.set_input_files(f"{field} input[type=file]", picture)
    page.wait_for_selector(f"{field} img")


SEEN = """(wide) => {
  const image = document.querySelector('#seen img');
  return image && image.complete && Math.abs(image.naturalWidth / image.naturalHeight - wide) < 0.01;
}"""


@pytest.mark.thorough
def test_first_and_last_frame_or_a_loop_with_the_oscillating_rule(visit: Visit) -> None:
    page = visit()
    choose(page, "debug-2.0")
    assert "Text: token concatenation." in text(page, "#model-note")
    frame = box(page, "#stage .os-frame")
    assert frame["width"] / frame["height"] == pytest.approx(1.5, rel=0.02)
    page.get_by_role("button", name="Negative prompt, given frames, video").click()
    give(page, "#reference", (220, 60, 40))
    page.wait_for_function(SEEN, arg=1.5)
    page.click("#loop")  # the last frame is the first
    page.locator("#last-frame img").wait_for()
    page.wait_for_function(SEEN, arg=3)
    page.locator("#last-frame").get_by_role("button", name="Remove Image").click()
    page.wait_for_function(SEEN, arg=1.5)
    give(page, "#last-frame", (40, 90, 220))
    page.wait_for_function(SEEN, arg=3)
    holds(page, "#rule input", "oscillating")
    set_number(page, "Motion score", 7)
    run(page, "a red ball")
    assert box(page, "#stage .os-frame") | {"y": 0} == frame | {"y": 0}  # the page may have scrolled
    chips = text(page, "#stage .os-chips")
    for chip in ("modeldebug-2.0", "ruleoscillating", "givenfirst and last frame", "image guidance3", "motion7"):
        assert chip in chips
    settings = settings_of(page)
    assert (settings["rule"], settings["reference"], settings["last_frame"]) == ("oscillating", True, True)
    open_compare(page, "1, 4")
    assert "debug · 2.0 MMDiT" in text(page, "#compare-note")
    page.locator("#rules").get_by_text("APG").click()
    page.get_by_text("Not yet: Guidance rule: apg is for text alone").wait_for()
    page.locator("#rules").get_by_text("APG").click()
    page.wait_for_function("() => document.querySelector('#plan').textContent.trim().startsWith('2 clips')")
    page.click("#compare")
    wait(page, "done", "grid")
    page.wait_for_function("() => document.querySelectorAll('#grid .os-compare-cell[data-state=done]').length === 2")
    shape = box(page, "#grid .os-compare-box >> nth=1")
    assert shape["width"] / shape["height"] == pytest.approx(384 / 256, rel=0.02)


@pytest.mark.thorough
def test_a_model_of_text_alone_hides_what_is_not_its_own(visit: Visit) -> None:
    page = visit()
    steps = page.get_by_label("number input for Steps").input_value()
    page.get_by_role("button", name="Negative prompt, given frames, video").click()
    give(page, "#reference", (220, 60, 40))
    assert page.locator("#stage .os-card").count() >= 6
    choose(page, "debug-1.0-dit")
    assert "Text: pooled vector." in text(page, "#model-note")
    for selector in ("#reference", "#last-frame", "#composer", "#die", "#stage .os-shelf-box"):
        page.locator(selector).wait_for(state="hidden")
    assert page.get_by_label("number input for Motion score").count() == 0
    page.wait_for_selector("#stage .os-stage[data-show=empty]")
    run(page, "a dragon")  # with the picture still in the form, out of sight
    assert settings_of(page)["reference"] is False
    assert text(page, "#stage .os-note") == "debug-1.0-dit does not know: dragon."
    assert text(page, "#stage .os-shelf-title") == "Your clips"
    choose(page, "nano")
    for selector in ("#reference img", "#composer", "#die"):
        page.locator(selector).wait_for()
    assert page.get_by_label("number input for Steps").input_value() == steps
    page.wait_for_function("() => document.querySelectorAll('#stage .os-card').length > 6")
    assert text(page, "#stage .os-prompt") == "a dragon"  # what was made stays


@pytest.mark.thorough
def test_a_clip_brings_its_model_back(visit: Visit) -> None:
    page = visit()
    choose(page, "debug-1.3")
    page.click("#rule input")
    page.get_by_role("option", name="plain", exact=True).click()
    set_number(page, "Image guidance", 3)
    set_number(page, "Guidance scale", 2)
    page.fill("#seed textarea, #seed input", "11")
    run(page, "a green ring")
    copy_settings = page.locator("#stage").get_by_role("button", name="Copy settings").element_handle()
    choose(page, "debug-1.2")
    assert copy_settings.evaluate("node => node.isConnected")  # drawn anew, it would lose its focus and its mark
    choose(page, "nano")
    holds(page, "#rule input", "plain")
    page.fill("#prompt textarea", "something else")
    page.get_by_role("button", name="Reuse settings").click()
    holds(page, "#model input", "debug · 1.3 STDiT3")
    holds(page, "#prompt textarea", "a green ring")
    holds_number(page, "Image guidance", 3)
    holds_number(page, "Guidance scale", 2)
    holds_number(page, "FPS", 24)
    holds(page, "#rule input", "plain")
    choose(page, "nano")
    page.get_by_role("button", name="Vary").click()
    page.wait_for_function("() => !document.querySelector('#stage .os-chips').textContent.includes('seed11')")
    wait(page, "done")
    varied = settings_of(page)
    assert varied["model"] == "debug-1.3"
    assert varied["image_guidance"] == 3
    assert "rule" not in varied  # plain


@pytest.mark.skipif(
    not unavailable_reason(find_model("opensora-2.0-dcae"), DEFAULT_OPTIONS), reason="its weights are here"
)
@pytest.mark.thorough
def test_a_model_without_weights_says_so(visit: Visit) -> None:
    page = visit(width=390)
    page.fill("#prompt textarea", "a red ball")
    choose(page, "opensora-2.0-dcae")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.wait_for_selector("#generate[disabled]")
    note = text(page, "#model-note")
    assert "Cannot run here: Open-Sora 2.0 · MMDiT 11B, deep compression is not installed" in note
    assert "✗ transformer" in note
    assert "python -m opensora_demo download opensora-2.0-dcae" in note
    assert 0 < box(page, "#model-note")["y"] - box(page, "#generate")["y"] < 250
    page.get_by_text("The weights of this model are not here.").wait_for()
    page.press("#prompt textarea", "Enter")
    page.get_by_text("Open-Sora 2.0 · MMDiT 11B, deep compression cannot run here").first.wait_for()
    page.locator(".toast-close").first.click()  # on a phone it lies over the tabs
    page.get_by_role("tab", name="Compare", exact=True).click()
    page.wait_for_selector("#compare[disabled]")
    assert "Cannot run here" in text(page, "#compare-note")
    page.get_by_role("tab", name="Generate").click()
    assert page.input_value("#prompt textarea") == "a red ball"
    page.get_by_role("button", name="Use nano instead").click()
    page.wait_for_selector("#generate:not([disabled])")
    page.wait_for_selector("#stage .os-stage[data-show=clip]")
