"""Fixtures shared by all tests."""

from __future__ import annotations

import pytest
import torch

from opensora_demo.bundle import ModelBundle, build_bundle
from opensora_demo.catalog import NANO


@pytest.fixture(scope="session")
def nano() -> ModelBundle:
    """The real model in assets."""
    return build_bundle(NANO, torch.device("cpu"))
