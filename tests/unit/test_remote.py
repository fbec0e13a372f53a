"""Another server's faults, each as vLLM-Omni, SGLang Diffusion or a stranger has shown it, end as a sentence."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opensora_demo.catalog import DEFAULT_MODEL, MODELS, find_model
from opensora_demo.errors import Cancelled, RequestError, ServerError, WeightsError
from opensora_demo.media import write_mp4
from opensora_demo.messages import render
from opensora_demo.pictures import read_reference
from opensora_demo.request.events import Decoding, Encoded, Finished, Started, StepPreview
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.service import remote
from opensora_demo.service.dialect import DIALECT_LIMITS
from opensora_demo.service.engine import Quiet, Waiting
from opensora_demo.service.options import ServerAddress
from opensora_demo.service.remote import RemoteEngine, RemoteJob, VideoServer, connect, error_text, form_data
from opensora_demo.weights.store import checklist, locate, missing_places, unavailable_reason

MODEL = "Wan-AI/Wan2.2-T2V-A14B-Diffusers"
WAIT_S = 20.0
Said = Quiet | StepPreview
Reply = tuple[int, Any]  # a status, and JSON or bytes


@dataclass
class Stranger:
    """A server whose answers a test chooses: a list of replies for each request, the last of which it repeats. A reply
    of None breaks the connection."""

    replies: dict[str, list[Reply | None]] = field(default_factory=dict)
    asked: list[tuple[str, str, bytes]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    url: str = ""

    def answer(self, kind: str) -> Reply | None:
        waiting = self.replies.get(kind, [(404, {"detail": "Video not found"})])
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    def bodies(self, kind: str) -> list[bytes]:
        return [body for what, _, body in self.asked if what == kind]


def video(status: Any, progress: Any = 0, **more: Any) -> Reply:
    return 200, {"id": "video/1", "object": "video", "status": status, "progress": progress, "error": None, **more}


@pytest.fixture(scope="module")
def stranger() -> Iterator[Stranger]:
    made = Stranger()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def reply(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body, path = self.rfile.read(length), self.path
            kind = {"/v1/models": "models", "/v1/videos": "create"}.get(path)
            kind = (
                kind or {"DELETE": "delete"}.get(self.command) or ("content" if path.endswith("content") else "state")
            )
            made.asked.append((kind, self.headers.get("content-type") or path, body))
            made.tokens.append(self.headers.get("authorization"))
            found = made.answer(kind)
            if found is None:
                self.close_connection = True
                return
            status, value = found
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = reply

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    made.url = f"http://127.0.0.1:{served.server_port}"
    yield made
    served.shutdown()
    served.server_close()
    thread.join()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """17 frames of 832 x 480 would take long; the models' least has one."""
    return mp4(tmp_path_factory.mktemp("clip") / "a.mp4", 1, 480, 832)


def mp4(file: Path, frames: int, height_px: int, width_px: int) -> bytes:
    write_mp4(file, np.full((frames, height_px, width_px, 3), 90, np.uint8), 16, {})
    return file.read_bytes()


@pytest.fixture
def engine(stranger: Stranger, clip: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteEngine]:
    """Of a server that does everything right until a test changes it, and times that fit a test."""
    monkeypatch.setattr(remote, "POLL_S", (0.005, 0.02))
    monkeypatch.setattr(remote, "FOUND_S", 0.15)
    monkeypatch.setattr(remote, "LOST_S", 0.3)
    monkeypatch.setattr(remote, "ASK_S", 1.0)
    before = dict(MODELS)
    stranger.asked.clear()
    stranger.replies = {
        "models": [(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})],
        "create": [video("queued")],
        "state": [video("queued"), video("in_progress", 10), video("in_progress", 55), video("completed", 100)],
        "content": [(200, clip)],
        "delete": [(200, {"id": "video/1", "object": "video.deleted", "deleted": True})],
    }
    made = connect(ServerAddress(url=stranger.url))
    yield made
    assert made.close()
    MODELS.clear()
    MODELS.update(before)


