"""Jobs of /v1/videos without HTTP: stored first, honest about their state, deleted for good."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opensora_demo.catalog import NANO
from opensora_demo.errors import Cancelled, RequestError
from opensora_demo.messages import plain, render
from opensora_demo.request.events import Encoded, StepPreview
from opensora_demo.request.parse import parse_request
from opensora_demo.service import video_jobs
from opensora_demo.service.gallery import Gallery
from opensora_demo.service.local import LocalEngine
from opensora_demo.service.outputs import OutputFolder
from opensora_demo.service.runs import Runs
from opensora_demo.service.video_jobs import VideoJob, VideoJobs
from tests.unit.devices import WAIT_S, Device

ASKED = {"prompt": "a ball", "num_inference_steps": 4, "num_frames": 1, "seed": 3}


@pytest.fixture
def jobs(engine: LocalEngine, files: OutputFolder) -> VideoJobs:
    return VideoJobs(engine, Runs(), files)


def ended(job: VideoJob) -> VideoJob:
    assert job.run is not None
    assert job.run.wait(WAIT_S)
    return job


def test_a_job_from_its_start_to_its_clip(jobs: VideoJobs, device: Device) -> None:
    device.hold("load")
    device.hold("step 0")
    device.hold("step 2")
    device.hold("decode")
    job = jobs.start(ASKED)
    assert jobs.find(job.id) is job
    assert device.reached["load"].wait(WAIT_S)
    assert (job.status, job.progress) == ("queued", 0)  # it has the device, and does not run
    seen = [job.progress]
    for after, point in (("load", "step 0"), ("step 0", "step 2"), ("step 2", "decode")):
        device.held[after].set()
        assert device.reached[point].wait(WAIT_S)
        assert (job.status, job.over) == ("in_progress", False)
        seen.append(job.progress)
    device.held["decode"].set()
    ended(job)
    seen.append(job.progress)
    assert seen == sorted(seen)
    assert seen[0] == seen[1] == 0 < seen[2] < seen[3] < seen[4] == 100
    told = job.to_json()
    assert {name: told[name] for name in ("object", "status", "model", "prompt", "size", "seconds", "error")} == {
        "object": "video", "status": "completed", "model": "nano", "prompt": "a ball", "size": "128x128",
        "seconds": "1", "error": None,
    }  # fmt: skip
    assert told["created_at"] <= told["completed_at"]
    assert (told["num_frames"], told["seed"], told["step"], told["steps"], told["place"]) == (1, 3, 4, 4, 0)
    assert told["stage_durations"] == {"text": 0.1, "denoise": 0.2, "decode": 0.1}
    assert job.file is not None
    assert job.file.is_file()


def test_what_was_read_is_part_of_a_job() -> None:
    job = VideoJob("", parse_request({"prompt": "a ball"}, model_id="nano", limits=NANO.limits))
    assert job.to_json()["refined_prompt"] is None
    job.add(Encoded(unknown=("fluffy",), cut_tokens=0, seconds=0.0, refined="a ball at night"))
    told = job.to_json()
    assert (told["unknown_words"], told["refined_prompt"]) == (["fluffy"], "a ball at night")
    for index in range(4):
        reused = (index == 2,) if index else ()
        job.add(StepPreview(index=index, total=4, t=0.5, previews=(), guidance=(4.0,), seconds=0.1, reused=reused))
    assert job.to_json()["reused_steps"] == 1


def test_who_waits_is_told_his_place(jobs: VideoJobs, device: Device) -> None:
    device.hold("step 0")
    first = jobs.start(ASKED)
    assert device.reached["step 0"].wait(WAIT_S)
    second = jobs.start({**ASKED, "prompt": "another"})
    end = time.monotonic() + WAIT_S
    while second.to_json()["place"] != 1:  # once it stands in the line
        assert time.monotonic() < end
        time.sleep(0.005)
    assert (second.status, second.progress) == ("queued", 0)
    device.held["step 0"].set()
    ended(first)
    assert ended(second).status == "completed"


def test_a_job_is_stored_before_its_work_begins(
    jobs: VideoJobs, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    submit = engine.submit

    def noted(request: Any, owner: str | None = None, **options: Any) -> Any:
        seen.append([job.status for job in jobs.listed("", None, 9)[0]])
        return submit(request, owner, **options)

    monkeypatch.setattr(engine, "submit", noted)
    ended(jobs.start(ASKED))
    assert seen == [["queued"]]


@pytest.mark.parametrize("point", ["load", "step 2", "decode"])
def test_a_deletion_frees_the_device_and_leaves_nothing(
    jobs: VideoJobs, device: Device, files: OutputFolder, point: str
) -> None:
    device.hold(point)
    job = jobs.start(ASKED)
    assert device.reached[point].wait(WAIT_S)
    threading.Timer(0.05, device.held[point].set).start()  # the block that computes comes to its end
    assert jobs.remove(job.id)
    assert job.over
    assert device.on_it == 0
    assert jobs.find(job.id) is None
    assert not jobs.remove(job.id)
    assert [file for file in files.path.iterdir() if file.suffix == ".mp4"] == []
    assert ended(jobs.start({**ASKED, "prompt": "the next"})).status == "completed"
    assert (job.status, job.failure and job.failure[0]) == ("failed", "cancelled")


def test_a_deletion_that_races_with_the_end_leaves_no_file(
    engine: LocalEngine, files: OutputFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = Gallery(tmp_path, 10**9)
    jobs = VideoJobs(engine, Runs(), files, gallery)
    write, removed = files.write_run, list[bool]()

    def slow(request: Any, done: Any) -> Any:
        found = write(request, done)
        (job,) = jobs.listed("", None, 9)[0]
        removed.append(jobs.remove(job.id, wait_s=0))  # its clip is written, and not yet its own
        return found

    monkeypatch.setattr(files, "write_run", slow)
    ended(jobs.start(ASKED, keep=True))
    assert removed == [True]
    assert gallery.names() == []
    assert list(files.path.glob("*.mp4")) == []
    monkeypatch.undo()
    job = ended(jobs.start(ASKED, keep=True))
    assert job.file is not None
    assert gallery.names() == [job.file.name]
    assert jobs.remove(job.id)
    assert list(files.path.glob("*.mp4")) == []


def test_what_fails_says_why(jobs: VideoJobs, device: Device) -> None:
    device.error = ValueError("a secret path")
    job = ended(jobs.start(ASKED))
    error = job.to_json()["error"]
    assert (job.status, error["code"]) == ("failed", "failed")
    assert "went wrong" in error["message"]
    assert job.to_json()["completed_at"] is None
    assert job.file is None


def test_an_engine_that_ends_interrupts(jobs: VideoJobs, device: Device, engine: LocalEngine) -> None:
    device.hold("step 1")
    job = jobs.start(ASKED)
    assert device.reached["step 1"].wait(WAIT_S)
    threading.Timer(0.05, device.held["step 1"].set).start()
    engine.close()
    ended(job)
    assert job.failure is not None
    assert job.failure[0] == "interrupted"
    with pytest.raises(Cancelled):
        jobs.start(ASKED)
    assert [one.id for one in jobs.listed("", None, 9)[0]] == [job.id]


def test_nothing_is_stored_that_was_refused(engine: LocalEngine, files: OutputFolder) -> None:
    runs = Runs(most=1)
    jobs = VideoJobs(engine, runs, files)
    for asked, field in (({**ASKED, "num_inference_steps": 0}, "num_inference_steps"), ({"x": 1}, "x")):
        with pytest.raises(RequestError) as refused:
            jobs.start(asked)
        assert refused.value.field == field
    runs.close()
    with pytest.raises(Cancelled):
        jobs.start(ASKED)
    assert jobs.listed("", None, 9) == ([], False)
    assert (engine.line().waiting, engine.line().busy) == (0, False)  # its turn was given back


def test_a_list_is_its_owners_in_pages(jobs: VideoJobs) -> None:
    mine = [ended(jobs.start(ASKED, owner="me")).id for _ in range(3)]
    ended(jobs.start(ASKED, owner="you"))
    newest, more = jobs.listed("me", None, 2)
    assert ([job.id for job in newest], more) == ([mine[2], mine[1]], True)
    rest, more = jobs.listed("me", mine[1], 2)
    assert ([job.id for job in rest], more) == ([mine[0]], False)
    assert [job.id for job in jobs.listed("me", None, 9, rising=True)[0]] == mine
    with pytest.raises(RequestError, match="no such job"):
        jobs.listed("me", "video_x", 2)


def test_the_oldest_that_have_ended_are_forgotten(jobs: VideoJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_jobs, "KEEP", 1)
    ids = [ended(jobs.start(ASKED)).id for _ in range(3)]
    assert [jobs.find(job_id) is None for job_id in ids] == [True, False, False]


def test_previews_are_made_for_who_listens(jobs: VideoJobs, device: Device) -> None:
    device.hold("load")
    job = jobs.start(ASKED)
    job.listeners += 1
    device.held["load"].set()
    ended(job)
    first = job.previews[0].to_json()
    assert (first["step"], first["noise_level"]) == (1, 1)
    assert first["pictures"][0].startswith("data:image/jpeg;base64,")
    assert ended(jobs.start(ASKED)).previews == ()


def test_progress_never_falls(jobs: VideoJobs) -> None:
    job = VideoJob("", ended(jobs.start(ASKED)).request)
    assert (job.status, job.over, job.failure) == ("queued", False, None)
    picture = np.zeros((1, 8, 8, 3), np.uint8)
    for index, progress in ((2, 67), (0, 67), (3, 90)):
        job.add(StepPreview(index=index, total=4, t=0.5, previews=(picture,), guidance=(1.0,), seconds=1.0))
        assert job.progress == progress


def test_a_job_that_nobody_asks_for_is_stopped_after_hours(jobs: VideoJobs, device: Device) -> None:
    now = 0.0
    runs = Runs(lambda: now)
    jobs._runs = runs
    device.hold("step 1")
    device.hold("step 2")
    job = jobs.start(ASKED)
    assert device.reached["step 1"].wait(WAIT_S)
    now = 1.9 * 3600
    assert jobs.find(job.id) is job
    now = 3.8 * 3600  # of that 1.9 unasked
    device.held["step 1"].set()
    assert device.reached["step 2"].wait(WAIT_S)
    assert job.status == "in_progress"
    now = 3.95 * 3600
    device.held["step 2"].set()
    ended(job)
    assert job.failure is not None
    assert job.failure[0] == "cancelled"
    assert render(job.failure[1]) == "the run was stopped"


def test_a_reason_beyond_being_stopped_is_said() -> None:
    runs = Runs()

    def work(run: Any) -> str:
        raise Cancelled(plain("stopped here, and there it goes on"))

    run = runs.start(None, work, lambda state, why, seconds: f"{state}: {render(why)}")
    assert list(run.watch())[-1] == "cancelled: stopped here, and there it goes on"
