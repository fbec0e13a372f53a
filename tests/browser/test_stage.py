"""The stage: what it shows of a run, its transport, and what one may do at a step."""

from __future__ import annotations

import pytest

from tests.browser.actions import Visit, set_steps, start, text, wait

pytestmark = pytest.mark.browser

PAUSED = "() => document.querySelector('#stage video.os-video').paused"
# What the stage writes and draws from now on: texts of its clock, and pictures put onto its canvas.
WATCH = """() => {
  const seen = (window.seen = { times: [], pictures: 0 });
  const clock = document.querySelector('#stage .os-time'), draw = CanvasRenderingContext2D.prototype.drawImage;
  new MutationObserver(() => seen.times.push(clock.textContent)).observe(clock, { childList: true });
  CanvasRenderingContext2D.prototype.drawImage = function (...what) {
    if (this.canvas.matches('#stage .os-canvas')) seen.pictures += 1;
    return draw.apply(this, what);
  };
}"""
DENOISING = "() => Number(/^Denoising ([0-9]+)/.exec(document.querySelector('#stage .os-text').textContent)?.[1] ?? 0)"


def test_a_run_is_seen_as_noise_and_guess_and_goes_on_from_a_step(visit: Visit) -> None:
    page = visit(motion=True)
    page.fill("#seed textarea, #seed input", "5")
    start(page, "a yellow star spinning at night", steps=6)
    wait(page, "done")
    page.wait_for_selector("#stage .os-stage[data-show=clip].os-ready")
    page.locator("#stage .os-play").click()
    page.wait_for_function(PAUSED)
    assert text(page, "#stage .os-place").endswith("/ 17")
    page.locator("#stage .os-help").click()
    page.locator("#stage .os-keys").wait_for()
    page.locator("#stage .os-help").click()

    page.locator("#stage .os-view[data-view=noise]").click()  # the last step, as it was before it
    page.wait_for_selector("#stage .os-stage[data-show=estimate]")
    assert page.eval_on_selector("#stage .os-video", "v => getComputedStyle(v).transitionDuration") == "0s"
    assert page.eval_on_selector("#stage .os-video", "v => getComputedStyle(v).opacity") == "0"  # at once
    assert text(page, "#stage .os-badge").startswith("step 6 of 6")
    page.locator("#stage .os-view[data-view=guess]").click()
    strip = page.locator("#stage .os-strip")
    strip.focus()
    for key in ("Home", "ArrowRight"):
        page.keyboard.press(key)
    assert text(page, "#stage .os-branch-title") == "Go on from step 2 of 6 with"
    page.locator("#stage .os-branch-guidance").fill("9")
    page.locator("#stage .os-branch-go").click()
    page.wait_for_function(
        "() => /from step 2: guidance 9/.test(document.querySelector('#stage .os-chips').textContent)"
    )
    wait(page, "done")
    page.locator("#stage .os-old").wait_for()  # beside the one it left
    assert page.locator("#stage .os-card").first.get_attribute("title") == "a yellow star spinning at night"


@pytest.mark.thorough
def test_a_stopped_run_can_be_decoded_and_an_example_always_plays(visit: Visit) -> None:
    page = visit(query="?model=nano-dit&prompt=a+blue+ring&seed=3")
    assert text(page, "#stage .os-empty") == "From a link: press Generate to make this clip."
    page.evaluate(WATCH)
    start(page, "a blue ring at sunset", steps=250)
    page.wait_for_function(f"() => ({DENOISING})() >= 8", polling=50)
    page.click("#stop")
    wait(page, "stopped")
    seen = page.evaluate("window.seen")
    # Where no motion is wanted a picture is drawn once, of two latents at most; a clock is written when it has moved.
    done = int(text(page, "#stage .os-text").removeprefix("Stopped after step ").split()[0].rstrip(".,"))
    assert 0 < seen["pictures"] <= 3 * (done + 1)
    assert all(now != before for before, now in zip(seen["times"], seen["times"][1:], strict=False))
    assert text(page, "#stage .os-text").startswith("Stopped after step")
    page.get_by_role("button", name="Decode what it expects now").click()
    wait(page, "done")
    page.wait_for_selector("#stage .os-stage[data-show=clip].os-ready")
    assert page.evaluate(PAUSED)  # who wants no motion starts it himself
    page.locator("#stage .os-card").nth(1).click()
    page.wait_for_selector("#stage .os-stage[data-phase=idle][data-show=clip]")
    assert text(page, "#stage .os-prompt") == text(page, "#stage .os-card:nth-child(2) .os-card-text")
    set_steps(page, 3)
    page.press("#prompt textarea", "Enter")  # ready again
    wait(page, "done")
    page.wait_for_selector("#stage .os-stage[data-show=clip].os-ready")
