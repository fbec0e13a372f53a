"""Where the package finds the files that belong to it."""

from __future__ import annotations

from pathlib import Path


def assets_dir() -> Path:
    """The folder of the embedded weights and the page's files: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "assets"
    return installed if installed.is_dir() else package.parent / "assets"
