"""Where finished clips wait to be fetched: one folder per process, swept so that it never grows."""

from __future__ import annotations

import re
import secrets
import tempfile
from pathlib import Path

KEEP = 150  # clips; a comparison has up to 25


def _modified(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:  # another visitor's sweep was faster
        return 0.0


class OutputFolder:
    """Hands out file names and keeps the newest `keep` clips; the folder goes when the process ends normally."""

    def __init__(self, keep: int = KEEP) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="opensora-demo-", ignore_cleanup_errors=True)
        self._keep = keep

    @property
    def path(self) -> Path:
        return Path(self._folder.name)

    def new_file(self, model_id: str, prompt: str, seed: int) -> Path:
        """A fresh path whose name a person recognises: model, first words of the prompt, seed. Nothing is written."""
        words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:40].strip("-") or "clip"
        self.path.mkdir(parents=True, exist_ok=True)  # somebody may have cleaned the temporary files
        self.sweep()
        return self.path / f"{model_id}-{words}-{seed}-{secrets.token_hex(3)}.mp4"

    def sweep(self) -> None:
        """Delete all but the newest clips and pictures, each with what belongs to it under the same name; names end in
        random letters, so only times decide."""
        newest: dict[str, float] = {}
        for file in self.path.iterdir():
            newest[file.stem] = max(newest.get(file.stem, 0.0), _modified(file))
        for stem in sorted(newest, key=newest.__getitem__, reverse=True)[self._keep - 1 :]:
            for old in self.path.glob(f"{stem}.*"):
                old.unlink(missing_ok=True)

    def close(self) -> None:
        self._folder.cleanup()
