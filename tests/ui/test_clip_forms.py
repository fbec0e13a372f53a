"""Clips in other forms over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from opensora_demo.media import write_mp4
from opensora_demo.service.outputs import OutputFolder
from opensora_demo.ui.clip_forms import ClipForms


@pytest.fixture
def folder() -> Iterator[OutputFolder]:
    made = OutputFolder()
    yield made
    made.close()


def test_a_clip_is_served_as_gif_and_png_under_its_name(folder: OutputFolder) -> None:
    file: Path = folder.new_file("nano", "a ball", 3)
    write_mp4(file, np.zeros((3, 64, 64, 3), np.uint8), 8, {"prompt": "a ball"})
    app = FastAPI()
    app.add_middleware(ClipForms, files=folder)
    with TestClient(app, root_path="/behind/a/proxy") as client:
        gif = client.get(f"/clips/{file.stem}.gif")
        assert (gif.status_code, gif.headers["content-type"]) == (200, "image/gif")
        assert f'filename="{file.stem}.gif"' in gif.headers["content-disposition"]
        png = client.get(f"/clips/{file.stem}.png?frame=2")
        assert png.content.startswith(b"\x89PNG")
        clip = client.get(f"/clips/{file.name}", headers={"range": "bytes=4-7"})
        assert (clip.status_code, clip.content, clip.headers["content-type"]) == (206, b"ftyp", "video/mp4")
        names = ("other.gif", f"{file.stem}.txt", "other.mp4", "..mp4", "..%2Fsecret.gif", "", "../clips")
        for missing in ("/other", *(f"/clips/{name}" for name in names)):
            assert client.get(missing).status_code == 404
