"""Names and shapes of every published checkpoint, built on the meta device."""

from __future__ import annotations

import pytest
import torch

from .reference import FOLDER, manifest
from .systems import BUILDERS

NAMES = sorted(f.stem for f in (FOLDER / "manifests").glob("*.json") if f.stem != "meta")


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes(name: str) -> None:
    assert name in BUILDERS, f"no model for the manifest {name}"
    with torch.device("meta"):
        ours = {key: list(value.shape) for key, value in BUILDERS[name]().state_dict().items()}
    assert ours == manifest(name)
