"""What the start of the page leaves out: type stubs of Gradio's, and the collection of garbage until it is warm."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path
from threading import Event

import pytest

from opensora_demo import serve
from opensora_demo.ui import stubs

ROOT = Path(__file__).resolve().parents[2]
IMPORTING = """
import json, sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
{first}
import opensora_demo.ui.components
from gradio import component_meta
assert callable(component_meta.{writer})  # or another version of Gradio does it otherwise
print(json.dumps([name for name in opened if name.endswith(".pyi")]))
"""


@pytest.mark.parametrize(
    ("first", "under"),
    [
        pytest.param("", "", id="ours"),
        pytest.param("import gradio", str(ROOT / "opensora_demo"), id="gradio first", marks=pytest.mark.thorough),
    ],
)
def test_no_stub_is_read_or_written(first: str, under: str) -> None:
    """None at all, or none of our own classes where Gradio was imported by somebody else."""
    script = IMPORTING.format(first=first, writer=stubs.WRITER)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert [name for name in json.loads(done.stdout) if name.startswith(under)] == []


def test_garbage_is_collected_once_the_page_is_warm() -> None:
    """Also where the model could not be loaded."""
    collecting: list[bool] = []

    def warming(done: Event) -> None:
        collecting.append(gc.isenabled())
        done.set()
        raise MemoryError

    done = Event()
    gc.disable()
    try:
        with pytest.raises(MemoryError):
            serve.collect_from_now_on(warming, done)
        assert gc.isenabled()
    finally:
        gc.enable()
    assert collecting == [False]
    assert done.is_set()
