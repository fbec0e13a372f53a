"""What a host asks of the page, and what the page refuses: the real server, a pipeline without a model."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from fastapi.datastructures import Headers
from gradio_client import Client

from benchmarks import soak
from opensora_demo import serve
from opensora_demo.catalog import NANO
from opensora_demo.media import write_mp4
from opensora_demo.request import settings as table
from opensora_demo.request.parse import parse_request
from opensora_demo.service.local import LocalEngine
from opensora_demo.service.logs import TEXT, AboutRun, JsonLines, adopt, configure, public_id, running
from opensora_demo.service.options import ServerOptions
from opensora_demo.service.runs import Run, Runs
from opensora_demo.ui.context import PageContext, may
from opensora_demo.ui.guard import Guard, Names, policy
from opensora_demo.ui.language import spoken
from opensora_demo.ui.page import build_page
from opensora_demo.ui.probes import Probes
from opensora_demo.ui.scripts import UI_ASSETS
from tests.ports import free_port
from tests.ui.conftest import FakeBundles, FakePipeline
from tests.unit.test_imports import ROOT

LIMITS = NANO.limits
JSON = "application/json"
HEADERS = ("content-security-policy", "x-content-type-options", "referrer-policy", "permissions-policy")


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass
class Site:
    """A page that is served, and its address."""

    url: str
    context: PageContext

    def ask(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> Answer:
        """Exactly these headers; those of the connection are added."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        try:
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()


def served(server: ServerOptions) -> Iterator[Site]:
    context = PageContext(LocalEngine(FakeBundles(), generate=FakePipeline()))
    page = build_page(context).queue()
    _, url, _ = page.launch(
        server_name="127.0.0.1",
        server_port=free_port(),
        prevent_thread_lock=True,
        quiet=True,
        ssr_mode=False,
        run_history=False,
        enable_monitoring=False,
        **spoken(*serve.in_front(context, server)),
    )
    yield Site(url, context)
    page.close(verbose=False)
    context.files.close()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """As it is served to this machine alone."""
    yield from served(ServerOptions())


@pytest.mark.parametrize(
    "path", ["/", "/config", "/health", "/metrics", "/gradio_api/info", "/nothing", "/gradio_api/file=/etc/passwd"]
)
def test_every_answer_tells_the_browser_what_it_may(site: Site, path: str) -> None:
    answer = site.ask(path)
    assert all(len(answer.headers.get_all(name) or ()) == 1 for name in HEADERS)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]


def test_what_may_frame_the_page() -> None:
    assert policy(()).endswith("frame-ancestors 'self'")
    assert policy(("https://a.example",)).endswith("frame-ancestors 'self' https://a.example")
    assert policy(("*",)).endswith("frame-ancestors *")
    for part in policy(()).split("; "):  # nothing comes from another host
        assert not re.search(r"https?:|(?<!frame-ancestors )\*", part)


def test_a_foreign_name_is_refused_and_no_header_gives_another(site: Site) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "", "evil.example:7860", "[::1", "localhost@evil.example"):
        answer = site.ask("/config", Host=host)
        assert answer.status in (400, 421), host
        assert "root" not in answer.text
    assert "--allow-host" in site.ask("/", Host="evil.example").text
    assert "部署者" in site.ask("/", Host="evil.example", Accept_Language="zh").text
    for host in ("localhost:7860", "[::1]:7860", "127.0.0.1"):
        assert json.loads(site.ask("/config", Host=host).body)["root"] == f"http://{host}"
    for header in ("X_Forwarded_Host", "X_Gradio_Server"):
        root = json.loads(site.ask("/config", **{header: "evil.example"}).body)["root"]
        assert root == site.url.rstrip("/")
    assert site.ask("/health", Host="10.0.0.7:7860").status == 200  # an orchestrator asks by address


@pytest.mark.parametrize("header", ["X-Forwarded-Host", "X-Gradio-Server"])
def test_what_is_not_believed_still_says_that_there_is_a_proxy(header: str) -> None:
    seen: list[Headers] = []

    async def page(scope: Any, *_: Any) -> None:
        seen.append(Headers(scope=scope))

    own = {"Host": "127.0.0.1:7860"}
    for headers in (own, own | {header: "evil.example"}):
        scope = {"type": "http", "path": "/", "headers": Headers(headers).raw}
        asyncio.run(Guard(page, ServerOptions())(scope, None, None))
    assert may("alone", seen[0])
    assert header not in seen[1]
    assert not may("alone", seen[1])


def test_the_names_of_a_page() -> None:
    alone, public = Names.of(ServerOptions()), Names.of(ServerOptions(host="0.0.0.0"))
    named = Names.of(ServerOptions(host="0.0.0.0", hosts=("demo.example",)))
    proxied = Names.of(ServerOptions(hosts=("demo.example",)))
    shared = Names.of(ServerOptions(share=True))
    assert [names.has("demo.example") for names in (alone, public, named, proxied, shared)] == [0, 1, 1, 1, 1]
    assert [names.has("evil.example") for names in (alone, public, named, proxied, shared)] == [0, 1, 0, 0, 1]
    assert all(names.has("localhost:7860") for names in (alone, public, named, proxied, shared))
    assert named.has("DEMO.example:443")


