"""Jobs of /v1/videos that outlive their process: written before their work, found after a restart."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from opensora_demo.messages import message, render
from opensora_demo.service import video_shelf
from opensora_demo.service.gallery import Gallery
from opensora_demo.service.local import LocalEngine
from opensora_demo.service.outputs import OutputFolder
from opensora_demo.service.runs import Runs
from opensora_demo.service.video_jobs import VideoJobs
from opensora_demo.service.video_shelf import VideoShelf
from tests.unit.devices import WAIT_S, Device
from tests.unit.test_service_videos import ASKED, ended


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    return Gallery(tmp_path, 10**9)


@pytest.fixture
def jobs(engine: LocalEngine, files: OutputFolder, gallery: Gallery) -> VideoJobs:
    return VideoJobs(engine, Runs(), files, gallery)


@pytest.fixture
def restarted(engine: LocalEngine, files: OutputFolder, gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The jobs of a process that comes after the one that has written."""

    def start() -> VideoJobs:
        monkeypatch.setattr(video_shelf, "lives", lambda folder: False)
        return VideoJobs(engine, Runs(), files, gallery)

    return start


def test_a_job_is_written_before_its_work_and_at_its_end(jobs: VideoJobs, device: Device, gallery: Gallery) -> None:
    device.hold("load")
    job = jobs.start(ASKED, "somebody", keep=True)
    assert device.reached["load"].wait(WAIT_S)
    (file,) = (gallery.folder / "videos").glob("*.json")
    value = json.loads(file.read_text("utf-8"))
    assert (value["owner"], value["over"], value["video"]["id"]) == ("somebody", False, job.id)
    assert file.stat().st_mode & 0o777 == 0o600
    assert job.id not in file.name
    device.held["load"].set()
    ended(job)
    value = json.loads(file.read_text("utf-8"))
    assert (value["over"], value["failure"], value["clip"]) == (True, None, gallery.names()[0])


def test_one_that_is_not_to_outlive_its_process_is_not_written(jobs: VideoJobs, gallery: Gallery) -> None:
    ended(jobs.start(ASKED))
    assert list(gallery.folder.iterdir()) == []


def test_a_job_that_is_done_is_there_after_a_restart_while_its_clip_is(
    jobs: VideoJobs, gallery: Gallery, restarted: Any
) -> None:
    job = ended(jobs.start(ASKED, "somebody", keep=True))
    other = ended(jobs.start(ASKED, "another", keep=True))
    after = restarted()
    assert after.find(job.id) is None  # no process works on it
    stored = after.stored(job.id)
    assert stored.to_json() == job.to_json()
    assert after.listed("somebody", None, 9) == ([stored], False)
    assert after.clip_of(stored).read_bytes() == job.file.read_bytes() if job.file else False
    assert after.stored(other.id).owner == "another"
    assert job.file is not None
    gallery.delete([job.file.name])
    assert after.clip_of(stored) is None
    assert restarted().stored(job.id) is None
    assert restarted().stored(other.id) is not None


def test_what_was_queued_or_running_is_said_to_have_been_ended(jobs: VideoJobs, device: Device, restarted: Any) -> None:
    device.hold("step 2")
    runs = jobs.start(ASKED, keep=True)
    assert device.reached["step 2"].wait(WAIT_S)
    waits = jobs.start(ASKED, keep=True)
    after = restarted()
    for job in (runs, waits):
        said = after.stored(job.id).to_json()
        assert (said["status"], said["completed_at"], said["place"]) == ("failed", None, 0)
        assert said["error"]["code"] == "interrupted"
        assert said["error"]["message"] == render(message("run.server_ended"))
    assert [job.id for job in after.listed("", None, 9, rising=True)[0]] == [runs.id, waits.id]
    assert "结束" in render(message("run.server_ended"), "zh")