def wanted(**raw: Any) -> GenerationRequest:
    raw = {"prompt": "a cat", "seed": 3, "frames": 1, "steps": 20, **raw}
    return parse_request(raw, model_id=MODEL, limits=DIALECT_LIMITS)


def failure(engine: RemoteEngine, **raw: Any) -> str:
    job = engine.submit(wanted(**raw))
    with pytest.raises(ServerError) as failed:
        list(job.events())
    assert job.state == "failed"
    said = render(failed.value.message)
    assert "127.0.0.1" not in said
    return said


def test_a_server_that_says_nothing_of_itself(engine: RemoteEngine, stranger: Stranger) -> None:
    (offer,) = engine.models()
    spec = offer.spec
    assert (spec.id, spec.title, spec.limits, offer.reason) == (MODEL, MODEL, DIALECT_LIMITS, None)
    assert find_model(None) is spec
    assert DEFAULT_MODEL not in MODELS
    assert engine.options.find_model(None) is spec
    assert locate(spec, engine.options) == {}
    assert (unavailable_reason(spec, engine.options), checklist(spec, engine.options)) == (None, [])
    assert (missing_places(spec, engine.options), spec.published, spec.text_mode) == ([], None, "unknown")
    for part in (spec.network, spec.codec):
        with pytest.raises(WeightsError, match="another machine"):
            part.build()


def test_a_clip_of_a_stranger(engine: RemoteEngine, stranger: Stranger) -> None:
    events = list(engine.submit(wanted(negative="dogs", guidance=4)).events())
    steps = [event.place for event in events if isinstance(event, StepPreview)]
    assert steps == list(range(20))
    assert [event.place for event in events if isinstance(event, Waiting)] == [1] * 2
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.clips[0].frames.shape == (1, 480, 832, 3)
    assert set(last.seconds) == {"denoise"}
    assert json.loads(stranger.bodies("create")[0]) == {
        "model": MODEL, "prompt": "a cat", "negative_prompt": "dogs", "size": "832x480", "num_frames": 1, "fps": 16,
        "num_inference_steps": 20, "guidance_scale": 4, "seed": 3,
    }  # fmt: skip
    assert [what for what, _, _ in stranger.asked if what == "delete"] == ["delete"]


def test_progress_that_jumps_about(engine: RemoteEngine, stranger: Stranger) -> None:
    wrong: list[Any] = [40, 20, None, "60", -3, 900, "much", True]
    stranger.replies["state"] = [*(video("in_progress", value) for value in wrong), video("completed")]
    events = list(engine.submit(wanted()).events())
    assert [event.place for event in events if isinstance(event, StepPreview)] == list(range(20))


def test_in_progress_before_it_runs_and_done_at_once(engine: RemoteEngine, stranger: Stranger) -> None:
    stranger.replies |= {"create": [video("in_progress")], "state": [video("in_progress"), video("completed")]}
    events = list(engine.submit(wanted()).events())
    assert sum(isinstance(event, Encoded) for event in events) == 1
    stranger.replies["create"] = [video("completed", 100)]
    events = list(engine.submit(wanted()).events())
    assert [type(event) for event in events if not isinstance(event, StepPreview)][-2:] == [Decoding, Finished]


def test_what_a_server_of_ours_has_read_is_said_once_it_has(engine: RemoteEngine, stranger: Stranger) -> None:
    read = {"unknown_words": ["fluffy"], "refined_prompt": "a fluffy cat at night"}
    stranger.replies |= {
        "create": [video("in_progress", step=0, steps=20)],
        "state": [video("in_progress", step=3, steps=20, **read), video("completed", step=20, steps=20, **read)],
    }
    events = list(engine.submit(wanted()).events())
    assert isinstance(events[1], Started)
    (encoded,) = [event for event in events if isinstance(event, Encoded)]
    assert (encoded.unknown, encoded.refined) == (("fluffy",), "a fluffy cat at night")
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.refined == "a fluffy cat at night"
    assert last.reused == ()


