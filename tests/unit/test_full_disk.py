"""A disk that is really full: a small file system of its own, where this user may mount one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from opensora_demo.catalog import NANO
from opensora_demo.media import read_settings
from opensora_demo.request.events import Clip, Finished
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.cost.estimator import Estimator
from opensora_demo.service import outputs
from opensora_demo.service.gallery import Gallery
from opensora_demo.service.local import LocalEngine
from opensora_demo.service.outputs import OutputFolder
from opensora_demo.service.run_queue import QueuedRun, QueueWorker, RunQueue
from opensora_demo.service.runs import reason_of
from opensora_demo.text.cache import EmbeddingCache
from opensora_demo.text.t5 import TextFeatures
from tests.unit.devices import Device
from tests.unit.test_storage import add, clip_file, states

SIZE = 1_000_000  # bytes


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path) -> Path:
    """Take all room that is left; deleting the answer gives it back."""
    stuffing = disk / f"stuffing-{len(list(disk.glob('stuffing-*')))}"
    with stuffing.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return stuffing


def clip(seed: int = 3) -> tuple[GenerationRequest, Finished]:
    """A run of noise, which takes about 200 kB of a disk."""
    raw = {"prompt": "a red ball", "seed": seed, "frames": 5}
    request = parse_request(raw, model_id=NANO.id, limits=NANO.limits)
    frames = np.random.default_rng(seed).integers(0, 256, (5, 128, 128, 3), np.uint8)
    return request, Finished(clips=(Clip(frames=frames, request=request),), seconds={}, unknown=())


def test_clips_make_room_for_each_other_and_one_too_many_is_said(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "process_folder", lambda: disk)
    folder = OutputFolder()
    made = [folder.write_run(*clip())[0] for _ in range(6)]
    assert made[-1].stat().st_size * len(made) > SIZE
    assert read_settings(made[-1])  # whole
    assert not made[0].exists()
    for file in made:
        file.unlink(missing_ok=True)
    stuffing = fill(disk)
    with pytest.raises(OSError, match="No space left") as full:
        folder.write_run(*clip())
    assert reason_of(full.value).code == "run.disk"
    assert list(folder.path.iterdir()) == []
    stuffing.unlink()
    assert folder.write_run(*clip())[0].is_file()
    folder.close()


def test_prompts_are_encoded_all_the_same(disk: Path) -> None:
    def encode(prompts: list[str]) -> TextFeatures:
        return TextFeatures(torch.zeros(1, 300, 64), torch.tensor([300]), ((),), (0,))

    kept: EmbeddingCache[TextFeatures] = EmbeddingCache(
        encode, "of a test", device=torch.device("cpu"), folder=disk / "cache"
    )
    assert kept(["a red ball"]).lengths.tolist() == [300]
    (disk / "cache" / "room").write_bytes(bytes(40_000))
    fill(disk)
    (disk / "cache" / "room").unlink()  # for a part of it
    assert kept(["a blue ball"]).lengths.tolist() == [300]
    assert len(list((disk / "cache").iterdir())) == 1


def test_the_gallery_keeps_what_it_has_and_says_why_not_more(disk: Path, tmp_path: Path) -> None:
    gallery = Gallery(disk / "storage", 10**9)
    first = gallery.keep(clip_file(tmp_path, "first.mp4"))
    assert first is not None
    fill(disk)
    assert gallery.keep(clip_file(tmp_path, "second.mp4")) is None
    assert gallery.trouble is not None
    assert gallery.trouble.params["reason"] == "No space left on device"
    assert gallery.names() == ["first.mp4"]
    assert read_settings(first)
    assert gallery.poster("first.mp4") is None
    assert [file.name for file in gallery.clips.iterdir()] == ["first.mp4"]


def test_the_queue_is_stopped_with_a_reason_and_goes_on_once_there_is_room(disk: Path) -> None:
    device = Device()
    queue = RunQueue(disk / "queue")
    worker = QueueWorker(queue, Gallery(disk, 10**9), LocalEngine(device, generate=device.generate), Estimator())
    first, _ = add(queue, "a red ball", "a blue star")

    def other_programs(run: QueuedRun) -> None:
        if run.state == "running":
            fill(disk)

    assert worker.run_all(other_programs)
    assert states(queue) == ["failed", "queued"]
    assert queue.pause_reason is not None
    assert queue.pause_reason.params["reason"] == "No space left on device"
    assert worker.run_all()  # and does not try the other
    assert device.log == ["a red ball"]
    fill(disk)
    with pytest.raises(OSError, match="No space left"):
        add(queue, "a green ring", "a pink heart", "a grey cross" * 300)
    assert len(queue.runs()) == 2
    assert not [file for file in queue.folder.iterdir() if file.name.startswith(".") and len(file.name) > 16]
    for stuffing in disk.glob("stuffing-*"):
        stuffing.unlink()
    assert queue.again(first.id)
    queue.go_on()
    assert worker.run_all()
    assert states(queue) == ["done", "done"]
