"""The colours of a file as Chromium shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opensora_demo.media import write_mp4

BARS = (
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 255),
    (0, 0, 0),
    (128, 128, 128),
    (222, 28, 36),
    (36, 76, 232),
)
SIZES = ((64, 96), (480, 854), (590, 820), (720, 1280))
SEEN = """async ([url, w, h, count]) => {
  const video = Object.assign(document.createElement("video"), { muted: true, src: url });
  await new Promise((done, failed) => {
    video.onloadeddata = done;
    video.onerror = () => failed(new Error(video.error.message));
  });
  const canvas = Object.assign(document.createElement("canvas"), { width: w, height: h });
  const pen = canvas.getContext("2d");
  const at = (i) => pen.getImageData(Math.floor(((i + 0.5) * w) / count), h >> 1, 1, 1).data;
  pen.drawImage(video, 0, 0, w, h);
  return [...Array(count).keys()].map((i) => [...at(i)].slice(0, 3));
}"""


@pytest.mark.browser
def test_colours_are_the_same_at_every_size(chromium: Any, tmp_path: Path) -> None:
    """Players guess the matrix of a file that does not say it, and otherwise from 720 lines on."""
    (tmp_path / "page.html").write_text("<p>")
    page = chromium.new_page()
    page.route("http://files.test/*", lambda route: route.fulfill(path=tmp_path / route.request.url.rsplit("/")[-1]))
    page.goto("http://files.test/page.html")
    for height, width in SIZES:
        frames = np.zeros((4, height, width, 3), np.uint8)
        for i, colour in enumerate(BARS):
            frames[:, :, i * width // len(BARS) : (i + 1) * width // len(BARS)] = colour
        write_mp4(tmp_path / f"{height}.mp4", frames, 8, {}, min_px=1)
        seen = page.evaluate(SEEN, [f"{height}.mp4", width, height, len(BARS)])
        assert np.abs(np.array(seen) - BARS).max() <= 4, (height, width, seen)
    page.close()
