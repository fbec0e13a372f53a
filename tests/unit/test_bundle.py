"""The cache of the loaded model."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from opensora_demo import bundle as module
from opensora_demo.bundle import Bundles, ModelBundle, build_bundle
from opensora_demo.catalog import WeightFiles, find_model
from opensora_demo.errors import RequestError, WeightsError
from opensora_demo.pipeline import run
from opensora_demo.types import parse_request
from opensora_demo.weights import ASSETS, why_not


def test_a_model_is_loaded_once_however_many_ask(nano: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []

    def build(spec: object) -> ModelBundle:
        loads.append("nano")
        return nano

    monkeypatch.setattr(module, "build_bundle", build)
    bundles = Bundles()
    found: list[ModelBundle] = []
    threads = [threading.Thread(target=lambda: found.append(bundles.get("nano"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == ["nano"]
    assert all(b.family is nano.family and b.lock is found[0].lock for b in found)


def test_an_unknown_model_is_refused_and_the_loaded_one_stays(
    nano: ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[object] = []
    monkeypatch.setattr(module, "build_bundle", lambda spec: loads.append(spec) or nano)
    bundles = Bundles()
    first = bundles.get("nano")
    with pytest.raises(RequestError, match="model: must be one of"):
        bundles.get("other")
    assert bundles.get("nano") is first
    assert len(loads) == 1


def test_weights_are_frozen_and_in_memory_once(nano: ModelBundle) -> None:
    for part in (nano.family.network, nano.family.text, nano.codec):
        assert not any(p.requires_grad for p in part.parameters())
        assert not any(p.is_meta for p in part.parameters())
        assert not part.training
    assert nano.preview_matrix.shape == (17, 3)
    assert nano.preview_matrix.dtype == torch.float32


@pytest.mark.parametrize("model", ["debug-1.0-dit", "debug-1.2", "debug-2.0"])
def test_weights_in_a_folder_of_their_own_load_strictly(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A synthetic checkpoint with the layout of `weights/<entry>`: same keys, same shapes, same clip."""
    random = find_model(model)
    made = build_bundle(random, torch.device("cpu"))
    folder = tmp_path / "own"
    folder.mkdir()
    modules: dict[str, Any] = {"transformer": made.family.network, "vae": made.codec}  # type: ignore[attr-defined]
    files = {"network": ("transformer.safetensors",), "codec": ("vae.safetensors",)}
    if random.text is not None:
        modules["t5"] = made.family.text  # type: ignore[attr-defined]
        files["text"] = ("t5.safetensors",)
    if random.clip is not None:
        modules["clip"] = made.family.text if random.text is None else made.family.pooled  # type: ignore[attr-defined]
        files["clip"] = ("clip.safetensors",)
    for name, part in modules.items():
        save_file(
            {k: v.clone(memory_format=torch.contiguous_format) for k, v in part.state_dict().items()},
            folder / f"{name}.safetensors",
        )
    for name in ("t5-tokenizer.json", "clip-tokenizer.json"):
        shutil.copy(ASSETS / "nano" / "tokenizer.json", folder / name)
    spec = replace(
        random,
        weights=WeightFiles(folder="own", tokenizer="t5-tokenizer.json", clip_tokenizer="clip-tokenizer.json", **files),  # type: ignore[arg-type]
    )
    monkeypatch.setenv("OPENSORA_WEIGHTS", str(tmp_path))
    assert why_not(spec) == ""
    loaded = build_bundle(spec, torch.device("cpu"))
    request = parse_request({"prompt": "a ball", "steps": 2, "seed": 3}, model_id=model, limits=spec.limits)
    assert np.array_equal(run(loaded, request).clips[0].frames, run(made, request).clips[0].frames)

    (folder / "vae.safetensors").unlink()
    assert "vae.safetensors" in why_not(spec)
    with pytest.raises(WeightsError, match=r"vae\.safetensors"):
        build_bundle(spec, torch.device("cpu"))


def test_runs_of_different_models_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    bundles = Bundles()
    first, second = bundles.get("debug-1.0"), bundles.get("debug-1.2")
    assert first is not second
    assert first.lock is second.lock
