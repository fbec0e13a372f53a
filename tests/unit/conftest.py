"""Fixtures of the unit tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty local folder, known to the command line, and a cache of the hub's that is empty too."""
    monkeypatch.setenv("OPENSORA_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("OPENSORA_CACHE", str(tmp_path / "embeddings"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("OPENSORA_ALLOW_PICKLE", "OPENSORA_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "weights"
