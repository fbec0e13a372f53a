"""The cache of the loaded model."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import pytest
import torch

from opensora_demo.catalog import ModelSpec
from opensora_demo.errors import Cancelled, RequestError
from opensora_demo.messages import plain
from opensora_demo.runtime import bundle as module
from opensora_demo.runtime.bundle import Bundles, ModelBundle


class _Loaded:
    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.itself: object = None


@pytest.mark.slow
def test_a_model_is_loaded_once_however_many_ask(nano: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []

    def build(spec: object, options: object, check: object) -> ModelBundle:
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
    assert len(found) == 4
    assert all(b is nano for b in found)


def test_an_unknown_model_is_refused_and_the_loaded_one_stays(
    nano: ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[object] = []
    monkeypatch.setattr(module, "build_bundle", lambda spec, options, check: loads.append(spec) or nano)
    bundles = Bundles()
    first = bundles.get("nano")
    with pytest.raises(RequestError, match="model: must be one of"):
        bundles.get("other")
    assert bundles.get("nano") is first
    assert len(loads) == 1


def test_a_load_that_is_not_wanted_any_more_ends_between_two_parts() -> None:
    parts: list[int] = []

    def check() -> None:
        parts.append(len(parts))
        if len(parts) == 3:
            raise Cancelled(plain("stopped"))

    bundles = Bundles()
    with pytest.raises(Cancelled):
        bundles.get("debug-1.2", check)
    assert len(parts) == 3  # of text, network and codec the last was not begun
    assert bundles.get("debug-1.2").spec.id == "debug-1.2"


def test_weights_are_frozen_and_in_memory_once(nano: ModelBundle) -> None:
    for part in (nano.family.network, nano.family.text, nano.codec):
        assert not any(p.requires_grad for p in part.parameters())
        assert not any(p.is_meta for p in part.parameters())
        assert not part.training
    assert nano.preview_matrix.shape == (17, 3)
    assert nano.preview_matrix.dtype == torch.float32


def test_small_models_stay_and_a_published_one_makes_way_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two visitors with two small models do not load anything again and again; of large ones there is one in memory,
    and the next is loaded only when the one before is gone."""

    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    loads: list[tuple[str, list[str]]] = []

    def build(spec: ModelSpec, options: object, check: object) -> Any:
        loads.append((spec.id, sorted(b.spec.id for b in alive)))
        made = _Loaded(spec)
        made.itself = made  # as a network and its hooks do
        alive.add(made)
        return made

    monkeypatch.setattr(module, "build_bundle", build)
    bundles = Bundles()
    for name in ("nano", "nano-dit", "nano", "nano-dit", "opensora-1.2", "nano", "opensora-1.1", "opensora-1.2"):
        assert bundles.get(name).spec.id == name
    small = ["nano", "nano-dit"]
    assert loads == [
        ("nano", []),
        ("nano-dit", ["nano"]),
        ("opensora-1.2", small),
        ("opensora-1.1", small),
        ("opensora-1.2", small),
    ]
