"""A clip that is decoded in parts: its first frames are seen while the others are decoded."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.browser.actions import start, wait
from tests.ui.conftest import FakePipeline
from tests.ui.server import serving

pytestmark = pytest.mark.browser

ESTIMATE, CLIP = 40, 200  # greys
# The grey in the middle of what the stage draws, about.
SHOWS = """(grey) => {
  const canvas = document.querySelector('#stage .os-canvas');
  const [red] = canvas.getContext('2d').getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data;
  const video = document.querySelector('#stage video.os-video');
  return Math.abs(red - grey) < 12 && Number(getComputedStyle(video).opacity) === 0;
}"""
COUNTED = "() => /\\S/.test(document.querySelector('#cost')?.textContent ?? '')"  # what the run takes


@pytest.mark.thorough
@pytest.mark.parametrize("motion", [True, False], ids=["motion", "no motion"])
def test_the_first_frames_are_on_the_stage_before_the_last_are_decoded(
    motion: bool, contexts: Callable[..., Any], tmp_path: Path
) -> None:
    shown, decoded = threading.Event(), threading.Event()

    def last_part(end: int) -> None:
        """The codec is at work on the last frames until they have been looked for on the page."""
        decoded.set()
        assert shown.wait(120)

    pipeline = FakePipeline(
        parts=(9,), at_part=last_part, clip_grey=CLIP, picture=lambda i: np.full((5, 64, 64, 3), ESTIMATE, np.uint8)
    )
    with serving(tmp_path, pipeline, for_browsers=True) as server:
        page = contexts().new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        try:
            page.emulate_media(reduced_motion="no-preference" if motion else "reduce")
            page.set_default_timeout(40_000)
            page.goto(server.url)
            page.wait_for_selector("#stage .os-stage[data-show]", state="attached")
            start(page, "a red ball", steps=2)
            assert decoded.wait(120)
            page.wait_for_function(SHOWS, arg=CLIP, polling=20)  # decoded
            if motion:
                page.wait_for_function(SHOWS, arg=ESTIMATE, polling=20)  # and what is not, as it is expected
            assert page.text_content("#stage .os-text") == "Decoding: 9 of 17 frames"
            assert page.get_attribute("#stage .os-stage", "data-phase") == "decoding"
            shown.set()
            wait(page, "done")
            page.wait_for_selector("#stage .os-stage[data-show=clip].os-ready")
            page.wait_for_function(COUNTED)  # which goes on in this process, and it may be about to end
        finally:
            shown.set()
            page.close()
    assert not errors
