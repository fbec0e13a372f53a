"""The cache of the loaded model."""

from __future__ import annotations

import threading

import pytest
import torch

from opensora_demo import bundle as module
from opensora_demo.bundle import Bundles, ModelBundle
from opensora_demo.errors import RequestError


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


def test_runs_of_different_models_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    bundles = Bundles()
    first, second = bundles.get("debug-1.0"), bundles.get("debug-1.2")
    assert first is not second
    assert first.lock is second.lock