def test_what_another_process_works_on_is_left_to_it(
    jobs: VideoJobs, device: Device, engine: LocalEngine, files: OutputFolder, gallery: Gallery
) -> None:
    device.hold("step 2")
    job = jobs.start(ASKED, keep=True)
    beside = VideoJobs(engine, Runs(), files, gallery)  # the process that wrote it lives
    assert beside.stored(job.id) is None
    assert len(list((gallery.folder / "videos").glob("*.json"))) == 1


def test_what_failed_keeps_its_reason(jobs: VideoJobs, device: Device, restarted: Any) -> None:
    device.hold("step 2")
    job = jobs.start(ASKED, keep=True)
    assert device.reached["step 2"].wait(WAIT_S)
    assert job.run is not None
    job.run.cancel()
    device.held["step 2"].set()
    ended(job)
    assert job.failure is not None
    assert restarted().stored(job.id).to_json()["error"] == job.to_json()["error"]


def test_a_deletion_is_for_good(jobs: VideoJobs, restarted: Any) -> None:
    first, second = (ended(jobs.start(ASKED, keep=True)) for _ in range(2))
    assert jobs.remove(first.id)
    after = restarted()
    assert after.stored(first.id) is None
    assert after.remove(second.id)
    assert not after.remove(second.id)
    assert restarted().stored(second.id) is None


def test_what_was_refused_is_not_written(engine: LocalEngine, files: OutputFolder, gallery: Gallery) -> None:
    jobs = VideoJobs(engine, Runs(most=0), files, gallery)
    with pytest.raises(Exception, match="run"):
        jobs.start(ASKED, keep=True)
    assert list((gallery.folder / "videos").glob("*")) == []


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "[" * 5000, '{"video": 3}', b"\xff\xfe", "x" * 1_000_001],
    ids=["empty", "cut", "a list", "nothing", "deep", "another kind", "no text", "too long"],
)
def test_a_file_that_is_no_job_is_passed_over_with_a_line(
    jobs: VideoJobs, gallery: Gallery, restarted: Any, caplog: pytest.LogCaptureFixture, text: str | bytes
) -> None:
    good, bad = (ended(jobs.start(ASKED, keep=True)) for _ in range(2))
    file = VideoShelf(gallery)._file(bad.id)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with caplog.at_level(logging.WARNING):
        after = restarted()
    assert after.stored(bad.id) is None
    assert after.stored(good.id) is not None
    assert file.name in caplog.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("video", {"id": "another"}),
        ("video", {"id": 7}),
        ("begun_at", "soon"),
        ("owner", 7),
        ("clip", ["x"]),
        ("failure", {"state": "failed", "message": {"code": "no.such.code", "params": {}}}),
        ("failure", {"state": "failed", "message": 7}),
        ("failure", 7),
    ],
)
def test_a_field_that_is_none_is_passed_over(
    jobs: VideoJobs, gallery: Gallery, restarted: Any, field: str, value: Any
) -> None:
    job = ended(jobs.start(ASKED, keep=True))
    file = VideoShelf(gallery)._file(job.id)
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    assert restarted().stored(job.id) is None


def test_there_are_at_most_as_many_as_are_kept(jobs: VideoJobs, gallery: Gallery) -> None:
    made = [ended(jobs.start(ASKED, keep=True)) for _ in range(4)]
    for at, job in enumerate(made):
        os.utime(VideoShelf(gallery)._file(job.id), (at, at))
    stored = VideoShelf(gallery, keep=2).load()
    assert [job.id for job in stored] == [made[2].id, made[3].id]
    assert len(list((gallery.folder / "videos").glob("*.json"))) == 2


def test_a_disk_that_takes_nothing_costs_no_clip(
    jobs: VideoJobs, gallery: Gallery, caplog: pytest.LogCaptureFixture
) -> None:
    (gallery.folder / "videos").write_text("in the way")
    assert ended(jobs.start(ASKED, keep=True)).status == "completed"
    assert "could not be written" in caplog.text
