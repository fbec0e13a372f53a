"""The import table of docs/architecture.md, executed: modules import downwards only, and only the packages they may."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def read_table(text: str) -> list[dict[str, set[str]]]:
    """The rows of the table "Rows" in docs/architecture.md: unit -> third parties it may import."""
    rows: list[dict[str, set[str]]] = []
    for line in text[text.index("## Rows") :].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0].isdigit():
            shared = {name for name in re.sub(r"\(.*?\)", "", cells[2]).replace(",", " ").split() if name != "-"}
            row = {unit.strip(): set(shared) for unit in cells[1].split(",")}
            for name, units in re.findall(r"(\w+) \(([^)]*)\)", cells[2]):  # a package of some of the row's units only
                for unit in row:
                    if unit not in {u.strip() for u in units.split(",")}:
                        row[unit].discard(name)
            rows.append(row)
    return rows


ROWS = read_table((ROOT / "docs" / "architecture.md").read_text())
ROW = {name: i for i, row in enumerate(ROWS) for name in row}
ALLOWED = {name: packages for row in ROWS for name, packages in row.items()}


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"))


@cache
def nodes(file: Path) -> list[ast.AST]:
    return list(ast.walk(tree(file)))


def imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in nodes(file):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            if node.module == "opensora_demo":  # `from opensora_demo import cli` names a module
                found |= {f"opensora_demo.{alias.name}" for alias in node.names if alias.name != "__version__"}
            else:
                found.add(node.module or "")
    return found


def test_imports_go_one_way() -> None:
    wrong: list[str] = []
    files = sorted((ROOT / "opensora_demo").rglob("*.py"))
    assert len(files) > 20
    for file in files:
        parts = file.relative_to(ROOT / "opensora_demo").with_suffix("").parts
        if parts == ("__init__",):
            continue
        unit = parts[0]
        for name in imports(file):
            top, *rest = name.split(".")
            if top == "opensora_demo":
                target = rest[0]
                if target != unit and ROW[target] >= ROW[unit]:
                    wrong.append(f"{file.name} ({unit}) imports {name}")
            elif top not in sys.stdlib_module_names and top not in ALLOWED[unit]:
                wrong.append(f"{file.name} ({unit}) imports {top}")
    assert not wrong


def test_training_is_imported_by_nobody() -> None:
    package = ROOT / "opensora_demo"
    others = [f for f in [*package.rglob("*.py"), ROOT / "app.py"] if package / "training" not in f.parents]
    assert len(others) > 20
    assert not [f.name for f in others if any(name.startswith("opensora_demo.training") for name in imports(f))]


def test_gradio_stays_in_the_ui() -> None:
    users = {f.relative_to(ROOT).parts[1] for f in (ROOT / "opensora_demo").rglob("*.py") if "gradio" in imports(f)}
    assert users <= {"ui"}


def test_the_environment_is_read_at_the_edge_only() -> None:
    """Below the command line and the page options are arguments; `training` starts processes of its own."""
    edge = {"cli", "serve", "python_api", "__main__", "__init__", "training"}
    readers: set[str] = set()
    for file in (ROOT / "opensora_demo").rglob("*.py"):
        for node in nodes(file):
            if (isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb", "putenv")) or (
                isinstance(node, ast.alias) and node.name in ("environ", "getenv", "environb", "putenv")
            ):
                readers.add(file.relative_to(ROOT / "opensora_demo").with_suffix("").parts[0])
    assert "cli" in readers
    assert readers <= edge


def test_slow_packages_are_imported_by_one_thread_at_a_time() -> None:
    packages = {"transformers", "diffusers", "accelerate"}
    wrong: list[str] = []
    found = 0
    for file in sorted((ROOT / "opensora_demo").rglob("*.py")):
        guarded = {
            id(inner)
            for node in nodes(file)
            if (
                isinstance(node, ast.With)
                and any(ast.unparse(item.context_expr) == "IMPORT_LOCK" for item in node.items)
            )
            or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
            for inner in ast.walk(node)
        }
        for node in nodes(file):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in packages:
                found += 1
                if id(node) not in guarded:
                    wrong.append(f"{file.name}:{node.lineno}")
    assert found > 5
    assert not wrong


@pytest.mark.slow
@pytest.mark.thorough
def test_two_threads_may_build_their_first_networks_at_once() -> None:
    """The page estimates a run while the model loads; both need diffusers, which breaks when two import it at once."""
    script = """
import threading, torch
from opensora_demo.codecs.hunyuan import HunyuanConfig, HunyuanVAE
from opensora_demo.codecs.image_vae import ImageVAE, ImageVaeConfig
start, failed = threading.Barrier(3), []
def build(what, cfg):
    start.wait()
    try:
        with torch.device("meta"):
            what(cfg)
    except ImportError as error:
        failed.append(str(error))
todo = [(HunyuanVAE, HunyuanConfig()), (ImageVAE, ImageVaeConfig()), (ImageVAE, ImageVaeConfig())]
threads = [threading.Thread(target=build, args=args) for args in todo]
[t.start() for t in threads]
[t.join() for t in threads]
raise SystemExit("; ".join(failed) or 0)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
