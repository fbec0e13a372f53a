"""Assemble the folder of a Hugging Face Space and check it: `python -m docs.make_space FOLDER`.

Copies what git has of the app, its package and its models, adds the .gitattributes by which a plain push stores binary
files as the hub wants them, and says what is wrong with the result. Upload it with
`hf upload USER/SPACE FOLDER . --repo-type space`, or push it. With `--zerogpu` it is one for that hardware, which wants
another Python and an earlier torch.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("app.py", "requirements.txt", "README.md", "LICENSE", "opensora_demo", "assets", "docs/*.webp")
BINARY = ("*.safetensors", "*.mp4", "*.png", "*.jpg", "*.webp")
FREE_MB = 1000  # a Space's repository
PLAIN_MB = 10  # a file that is no LFS object
SHORT = 60  # characters of `short_description`
ZEROGPU_PYTHON, ZEROGPU_TORCH = "3.12.12", "2.11.0"  # the newest that this hardware had in November 2026
COLOURS = frozenset(("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"))


def assemble(folder: Path) -> int:
    """Copy the files into a new or empty folder, and answer how many. Raises FileExistsError."""
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty")
    names = subprocess.run(["git", "ls-files", "-z", *PARTS], cwd=ROOT, check=True, capture_output=True, text=True)
    files = [name for name in names.stdout.split("\0") if name]
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    rules = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in BINARY)
    (folder / ".gitattributes").write_text(rules)
    return len(files)


def fit_zerogpu(folder: Path) -> None:
    """Change the copies of the README's head and of the requirements to what ZeroGPU has."""
    for name, pattern, line in (
        ("README.md", r"^python_version: .*$", f'python_version: "{ZEROGPU_PYTHON}"\nsuggested_hardware: zero-a10g'),
        ("requirements.txt", r"^torch==.*$", f"torch=={ZEROGPU_TORCH}"),
    ):
        text, count = re.subn(pattern, line, (folder / name).read_text("utf-8"), count=1, flags=re.MULTILINE)
        assert count == 1, name
        (folder / name).write_text(text, "utf-8")


def front_matter(readme: Path) -> dict[str, Any]:
    """The settings of the Space at the head of its README; none where there is no such head."""
    found = re.match(r"---\n(.*?)\n---\n", readme.read_text("utf-8"), re.DOTALL)
    return dict(yaml.safe_load(found[1])) if found else {}


def faults(folder: Path) -> Iterator[str]:
    """What the hub or the Space would stumble over."""
    head, pins = front_matter(folder / "README.md"), _pins(folder / "requirements.txt")
    wanted = {"sdk": "gradio", "app_file": "app.py", "sdk_version": pins.get("gradio"), "license": "apache-2.0"}
    for name, value in wanted.items():
        if head.get(name) != value:
            yield f"README.md: {name} is {head.get(name)}, not {value}"
    for name in ("colorFrom", "colorTo"):
        if head.get(name) not in COLOURS:
            yield f"README.md: {name} is {head.get(name)}, which the hub does not know"
    if len(str(head.get("short_description", ""))) > SHORT:
        yield f"README.md: short_description has more than {SHORT} characters"
    if not isinstance(head.get("python_version"), str):
        yield "README.md: python_version must be a text, or 3.10 would be read as 3.1"
    yield from (f"requirements.txt: {name} has no exact version" for name, version in pins.items() if not version)
    files = [file for file in folder.rglob("*") if file.is_file() and ".git" not in file.relative_to(folder).parts]
    for file in files:
        stored = any(file.match(pattern) for pattern in BINARY)
        path = file.relative_to(folder)
        if file.is_symlink():
            yield f"{path}: a link"
        if not stored and file.stat().st_size > PLAIN_MB * 1e6:
            yield f"{path}: over {PLAIN_MB} MB, and no pattern of .gitattributes fits it"
        if not stored and b"\0" in file.read_bytes()[:8000]:
            yield f"{path}: binary, and no pattern of .gitattributes fits it"
    if (total := _megabytes(files)) > FREE_MB:
        yield f"{total:.0f} MB in all, of {FREE_MB}"


def _pins(requirements: Path) -> dict[str, str]:
    """Exact versions by package; an empty one where it is not exact."""
    lines = (line.partition("#")[0].strip() for line in requirements.read_text().splitlines())
    parts = (re.match(r"([\w.-]+)(?:==([\w.+]+)$)?", line) for line in lines if line)
    return {found[1]: found[2] or "" for found in parts if found}


def _megabytes(files: list[Path]) -> float:
    return sum(file.stat().st_size for file in files) / 1e6


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m docs.make_space", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--zerogpu", action="store_true", help="for a Space with ZeroGPU")
    args = parser.parse_args(argv)
    folder: Path = args.folder
    try:
        count = assemble(folder)
        if args.zerogpu:
            fit_zerogpu(folder)
    except FileExistsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    wrong = list(faults(folder))
    print(*wrong, sep="\n", end="\n" if wrong else "", file=sys.stderr)
    print(f"{count} files, {_megabytes([f for f in folder.rglob('*') if f.is_file()]):.0f} MB in {folder}; upload:")
    print(f"hf upload USER/SPACE {folder} . --repo-type space")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
