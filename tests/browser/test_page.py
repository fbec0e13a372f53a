"""What a visitor sees, in a real browser with the real model. Waits are on conditions."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.browser.actions import (
    FORM_HOLDS,
    PLAYING,
    Visit,
    box,
    open_compare,
    press_chips,
    start,
    text,
    wait,
    wait_for_prompt,
    wait_for_silence,
    wait_for_steps,
)

pytestmark = pytest.mark.browser

CANVAS_CHANGED = """() => {
  const canvas = document.querySelector('#stage .os-canvas');
  if (!canvas.width || getComputedStyle(canvas).visibility !== 'visible') return false;
  const small = document.createElement('canvas');
  small.width = small.height = 8;
  small.getContext('2d').drawImage(canvas, 0, 0, 8, 8);
  (window.pictures ??= new Set()).add(small.toDataURL());
  return window.pictures.size >= 4;
}"""


def test_from_a_sentence_to_a_playing_clip(visit: Visit) -> None:
    page = visit(
        locale="de-DE", motion=True
    )  # where neither of our languages is wanted, it is English, Gradio's own words too
    assert page.evaluate("document.documentElement.lang") == "en"
    assert "Use via API" in text(page, "footer")
    before = box(page, "#stage .os-frame")
    assert before["width"] >= 512
    assert box(page, "#prompt")["x"] > before["x"] + before["width"]
    start(page, "a red ball bouncing over a meadow", steps=60)
    page.wait_for_function("() => document.querySelector('#stage .os-time').textContent.includes('left')", polling=20)
    page.wait_for_function(CANVAS_CHANGED, polling=20)
    assert box(page, "#stage .os-frame") == before
    wait(page, "done")
    page.wait_for_function(PLAYING, arg="stage")
    assert box(page, "#stage .os-frame") == before
    chips = text(page, "#stage .os-chips")
    assert "steps60" in chips
    assert "modelnano" in chips
    assert text(page, "#stage .os-prompt") == "a red ball bouncing over a meadow"
    link = page.get_by_role("link", name="Download mp4")
    with page.expect_download() as download:
        link.click()
    assert download.value.suggested_filename.endswith(".mp4")
    with Path(download.value.path()).open("rb") as file:
        assert file.read(12)[4:8] == b"ftyp"
    page.get_by_role("button", name="Copy settings").click()
    page.wait_for_selector(".os-action[data-copied]")
    assert json.loads(page.evaluate("navigator.clipboard.readText()"))["steps"] == 60
    strip = page.locator("#stage .os-strip")
    strip.hover(position={"x": 60, "y": 20})
    page.wait_for_selector("#stage .os-stage[data-show=estimate]")
    assert re.match("step [3-9] of 60 ", text(page, "#stage .os-badge"))
    page.locator("h1").hover()
    page.wait_for_selector("#stage .os-stage[data-show=clip]")
    strip.focus()
    page.keyboard.press("Home")
    assert text(page, "#stage .os-badge").startswith("step 1 of 60")


def test_bad_input_is_explained_and_costs_nothing(visit: Visit) -> None:
    page = visit()
    start(page, "a green square", steps=3)
    wait(page, "done")
    page.wait_for_selector("#stage .os-stage[data-show=clip].os-ready")
    source = page.eval_on_selector("#stage video.os-video", "v => v.src")
    start(page, "   ")
    page.get_by_text("prompt: must say what to draw").wait_for()
    assert page.eval_on_selector("#stage video.os-video", "v => v.src") == source
    page.wait_for_selector("#stage .os-stage[data-show=clip][data-phase=done]")
    page.fill("#prompt textarea", "a ball")
    page.fill("#seed textarea, #seed input", "twelve")
    page.click("#generate")
    page.get_by_text("seed: must be a whole number").wait_for()
    page.fill("#seed textarea, #seed input", "12")
    page.click("#generate")
    page.wait_for_function("() => document.querySelector('#stage .os-chips').textContent.includes('seed12')")
    wait(page, "done")
    page.get_by_role("button", name="Negative prompt, given frames, video").click()
    asked = page.locator("#reference input[type=file]").get_attribute("accept")
    assert asked == "image/png,image/jpeg,image/webp,image/avif,image/gif"  # or phones hand over their own kind
    page.set_input_files(
        "#reference input[type=file]", {"name": "x.png", "mimeType": "image/png", "buffer": b"<svg onload='alert(1)'/>"}
    )
    page.get_by_text("First frame: this is not a readable PNG, JPEG, WebP, AVIF or GIF image").wait_for()
    page.locator("#reference img").wait_for(state="detached")  # and is taken out again
    # Text stays text.
    prompt = "a dragon ${alert(1)} {{value}} <img src=x onerror=alert(2)>"
    start(page, prompt, steps=2)
    page.wait_for_function("(p) => document.querySelector('#stage .os-prompt').textContent === p", arg=prompt)
    wait(page, "done")
    assert (
        page.locator("#stage .os-prompt img, #stage .os-note img, #stage .os-pill img, #stage .os-verdict img").count()
        == 0
    )
    assert text(page, "#stage .os-note").startswith("nano does not know: dragon, $, alert")


@pytest.mark.thorough
def test_a_page_loaded_anew_finds_its_run(visit: Visit) -> None:
    """So does another page of this browser, where the run is told to go on by itself, with all that its form held."""
    page = visit(motion=True, query="?model=nano-dit")
    start(page, "a green star", steps=2)
    wait(page, "done")
    start(page, "a red ball", steps=250)
    wait_for_steps(page)
    page.reload()
    wait_for_steps(page)  # the one it left
    assert text(page, "#stage .os-prompt") == "a red ball"
    page.wait_for_function("() => document.querySelector('#stage .os-card-text')?.textContent === 'a green star'")
    page.evaluate("document.querySelector('#stop').click()")
    page.wait_for_function("() => /done|stopped/.test(document.querySelector('#stage section').dataset.phase)")
    start(page, "a red ball")  # again: the first run may have been over by now
    wait_for_steps(page)
    page.get_by_label("Keep running").check()
    another = visit()
    wait_for_steps(another)
    another.wait_for_function(FORM_HOLDS, arg=["#prompt textarea", "a red ball"])
    another.wait_for_function(FORM_HOLDS, arg=["[aria-label='number input for Steps']", "250"])
    another.close()
    page.get_by_label("Keep running").uncheck()  # and no later page asks for it
    page.click("#stop")
    wait(page, "stopped")
    page.locator("#stage .os-card", has_text="a green star").click()  # the finished one came along, and plays
    page.wait_for_function(PLAYING, arg="stage")
    page.wait_for_function("() => document.querySelector('#prompt textarea').value === 'a green star'")


def test_a_link_fills_the_form_which_outlives_its_page(visit: Visit, tmp_path: Path) -> None:
    page = visit(query="?prompt=a+blue+ring+%24%7Balert(1)%7D&seed=12&steps=9&guidance=2.5&frames=3&x=%3Cscript%3E")
    page.wait_for_function("() => document.querySelector('#prompt textarea').value === 'a blue ring ${alert(1)}'")
    page.get_by_text("frames: must be one of").wait_for()
    page.wait_for_function(FORM_HOLDS, arg=["[aria-label='number input for Steps']", "9"])
    page.wait_for_function(FORM_HOLDS, arg=["#seed textarea, #seed input", "12"])
    assert page.locator("#stage .os-stage").get_attribute("data-phase") == "idle"
    page.click("#generate")
    wait(page, "done")
    page.get_by_role("button", name="Copy link").click()
    page.wait_for_selector(".os-action[data-copied]")
    link = page.evaluate("navigator.clipboard.readText()")
    page.goto(link)
    page.wait_for_function(FORM_HOLDS, arg=["[aria-label='number input for Guidance scale']", "2.5"])
    # What one changes then outlives the page.
    page.fill("#prompt textarea", "a red ball")
    open_compare(page, "2, 5, 6")
    page.get_by_role("tab", name="Generate", exact=True).click()
    page.get_by_role("button", name="Negative prompt, given frames, video").click()
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    page.set_input_files("#reference input[type=file]", tmp_path / "red.png")
    for held in ("2, 5, 6", "red.png"):
        page.wait_for_function("(held) => sessionStorage.getItem('open-sora-demo-form').includes(held)", arg=held)
    page.reload()
    page.locator("#reference img").wait_for()
    page.wait_for_function(FORM_HOLDS, arg=["#prompt textarea", "a red ball"])
    page.wait_for_function(FORM_HOLDS, arg=["[aria-label='number input for Steps']", "9"])
    page.wait_for_function(FORM_HOLDS, arg=["#seed textarea, #seed input", "12"])
    page.get_by_role("tab", name="Compare", exact=True).click()
    page.wait_for_function(FORM_HOLDS, arg=["#scales textarea, #scales input", "2, 5, 6"])
    wait_for_silence(page)


@pytest.mark.thorough
def test_a_clip_dropped_on_the_page_gives_its_settings_back(visit: Visit) -> None:
    page = visit()
    start(page, "a purple heart shrinking", steps=3)
    wait(page, "done")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download mp4").click()
    data = Path(download.value.path()).read_bytes()
    page.fill("#prompt textarea", "something else")
    drop(page, "clip.mp4", data)
    page.wait_for_function("() => document.querySelector('#prompt textarea').value === 'a purple heart shrinking'")
    page.wait_for_function(FORM_HOLDS, arg=["[aria-label='number input for Steps']", "3"])
    drop(page, "other.mp4", b"no film")
    page.get_by_text("this file holds no settings of this demo").wait_for()


def drop(page: Any, name: str, data: bytes) -> None:
    """Let a file fall onto the page's title."""
    page.evaluate(
        """([name, bytes]) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], name, { type: 'video/mp4' }));
          for (const kind of ['dragover', 'drop']) {
            const event = new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: data });
            document.querySelector('h1').dispatchEvent(event);
          }
        }""",
        [name, list(data)],
    )


