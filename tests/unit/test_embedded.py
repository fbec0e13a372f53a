"""The models in assets: their files, their codecs, and whether they draw what is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
import torch
from einops import reduce, repeat

from opensora_demo.catalog import MODELS, WeightFiles
from opensora_demo.catalog.nano import SIBLINGS
from opensora_demo.frames import to_video
from opensora_demo.metrics import psnr
from opensora_demo.pipeline import generate, run
from opensora_demo.preview import shown_frames
from opensora_demo.request.events import StepPreview
from opensora_demo.request.parse import parse_request
from opensora_demo.request.video import Frames
from opensora_demo.runtime.bundle import ModelBundle, build_bundle
from opensora_demo.toy.reader import load_reader, read_clips
from opensora_demo.toy.worlds import Scene, render, sample_scene
from opensora_demo.weights.store import ASSETS
from tests.models import by_kind

EMBEDDED = [spec for spec in MODELS.values() if isinstance(spec.weights, WeightFiles) and not spec.hidden]
PROMPTS = {
    "a red ball moving right on a black background": Scene(
        shape="ball", colour="red", motion="right", background="black", seed=0
    ),
    "a green square staying still over the sea": Scene(
        shape="square", colour="green", motion="still", background="sea", seed=0
    ),
    "a blue ball falling in the desert": Scene(shape="ball", colour="blue", motion="down", background="desert", seed=0),
}


@pytest.fixture(
    scope="module",
    params=by_kind((spec.id for spec in EMBEDDED), variants=("nano-dit", "nano-mmdit", "nano-class", *SIBLINGS)),
)
def bundle(request: pytest.FixtureRequest) -> ModelBundle:
    return build_bundle(MODELS[request.param], torch.device("cpu"))


def test_the_files_are_small() -> None:
    assert len(EMBEDDED) == 7
    sizes = [file.stat().st_size for file in ASSETS.rglob("*.safetensors")]
    assert max(sizes) < 10_000_000
    assert sum(sizes) < 90_000_000


@pytest.mark.slow
def test_colours_and_places_are_those_of_the_prompt(bundle: ModelBundle) -> None:
    limits = bundle.spec.limits
    if bundle.spec.labels:
        pytest.skip("it reads a shape alone")
    clips = []
    for prompt in PROMPTS:
        request = parse_request({"prompt": prompt, "seed": 1, "steps": 12}, model_id=bundle.spec.id, limits=limits)
        clips.append(run(bundle, request).clips[0].frames)
    height_px, width_px = limits.size_px
    assert clips[0].shape == (limits.default_frames, height_px, width_px, 3)
    right = [
        found.matches(scene) for found, scene in zip(read_clips(load_reader(), clips), PROMPTS.values(), strict=True)
    ]
    assert np.mean([r["background"] for r in right]) > 0.9
    assert np.mean([r["colour"] for r in right]) > 0.6


@pytest.mark.slow
def test_the_preview_shows_what_the_decoder_will(bundle: ModelBundle) -> None:
    """A few convolutions a latent frame come near to the clip itself, which no map of channels to colours does."""
    spec = bundle.spec
    asked = parse_request(
        {"prompt": "a red star and a blue ball", "seed": 4, "steps": 12}, model_id=spec.id, limits=spec.limits
    )
    *_, last = (event for event in generate(bundle, asked, look=True) if isinstance(event, StepPreview))
    frames = run(bundle, asked).clips[0].frames
    preview, linear = last.previews[0], cast(Callable[[], Frames], last.latent)()
    latent_frames, height, _, _ = preview.shape
    shown = frames[shown_frames(len(frames), latent_frames)].astype(np.float32)
    factor = frames.shape[1] // height
    shown = reduce(shown, "t (h i) (w j) c -> t h w c", "mean", i=factor, j=factor)
    assert psnr(preview, shown) > 18
    assert psnr(preview, shown) > 3 + psnr(repeat(linear, "t h w c -> t (h i) (w j) c", i=8, j=8), shown)


@pytest.mark.slow
def test_the_codec_gives_a_clip_back(bundle: ModelBundle) -> None:
    limits = bundle.spec.limits
    rng = np.random.default_rng(3)
    clips = [render(sample_scene(rng), limits.default_frames, limits.size_px[0])[0] for _ in range(4)]
    video = to_video(np.stack(clips))
    with torch.inference_mode():
        back = bundle.codec.decode(bundle.codec.encode(video), video.shape[2])
    assert psnr(back.clamp(-1, 1).numpy() * 127.5, video.numpy() * 127.5) > 28
