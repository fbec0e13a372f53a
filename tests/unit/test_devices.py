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
@pytest.mark.thorough
def test_every_family_runs_on_another_device() -> None:
    """In bfloat16, as published models run on a GPU; see pretend_gpu. In a process of its own: torch takes a private
    device once and for all."""
    assert len(EVERY_MODEL) > 6
    command = [sys.executable, "-m", "tests.unit.pretend_gpu", *EVERY_MODEL, "debug-1.2!"]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    failed = json.loads(done.stdout)
    assert re.search("two (different )?devices", failed.pop("debug-1.2!"))
    assert failed == {}