@pytest.mark.thorough
def test_keys(visit: Visit) -> None:
    page = visit(motion=True, query="?model=nano-dit&steps=4")
    page.fill("#prompt textarea", "a red ball")
    page.press("#prompt textarea", "Control+Enter")
    wait(page, "done")
    page.wait_for_function(PLAYING, arg="stage")
    page.locator("h1").click()
    page.keyboard.press("Space")
    page.wait_for_function("() => document.querySelector('#stage video.os-video').paused")
    page.locator("#stage .os-seek").fill("3")
    page.locator("h1").click()
    at = page.eval_on_selector("#stage video.os-video", "v => v.currentTime")
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "(t) => Math.abs(document.querySelector('#stage video.os-video').currentTime - t - 1 / 8) < 0.02", arg=at
    )
    steps = page.get_by_label("number input for Steps")
    steps.fill("3")
    steps.fill("")
    steps.blur()  # nothing is the model's default: not the least that there is, nor what the link said
    page.wait_for_function("(node) => node.value === '50'", arg=steps.element_handle())
    steps.fill("250")
    page.press("#prompt textarea", "Control+Enter")
    page.wait_for_function("() => /^[1-9][0-9]* % /.test(document.title)", polling=20)
    stops = page.evaluate(STOPS_OF_AN_INPUT_METHOD)
    assert stops == [0, 0]
    page.keyboard.press("Escape")
    wait(page, "stopped")
    assert page.title() == "Open-Sora Demo"


