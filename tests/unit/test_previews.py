"""How latents of published models are shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from benchmarks.synthetic import write_checkpoint
from opensora_demo.catalog import MODELS, NANO
from opensora_demo.codecs.taehv import Taehv, TaehvConfig
from opensora_demo.errors import WeightsError
from opensora_demo.pipeline import generate, noise_of
from opensora_demo.preview import SHARE, Budget, Lazy, first_channels, tiny_pictures
from opensora_demo.request.events import StepPreview
from opensora_demo.request.parse import parse_request
from opensora_demo.runtime.bundle import ModelBundle, build_bundle, build_codec
from opensora_demo.training import previews
from opensora_demo.weights.store import fitted_preview
from tests.unit.checkpoints import CPU, options_of, published


@pytest.mark.parametrize("spec", [s for s in MODELS.values() if s.rgb is not None], ids=lambda s: s.id)
def test_published_colours_have_a_row_for_each_channel(spec: object) -> None:
    with torch.device("meta"):
        channels = build_codec(spec.codec).latent_channels
    assert len(spec.rgb) == channels + 1  # type: ignore[attr-defined]


def test_a_fitted_preview_is_used(
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = replace(published("debug-1.2"), rgb=None)
    monkeypatch.setitem(MODELS, spec.id, spec)
    monkeypatch.setattr("sys.argv", ["previews", spec.id])
    monkeypatch.setattr(previews, "CLIPS", 2)
    assert previews.main() == 2
    assert "lacks its VAE; to get it: python -m opensora_demo download debug-1.2" in capsys.readouterr().err
    write_checkpoint(spec, weights)
    assert torch.equal(build_bundle(spec, CPU, options_of(weights)).preview_matrix, first_channels(4))
    coloured = replace(spec, rgb=((1.0, 2.0, 3.0),) * 5)
    assert build_bundle(coloured, CPU, options_of(weights)).preview_matrix[4].tolist() == [1, 2, 3]
    assert previews.main() == 0
    assert str(fitted_preview(spec, options_of(weights))) in capsys.readouterr().out
    matrix, explained = previews.fit(spec, 2, options_of(weights))
    assert torch.allclose(build_bundle(spec, CPU, options_of(weights)).preview_matrix, matrix, atol=2e-3)
    assert 0 < explained < 1  # even latents of random weights tell light from dark
    with pytest.raises(WeightsError, match="nano has a preview of its own"):
        previews.fit(MODELS["nano"], 1)


def test_every_published_model_shows_something() -> None:
    without = {s.id for s in MODELS.values() if s.published and s.rgb is None}
    assert without == {"opensora-1.2", "opensora-1.3", "opensora-2.0-dcae"}


def one_after_another(state: dict[str, torch.Tensor], latents: torch.Tensor) -> torch.Tensor:
    """TAEHV's decoder as its README describes it, a frame at a time with what each block saw last in hand."""
    seen: dict[int, torch.Tensor] = {}
    done = []
    for latent in latents:
        x = (torch.tanh(latent / 3) * 3)[None]
        for i in range(1, 23):
            key = f"decoder.{i}."
            if f"{key}conv.0.weight" in state:  # a block with memory
                y, seen[i] = torch.cat([x, seen.get(i, torch.zeros_like(x))], 1), x
                for j in (0, 2, 4):
                    y = F.conv2d(y, state[f"{key}conv.{j}.weight"], state[f"{key}conv.{j}.bias"], padding=1)
                    y = y.relu() if j < 4 else y
                x = (x + y).relu()
            elif f"{key}conv.weight" in state:  # growth in time
                x = F.conv2d(x, state[f"{key}conv.weight"]).chunk(len(state[f"{key}conv.weight"]) // x.shape[1], 1)[-1]
            elif f"{key}weight" in state:
                x = F.conv2d(x, state[f"{key}weight"], state.get(f"{key}bias"), padding=1)
            elif i in (2, 21):
                x = x.relu()
            else:
                x = x.repeat_interleave(2, -1).repeat_interleave(2, -2)
        done.append(x[0].clamp(0, 1))
    return torch.stack(done)


def tiny_state(cfg: TaehvConfig) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {k: torch.randn_like(v) * 0.7 / v[0].numel() ** 0.5 for k, v in Taehv(cfg).state_dict().items()}


def test_the_small_decoder() -> None:
    cfg = TaehvConfig(file="taehv", widths=(16, 8, 8, 8))
    decoder = Taehv(cfg)
    state = tiny_state(cfg)
    decoder.load_state_dict(state)
    latents = torch.randn(2, 16, 4, 3, 5)
    found = decoder(latents)
    assert found.shape == (2, 4, 3, 24, 40)
    assert found.std() > 0.05
    for clip, pictures in zip(latents, found, strict=True):
        torch.testing.assert_close(pictures, one_after_another(state, clip.movedim(1, 0)))
    grouped = Taehv(replace(cfg, group=2))
    grouped.load_state_dict(state)
    apart = torch.cat([decoder(latents[:, :, :2]), decoder(latents[:, :, 2:])], dim=1)
    torch.testing.assert_close(grouped(latents), apart)


def test_the_small_decoder_has_the_published_shapes() -> None:
    with torch.device("meta"):
        state = Taehv(TaehvConfig(file="taehv")).state_dict()
    shapes = {"1": (256, 16, 3, 3), "3.conv.0": (256, 512, 3, 3), "7.conv": (256, 256, 1, 1), "8": (128, 256, 3, 3)}
    shapes |= {"13.conv": (256, 128, 1, 1), "19.conv": (128, 64, 1, 1), "20": (64, 64, 3, 3), "22": (3, 64, 3, 3)}
    for name, shape in shapes.items():
        assert state[f"decoder.{name}.weight"].shape == shape, name
    assert "decoder.8.bias" not in state
    assert len(state) == 2 + 3 * (3 * 6 + 2) + 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["taehv.safetensors", "taehv/safetensors/taehv.safetensors"])
