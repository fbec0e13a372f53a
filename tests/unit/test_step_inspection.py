"""What a step was made of: numbers against closed forms, pictures of the promised size, and no trace in the clip."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from opensora_demo.catalog import NANO
from opensora_demo.media import sheet, stored_png
from opensora_demo.pipeline import generate
from opensora_demo.preview import first_channels, heat, inspect_step, look_sizes
from opensora_demo.request.events import Finished, StepPreview
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.bundle import ModelBundle
from opensora_demo.sampling.step import Prediction, Step
from opensora_demo.ui.values.scope import fold_step


def ask(**raw: Any) -> GenerationRequest:
    raw = {"prompt": "a red ball bouncing on a meadow", "steps": 3, "seed": 3, "frames": 5, **raw}
    return parse_request(raw, model_id="nano", limits=NANO.limits)


def step_of(shape: tuple[int, ...], scale: float = 4.0, total: int = 16, apart: float = 0.3) -> Step:
    """A flow's step at t = 0.5 whose null branch lies `apart` times a normal vector from the prompt's."""
    generator = torch.Generator().manual_seed(0)
    start, prompt, off = (torch.randn((1, *shape), generator=generator) for _ in range(3))
    null = prompt + apart * off
    guided = null + scale * (prompt - null)
    prediction = Prediction(guided=guided, branches=(prompt, null))
    return Step(
        index=0,
        total=total,
        t=0.5,
        x=start,
        x0=start - 0.5 * guided,
        start=start,
        prediction=prediction,
        to_x0=(1, -0.5),
    )


def folded(step: Step, scale: float = 4.0) -> dict[str, Any]:
    look = inspect_step(step, first_channels(step.start.shape[1]))
    own = np.zeros((*step.start.shape[2:], 3), np.uint8)
    return fold_step(
        StepPreview(index=step.index, total=step.total, t=step.t, previews=(own,), guidance=(scale,), seconds=0.1),
        look,
    )


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


@pytest.mark.parametrize("scale", [-1.0, 0.5, 4.0, 7.5])
def test_the_measured_scale_is_the_one_applied(scale: float) -> None:
    look = inspect_step(step_of((4, 3, 8, 8), scale), first_channels(4))
    assert look.applied == pytest.approx(scale, abs=1e-4)


def test_norms_cosine_and_peak_follow_their_definitions() -> None:
    step = step_of((4, 3, 8, 8))
    look = inspect_step(step, first_channels(4))
    prompt, null = (branch for branch in step.prediction.branches if branch is not None)
    assert look.prompt_norm == pytest.approx(float(prompt.square().mean().sqrt()), rel=1e-5)
    assert look.null_norm == pytest.approx(float(null.square().mean().sqrt()), rel=1e-5)
    assert look.difference_norm == pytest.approx(float((prompt - null).square().mean().sqrt()), rel=1e-5)
    cosine = torch.nn.functional.cosine_similarity(prompt.flatten(), null.flatten(), dim=0)
    assert look.cosine == pytest.approx(float(cosine), rel=1e-5)
    distance = 0.5 * (prompt - null)[0].square().mean(0).sqrt()
    assert look.peak == pytest.approx(float(distance.max()), rel=1e-5)
    assert look.difference is not None
    at = np.unravel_index(int(distance.argmax()), distance.shape)
    assert look.difference[at].tolist() == [252, 240, 180]


def test_branches_that_agree_are_black_and_measure_no_scale() -> None:
    look = inspect_step(step_of((4, 1, 8, 8), apart=0.0), first_channels(4))
    assert look.applied is None
    assert look.peak == 0
    assert look.difference is not None
    assert not look.difference.any()
    assert look.cosine == pytest.approx(1)


def test_heat_rises_from_black_to_its_peak() -> None:
    ramp = heat(np.linspace(0, 2, 9, dtype=np.float32).reshape(1, 1, 9), 2.0)[0, 0].astype(int)
    assert ramp[0].tolist() == [0, 0, 0]
    assert ramp[-1].tolist() == [252, 240, 180]
    assert (np.diff(ramp.sum(1)) > 0).all()


def test_a_run_that_diverges_can_still_be_looked_at() -> None:
    guided = torch.full((1, 4, 2, 4, 4), torch.nan)
    own = torch.full_like(guided, torch.inf)
    nan = Step(
        index=0, total=4, t=0.5, x=own, x0=guided, start=own, to_x0=(1, -0.5),
        prediction=Prediction(guided=guided, branches=(own, guided)),
    )  # fmt: skip
    look = inspect_step(nan, first_channels(4))
    assert look.noisy.dtype == np.uint8
    assert look.channels.shape == (4, 2, 4, 4)


def test_a_look_leaves_no_trace_and_knows_which_branches_spoke(nano: ModelBundle) -> None:
    for scale in (0, 1, 4):
        without, with_look = (list(generate(nano, ask(guidance=scale), look=look)) for look in (False, True))
        a, b = without[-1], with_look[-1]
        assert isinstance(a, Finished)
        assert isinstance(b, Finished)
        assert np.array_equal(a.clips[0].frames, b.clips[0].frames)
        assert all(event.look is None for event in without if isinstance(event, StepPreview))
        for event in with_look:
            if not isinstance(event, StepPreview):
                continue
            assert event.look is not None
            assert event.latent is not None
            look = event.look()
            assert np.abs(look.estimate.astype(int) - event.latent()).max() <= 1
            assert (look.prompt is None, look.null is None) == (scale == 0, scale == 1)
            assert (look.prompt_norm is None, look.null_norm is None) == (scale == 0, scale == 1)
            assert (look.difference is None) == (look.applied is None) == (scale != 4)
            if look.applied is not None:
                assert look.applied == pytest.approx(4, abs=0.02)


@pytest.mark.parametrize(
    ("shape", "steps"),
    [((16, 5, 8, 8), 16), ((4, 16, 32, 32), 100), ((16, 1, 64, 64), 30), ((128, 3, 24, 24), 50), ((4, 2, 6, 100), 9)],
)
def test_pictures_have_the_promised_size_and_stay_small(shape: tuple[int, ...], steps: int) -> None:
    entry = folded(step_of(shape, total=steps))
    channels, frames, *_ = shape
    (h, w), (kh, kw) = look_sizes(shape, steps)
    assert entry["quantities"] == ["noisy", "estimate", "prompt", "null", "difference"]
    assert decoded(entry["pictures"]).size == (frames * w, 5 * h)
    assert decoded(entry["channels"]).size == (frames * kw, channels * kh)
    assert decoded(entry["channels"]).mode == "L"
    assert (len(entry["pictures"]) + len(entry["channels"])) / frames <= 20_000


def test_a_large_latent_keeps_to_its_bytes() -> None:
    shape = (16, 33, 90, 160)
    few, many = (folded(step_of(shape, total=steps)) for steps in (30, 250))
    assert (len(few["pictures"]) + len(few["channels"])) / 33 <= 20_000
    assert (len(many["pictures"]) + len(many["channels"])) * 250 <= 20_000_000


def test_a_tiny_latent_is_shown_position_by_position() -> None:
    step = step_of((4, 2, 8, 8))
    look, entry = inspect_step(step, first_channels(4)), folded(step)
    rows = np.asarray(decoded(entry["pictures"]).convert("RGB")).reshape(5, 8, 2, 8, 3).swapaxes(1, 2)
    assert np.array_equal(rows[0], look.noisy)
    assert np.array_equal(rows[4], look.difference)
    grey = np.asarray(decoded(entry["channels"])).reshape(4, 8, 2, 8).swapaxes(1, 2)
    assert np.array_equal(grey, look.channels)
    expected = ((step.x0[0] / 6 + 0.5).clamp(0, 1) * 255).numpy()
    assert np.abs(grey - expected).max() <= 1


def test_a_stored_png_is_a_png() -> None:
    generator = np.random.default_rng(0)
    for shape in ((7, 5), (7, 5, 3), (300, 300, 3)):
        image = generator.integers(0, 256, shape, dtype=np.uint8)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(stored_png(image)))), image)
    assert sheet(np.zeros((2, 3, 16, 16), np.uint8), lossless=False).startswith("data:image/jpeg;base64,")


def test_numbers_of_an_entry_are_plain_and_finite() -> None:
    entry = folded(step_of((4, 2, 8, 8)))
    numbers = ("noise_level", "milliseconds", "guidance_asked", "guidance_measured", "cosine", "peak")
    for value in (*(entry[name] for name in numbers), *entry["sizes"].values()):
        assert type(value) is float
        assert math.isfinite(value)
