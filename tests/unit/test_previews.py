"""How latents of published models are shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from benchmarks.synthetic import write_checkpoint
from opensora_demo.bundle import build_bundle, build_codec
from opensora_demo.catalog import MODELS
from opensora_demo.catalog.spec import HubWeights
from opensora_demo.codecs.taehv import Taehv, TaehvConfig
from opensora_demo.errors import WeightsError
from opensora_demo.pipeline import generate
from opensora_demo.preview import first_channels, tiny_pictures
from opensora_demo.store import fitted_preview
from opensora_demo.training import previews
from opensora_demo.types import StepPreview, parse_request
from tests.unit.test_store import CPU, published, weights  # noqa: F401 - a fixture


@pytest.mark.parametrize("spec", [s for s in MODELS.values() if s.rgb is not None], ids=lambda s: s.id)
def test_published_colours_have_a_row_for_each_channel(spec: object) -> None:
    with torch.device("meta"):
        channels = build_codec(spec.codec).latent_channels  # type: ignore[attr-defined]
    assert len(spec.rgb) == channels + 1  # type: ignore[attr-defined]


def test_a_fitted_preview_is_used(
    weights: Path,  # noqa: F811
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
    assert torch.equal(build_bundle(spec, CPU).preview_matrix, first_channels(4))
    assert build_bundle(replace(spec, rgb=((1.0, 2.0, 3.0),) * 5), CPU).preview_matrix[4].tolist() == [1, 2, 3]
    assert previews.main() == 0
    assert str(fitted_preview(spec)) in capsys.readouterr().out
    matrix, explained = previews.fit(spec, clips=2)
    assert torch.allclose(build_bundle(spec, CPU).preview_matrix, matrix, atol=2e-3)
    assert 0 < explained < 1  # even latents of random weights tell light from dark
    with pytest.raises(WeightsError, match="nano has a preview of its own"):
        previews.fit(MODELS["nano"], 1)


def test_every_published_model_shows_something() -> None:
    without = {s.id for s in MODELS.values() if isinstance(s.weights, HubWeights) and s.rgb is None}
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
    latents = torch.randn(4, 16, 3, 5)
    found = decoder(latents)
    assert found.shape == (4, 3, 24, 40)
    assert found.std() > 0.05
    torch.testing.assert_close(found, one_after_another(state, latents))
    grouped = Taehv(replace(cfg, group=2))
    grouped.load_state_dict(state)
    torch.testing.assert_close(grouped(latents), torch.cat([decoder(latents[:2]), decoder(latents[2:])]))


def test_the_small_decoder_has_the_published_shapes() -> None:
    with torch.device("meta"):
        state = Taehv(TaehvConfig(file="taehv")).state_dict()
    shapes = {"1": (256, 16, 3, 3), "3.conv.0": (256, 512, 3, 3), "7.conv": (256, 256, 1, 1), "8": (128, 256, 3, 3)}
    shapes |= {"13.conv": (256, 128, 1, 1), "19.conv": (128, 64, 1, 1), "20": (64, 64, 3, 3), "22": (3, 64, 3, 3)}
    for name, shape in shapes.items():
        assert state[f"decoder.{name}.weight"].shape == shape, name
    assert "decoder.8.bias" not in state
    assert len(state) == 2 + 3 * (3 * 6 + 2) + 2


@pytest.mark.parametrize("name", ["taehv.safetensors", "taehv/safetensors/taehv.safetensors"])
def test_the_small_decoder_shows_a_run(weights: Path, name: str) -> None:  # noqa: F811
    spec = replace(published("debug-2.0"), tiny=TaehvConfig(file="taehv", widths=(16, 8, 8, 8)))
    write_checkpoint(spec, weights)
    asked = parse_request({"prompt": "a ball", "steps": 2, "seed": 3}, model_id=spec.id, limits=spec.limits)
    plain = build_bundle(spec, CPU)
    (weights / name).parent.mkdir(parents=True, exist_ok=True)
    encoder = {"encoder.0.weight": torch.zeros(64, 3, 3, 3)}
    assert spec.tiny is not None
    save_file({k: v.half() for k, v in (tiny_state(spec.tiny) | encoder).items()}, weights / name)
    shown = build_bundle(spec, CPU)
    (before, *_), (after, *_) = ([e for e in generate(b, asked) if isinstance(e, StepPreview)] for b in (plain, shown))
    small, large = before.previews[0], after.previews[0]
    assert large.shape == (len(small), 8 * small.shape[1], 8 * small.shape[2], 3)
    assert large.std() > 3
    big = tiny_pictures(torch.randn(16, 2, 40, 60), shown.tiny)  # type: ignore[arg-type]
    assert big.shape == (2, 105, 157, 3)
    (weights / name).write_bytes(b"not tensors")
    with pytest.raises(WeightsError, match=r"taehv\.safetensors is damaged"):
        build_bundle(spec, CPU)