@pytest.mark.parametrize(("said", "reused"), [(7, (7,)), (0, ()), ("7", ()), (True, ()), (-1, ()), (None, ())])
def test_how_many_steps_a_server_of_ours_reused(
    engine: RemoteEngine, stranger: Stranger, said: object, reused: tuple[int, ...]
) -> None:
    stranger.replies |= {"state": [video("completed", 100, reused_steps=said)]}
    last = list(engine.submit(wanted()).events())[-1]
    assert isinstance(last, Finished)
    assert last.reused == reused


def test_what_a_stranger_does_not_have_is_refused_before_it_is_asked(engine: RemoteEngine, stranger: Stranger) -> None:
    for raw, name in (({"curve": "0:0, 1:1"}, "curve"), ({"stop_step": 3}, "stop_step")):
        with pytest.raises(RequestError) as refused:
            engine.submit(wanted(**raw))
        assert refused.value.field == name
    assert stranger.bodies("create") == []


def test_a_server_that_takes_forms_alone(engine: RemoteEngine, stranger: Stranger) -> None:
    missing = {"detail": [{"loc": ["body", "prompt"], "msg": "Field required"}]}
    stranger.replies["create"] = [(422, missing), video("completed")]
    list(engine.submit(wanted()).events())
    stranger.replies["create"] = [video("completed")]
    list(engine.submit(wanted()).events())
    kinds = [kind.split(";")[0] for what, kind, _ in stranger.asked if what == "create"]
    assert kinds == ["application/json", "multipart/form-data", "multipart/form-data"]
    assert b'name="prompt"\r\n\r\na cat\r\n' in stranger.bodies("create")[-1]


def test_a_first_frame_is_sent_as_it_is(engine: RemoteEngine, stranger: Stranger, tmp_path: Path) -> None:
    frame = np.random.default_rng(1).integers(0, 255, (1, 480, 832, 3), np.uint8)
    request = parse_request(
        {"prompt": "a cat", "frames": 1}, model_id=MODEL, limits=DIALECT_LIMITS, reference=frame
    )  # fmt: skip
    stranger.replies["create"] = [video("completed")]
    list(engine.submit(request).events())
    body = stranger.bodies("create")[0]
    start = body.index(b"\x89PNG")
    assert b'name="input_reference"; filename="given.png"' in body[:start]
    (tmp_path / "a.png").write_bytes(body[start : body.index(b"\r\n--", start)])
    assert np.array_equal(read_reference(tmp_path / "a.png", 480, 832)[0], frame[0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"create": [(401, {"error": {"message": "bad key"}})]}, "does not accept this one's token"),
        ({"create": [(429, {"error": "slow down"})]}, "is busy; try again later. It says: slow down"),
        ({"create": [(503, b"<html>starting</html>")]}, "is busy"),
        ({"create": [(400, {"detail": "num_frames must be 4k+1"})]}, "refuses (400). It says: num_frames must be 4k+1"),
        ({"create": [(422, {"detail": [{"msg": "x"}]})]}, 'refuses (422). It says: [{"msg": "x"}]'),
        ({"create": [(200, {"status": "queued"})]}, "cannot be understood"),
        ({"create": [(200, b"mp4 at once")]}, "cannot be understood"),
        ({"create": [None]}, "does not answer"),
        ({"state": [(404, {"detail": "Video not found"})]}, "does not know this job any more"),
        ({"state": [(403, {})]}, "does not accept this one's token"),
        ({"state": [(418, {"error": {"message": "a teapot"}})]}, "refuses (418). It says: a teapot"),
        ({"state": [(500, b"")]}, "has not answered for"),
        ({"state": [None]}, "has not answered for"),
        ({"state": [(200, b"[]")]}, "has not answered for"),
        ({"state": [video("succeeded")]}, "in the state 'succeeded', which is none"),
        ({"state": [video(None)]}, "in the state None"),
        ({"state": [video("in_progress"), video("deleted")]}, "in the state 'deleted'"),
        ({"state": [video("failed", error={"message": "CUDA out of memory"})]}, "It says: CUDA out of memory"),
        ({"state": [video("failed")]}, "It says: -"),
        ({"content": [(404, {"detail": "Generation is still in-progress"})]}, "gives no readable mp4"),
        ({"content": [(200, b"not an mp4")]}, "gives no readable mp4"),
        ({"content": [None]}, "does not answer"),
    ],
)
def test_a_fault_is_a_sentence(
    engine: RemoteEngine, stranger: Stranger, change: dict[str, list[Reply | None]], words: str
) -> None:
    stranger.replies |= change
    assert words in failure(engine)
    if "create" not in change:  # what was begun there is not left behind
        assert len(stranger.bodies("delete")) == 1


