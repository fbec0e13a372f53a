"""What a process leaves behind when it is killed is swept by the next one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from opensora_demo.service.folders import LOCK, PREFIX, sweep

BEGIN = """
import sys
from opensora_demo.service.folders import process_folder
(process_folder() / "clip.mp4").write_bytes(b"x")
print(process_folder(), flush=True)
sys.stdin.readline()
"""


def begun(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN], stdin=-1, stdout=-1, text=True, env={"TMPDIR": str(parent), "PYTHONPATH": "."}
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_the_folder_of_a_process_that_lives_stays_and_of_one_that_was_killed_goes(tmp_path: Path) -> None:
    process, folder = begun(tmp_path)
    with process:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o777 == 0o700
        assert sweep(tmp_path) == []
        process.kill()
        process.wait()
        assert (folder / "clip.mp4").is_file()
        assert sweep(tmp_path) == [folder]
        assert not folder.exists()


def test_an_ordinary_end_leaves_nothing(tmp_path: Path) -> None:
    process, folder = begun(tmp_path)
    process.communicate("\n")
    assert process.returncode == 0
    assert not folder.exists()


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    other, linked, held = (tmp_path / f"{PREFIX}{name}" for name in ("other", "linked", "held"))
    other.mkdir()
    (other / "clip.mp4").write_bytes(b"x")  # without a lock: another program's, or an old version's
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / LOCK).touch()
    linked.symlink_to(elsewhere)
    held.mkdir()
    with FileLock(held / LOCK):
        assert sweep(tmp_path) == []
    assert sweep(tmp_path) == [held]
    assert (elsewhere / LOCK).is_file()
    assert (other / "clip.mp4").is_file()