def test_health_and_readiness(site: Site) -> None:
    assert (site.ask("/health").status, json.loads(site.ask("/health").body)["status"]) == (200, "ok")
    assert site.ask("/health", "POST").status == 405
    answer = site.ask("/ready")
    assert answer.status == 503
    assert json.loads(answer.body) == {"ready": False, "model": False, "engine": True, "disk": True}
    site.context.warmed.set()
    assert site.ask("/ready").status == 200
    assert site.ask("/ready").headers["cache-control"] == "no-store"


def number(text: str, name: str) -> float:
    return float(re.findall(rf"^opensora_demo_{re.escape(name)} (\S+)$", text, re.MULTILINE)[0])


def test_metrics_and_the_line(site: Site) -> None:
    client = Client(site.url, verbose=False, analytics_enabled=False)
    before = site.ask("/metrics").text
    client.predict(prompt="a ball", steps=1, api_name="/generate")
    client.close()
    after = site.ask("/metrics")
    assert after.headers["content-type"].startswith("text/plain; version=0.0.4")
    done = 'jobs_total{model="nano",state="done"}'
    had = number(before, done) if done in before else 0
    assert number(after.text, done) == had + 1
    for name in ("job_wait_seconds", "job_device_seconds"):
        buckets = [float(n) for n in re.findall(rf"^opensora_demo_{name}_bucket.* (\S+)$", after.text, re.MULTILINE)]
        assert buckets == sorted(buckets)
        assert buckets[-1] == number(after.text, f'{name}_count{{model="nano"}}') == had + 1
    assert number(after.text, "resident_memory_bytes") > 1e8
    assert number(after.text, "jobs_waiting") == number(after.text, "device_busy") == 0
    for line in after.text.splitlines():  # the text format: comments, or a name, labels and a number
        assert re.fullmatch(r'# (HELP|TYPE) \w+ .+|\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? [\d.e+-]+', line), line
    assert json.loads(site.ask("/status").body) == {"waiting": 0, "busy": False, "wait_s": 0.0}


FILE = {"meta": {"_type": "gradio.FileData"}}


def test_files_and_runs_of_others_are_out_of_reach(site: Site) -> None:
    """Who does not know the name of a clip, which ends in 64 random bits, or the id of a run, has no way to it."""
    files, runs = site.context.files, site.context.runs
    own = files.new_file("nano", "a red ball", 7)
    write_mp4(own, np.zeros((1, 64, 64, 3), np.uint8), 8, {})
    assert site.ask(f"/clips/{own.name}").status == 200
    guessed = ("", ".", "..", "*", own.stem.rsplit("-", 1)[0] + ".mp4", "nano-a-red-ball-7-0000000000000000.mp4")
    for path in (f"/gradio_api/file={own}", f"/gradio_api/file={own.parent}", *(f"/clips/{name}" for name in guessed)):
        assert site.ask(path).status in (403, 404), path
    for field in ("reference", "video"):  # a call cannot have it read, either
        given = [{"prompt": "a ball", field: FILE | {"path": str(own)}}.get(name) for name in table.names()]
        asked = site.ask("/gradio_api/call/generate", "POST", json.dumps({"data": given}), Content_Type=JSON)
        event = json.loads(asked.body).get("event_id")
        said = site.ask(f"/gradio_api/call/generate/{event}").text if event else asked.text
        assert "error" in said
        assert own.name not in said
    free = threading.Event()
    run = runs.start("owner", lambda _: str(free.wait(60)), lambda *_: "stopped")
    for guess in (run.id[:-1], run.id + "A", run.id.swapcase(), "", "owner"):
        assert runs.adopt([guess], "stranger") == []
        assert runs.stop(guess or None) == (guess == "owner")  # a session's own name is as secret
    free.set()
    assert list(run.watch())
    own.unlink()


def test_an_upload_is_no_page(site: Site) -> None:
    """What somebody sends up and another opens is not run by the browser, whatever it is called."""
    boundary, script = "x", b"<script>alert(1)</script>"
    for name in ("a.html", "a.svg", "a.xhtml", "a.js"):
        part = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
        form = part + script + f"\r\n--{boundary}--\r\n".encode()
        sent = site.ask("/gradio_api/upload", "POST", form, Content_Type=f"multipart/form-data; boundary={boundary}")
        (path,) = json.loads(sent.body)
        answer = site.ask(f"/gradio_api/file={path}")
        assert answer.body == script
        assert answer.headers["content-disposition"].startswith("attachment"), name
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_no_template_takes_text() -> None:
    """Gradio evaluates what stands in `${}` and `{{}}` of a template, so ours have none."""
    templates = list(UI_ASSETS.rglob("*.html"))
    assert len(templates) >= 5
    assert not [file.name for file in templates if re.search(r"\$\{|\{\{", file.read_text("utf-8"))]


