"""Loading: strict, mapped, and with a sentence when something is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from opensora_demo.catalog import MODELS, NANO
from opensora_demo.catalog.nano import FILES
from opensora_demo.errors import WeightsError
from opensora_demo.store import ASSETS, why_not
from opensora_demo.training.export import save_shards
from opensora_demo.training.study import fingerprint
from opensora_demo.weights import load_module, read_metadata


def build() -> nn.Linear:
    return nn.Linear(3, 2)


def test_loads_what_was_saved(tmp_path: Path) -> None:
    module = build()
    save_shards(module.state_dict(), [tmp_path / "a", tmp_path / "b"], {"step": "7"})
    loaded = load_module(build, [tmp_path / "a", tmp_path / "b"], "test")
    torch.testing.assert_close(loaded.weight, module.weight, atol=1e-3, rtol=1e-3)
    assert not loaded.training
    assert not loaded.weight.requires_grad
    assert read_metadata(tmp_path / "a")["step"] == "7"


def test_matrices_are_kept_in_8_bits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Conv2d(32, 24, 3)
    module.weight.data[3] *= 100  # rows have scales of their own
    save_shards(module.state_dict(), [tmp_path / "a"], {})
    assert (tmp_path / "a").stat().st_size < 1.1 * module.weight.numel() + 600
    loaded = load_module(lambda: nn.Conv2d(32, 24, 3), [tmp_path / "a"], "test")
    error = (loaded.weight - module.weight).detach().flatten(1).abs().amax(1) / module.weight.detach().flatten(
        1
    ).abs().amax(1)
    assert float(error.max()) < 0.5 / 127 + 1e-4
    save_file({"weight.int8_scale": torch.ones(24)}, tmp_path / "b")
    with pytest.raises(WeightsError, match="has no 8-bit tensor"):
        load_module(lambda: nn.Conv2d(32, 24, 3), [tmp_path / "b"], "test")


def test_wrong_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.safetensors is missing"):
        load_module(build, [tmp_path / "gone.safetensors"], "test")
    save_file(build().state_dict(), tmp_path / "ok")
    (tmp_path / "short").write_bytes((tmp_path / "ok").read_bytes()[:-5])
    with pytest.raises(WeightsError, match="short is damaged or incomplete"):
        load_module(build, [tmp_path / "short"], "test")
    (tmp_path / "text").write_text("<html>not found</html>")
    with pytest.raises(WeightsError, match="text is damaged"):
        load_module(build, [tmp_path / "text"], "test")
    with pytest.raises(WeightsError, match="which another file holds too"):
        load_module(build, [tmp_path / "ok", tmp_path / "ok"], "test")


def test_names_and_shapes_must_fit(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2, 4), "extra": torch.zeros(1)}, tmp_path / "w")
    with pytest.raises(WeightsError) as caught:
        load_module(build, [tmp_path / "w"], "thing")
    assert "the weights of thing do not fit" in str(caught.value)
    for part in ("bias missing", "extra unexpected", "weight is [2, 4], expected [2, 3]"):
        assert part in str(caught.value)


@pytest.mark.parametrize("spec", MODELS.values(), ids=lambda s: s.id)
def test_assets_are_complete_and_small(spec: object) -> None:
    assert not why_not(NANO)
    files = [f for f in ASSETS.rglob("*") if f.is_file()]
    assert all(f.stat().st_size < 10_000_000 for f in files)
    assert sum(f.stat().st_size for f in files) < 60_000_000
    for name in FILES.all_files():
        if name.endswith(".safetensors"):
            story = read_metadata(ASSETS / FILES.folder / name)
            assert story["command"].startswith("python -m opensora_demo.training nano --seed ")
            assert "/" not in story["command"]  # no path of the machine it was trained on


def test_what_was_measured_is_what_is_shipped_and_good() -> None:
    study = json.loads((ASSETS / FILES.folder / "study.json").read_text())
    assert study["weights"] == fingerprint(NANO)
    assert study["adherence"]["prompts"] >= 512
    found = study["adherence"]["prompts that are new"]
    for attribute, least in (("colour", 0.97), ("background", 0.97), ("motion", 0.75), ("shape", 0.95)):
        assert found[attribute] >= least
    free, guided = study["guidance"]["scales"]["1"], study["guidance"]["scales"]["4"]
    assert guided["all four"] > free["all four"] + 0.1