# Escape to an input method, in either way that browsers say so, and how often Stop was pressed by it.
STOPS_OF_AN_INPUT_METHOD = """() => [{ isComposing: true }, { keyCode: 229 }].map((how) => {
  let stops = 0;
  const count = () => { stops += 1; };
  const stop = document.getElementById("stop");
  stop.addEventListener("click", count);
  const press = { key: "Escape", bubbles: true, ...how };
  document.querySelector("#prompt textarea").dispatchEvent(new KeyboardEvent("keydown", press));
  stop.removeEventListener("click", count);
  return stops;
})"""


def occupy(page: Any) -> None:
    """Start the longest run the page allows, six scales of 100 steps, so that the device is busy for a while."""
    page.get_by_label("number input for Steps").fill("100")
    page.fill("#prompt textarea", "a red ball")
    open_compare(page, "2, 3, 4, 5, 6, 7")
    page.click("#compare")
    wait_for_steps(page, "grid")


@pytest.mark.thorough
def test_a_closed_tab_gives_the_device_back_to_those_who_wait(visit: Visit) -> None:
    first, second = visit(), visit()
    occupy(first)
    first.wait_for_function(
        "() => /about [0-9]+ s left/.test(document.querySelector('#grid .os-compare-time').textContent)", polling=20
    )
    left = float(text(first, "#grid .os-compare-time").split("about ")[1].split(" ")[0])
    first.close()
    began = time.monotonic()
    start(second, "a blue star", steps=1)
    wait(second, "waiting")
    wait(second, "done")
    assert text(second, "#stage .os-prompt") == "a blue star"
    assert time.monotonic() - began < max(0.8 * left, 15)  # it did not wait for the other run's end


def test_a_chinese_browser_is_spoken_to_in_chinese(visit: Visit) -> None:
    page = visit(locale="zh-TW")
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    assert "通过 API 使用" in text(page, "footer")
    press_chips(page, "红", "球", "弹跳", "在草地上")
    wait_for_prompt(page, "一个红色的球在草地上弹跳")
    page.click("#die")
    page.wait_for_function("() => /^一个.色的.+$/.test(document.querySelector('#prompt textarea').value)")
    page.fill("#seed textarea, #seed input", "-5")
    page.click("#generate")
    page.get_by_text("种子：须在 0 与").wait_for()
    assert text(page, ".toast-title").strip() == "错误"  # Gradio itself has only English
    page.get_by_role("button", name="关闭", exact=True).click()
    page.locator(".toast-body").wait_for(state="detached")
    page.fill("#seed textarea, #seed input", "")
    page.fill("#prompt textarea", "一个红色的龙")
    page.click("#generate")
    wait(page, "done")
    assert text(page, "#stage .os-note").startswith("nano 不认识：龙")
    page.get_by_role("tab", name="潜空间").click()
