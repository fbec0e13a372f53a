"""The gallery on disk and the queue of runs: what is kept, what a restart finds, what one failure leaves alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opensora_demo.errors import DeviceError, RequestError
from opensora_demo.media import read_settings, write_mp4, write_png
from opensora_demo.messages import plain
from opensora_demo.request import settings as table
from opensora_demo.runtime.cost.estimator import Estimator
from opensora_demo.service import run_queue
from opensora_demo.service.gallery import Gallery
from opensora_demo.service.local import LocalEngine
from opensora_demo.service.run_queue import QueuedRun, QueueWorker, RunQueue, given_of, parse_batch, prompts_of
from tests.unit.devices import WAIT_S, Device

ESTIMATOR = Estimator()


def form(**changes: Any) -> dict[str, Any]:
    """A form of nano, as the page holds it."""
    usual = {"model": "nano", "steps": 2, "fps": 8, "frames": 17, "guidance": 4.0, "rule": "plain", "seed": ""}
    return dict.fromkeys(table.names()) | usual | changes


def clip_file(folder: Path, name: str, side_px: int = 64, **settings: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    frames = np.random.default_rng(0).integers(0, 256, (3, side_px, side_px, 3), np.uint8)
    write_mp4(folder / name, frames, 8, {"prompt": "a ball", "model": "nano"} | settings, min_px=1)
    return folder / name


# --- the gallery


def test_a_clip_is_kept_with_its_settings_and_a_poster(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path / "storage", 10**9)
    assert (gallery.names(), gallery.used_bytes, gallery.kept(["a.mp4"])) == ([], 0, [])
    file = clip_file(tmp_path, "nano-a-ball-3-ff.mp4", seed=3)
    kept = gallery.keep(file)
    assert kept is not None
    assert kept.read_bytes() == file.read_bytes()
    (found,) = gallery.kept(gallery.names())
    assert (found.name, found.settings["seed"]) == (file.name, 3)
    poster = gallery.poster(file.name)
    assert poster is not None
    assert poster.read_bytes()[8:12] == b"WEBP"
    assert gallery.used_bytes == kept.stat().st_size + poster.stat().st_size
    assert gallery.delete([file.name, "other.mp4", None]) == 1
    assert not list(gallery.clips.iterdir())


def test_only_its_own_clips_are_named(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path / "storage", 10**9)
    outside = clip_file(tmp_path, "outside.mp4")
    clip_file(gallery.clips, "own.mp4")
    (gallery.clips / "link.mp4").symlink_to(outside)
    (gallery.clips / "damaged.mp4").write_bytes(b"no clip")
    for name in ("../outside.mp4", "link.mp4", "/etc/passwd", "own.webp", 7, ".own.mp4"):
        assert gallery.file(name) is None
        assert gallery.delete([name]) == 0
    assert sorted(gallery.names()) == ["damaged.mp4", "own.mp4"]
    assert [kept.name for kept in gallery.kept(gallery.names())] == ["own.mp4"]
    assert gallery.poster("damaged.mp4") is None
    assert outside.is_file()


def test_the_oldest_clips_go_when_it_is_full(tmp_path: Path) -> None:
    size = clip_file(tmp_path, "0.mp4").stat().st_size
    gallery = Gallery(tmp_path / "storage", 3 * size)
    for at in range(5):
        kept = gallery.keep(clip_file(tmp_path, f"{at}.mp4"))
        assert kept is not None
        os.utime(kept, (at + 1, at + 1))
    gallery.sweep()
    assert gallery.names() == ["4.mp4", "3.mp4", "2.mp4"]
    assert gallery.used_bytes <= gallery.max_bytes
    small = Gallery(tmp_path / "storage", 1)
    small.sweep()
    assert small.names() == ["4.mp4"]  # the newest stays


def test_a_clip_that_cannot_be_kept_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    gallery = Gallery(tmp_path / "taken", 10**9)
    assert gallery.keep(clip_file(tmp_path, "a.mp4")) is None
    assert gallery.trouble is not None
    assert gallery.trouble.params["folder"] == str(tmp_path / "taken" / "clips")


# --- several prompts


def test_a_prompt_a_line() -> None:
    text = "\ufeffa red ball\r\n\n  # a comment\n 蓝色星星  \n{not json\n"
    assert prompts_of(text) == [(1, "a red ball"), (4, "蓝色星星"), (5, "{not json")]
    with pytest.raises(RequestError, match="at least one line"):
        prompts_of("# nothing\n\n")
    with pytest.raises(RequestError, match="at most 500"):
        prompts_of("a\n" * 501)


def test_prompts_take_the_settings_of_the_form() -> None:
    requests = parse_batch(form(seed="5", steps=3), "a red ball\na blue star", 2, ESTIMATOR)
    assert [(r.prompt, r.seed, r.steps) for r in requests] == [
        ("a red ball", 5, 3),
        ("a red ball", 6, 3),
        ("a blue star", 5, 3),
        ("a blue star", 6, 3),
    ]
    free = parse_batch(form(), "a ball\na ball\na ball", 1, ESTIMATOR)
    assert len({r.seed for r in free}) == 3


def test_a_bad_line_is_named_and_nothing_is_added() -> None:
    with pytest.raises(RequestError, match=r"prompts: line 3 must have at most \d+ characters"):
        parse_batch(form(), "a ball\n\n" + "x" * 100_000, 1, ESTIMATOR)
    with pytest.raises(RequestError, match="steps"):
        parse_batch(form(steps=1000), "a ball", 1, ESTIMATOR)


# --- the queue


@pytest.fixture
def queue(tmp_path: Path) -> RunQueue:
    return RunQueue(tmp_path / "storage" / "queue")


@pytest.fixture
def worker(tmp_path: Path, queue: RunQueue, device: Device) -> QueueWorker:
    return worker_of(queue, tmp_path, device)


def worker_of(queue: RunQueue, tmp_path: Path, device: Device) -> QueueWorker:
    engine = LocalEngine(device, generate=device.generate)
    return QueueWorker(queue, Gallery(tmp_path / "storage", 10**9), engine, ESTIMATOR)


def add(queue: RunQueue, *prompts: str, **changes: Any) -> list[QueuedRun]:
    return queue.add(parse_batch(form(**changes), "\n".join(prompts), 1, ESTIMATOR), given_of(form(**changes)))


def states(queue: RunQueue) -> list[str]:
    return [run.state for run in queue.runs()]


def test_runs_are_made_in_order_and_their_clips_kept(queue: RunQueue, worker: QueueWorker, device: Device) -> None:
    assert worker.run_all()
    assert not queue.folder.exists()  # nothing is written for nothing
    add(queue, "a red ball", "a blue star", seed="7")
    assert worker.run_all()
    assert device.log == ["a red ball", "a blue star"]
    first, second = queue.runs()
    assert (first.state, second.state, first.seconds) == ("done", "done", 0.4)
    settings = read_settings(worker.gallery.clips / first.clip)
    assert settings is not None
    assert (settings["prompt"], settings["seed"]) == ("a red ball", 7)
    assert worker.progress is None


def test_one_that_fails_does_not_stop_the_others(queue: RunQueue, worker: QueueWorker, device: Device) -> None:
    bad, _ = add(queue, "a red ball", "a blue star")
    device.error = DeviceError(plain("no memory"))
    news: list[tuple[str, str]] = []

    def heal(run: QueuedRun) -> None:
        news.append((run.settings["prompt"], run.state))
        if run.state == "failed":
            device.error = None

    worker.run_all(heal)
    assert news == [
        ("a red ball", "running"),
        ("a red ball", "failed"),
        ("a blue star", "running"),
        ("a blue star", "done"),
    ]
    assert queue.runs()[0].failure == plain("no memory")
    assert queue.again(bad.id)
    assert not queue.again(queue.runs()[1].id)  # it is done
    worker.run_all()
    assert states(queue) == ["done", "done"]


def test_a_model_that_is_gone_fails_its_runs_alone(queue: RunQueue, worker: QueueWorker) -> None:
    first = add(queue, "a red ball", "a blue star")[0]
    queue.replace(replace(first, settings=first.settings | {"model": "opensora-2.0"}))
    worker.run_all()
    assert states(queue) == ["failed", "done"]


def test_a_full_disk_stops_the_queue(
    queue: RunQueue, worker: QueueWorker, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the others would take as long and fail as well."""

    def full(*_: Any) -> Path:
        raise OSError(28, "No space left on device")

    add(queue, "a red ball", "a blue star")
    monkeypatch.setattr(worker.gallery, "write", full)
    worker.run_all()
    assert states(queue) == ["failed", "queued"]
    assert queue.paused
    assert queue.pause_reason is not None
    assert queue.pause_reason.params["reason"] == "No space left on device"
    assert device.log == ["a red ball"]