def test_a_job_and_a_file_that_are_a_moment_late(engine: RemoteEngine, stranger: Stranger, clip: bytes) -> None:
    missing: Reply = (404, {"detail": "Video not found"})
    stranger.replies |= {
        "state": [missing, missing, (502, b""), None, video("in_progress"), video("completed")],
        "content": [(404, {"detail": "Generation is still in-progress"}), (200, clip)],
    }
    events = list(engine.submit(wanted()).events())
    assert isinstance(events[-1], Finished)


def test_a_server_that_is_quiet_for_a_while(engine: RemoteEngine, stranger: Stranger) -> None:
    stranger.replies["state"] = [
        video("in_progress", 5), (500, b""), None, None, video("in_progress", 5), video("in_progress", 20), None,
        video("completed"),
    ]  # fmt: skip
    events = list(engine.submit(wanted()).events())
    said = [(event.on if isinstance(event, Quiet) else event.place) for event in events if isinstance(event, Said)]
    assert said == [0, True, False, 1, 2, 3, True, False, *range(4, 20)]


def test_another_clip_than_was_asked_for(engine: RemoteEngine, stranger: Stranger, tmp_path: Path) -> None:
    stranger.replies["state"] = [video("completed")]
    for count, height, width in ((1, 480, 480), (3, 480, 832)):
        stranger.replies["content"] = [(200, mp4(tmp_path / f"{count}.mp4", count, height, width))]
        assert f"{count} frames of {width} x {height} instead of 1 frames of 832 x 480" in failure(engine)


def cancelled(engine: RemoteEngine, until: Callable[[RemoteJob], bool]) -> str:
    """What is said of a job that is stopped once it runs there."""
    job, said = engine.submit(wanted()), list[str]()

    def read() -> None:
        try:
            list(job.events())
        except Cancelled as error:
            said.append(render(error.message))

    reading = threading.Thread(target=read)
    reading.start()
    end = time.monotonic() + WAIT_S
    while not until(job):
        assert time.monotonic() < end
        time.sleep(0.005)
    assert job.cancel()
    reading.join(WAIT_S)
    assert job.state == "cancelled"
    return said[0]


@pytest.mark.parametrize(
    ("delete", "after", "stopped"),
    [
        ((200, {"deleted": True}), (404, {}), True),  # as it should be
        ((200, {"status": "deleted"}), (404, {}), True),  # SGLang's answer
        ((404, {}), (404, {}), True),  # it had just ended
        ((200, {"deleted": True}), video("failed"), True),
        ((405, {}), video("in_progress"), False),  # it knows no deletion
        ((501, {"detail": "TODO: support aborting"}), video("in_progress"), False),
        ((200, {"deleted": True}), video("in_progress", 50), False),  # it says so, and goes on
        ((200, {"deleted": True}), None, False),
        (None, video("in_progress"), False),
    ],
)
def test_a_deletion_that_stops_nothing_is_said(
    engine: RemoteEngine, stranger: Stranger, delete: Reply | None, after: Reply | None, stopped: bool
) -> None:
    stranger.replies |= {"state": [video("in_progress", 5)], "delete": [delete]}

    def runs(job: RemoteJob) -> bool:
        if job.state != "running":
            return False
        stranger.replies["state"] = [after if after and after[0] == 200 else video("in_progress", 5)]
        return True

    if after is None or after[0] != 200:  # from the deletion on
        answer = stranger.answer
        gone = threading.Event()

        def changed(kind: str) -> Reply | None:
            if kind == "delete":
                gone.set()
            return after if kind == "state" and gone.is_set() else answer(kind)

        stranger.answer = changed  # type: ignore[method-assign]
    try:
        said = cancelled(engine, runs)
    finally:
        vars(stranger).pop("answer", None)
    expected = "the run was stopped" if stopped else "may go on with this clip"
    assert expected in said


