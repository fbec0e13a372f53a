"""Fixtures of the unit tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from opensora_demo.nn import threads
from opensora_demo.service.local import LocalEngine
from opensora_demo.service.outputs import OutputFolder
from tests.unit.devices import Device


def _computing_with(count: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "_all", count)
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sums of several threads differ in the last bit."""
    yield from _computing_with(1, monkeypatch)


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from _computing_with(2, monkeypatch)


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def engine(device: Device) -> Iterator[LocalEngine]:
    """Of that device, whose points all pass at the end."""
    engine = LocalEngine(device, generate=device.generate, explain=device.explain)  # type: ignore[arg-type]
    yield engine
    for point in device.held.values():
        point.set()
    engine.close()


@pytest.fixture
def files() -> Iterator[OutputFolder]:
    files = OutputFolder()
    yield files
    files.close()


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty local folder, known to the command line, and a cache of the hub's that is empty too."""
    monkeypatch.setenv("OPENSORA_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("OPENSORA_CACHE", str(tmp_path / "embeddings"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("OPENSORA_ALLOW_PICKLE", "OPENSORA_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "weights"
