"""The endpoints as a program sees them: the real server on a free port, a pipeline without a model."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from opensora_demo import serve
from opensora_demo.media import read_settings, write_animation
from opensora_demo.request.limits import ALL_RULES
from opensora_demo.service.local import LocalEngine
from opensora_demo.ui.context import PageContext
from opensora_demo.ui.page import build_page
from tests.ports import free_port
from tests.ui.conftest import FakeBundles, FakePipeline

NAMES = ["prompt", "negative", "reference", "fps", "frames", "steps", "guidance", "seed", "model"]
OF_SOME_MODELS = ["last_frame", "edit", "rule", "image_guidance", "motion_score", "resolution", "aspect", "curve"]
BRANCH = ["step", "prompt", "negative", "guidance", "rule", "seed"]
ALL = [
    *NAMES,
    *OF_SOME_MODELS,
    *(f"branch_{name}" for name in BRANCH),
    "stop_step",
    "video",
    "video_use",
    "video_frames",
    "scenes",
    "refine",
    "step_cache",
]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    context = PageContext(LocalEngine(FakeBundles(), generate=FakePipeline(unknown=("dragon",))))
    page = build_page(context).queue(max_size=20)
    _, url, _ = page.launch(
        server_name="127.0.0.1",
        server_port=free_port(),
        prevent_thread_lock=True,
        quiet=True,
        ssr_mode=False,
        show_error=True,
        run_history=False,
        enable_monitoring=False,
        max_file_size="30mb",
    )
    made = Client(url, verbose=False, analytics_enabled=False)
    yield made
    made.close()
    page.close(verbose=False)
    context.files.close()


def test_the_entry_point_reads_its_arguments() -> None:
    assert serve.parse_options([], {})[0].host == "127.0.0.1"
    assert serve.parse_options([], {"SPACE_ID": "someone/space"})[0].host == "0.0.0.0"
    assert serve.parse_options(["--port", "8000"], {})[0].port == 8000


def test_endpoints_and_their_parameters(client: Client) -> None:
    endpoints: dict[str, Any] = client.view_api(return_format="dict", print_info=False)["named_endpoints"]  # type: ignore[index,call-overload]
    assert set(endpoints) == {"/generate", "/compare"}
    for info in endpoints.values():
        assert [p["parameter_name"] for p in info["parameters"]] == ALL
        assert all(p["parameter_has_default"] for p in info["parameters"])


def test_generate(client: Client) -> None:
    file, settings = client.predict(prompt="a red ball", steps=3, seed=7, api_name="/generate")
    assert settings["seed"] == 7
    assert settings["steps"] == 3
    assert settings["guidance"] == 4
    assert settings["unknown"] == ["dragon"]
    assert set(settings["seconds"]) == {"text", "denoise", "decode"}
    assert read_settings(Path(file)) == settings


@pytest.mark.parametrize("seed", [None, -1])
def test_random_seeds_are_told(client: Client, seed: int | None) -> None:
    _, settings = client.predict(prompt="a red ball", steps=1, seed=seed, api_name="/generate")
    assert 0 <= settings["seed"] < 2**32


def test_compare(client: Client) -> None:
    _, settings = client.predict(prompt="a red ball", steps=1, guidance="1, 2, .., 4", api_name="/compare")
    assert settings["guidance"] == [1, 2, 3, 4]
    _, settings = client.predict(prompt="a red ball", steps=1, api_name="/compare")
    assert settings["guidance"] == [1, 2, 4, 7]


def test_reference(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "reference.png"
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(file)
    _, settings = client.predict(prompt="a ball", steps=1, reference=handle_file(str(file)), api_name="/generate")
    assert settings["reference"] is True


def test_settings_that_only_some_models_have(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "frame.png"
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(file)
    chosen = {"model": "debug-2.0", "rule": "oscillating", "image_guidance": 5, "motion_score": 7}
    chosen |= {"resolution": "64px", "aspect": "2:3"}
    frames = {"reference": handle_file(str(file)), "last_frame": handle_file(str(file))}
    clip, settings = client.predict(prompt="a ball", steps=1, **frames, **chosen, api_name="/generate")
    assert chosen.items() <= settings.items()
    assert settings["reference"] is True
    assert settings["last_frame"] is True
    assert read_settings(Path(clip)) == settings
    _, settings = client.predict(
        prompt="a ball", steps=1, model="debug-1.2", edit=0.4, guidance="1, 3", api_name="/compare"
    )
    assert settings["edit"] == 0.4
    assert "motion_score" not in settings  # the model's default: none is told
    assert "rule" not in settings
    assert "last_frame" not in settings


def test_a_video(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "old.webp"
    frames = np.stack([np.full((40, 40, 3), 10 * k, np.uint8) for k in range(17)])
    write_animation(file, frames, 8, {})
    given = {"video": handle_file(str(file)), "steps": 2, "prompt": "a ball"}
    clip, settings = client.predict(**given, api_name="/generate")
    assert (settings["video"], settings["total_frames"]) == (True, 25)
    assert read_settings(Path(clip)) == settings
    _, settings = client.predict(**given, video_use="head", video_frames=9, api_name="/generate")
    assert (settings["video_use"], settings["video_frames"]) == ("head", 9)
    with pytest.raises(AppError, match="video: this model takes no video"):
        client.predict(**given, model="nano-dit", api_name="/generate")


def test_frames_that_a_model_does_not_take(client: Client, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(good)
    bad.write_bytes(b"<svg/>")
    for arguments, sentence in (
        ({"model": "debug-1.0", "reference": good}, "reference: this model takes no reference image"),
        ({"model": "nano", "last_frame": good}, "last_frame: this model takes no last frame"),
        (
            {"model": "debug-1.3", "last_frame": bad},
            "last_frame: this is not a readable PNG, JPEG, WebP, AVIF or GIF image",
        ),
    ):
        files = {k: handle_file(str(v)) if isinstance(v, Path) else v for k, v in arguments.items()}
        with pytest.raises(AppError, match=sentence):
            client.predict(prompt="a ball", steps=2, **files, api_name="/generate")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"prompt": ""}, "prompt: must say what to draw"),
        ({}, "prompt: must say what to draw"),
        ({"prompt": ["a"]}, "prompt: must be text"),
        ({"steps": 10**30}, "steps: must lie between 1 and 100"),
        ({"steps": "many"}, "steps: must be a whole number"),
        ({"steps": 2.5}, "steps: must be a whole number, not 2.5"),
        ({"steps": True}, "steps: must be a whole number"),
        ({"steps": {"path": "/etc/passwd"}}, "steps: must be a whole number"),
        ({"guidance": -3}, "guidance: must lie between 0 and 15"),
        ({"guidance": [1, 2]}, "guidance: must be a number"),
        ({"fps": 1000}, "fps: must lie between 4 and 24"),
        ({"frames": 16}, "frames: must be one of 1, 5, 9, 13, 17"),
        ({"seed": -2}, "seed: must lie between"),
        ({"model": "sora"}, "model: must be one of nano"),
        ({"model": 3}, "model: must be one of nano"),
        ({"reference": "https://example.org/x.png"}, "reference: must be an uploaded"),
        ({"reference": {"path": "/etc/passwd"}}, "reference: must be an uploaded"),
        ({"reference": 7}, "reference: must be an uploaded"),
        ({"last_frame": 7}, "reference: must be an uploaded"),
        ({"video": "https://example.org/x.mp4"}, "video: must be an uploaded"),
        ({"video": {"path": "/etc/passwd"}}, "video: must be an uploaded"),
        ({"video_use": "tail"}, "video_use: must be one of extend, head, not 'tail'"),
        (
            {"rule": "dancing"},
            f"rule: must be one of {', '.join(ALL_RULES)}, not 'dancing'",
        ),
        ({"image_guidance": 3}, "image_guidance: is not a setting of this model"),
        ({"motion_score": 4}, "motion_score: is not a setting of this model"),
        ({"resolution": "4k"}, "resolution: must be one of 128px, not '4k'"),
        ({"model": "debug-2.0", "aspect": "16:9"}, "aspect: must be one of 3:2, 2:3, not '16:9'"),
        ({"edit": 0.4}, "edit: is not a setting of this model"),
        ({"model": "debug-2.0", "motion_score": 11}, "motion_score: must lie between 1 and 10, not 11"),
        ({"model": "debug-2.0", "image_guidance": "much"}, "image_guidance: must be a number"),
        ({"model": "debug-2.0", "rule": "random"}, "rule: must be one of oscillating, plain, interval"),
        ({"model": "debug-1.2", "edit": 2}, "edit: must lie between 0 and 1, not 2"),
        ({"model": "opensora-1.2"}, "Open-Sora 1.2 · STDiT3 cannot run here: opensora-1.2 lacks its transformer"),
    ],
)
def test_bad_values_get_a_sentence(client: Client, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AppError) as caught:
        client.predict(**({"prompt": "a ball"} if arguments else {}) | arguments, api_name="/generate")
    assert str(caught.value).startswith(sentence)
    assert "Traceback" not in str(caught.value)


def test_nan_in_the_request_body(client: Client) -> None:
    """JSON has no NaN, Python's parser takes it all the same; so does Gradio."""
    base = client.src.rstrip("/") + "/gradio_api/call/generate"
    given = [b"null"] * len(ALL)
    given[0], given[6] = b'"a ball"', b"NaN"
    body = b'{"data": [' + b", ".join(given) + b"]}"
    request = urllib.request.Request(base, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{base}/{event}", timeout=10) as answer:
        assert "guidance: must be a number" in answer.read().decode()


def test_bad_lists_and_images(client: Client, tmp_path: Path) -> None:
    with pytest.raises(AppError, match="guidance: must be numbers"):
        client.predict(prompt="a ball", guidance="1, x", api_name="/compare")
    with pytest.raises(AppError, match="guidance: must be 1 to 6 numbers"):
        client.predict(prompt="a ball", guidance="1 2 3 4 5 6 7", api_name="/compare")
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"<svg onload='alert(1)'/>")
    with pytest.raises(AppError, match="reference: this is not a readable PNG, JPEG, WebP, AVIF or GIF image"):
        client.predict(prompt="a ball", reference=handle_file(str(bad)), api_name="/generate")


def test_a_file_of_the_server_is_not_read(client: Client) -> None:
    stolen = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    base = client.src.rstrip("/") + "/gradio_api/call/generate"
    body = json.dumps({"data": ["a ball", "", stolen, *[None] * 11]}).encode()
    request = urllib.request.Request(base, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{base}/{event}", timeout=10) as answer:
        text = answer.read().decode()
    assert "error" in text
    assert "mp4" not in text


def test_the_page_is_still_there(client: Client) -> None:
    with urllib.request.urlopen(client.src, timeout=5) as answer:
        assert answer.status == 200
