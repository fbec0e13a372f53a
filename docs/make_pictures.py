"""Make the pictures of the README from the running app and the real model.

python -m docs.make_pictures            needs requirements-dev.txt and Chromium
"""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import sync_playwright

from opensora_demo.catalog import NANO
from opensora_demo.grid import compose_grid
from opensora_demo.pipeline import run
from opensora_demo.request.parse import parse_request
from opensora_demo.request.video import Frames
from opensora_demo.runtime.bundle import build_bundle

DOCS = Path(__file__).resolve().parent
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PROMPTS = (
    "a red ball bouncing over a meadow",
    "a yellow star spinning at night",
    "a pink heart growing in front of a sunset",
    "a green ring moving left over the sea",
    "a purple diamond flying in circles in the desert",
    "a white square falling down in the sky",
    "a yellow star spins above a blue ball at night",
    "a red heart left of a green square on a checkerboard",
)


def generate(prompt: str, guidance: list[float], seed: int) -> list[Frames]:
    raw = {"prompt": prompt, "guidance": guidance, "seed": seed}
    return [c.frames for c in run(BUNDLE, parse_request(raw, model_id=NANO.id, limits=NANO.limits)).clips]


def captioned(clip: Frames, text: str, width_px: int = 176) -> Frames:
    """A clip under its prompt, for a picture that has to explain itself."""
    bar = Image.new("RGB", (width_px, 34), (18, 20, 26))
    draw, font = ImageDraw.Draw(bar), ImageFont.load_default(11)
    words, lines = text.split(), [""]
    for word in words:
        if draw.textlength(f"{lines[-1]} {word}", font=font) > width_px - 8:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    draw.multiline_text((4, 3), "\n".join(lines[:2]), fill=(236, 238, 242), font=font, spacing=1)
    large = [np.asarray(Image.fromarray(f).resize((width_px, width_px), Image.Resampling.BICUBIC)) for f in clip]
    return np.stack([np.concatenate([np.asarray(bar), f]) for f in large])


def save_animation(file: Path, frames: Frames, fps: int) -> None:
    pictures = [Image.fromarray(f) for f in frames]
    pictures[0].save(
        file, save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0, quality=82, method=4
    )
    print(file.name, file.stat().st_size // 1000, "kB")


@contextmanager
def served() -> Iterator[str]:
    """The app in a process of its own, at the address given."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "app.py", "--port", str(port)],
        cwd=DOCS.parent,
        env={**os.environ, "GRADIO_TEMP_DIR": tempfile.mkdtemp()},
    )
    url = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(url, timeout=2).read()
                break
            except OSError:
                time.sleep(0.5)
        yield url
    finally:
        server.terminate()
        server.wait()


def save_picture(page: Any, name: str, height: int) -> None:
    """The top of the page as it stands, in few colours: screenshots of flat surfaces lose nothing one sees."""
    page.set_viewport_size({"width": 1280, "height": height})
    page.evaluate("window.scrollTo(0, 0)")
    page.mouse.move(1270, 10)
    page.wait_for_timeout(500)
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        picture.convert("RGB").save(DOCS / name, "WEBP", quality=85, method=6)
    print(name, (DOCS / name).stat().st_size // 1000, "kB")


def pictures_of_the_page() -> None:
    with served() as url, sync_playwright() as p:
        browser = p.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM_ARGS)
        page = browser.new_page(viewport={"width": 1280, "height": 860}, color_scheme="dark")
        page.set_default_timeout(120_000)
        page.goto(url)
        page.locator("#prompt textarea").fill(PROMPTS[0])
        page.locator("#seed input").fill("7")
        page.locator("#generate").click()
        done = "document.querySelector('#stage .os-stage').dataset.phase === 'done'"
        playing = "document.querySelector('#stage video.os-video').currentTime > 0.8"
        page.wait_for_function(f"{done} && {playing}")
        save_picture(page, "page.webp", 860)
        page.get_by_role("tab", name="Scope", exact=True).click()
        page.wait_for_selector("#scope canvas")
        save_picture(page, "scope.webp", 960)
        page.get_by_role("tab", name="How it works").click()
        page.wait_for_function("document.querySelector('#explain section').dataset.phase === 'done'")
        save_picture(page, "how.webp", 1380)
        page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
        page.set_default_timeout(120_000)
        page.goto(url + "?seed=3")
        page.get_by_role("tab", name="Compare", exact=True).click()
        page.locator("#compare-prompt textarea").fill(PROMPTS[4])
        page.locator("#axis input").click()
        page.get_by_role("option", name="seed", exact=True).click()
        page.locator("#rows input").fill("3, 4")
        page.wait_for_function("document.querySelector('#plan').textContent.includes('4 by 2')")
        page.locator("#compare").click()
        page.wait_for_function("document.querySelector('#grid section').dataset.phase === 'done'")
        page.locator("#grid .os-compare-box").nth(0).click()
        page.locator("#grid .os-compare-box").nth(3).click()
        save_picture(page, "compare.webp", 1560)
        browser.close()


if __name__ == "__main__":
    BUNDLE = build_bundle(NANO)
    clips = [captioned(generate(p, [4.0], 7)[0], p) for p in PROMPTS]
    rows = [np.concatenate(clips[i : i + 4], axis=2) for i in range(0, len(clips), 4)]
    save_animation(DOCS / "clips.webp", np.concatenate(rows, axis=1), 8)
    scales = [0.0, 1.0, 2.0, 4.0]
    clips = generate(PROMPTS[4], scales, 3)
    grid, fps = compose_grid([clips], [f"guidance {s:g}" for s in scales], [""], [8], min_px=128)
    save_animation(DOCS / "guidance.webp", np.stack(list(grid)), fps)
    pictures_of_the_page()
