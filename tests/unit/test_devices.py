"""No GPU is needed to see that a run keeps to one device."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from opensora_demo.catalog import MODELS

EVERY_MODEL = [name for name in MODELS if name.startswith("debug")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "models",
    [
        pytest.param(["debug-1.0-dit", "debug-1.3", "debug-2.0"], id="three"),
        pytest.param(EVERY_MODEL, id="every model", marks=pytest.mark.thorough),
    ],
)
def test_a_family_runs_on_another_device(models: list[str]) -> None:
    """In bfloat16, as published models run on a GPU; see pretend_gpu. In a process of its own: torch takes a private
    device once and for all."""
    assert len(EVERY_MODEL) > 6
    command = [sys.executable, "-m", "tests.unit.pretend_gpu", *models, "debug-1.2!"]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    failed = json.loads(done.stdout)
    assert re.search("two (different )?devices", failed.pop("debug-1.2!"))
    assert failed == {}