def test_no_value_of_the_page_names_a_folder_of_the_server(site: Site) -> None:
    for path in ("/", "/config"):
        text = site.ask(path).text
        assert str(ROOT) not in text
        assert str(site.context.files.path) not in text
    example = re.findall(r"ui/[0-9a-f]{12}/examples/nano/01\.mp4", site.ask("/config").text)[0]
    answer = site.ask(f"/{example}")
    assert (answer.status, answer.headers["content-type"]) == (200, "video/mp4")
    assert "immutable" in answer.headers["cache-control"]
    for path in (
        "ui/000000000000/examples/nano/01.mp4",
        f"{example}/../../../../../app.py",
        f"{example[:15]}/types.d.ts",
    ):
        assert site.ask(f"/{path}").status == 404


@pytest.mark.thorough
def test_a_day_of_the_page_in_short(site: Site) -> None:
    """`benchmarks.soak`, with a pipeline that takes no time: every kind of visitor comes to his end."""
    report = soak.soak(site.url, os.getpid(), site.context.files.path, jobs=4, visitors=4, steps=2)
    assert report.ended == {"done": 2, "stopped": 1, "found again": 1}
    assert report.crowd == {"done": 4}
    assert all(seconds < 60 for seconds in report.health_s)
    first, last = report.samples
    assert (first.jobs, last.jobs) == (4, 8)
    assert last.temp_files >= first.temp_files > 0


def test_what_grows_is_a_fault() -> None:
    def after(jobs: int, **more: float) -> soak.Sample:
        usual = {"resident_mb": 500.0, "threads": 20, "open_files": 30, "temp_files": 40, "temp_mb": 1.0}
        return soak.Sample(jobs=jobs, **(usual | more))  # type: ignore[arg-type]

    warm = [after(10, resident_mb=300.0), after(20)]
    assert soak.Report(samples=[*warm, after(200, resident_mb=549.0, threads=28)]).faults() == []
    grown = soak.Report(samples=[*warm, after(200, resident_mb=551.0, threads=29, open_files=41, temp_files=53)])
    assert [fault.split(" ")[0] for fault in grown.faults()] == ["resident_mb", "threads", "open_files", "temp_files"]
    crowded = soak.Report(samples=[*warm, after(200), after(250, resident_mb=600.0, threads=29)])
    crowded.ended["done"], crowded.crowd["done"] = 200, 50
    assert [fault.split(" ")[0] for fault in crowded.faults()] == ["threads"]
    slow = soak.Report(health_s=[0.01] * 90 + [0.3] * 10)
    slow.crowd["done"], slow.crowd["refused with 503"], slow.ended["lost: the stream ended"] = 49, 1, 1
    assert slow.faults() == [
        "1 jobs of the crowd: refused with 503",
        "1 jobs: lost: the stream ended",
        "/health took 300 ms at the 95th percentile",
    ]


def test_metrics_answer_only_where_they_may(site: Site) -> None:
    assert "/metrics" not in Probes(None, site.context, metrics=False).answers


def test_a_job_is_logged_without_what_a_visitor_typed(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("opensora_demo")
    root, level = logging.getLogger(), logger.level
    handlers, root_level = root.handlers[:], root.level
    try:
        configure("json", "info")
        runs = Runs()
        engine = LocalEngine(FakeBundles(), generate=FakePipeline(error=None))

        def work(run: Run[str]) -> str:
            for _ in run.follow(engine.submit(parse_request({"prompt": "my secret"}, model_id="nano", limits=LIMITS))):
                pass
            return "done"

        run = runs.start("someone", work, lambda *_: "ended", run_id="a-secret-id")
        list(run.watch())
        for thread in threading.enumerate():
            if thread.name.startswith("run-"):
                thread.join(60)
    finally:
        root.handlers[:] = handlers
        root.setLevel(root_level)
        logger.setLevel(level)
    written = capsys.readouterr().err
    lines = [json.loads(line) for line in written.splitlines()]
    assert [line["message"].removeprefix("a job ") for line in lines] == [
        "waits for the device", "has the device", "is over",
    ]  # fmt: skip
    assert {line["run"] for line in lines} == {public_id("a-secret-id")}
    assert len({line["job"] for line in lines}) == 1
    assert {line["level"] for line in lines} == {"info"}
    assert (lines[-1]["state"], lines[-1]["model"]) == ("done", "nano")
    assert "secret" not in written
    assert "someone" not in written


def test_a_line_of_text_names_its_run(capsys: pytest.CaptureFixture[str]) -> None:
    other = logging.getLogger("some.server")
    other.addHandler(logging.NullHandler())
    other.propagate = False
    adopt("some.server")
    assert (other.handlers, other.propagate) == ([], True)
    record = logging.LogRecord("opensora_demo.x", logging.ERROR, __file__, 1, "it %s", ("failed",), None)
    assert JsonLines().format(record).startswith('{"time": "20')
    token = running.set("0123abcd")
    try:
        assert AboutRun().filter(record)
    finally:
        running.reset(token)
    assert logging.Formatter(TEXT).format(record).endswith("opensora_demo.x: it failed run=0123abcd")
    assert json.loads(JsonLines().format(record))["run"] == "0123abcd"