def test_the_small_decoder_shows_a_run(weights: Path, name: str) -> None:
    spec = replace(published("debug-2.0"), tiny=TaehvConfig(file="taehv", widths=(16, 8, 8, 8)))
    write_checkpoint(spec, weights)
    asked = parse_request({"prompt": "a ball", "steps": 2, "seed": 3}, model_id=spec.id, limits=spec.limits)
    plain = build_bundle(spec, CPU, options_of(weights))
    (weights / name).parent.mkdir(parents=True, exist_ok=True)
    encoder = {"encoder.0.weight": torch.zeros(64, 3, 3, 3)}
    assert spec.tiny is not None
    save_file({k: v.half() for k, v in (tiny_state(spec.tiny) | encoder).items()}, weights / name)
    shown = build_bundle(spec, CPU, options_of(weights))
    (before, *_), (after, *_) = ([e for e in generate(b, asked) if isinstance(e, StepPreview)] for b in (plain, shown))
    small, large = before.previews[0], after.previews[0]
    assert large.shape == (len(small), 8 * small.shape[1], 8 * small.shape[2], 3)
    assert large.std() > 3
    assert before.decoded is None
    looked = next(e for e in generate(shown, asked, look=True) if isinstance(e, StepPreview))
    assert looked.decoded is not None
    assert looked.look is not None
    decoded = looked.decoded()
    assert list(decoded) == ["noisy", "estimate", "prompt", "null"]
    np.testing.assert_array_equal(decoded["estimate"], large)
    np.testing.assert_array_equal(decoded["noisy"], looked.noisy[0])
    assert not np.array_equal(decoded["prompt"], decoded["null"])
    big = tiny_pictures(torch.randn(3, 16, 2, 40, 60), shown.tiny)  # type: ignore[arg-type]
    assert [pictures.shape for pictures in big] == [(2, 105, 157, 3)] * 3
    (weights / name).write_bytes(b"not tensors")
    with pytest.raises(WeightsError, match=r"taehv\.safetensors is damaged"):
        build_bundle(spec, CPU, options_of(weights))


def test_pictures_are_made_when_they_are_first_looked_at() -> None:
    made: list[int] = []

    def make() -> list[np.ndarray]:
        made.append(1)
        return [np.zeros((1, 8, 8, 3), np.uint8)] * 2

    pictures = Lazy(2, make)
    assert len(pictures) == 2
    assert not made
    assert pictures[1].shape == (1, 8, 8, 3)
    assert len(list(pictures)) == 2
    assert made == [1]


def test_pictures_take_a_share_of_a_run_and_no_more() -> None:
    """Of quick steps some are left out; slow ones are all shown."""

    def share(step_s: float, picture_s: float) -> tuple[int, float]:
        now = [0.0]
        budget = Budget(clock=lambda: now[0])
        shown, spent = 0, 0.0

        def picture() -> None:
            now[0] += picture_s

        for step in range(100):
            if budget.allows((step + 1) * step_s):
                budget.take(picture)
                shown, spent = shown + 1, spent + picture_s
        return shown, spent / (100 * step_s)

    assert share(1.0, 0.01) == (100, pytest.approx(0.01))
    shown, taken = share(0.02, 0.004)
    assert 20 <= shown <= 26
    assert taken <= SHARE + 0.004
    assert share(0.001, 1.0)[0] == 1  # the first is always made


def test_a_watched_run_shows_its_noise_and_its_latent(nano: ModelBundle) -> None:
    """Before the first step the clip is noise; what comes last is what is decoded. The latent is there where pictures
    are something else."""
    asked = parse_request({"prompt": "a red ball", "steps": 3, "seed": 3}, model_id="nano", limits=NANO.limits)
    small = replace(nano, tiny=lambda latents: latents.movedim(1, 2)[:, :, :3].sigmoid())
    steps = [e for e in generate(small, asked, look=True) if isinstance(e, StepPreview)]
    assert all(len(step.noisy) == len(step.previews) == 1 for step in steps)
    noise = noise_of(nano, asked)()
    assert np.array_equal(steps[0].noisy[0], small.pictures(noise)[0])
    assert not np.array_equal(steps[1].noisy[0], steps[0].noisy[0])
    assert steps[0].latent is not None
    assert steps[0].latent().shape == steps[0].previews[0].shape == (5, 8, 8, 3)
    assert not np.array_equal(steps[0].latent(), steps[0].previews[0])
    (plain,) = [e for e in generate(nano, replace(asked, steps=1)) if isinstance(e, StepPreview)]
    assert not plain.noisy
    assert plain.latent is None