def test_the_queue_can_be_stopped_on_a_full_disk(queue: RunQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    add(queue, "a red ball")
    spare, put = queue.folder / ".spare", RunQueue._put

    def full(self: RunQueue, file: Path, text: str) -> None:
        if spare.exists():
            raise OSError(28, "No space left on device")
        put(self, file, text)

    monkeypatch.setattr(RunQueue, "_put", full)
    with pytest.raises(OSError, match="No space left"):
        add(queue, "a blue star", "a green ring")
    assert (len(queue.runs()), spare.is_file()) == (1, True)  # what is held back is for the state alone
    queue.pause(plain("full"))
    assert queue.pause_reason == plain("full")
    assert not spare.exists()
    queue.go_on()
    assert spare.is_file()
    assert not queue.paused


def in_thread(worker: QueueWorker, device: Device, point: str) -> Callable[[], None]:
    """Start the worker and wait until a run is at a point; returns what lets it go on and waits until it is idle."""
    device.hold(point)
    worker.start()
    assert device.reached[point].wait(WAIT_S)

    def let_go() -> None:
        device.held.pop(point).set()
        worker.close()
        worker.join(WAIT_S)

    return let_go


def test_removing_the_run_that_goes_on_stops_it(queue: RunQueue, worker: QueueWorker, device: Device) -> None:
    first, second, third = add(queue, "a red ball", "a blue star", "a green cube")
    let_go = in_thread(worker, device, "step 1")
    assert queue.remove([first.id, third.id, "../x"]) == 2
    assert worker.progress is not None
    assert worker.progress.run_id == first.id
    let_go()
    assert device.closed >= 1
    assert [run.id for run in queue.runs()] == [second.id]
    assert first.settings["prompt"] not in {k.settings["prompt"] for k in worker.gallery.kept(worker.gallery.names())}


def test_a_stopped_queue_begins_its_run_anew(queue: RunQueue, worker: QueueWorker, device: Device) -> None:
    add(queue, "a red ball")
    let_go = in_thread(worker, device, "step 1")
    queue.pause()
    let_go()
    (run,) = queue.runs()
    assert (run.state, run.tries, queue.pause_reason) == ("queued", 0, None)
    again = worker_of(queue, worker.gallery.folder.parent, device)
    again.run_all()
    assert states(queue) == ["queued"]
    queue.go_on()
    again.run_all()
    assert states(queue) == ["done"]


def test_a_process_that_ends_leaves_its_run_to_the_next(queue: RunQueue, worker: QueueWorker, device: Device) -> None:
    """As it is closed, and as it is killed; one that kills it again and again is given up."""
    run, other = add(queue, "a red ball", "a blue star")
    let_go = in_thread(worker, device, "step 1")
    worker.close()
    let_go()
    assert states(queue) == ["queued", "queued"]
    queue.replace(replace(run, state="running", tries=1))  # what a killed process leaves
    next_worker = worker_of(queue, worker.gallery.folder.parent, device)
    next_worker.run_all()
    assert states(queue) == ["done", "done"]
    queue.replace(replace(run, state="running", tries=run_queue.MAX_TRIES))
    queue.replace(other)
    worker_of(queue, worker.gallery.folder.parent, device).run_all()
    given_up, made = queue.runs()
    assert (given_up.state, made.state) == ("interrupted", "done")
    assert given_up.failure is not None


def test_two_processes_do_not_work_at_once(queue: RunQueue, worker: QueueWorker) -> None:
    add(queue, "a red ball")
    other = "import sys; from filelock import FileLock; lock = FileLock(sys.argv[1]); lock.acquire()"
    other += "; print(1, flush=True); input()"
    lock = queue.folder / ".worker.lock"
    with subprocess.Popen(
        [sys.executable, "-c", other, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        assert not worker.run_all()
        assert states(queue) == ["queued"]
        process.kill()
    assert worker.run_all()
    assert states(queue) == ["done"]


def test_given_frames_wait_with_their_run(
    queue: RunQueue, worker: QueueWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = tmp_path / "upload" / "first.png"
    upload.parent.mkdir()
    write_png(upload, np.full((128, 128, 3), 90, np.uint8), {})
    first, second = add(queue, "a red ball", "a blue star", reference=str(upload))
    shutil.rmtree(upload.parent)  # as the page does with what it was sent
    seen = []
    submit = worker._engine.submit
    monkeypatch.setattr(worker._engine, "submit", lambda request, owner: seen.append(request) or submit(request, owner))
    worker.run_all()
    assert states(queue) == ["done", "done"]
    assert [np.mean(request.reference) for request in seen] == [90, 90]
    files = queue.folder / "files"
    assert len(list(files.iterdir())) == 1
    queue.remove([first.id])
    assert len(list(files.iterdir())) == 1
    queue.remove([second.id])
    assert not list(files.iterdir())


def test_what_is_no_run_is_passed_over(queue: RunQueue, worker: QueueWorker) -> None:
    (run,) = add(queue, "a red ball")
    whole = json.loads((queue.folder / f"{run.id}.json").read_text())
    for at, text in enumerate(("", "[]", "{}", json.dumps(whole | {"state": "?"}), json.dumps(whole | {"files": 3}))):
        (queue.folder / f"0-{at}.json").write_text(text)
    assert [found.id for found in queue.runs()] == [run.id]
    worker.run_all()
    assert states(queue) == ["done"]


def test_the_queue_has_an_end(queue: RunQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_queue, "MAX_WAITING", 2)
    monkeypatch.setattr(run_queue, "MAX_ENDED", 1)
    runs = add(queue, "a red ball", "a blue star")
    with pytest.raises(RequestError, match="at most 2 runs, and 2 wait already"):
        add(queue, "a green cube")
    for run in runs:
        queue.replace(replace(run, state="done"))
    queue.forget()
    assert [run.id for run in queue.runs()] == [runs[1].id]


def test_what_is_left_is_told_by_what_was_done(queue: RunQueue) -> None:
    runs = add(queue, "a red ball", "a blue star", "a green cube", "a tree")
    assert run_queue.left_s(runs, None) is None
    runs[0], runs[1] = replace(runs[0], state="done", seconds=10), replace(runs[1], state="running")
    assert run_queue.left_s(runs, None) == 30
    going = run_queue.Progress(run_id=runs[1].id, step=1, steps=2, left_s=4)
    assert run_queue.left_s(runs, going) == 24