def test_a_job_that_nobody_reads_can_be_stopped(engine: RemoteEngine, stranger: Stranger) -> None:
    job = engine.submit(wanted())
    assert job.cancel()
    assert job.state == "cancelled"
    assert not job.cancel()
    with pytest.raises(Cancelled):
        list(job.events())
    assert stranger.bodies("create") == []


def test_a_clip_that_is_there_cannot_be_stopped(engine: RemoteEngine, stranger: Stranger) -> None:
    job = engine.submit(wanted())
    for event in job.events():
        if isinstance(event, Finished):
            assert not job.cancel()
    assert job.state == "done"


def test_others_wait_and_are_counted(engine: RemoteEngine, stranger: Stranger) -> None:
    job = engine.submit(wanted())
    assert (engine.line().waiting, engine.line().busy, engine.line().wait_s) == (1, False, None)
    list(job.events())
    assert engine.line().waiting == 0
    assert f'jobs_total{{model="{MODEL}",state="done"}} 1' in engine.monitor.exposition({})


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (None, "does not answer"),
        ((401, {}), "token"),
        ((404, {"detail": "Not Found"}), "refuses (404). It says: Not Found"),
        ((200, {"models": []}), "cannot be understood"),
        ((200, {"data": [{"id": "nano", "limits": {"steps": 3}}]}), "cannot be understood"),
        ((200, {"data": []}), "offers no model"),
        ((200, b"<html>"), "cannot be understood"),
    ],
)
def test_a_server_that_cannot_be_used(stranger: Stranger, reply: Reply | None, words: str) -> None:
    stranger.replies["models"] = [reply]
    before = dict(MODELS)
    with pytest.raises(ServerError, match="server that makes the clips") as failed:
        connect(ServerAddress(url=stranger.url))
    assert words in render(failed.value.message)
    assert before == MODELS


def test_nobody_there() -> None:
    with pytest.raises(ServerError, match="does not answer"):
        connect(ServerAddress(url="http://127.0.0.1:9"))


def test_an_answer_without_end(engine: RemoteEngine, stranger: Stranger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MAX_ANSWER", 1000)
    stranger.replies["create"] = [(200, b" " * 2000)]
    assert "cannot be understood" in failure(engine)


def test_other_files_are_not_sent_to_a_stranger(engine: RemoteEngine) -> None:
    frames = np.zeros((1, 480, 832, 3), np.uint8)
    request = replace(wanted(), last_frame=frames)
    with pytest.raises(ServerError, match="a first frame and no other files"):
        list(engine.submit(request).events())


def test_what_an_error_says() -> None:
    said = [b'{"error": {"message": "a"}}', b'{"detail": "b"}', b'{"error": "c"}', b"d\n e", b"[1]", b'{"error": 7}']
    assert [error_text(body) for body in said] == ["a", "b", "c", "d e", "[1]", "7"]
    assert len(error_text(b"x" * 5000)) == remote.MAX_QUOTED


def test_a_form() -> None:
    body, kind = form_data({"prompt": "a “cat”"}, {"video": ("given.webp", b"\r\n--")})
    mark = kind.removeprefix("multipart/form-data; boundary=")
    assert body.endswith(f"\r\n--{mark}--\r\n".encode())
    assert body.count(mark.encode()) == 3
    assert b"Content-Type: image/webp\r\n\r\n\r\n--\r\n" in body


def test_a_token_is_sent(stranger: Stranger) -> None:
    stranger.replies["models"] = [(200, {"data": [{"id": "a"}]})]
    for token, sent in (("letmein", "Bearer letmein"), ("", None)):
        VideoServer(ServerAddress(url=stranger.url, token=token)).models()
        assert stranger.tokens[-1] == sent
