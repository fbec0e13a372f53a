"""The import table of docs/architecture.md, executed: modules import downwards only, and only the packages they may."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROWS: list[dict[str, set[str]]] = [
    {"errors": set()},
    {"types": {"numpy", "pydantic"}},
    {
        "nn": {"torch", "einops"},
        "sampling": {"torch"},
        "memory": {"torch"},
        "media": {"numpy", "PIL", "av", "imageio"},
    },
    {
        "models": {"torch", "einops"},
        "codecs": {"torch", "einops", "diffusers"},
        "text": {"torch", "transformers", "diffusers", "safetensors"},
        "grid": {"numpy", "PIL"},
        "preview": {"torch", "numpy"},
    },
    {"catalog": set()},
    {
        "weights": {"torch", "safetensors"},
        "store": {"huggingface_hub"},
        "families": {"torch"},
    },
    {"placement": {"torch", "accelerate"}},
    {"bundle": {"torch"}},
    {"pipeline": {"torch", "numpy"}, "estimate": {"torch"}},
    {"explain": {"torch", "numpy", "einops"}},
    {"training": {"torch", "numpy", "einops", "safetensors", "tokenizers", "matplotlib"}},
    {"cli": {"torch"}, "ui": {"gradio", "gradio_client", "numpy", "fastapi"}},
    {"__main__": set()},
]
ROW = {name: i for i, row in enumerate(ROWS) for name in row}
ALLOWED = {name: packages for row in ROWS for name, packages in row.items()}


def imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
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


def test_gradio_stays_in_the_ui() -> None:
    users = {f.relative_to(ROOT).parts[1] for f in (ROOT / "opensora_demo").rglob("*.py") if "gradio" in imports(f)}
    assert users <= {"ui"}
