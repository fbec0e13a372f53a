"""/v1/videos over HTTP: the openai client, plain requests, and our own engine against our own server."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openai
import pytest
from PIL import Image

from opensora_demo import serve
from opensora_demo.catalog import MODELS, NANO, ElsewhereWeights, offer_only
from opensora_demo.catalog.served import served_model
from opensora_demo.errors import Cancelled, DeviceError, RequestError, ServerError
from opensora_demo.media import read_mp4, read_settings
from opensora_demo.messages import from_json, message, render, to_json
from opensora_demo.request import settings as table
from opensora_demo.request.events import Decoding, Encoded, Finished, Started, StepPreview
from opensora_demo.request.parse import parse_request
from opensora_demo.service.dialect import DIALECT_LIMITS
from opensora_demo.service.engine import Loading, Quiet, Waiting
from opensora_demo.service.forms import Comparison, compare_names, cost_names
from opensora_demo.service.options import ServerAddress, ServerOptions
from opensora_demo.service.remote import RemoteEngine, VideoServer, connect
from opensora_demo.service.video_jobs import VideoJobs
from opensora_demo.service.visitors import Rate, RateLimit
from opensora_demo.toy.chips import knows_words
from opensora_demo.ui import video_api
from opensora_demo.ui.actions.all import actions_of
from opensora_demo.ui.context import PageContext
from opensora_demo.ui.controls import model_note
from opensora_demo.ui.doors import Doors
from opensora_demo.ui.language import MARK, mark
from opensora_demo.ui.page import build_page
from opensora_demo.ui.shown_error import ShownError
from opensora_demo.ui.values.compare import CompareView
from opensora_demo.ui.values.stage import RunView
from opensora_demo.ui.video_api import VideoApi
from opensora_demo.weights.options import WeightOptions
from tests.ui.server import WAIT_S, Answer, Server, until

NOBODY: Any = SimpleNamespace(session_hash="a visit", headers={}, client=None)
ASKED: dict[str, Any] = {"prompt": "a ball", "num_inference_steps": 4, "num_frames": 5, "seed": 3}


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}v1", api_key="a class", max_retries=0) as made:
        yield made


def api_of(server: Server) -> VideoApi:
    """What stands in front of the page, as the server made it."""
    app = server.page.app.middleware_stack
    while not isinstance(app, VideoApi):
        app = app.app
    return app


def state(server: Server, job_id: str) -> Any:
    return server.ask(f"v1/videos/{job_id}").json


def done(server: Server, **fields: Any) -> Any:
    job = server.ask("v1/videos", ASKED | fields).json
    until(lambda: state(server, job["id"])["status"] not in ("queued", "in_progress"))
    return state(server, job["id"])


def delete(server: Server, job_id: str, **headers: str) -> Answer:
    return server.ask(f"v1/videos/{job_id}", headers=headers, method="DELETE")


def png(side_px: int = 64) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (side_px, side_px), "navy").save(data, "PNG")
    return data.getvalue()


# --- the client of the interface that this is after


def test_the_openai_client(client: openai.OpenAI, tmp_path: Path) -> None:
    extra: Any = {"num_inference_steps": 3, "guidance_scale": 2, "rule": "apg", "fps": 8}
    video: Any = client.videos.create(model="nano", prompt="a ball", seconds="2", size="128x128", extra_body=extra)
    assert (video.object, video.model, video.prompt) == ("video", "nano", "a ball")
    video = client.videos.poll(video.id, poll_interval_ms=20)
    assert (video.status, video.progress, video.seconds, video.size) == ("completed", 100, "2", "128x128")
    assert video.error is None
    file = tmp_path / "clip.mp4"
    client.videos.download_content(video.id).write_to_file(file)
    frames, fps = read_mp4(file)
    assert (len(frames), fps) == (17, 8)
    settings = read_settings(file)
    assert settings is not None
    assert (settings["steps"], settings["guidance"], settings["rule"]) == (3, 2, "apg")
    assert [one.id for one in client.videos.list()][:1] == [video.id]
    assert client.videos.delete(video.id).deleted
    with pytest.raises(openai.NotFoundError, match="no such job"):
        client.videos.retrieve(video.id)


def test_the_openai_client_sends_a_picture(client: openai.OpenAI, server: Server) -> None:
    seen: list[Any] = []
    engine, submit = server.context.engine, server.context.engine.submit
    engine.submit = lambda request, *rest, **more: seen.append(request) or submit(request, *rest, **more)  # type: ignore[method-assign, func-returns-value]
    try:
        video: Any = client.videos.create(
            prompt="a ball", input_reference=("first.png", png(), "image/png"),
            extra_body={"num_inference_steps": 2, "seed": 5},
        )  # fmt: skip
        assert client.videos.poll(video.id, poll_interval_ms=20).status == "completed"
        uri = "data:image/png;base64," + base64.b64encode(png()).decode()
        for value in (uri, {"image_url": uri}):
            assert done(server, input_reference=value)["status"] == "completed"
    finally:
        engine.submit = submit  # type: ignore[method-assign]
    assert [(request.seed, request.steps) for request in seen] == [(5, 2), (3, 4), (3, 4)]
    navy = np.broadcast_to(np.array((0, 0, 128), np.uint8), (1, 128, 128, 3))
    assert all(np.array_equal(request.reference, navy) for request in seen)


def test_the_client_is_told_what_is_wrong(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.videos.create(prompt="a ball", model="nano", size="1280x720")
    assert refused.value.param == "size"
    assert "size: must be one of 128x128, not '1280x720'" in refused.value.message
    with pytest.raises(openai.BadRequestError) as refused:
        client.videos.create(prompt="a ball", extra_body={"flow_shift": 3})
    assert refused.value.param == "flow_shift"


# --- plain requests


def test_a_job_is_honest_about_where_it_stands(server: Server, gate: threading.Semaphore) -> None:
    first = server.ask("v1/videos", ASKED).json
    until(lambda: state(server, first["id"])["status"] == "in_progress")
    second = server.ask("v1/videos", ASKED).json
    assert (first["progress"], second["status"], second["progress"]) == (0, "queued", 0)
    until(lambda: state(server, second["id"])["place"] == 1)
    assert [state(server, second["id"])[name] for name in ("status", "progress")] == ["queued", 0]
    assert server.ask(f"v1/videos/{second['id']}/content").status == 409
    percents = []
    for step in range(1, 4):
        gate.release()
        until(lambda step=step: state(server, first["id"])["step"] == step)  # type: ignore[misc]
        percents.append(state(server, first["id"])["progress"])
    assert percents == [22, 45, 67]
    assert "67 %" in server.ask(f"v1/videos/{first['id']}/content").json["error"]["message"]
    gate.release(10)
    for job in (first, second):
        until(lambda job=job: state(server, job["id"])["status"] == "completed")  # type: ignore[misc]
        assert delete(server, job["id"]).json == {"id": job["id"], "object": "video.deleted", "deleted": True}


def test_a_deletion_ends_the_run(server: Server, gate: threading.Semaphore) -> None:
    job = server.ask("v1/videos", ASKED).json
    until(lambda: state(server, job["id"])["status"] == "in_progress")
    waits = server.ask("v1/videos", ASKED).json
    closed = server.pipeline.closed
    for one in (waits, job):
        assert delete(server, one["id"]).status == 200
        assert server.ask(f"v1/videos/{one['id']}").status == 404
    assert (server.pipeline.running, server.pipeline.closed) == (0, closed + 1)  # by the time of the answer
    assert server.context.engine.line().busy is False
    assert delete(server, job["id"]).status == 404


def test_sync(server: Server, gate: threading.Semaphore, tmp_path: Path) -> None:
    gate.release(4)
    asked = urllib.request.Request(f"{server.url}v1/videos/sync", json.dumps(ASKED).encode())
    with urllib.request.urlopen(asked, timeout=WAIT_S) as answer:
        assert answer.headers["content-type"] == "video/mp4"
        job_id = answer.headers["x-video-id"]
        (tmp_path / "a.mp4").write_bytes(answer.read())
    assert len(read_mp4(tmp_path / "a.mp4")[0]) == 5
    assert state(server, job_id)["status"] == "completed"
    assert server.ask("v1/videos/sync", {"prompt": "", "n": 1}).status == 400
    # who leaves takes his job with him
    host, port = server.url.removeprefix("http://").strip("/").split(":")
    body = json.dumps(ASKED)
    head = f"POST /v1/videos/sync HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=WAIT_S) as calling:
        calling.sendall((head + body).encode())
        until(lambda: server.pipeline.running == 1)
    until(lambda: server.pipeline.running == 0)
    assert len(server.ask("v1/videos").json["data"]) == len(api_of(server).jobs.listed("", None, 99)[0])


def test_what_fails_in_sync_is_an_error(server: Server) -> None:
    server.pipeline.error = ValueError("a secret")
    try:
        answer = server.ask("v1/videos/sync", ASKED)
        job = done(server)
    finally:
        server.pipeline.error = None
    assert (answer.status, answer.json["error"]["type"], answer.json["error"]["code"]) == (
        500,
        "server_error",
        "failed",
    )
    assert "secret" not in answer.text
    assert job["status"] == "failed"
    assert "went wrong" in job["error"]["message"]
    assert server.ask(f"v1/videos/{job['id']}/content").status == 409


def test_events_are_told_until_the_end(server: Server, gate: threading.Semaphore) -> None:
    job = server.ask("v1/videos", ASKED).json
    with urllib.request.urlopen(f"{server.url}v1/videos/{job['id']}/events", timeout=WAIT_S) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        until(lambda: api_of(server).jobs.find(job["id"]).listeners == 1)  # type: ignore[union-attr]
        gate.release(10)
        events = [part.split("\n", 1) for part in stream.read().decode().strip().split("\n\n")]
    told = [json.loads(data.removeprefix("data: ")) for kind, data in events if kind == "event: video"]
    shown = [json.loads(data.removeprefix("data: ")) for kind, data in events if kind == "event: preview"]
    percents = [one["progress"] for one in told]
    assert percents == sorted(percents)
    assert told[-1] == state(server, job["id"])
    assert told[-1]["status"] == "completed"
    assert shown[0]["step"] == 1
    assert shown[0]["pictures"][0].startswith("data:image/jpeg;base64,")
    until(lambda: api_of(server).jobs.find(job["id"]).listeners == 0)  # type: ignore[union-attr]


def test_lists_of_scales_make_a_grid(server: Server) -> None:
    job = done(server, guidance_scale=[1, 4], rule=["plain", "apg"])
    assert (job["settings"]["guidance"], job["settings"]["rule"]) == ([1, 4], ["plain", "apg"])
    form = b"".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in (ASKED | {"guidance_scale": "1, 4"}).items()
    )
    answer = server.ask("v1/videos", form + b"--b--\r\n", {"Content-Type": "multipart/form-data; boundary=b"})
    assert answer.json["settings"]["guidance"] == [1, 4]


FORM = {"Content-Type": "multipart/form-data; boundary=b"}


def part(name: str, value: str, more: str = "") -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{value}\r\n'.encode()


@pytest.mark.parametrize(
    ("body", "headers", "status", "param", "words"),
    [
        ({"prompt": "a ball", "stepz": 1}, {}, 400, "stepz", "there is no such field; there are model, prompt"),
        ({"prompt": "a ball", "num_inference_steps": 0}, {}, 400, "num_inference_steps", "must lie between"),
        ({}, {}, 400, "prompt", "is missing"),
        ([1], {}, 400, None, "must be a JSON object"),
        (b"{", {}, 400, None, "must be a JSON object"),
        (b'{"prompt": ' + b"[" * 100 + b"]" * 100 + b"}", {}, 400, None, "nested too deeply"),
        ({"prompt": "x" * 3_000_000}, {}, 413, None, "at most 2 MB"),
        ({"prompt": "a ball", "input_reference": "http://127.0.0.1/a.png"}, {}, 400, "input_reference", "data:"),
        ({"prompt": "a ball", "input_reference": "data:image/png;base64,*"}, {}, 400, "input_reference", "data:"),
        ({"prompt": "a ball", "input_reference": "data:image/png;base64,AAAA"}, {}, 400, "input_reference", "readable"),
        ({"prompt": "a ball", "input_reference": {"file_id": "x"}}, {}, 400, "input_reference", "data:"),
        ({"prompt": "a ball", "video": "/etc/passwd"}, {}, 400, "video", "data:"),
        (part("prompt", "a") + part("prompt", "b") + b"--b--\r\n", FORM, 400, "prompt", "given twice"),
        (part("input_reference", "/etc/passwd") + b"--b--\r\n", FORM, 400, "input_reference", "must be a file"),
        (part("prompt", "a", '; filename="a"') + b"--b--\r\n", FORM, 400, "prompt", "must be text"),
        (b"nothing", FORM, 400, None, "multipart form"),
        ({"prompt": "a ball"}, {"Sec-Fetch-Site": "cross-site"}, 403, None, "another website"),
    ],
)
def test_a_mistake_is_a_sentence(
    server: Server, body: Any, headers: dict[str, str], status: int, param: str | None, words: str
) -> None:
    answer = server.ask("v1/videos", body, headers)
    error = answer.json["error"]
    assert (answer.status, error["param"], error["type"]) == (status, param, "invalid_request_error")
    assert words in error["message"]
    assert "/tmp" not in answer.text


@pytest.mark.parametrize(
    ("path", "method", "status", "words"),
    [
        ("v1/videos/video_x", "GET", 404, "no such job"),
        ("v1/videos/video_x", "DELETE", 404, "no such job"),
        ("v1/videos/video_x/content", "GET", 404, "no such job"),
        ("v1/videos/video_x/events", "GET", 404, "no such job"),
        ("v1/videos/video_x/remix", "POST", 404, "nothing here"),
        ("v1/videos", "PUT", 405, "PUT cannot be asked for here"),
        ("v1/videos?limit=0", "GET", 400, "limit: must lie between 1 and 100, not 0"),
        ("v1/videos?order=up", "GET", 400, "order: must be one of asc, desc"),
        ("v1/videos?after=video_x", "GET", 400, "after: there is no such job"),
        ("v1/videos?page=2", "GET", 400, "page: there is no such field"),
    ],
)
def test_what_is_not_there(server: Server, path: str, method: str, status: int, words: str) -> None:
    answer = server.ask(path, method=method)
    assert (answer.status, words in answer.json["error"]["message"]) == (status, True), answer.text


def test_a_clip_that_was_swept_away_is_gone(server: Server) -> None:
    job = done(server)
    assert server.ask(f"v1/videos/{job['id']}/content?variant=thumbnail").status == 400
    (server.context.files.path / job["file_name"]).unlink()
    answer = server.ask(f"v1/videos/{job['id']}/content")
    assert (answer.status, answer.json["error"]["message"]) == (410, "this clip is no longer here")


def test_a_list_is_of_ones_own_key(server: Server) -> None:
    mine, yours = {"Authorization": "Bearer mine"}, {"Authorization": "Bearer yours"}
    ids = [server.ask("v1/videos", ASKED, mine).json["id"] for _ in range(2)]
    listed = server.ask("v1/videos?limit=1", headers=mine).json
    assert ([job["id"] for job in listed["data"]], listed["has_more"]) == ([ids[1]], True)
    assert (listed["first_id"], listed["last_id"], listed["object"]) == (ids[1], ids[1], "list")
    rest = server.ask(f"v1/videos?after={ids[1]}&order=desc", headers=mine).json
    assert [job["id"] for job in rest["data"]] == ids[:1]
    assert server.ask("v1/videos", headers=yours).json["data"] == []
    assert server.ask(f"v1/videos/{ids[0]}", headers=yours).status == 200  # who knows the id may ask


def test_a_public_page_lists_nothing_for_who_has_no_key(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    done(server)
    assert server.ask("v1/videos").json["data"] != []
    monkeypatch.setattr(api_of(server), "public", True)
    assert server.ask("v1/videos").json == {
        "object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False
    }  # fmt: skip


def test_a_token_is_asked_for_where_there_is_one(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_of(server), "token", "letmein")
    for headers in ({}, {"Authorization": "Bearer no"}, {"Authorization": "Basic letmein"}):
        for path in ("v1/videos", "v1/models", "v1/videos/video_x"):
            answer = server.ask(path, headers=headers)
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    allowed = {"Authorization": "Bearer letmein"}
    assert server.ask("v1/models", headers=allowed).status == 200
    job = server.ask("v1/videos", ASKED, allowed).json
    assert [one["id"] for one in server.ask("v1/videos?limit=1", headers=allowed).json["data"]] == [job["id"]]
    with pytest.raises(ServerError, match="token"):
        VideoServer(ServerAddress(url=server.url.rstrip("/"), token="no")).models()
    assert NANO.id in [
        spec.id for spec in VideoServer(ServerAddress(url=server.url.rstrip("/"), token="letmein")).models()
    ]


def test_limits_hold_here_too(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    doors: Doors = api_of(server).doors
    monkeypatch.setattr(doors, "starting", RateLimit(Rate(burst=1, per_s=0.01)))
    assert server.ask("v1/videos", ASKED).status == 200
    refused = server.ask("v1/videos", ASKED)
    assert (refused.status, refused.headers["retry-after"]) == (429, "100")
    monkeypatch.setattr(server.context.runs, "most", 0)
    full = server.ask("v1/videos", ASKED)
    assert (full.status, "no more fit" in full.json["error"]["message"]) == (429, True)
    monkeypatch.setattr(doors, "asking", RateLimit(Rate(burst=0.5, per_s=0.001)))
    assert server.ask("v1/videos", ASKED).status == 429
    assert delete(server, "video_x").status == 429


def test_models_say_their_limits(server: Server) -> None:
    listed = server.ask("v1/models").json
    by_id = {model["id"]: model for model in listed["data"]}
    assert listed["object"] == "list"
    assert by_id["nano"]["limits"]["frames"] == [1, 5, 9, 13, 17]
    assert by_id["nano"]["summary"]
    assert all("debug" not in name for name in by_id)


def test_a_stream_that_says_nothing_beats(server: Server, gate: threading.Semaphore, monkeypatch: Any) -> None:
    monkeypatch.setattr(video_api, "BEAT_S", 0.1)
    job = server.ask("v1/videos", ASKED).json
    until(lambda: state(server, job["id"])["status"] == "in_progress")
    with urllib.request.urlopen(f"{server.url}v1/videos/{job['id']}/events", timeout=WAIT_S) as stream:
        lines = [stream.readline() for _ in range(4)]
    assert b": still here\n" in lines
    delete(server, job["id"])


# --- our engine, and our server


@pytest.fixture
def engine(server: Server) -> Iterator[RemoteEngine]:
    """Of this server, in the same process: the catalog is its own again afterwards."""
    before = dict(MODELS)
    made = connect(ServerAddress(url=server.url.rstrip("/")))
    yield made
    made.close()
    MODELS.clear()
    MODELS.update(before)


def wanted(**raw: Any) -> Any:
    return parse_request({"prompt": "a ball", "seed": 3, "frames": 5, **raw}, model_id="nano", limits=NANO.limits)


def test_models_and_limits_come_from_the_server(engine: RemoteEngine) -> None:
    offers = {offer.spec.id: offer for offer in engine.models()}
    assert offers["nano"].spec.limits == NANO.limits
    assert all(offer.reason is None for offer in offers.values())
    assert set(offers) == set(MODELS)  # what cannot run there is not offered
    assert not any(spec.published for spec in MODELS.values())
    assert engine.blind is not None
    assert engine.next_free_s() is None
    with pytest.raises(DeviceError, match="no previews"):
        engine.explain(wanted())


def test_a_clip_comes_from_the_server(engine: RemoteEngine, server: Server) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (1, 128, 128, 3), np.uint8)
    request = parse_request(
        {"prompt": "a ball", "seed": 3, "frames": 5, "steps": 4, "rule": "interval", "negative": "a star"},
        model_id="nano", limits=NANO.limits, reference=picture,
    )  # fmt: skip
    seen: list[Any] = []
    submit = server.context.engine.submit
    server.context.engine.submit = lambda *a, **k: seen.append(a[0]) or submit(*a, **k)  # type: ignore[method-assign, func-returns-value]
    try:
        job = engine.submit(request)
        events = list(job.events())
    finally:
        server.context.engine.submit = submit  # type: ignore[method-assign]
    assert np.array_equal(seen[0].reference, picture)
    assert seen[0].settings() == request.settings()
    kinds = [type(event) for event in events if not isinstance(event, Loading | Waiting)]
    assert kinds == [Started, Encoded, *[StepPreview] * 4, Decoding, Finished]
    assert [event.place for event in events if isinstance(event, StepPreview)] == [0, 1, 2, 3]
    assert all(event.previews == () for event in events if isinstance(event, StepPreview))
    last = events[-1]
    assert last.clips[0].frames.shape == (5, 128, 128, 3)
    assert dict(last.seconds) == {"text": 0.1, "denoise": 1.0, "decode": 0.2}
    assert job.state == "done"
    assert not job.cancel()
    assert 'jobs_total{model="nano",state="done"} 1' in engine.monitor.exposition({})
    with pytest.raises(RuntimeError):
        next(job.events())


def test_each_clip_of_a_comparison_is_a_job(engine: RemoteEngine, server: Server) -> None:
    server.pipeline.unknown = ("zebra",)
    try:
        events = list(engine.submit(wanted(guidance=[1, 4], rule=["plain", "apg"], steps=4)).events())
    finally:
        server.pipeline.unknown = ()
    decoded = [event for event in events if isinstance(event, Decoding)]
    assert [(event.done, event.clip.request.columns) for event in decoded] == [
        (1, ((1, "plain"),)), (2, ((4, "plain"),)), (3, ((1, "apg"),)), (4, ((4, "apg"),)),
    ]  # fmt: skip
    assert [event.place for event in events if isinstance(event, StepPreview)] == [0, 1, 2, 3]
    assert events[-1].unknown == ("zebra",)
    kept = [job.request.columns for job in api_of(server).jobs.listed("", None, 99)[0]]
    assert ((4, "apg"),) not in kept  # they are deleted there


def test_a_cancelled_job_ends_there_too(engine: RemoteEngine, server: Server, gate: threading.Semaphore) -> None:
    first, second = engine.submit(wanted()), engine.submit(wanted())
    error: list[BaseException] = []

    def read(job: Any) -> None:
        try:
            list(job.events())
        except BaseException as reason:
            error.append(reason)

    reading = threading.Thread(target=read, args=(first,))
    reading.start()
    until(lambda: first.state == "running")
    assert (engine.line().waiting, engine.line().busy) == (1, True)
    waiting = threading.Thread(target=read, args=(second,))
    waiting.start()
    until(lambda: second.place == 1)
    assert second.cancel()
    waiting.join(WAIT_S)
    assert first.cancel()
    reading.join(WAIT_S)
    assert [type(one) for one in error] == [Cancelled, Cancelled]
    assert [render(one.message) for one in error] == ["the run was stopped"] * 2  # type: ignore[attr-defined]
    assert (first.state, second.state) == ("cancelled", "cancelled")
    assert server.pipeline.running == 0
    assert engine.line() == engine.line().__class__(0, False, 0.0)


def test_what_the_other_server_does_not_have_is_refused_by_name(engine: RemoteEngine) -> None:
    """A page over a stranger serves /v1/videos too."""
    offer_only([served_model("wan", DIALECT_LIMITS, own_limits=False)])
    context = PageContext(RemoteEngine(engine.server, WeightOptions(models=frozenset({"wan"}))))
    jobs = VideoJobs(context.engine, context.runs, context.files)
    with pytest.raises(RequestError) as refused:
        jobs.start({"prompt": "a cat", "stop_step": 3})
    assert (refused.value.field, jobs.listed("", None, 9)) == ("stop_step", ([], False))
    assert context.engine.line().waiting == 0
    context.files.close()


def test_a_closed_engine_interrupts(engine: RemoteEngine, server: Server, gate: threading.Semaphore) -> None:
    job, unread = engine.submit(wanted()), engine.submit(wanted())
    events = job.events()
    until(lambda: isinstance(next(events), Started))
    until(lambda: server.pipeline.running == 1)
    closing = threading.Thread(target=engine.close)
    closing.start()
    until(lambda: engine.closed)
    with pytest.raises(Cancelled):
        list(events)
    closing.join(WAIT_S)
    assert (job.state, unread.state) == ("interrupted", "interrupted")
    with pytest.raises(Cancelled):
        engine.submit(wanted())
    until(lambda: server.pipeline.running == 0)


def test_who_stops_reading_ends_the_job(engine: RemoteEngine, server: Server, gate: threading.Semaphore) -> None:
    job = engine.submit(wanted())
    events = job.events()
    until(lambda: isinstance(next(events), Started))
    until(lambda: server.pipeline.running == 1)
    events.close()
    assert job.state == "cancelled"
    until(lambda: server.pipeline.running == 0)


# --- the page over such an engine


def test_the_page_says_why_there_are_no_previews(engine: RemoteEngine) -> None:
    context = PageContext(engine)
    actions, why = actions_of(context), to_json(message("note.blind"))
    form = dict.fromkeys(table.names()) | {"prompt": "a ball", "steps": 4, "model": "nano", "seed": "3", "frames": 5}
    shown = list(actions.clips.make_clip(NOBODY, *form.values()))
    stage = shown[-1][0]
    assert (stage["phase"], stage["note"], stage["total"]) == ("done", why, 4)
    assert [step["index"] for step in stage["steps"]] == [1, 2, 3, 4]
    assert all(step["guess"] is step["noise"] is step["latent"] is None for step in stage["steps"])
    assert list(actions.clips.complete(NOBODY))[-1][0]["clip"] == stage["clip"]
    compared = form | {"scales": "1, 4", "rules": [], "axis": "none", "rows": "", "seeds": 1}
    table_of = list(actions.comparison.make_comparison(NOBODY, *(compared[name] for name in compare_names())))[-1]
    assert (table_of["phase"], table_of["note"], table_of["done"]) == ("done", why, table_of["total"])
    assert [cell["state"] for cell in table_of["cells"][0]] == ["done", "done"]
    assert list(actions.figures.glance(NOBODY, "a ball", 3, "nano")) == [{"phase": "idle"}]
    assert list(actions.weights.cost(*(form[name] for name in cost_names()))) == [""]
    with pytest.raises(ShownError, match="no previews"):
        list(actions.figures.explain(NOBODY, "a ball", 3, "nano"))
    page = json.dumps(build_page(context).get_config_file(), default=str, ensure_ascii=False)
    assert page.count(mark(message("note.blind"))) == 2  # in the scope, and in how it works
    codes = {from_json(json.loads(base64.urlsafe_b64decode(code))).code for code in MARK.findall(page)}
    assert "ui.about.facts_server" in codes
    assert "ui.about.facts" not in codes
    context.files.close()


def test_a_quiet_server_is_said_while_it_lasts() -> None:
    step = StepPreview(index=0, total=4, t=1.0, previews=(), guidance=(1.0,), seconds=0.1)
    comparison = Comparison(axis="none", labels=(None,), requests=(wanted(steps=4),))
    stage = RunView(1, "", wanted(steps=4), NANO)
    grid = CompareView(1, "", comparison, lambda clip: pytest.fail("no clip"))
    for view in (stage, grid):
        said = []
        for event in (Loading(), Quiet(on=True), Quiet(on=False), step, Quiet(on=True)):
            view.add(event)
            said.append((view.value(0.0)["phase"], view.value(0.0)["text"]["code"]))
        assert said == [
            ("loading", "run.loading"), ("loading", "run.server_quiet"), ("loading", "run.loading"),
            ("denoising", "run.denoising"), ("denoising", "run.server_quiet"),
        ]  # fmt: skip


def test_a_model_of_ours_keeps_its_words_there(engine: RemoteEngine) -> None:
    assert isinstance(MODELS["nano"].weights, ElsewhereWeights)
    assert knows_words("nano")


def test_the_page_over_a_server_of_other_models(engine: RemoteEngine) -> None:
    """No model of ours, and so no example, no lesson and none of its words."""
    offer_only([served_model("wan", DIALECT_LIMITS, own_limits=False)])
    context = PageContext(RemoteEngine(engine.server, WeightOptions(models=frozenset({"wan"}))))
    page = json.dumps(build_page(context).get_config_file(), default=str, ensure_ascii=False)
    assert 'os-lesson-open\\" hidden' in page
    assert "examples/nano" not in page
    note = model_note(MODELS["wan"], context.options)
    assert "ranges are usual ones" in render(note)
    assert "not known here" in render(note)
    context.files.close()


def test_serving_begins_with_the_server(server: Server, engine: RemoteEngine) -> None:
    options = ServerOptions(engine=ServerAddress(url=server.url.rstrip("/")), public=True)
    made, warming = serve.engine_of(options, WeightOptions())
    assert isinstance(made, RemoteEngine)
    assert made.options.public
    ready = threading.Event()
    warming(ready)
    assert ready.is_set()
    made.close()
    with pytest.raises(ServerError):
        serve.engine_of(ServerOptions(engine=ServerAddress(url="http://127.0.0.1:9")), WeightOptions())
