"""How latents of published models are shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.synthetic import write_checkpoint
from opensora_demo.bundle import build_bundle, build_codec
from opensora_demo.catalog import MODELS
from opensora_demo.catalog.spec import HubWeights
from opensora_demo.errors import WeightsError
from opensora_demo.preview import first_channels
from opensora_demo.store import fitted_preview
from opensora_demo.training import previews
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
