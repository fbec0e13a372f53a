"""The page as a program: how soon it answers after its start, how many clips an hour it makes for 1, 4 and 16 visitors,
and the memory it takes.

Each server is a process of its own. Visitors ask for clips over /v1/videos/sync, from addresses of their own as behind
a proxy, each for the next as soon as it has one.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks.pairs import Took, alternate, median_s, ratio
from benchmarks.report import Report, Row

ROOT = Path(__file__).resolve().parents[1]
START_S = 180.0  # a server that is not there by then is none
END_S = 20.0
LOOK_S = 0.02
VISITORS = (1, 4, 16)
CLIPS = {1: 4, 4: 8, 16: 16}  # in a round


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """How the page is started, behind which its port is put, and what its start is compared with."""

    page: tuple[str, ...] = (
        sys.executable,
        "app.py",
        "--only",
        "nano",
        "--gallery",
        "off",
        "--keep-clips",
        "20",
        "--port",
    )
    bare: tuple[str, ...] = (sys.executable, "-c", "import torch")


@dataclass(slots=True)
class Server:
    process: subprocess.Popen[bytes]
    url: str

    def wait_for(self, path: str) -> None:
        """Until it answers with 200. Raises RuntimeError where it ends, or takes too long."""
        end = time.monotonic() + START_S
        with httpx.Client(base_url=self.url, timeout=10.0) as http:
            while time.monotonic() < end and self.process.poll() is None:
                try:
                    if http.get(path).status_code == 200:
                        return
                except httpx.HTTPError:
                    pass
                time.sleep(LOOK_S)
        raise RuntimeError(f"the server does not answer {path}")

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def resident_mb(self, what: str) -> float | None:
        """VmRSS, what is resident now, or VmHWM, the most there was; None where the system does not say."""
        try:
            text = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return None
        found = re.search(rf"{what}:\s+(\d+) kB", text)
        return None if found is None else round(int(found[1]) / 1024, 1)


def start(programs: Programs) -> Server:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [*programs.page, str(port)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return Server(process, f"http://127.0.0.1:{port}")


@contextmanager
def running(programs: Programs) -> Iterator[Server]:
    server = start(programs)
    try:
        yield server
    finally:
        server.end()


@dataclass(slots=True)
class Starts:
    """Starts of the page. Of each: seconds until the front page and its configuration are there, and until the model
    is loaded and a clip may be asked for."""

    programs: Programs
    ready: list[Took] = field(default_factory=list)

    def page(self) -> Callable[[], None]:
        """To a page that answers; what is to be called afterwards waits for the model and ends the server."""
        began = time.perf_counter()
        server = start(self.programs)
        try:
            for path in ("/", "/config"):
                server.wait_for(path)
        except RuntimeError:
            server.end()
            raise

        def after() -> None:
            try:
                server.wait_for("/ready")
                self.ready.append(Took(wall=time.perf_counter() - began, cpu=0.0))
            finally:
                server.end()

        return after

    def bare(self) -> None:
        subprocess.run(self.programs.bare, cwd=ROOT, check=True)


def measure_starts(report: Report, programs: Programs, *, rounds: int, limit_s: float) -> None:
    starts = Starts(programs)
    times = alternate({"page": starts.page, "bare": starts.bare}, rounds=rounds, limit_s=limit_s)
    for name, took in (("to a page that answers", times["page"]), ("to a model that is loaded", starts.ready)):
        found = ratio(took, times["bare"]).without_computing()
        report.add(Row(group="page", name=name, value=median_s(took), unit="s", of="page / import torch", ratio=found))


@dataclass(slots=True)
class Crowd:
    """Clips that a server makes for several visitors at once. `numbers` are seeds, a new one for each clip."""

    server: Server
    steps: int | None
    numbers: Iterator[int]
    guard: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, visitors: int, clips: int) -> None:
        """So many clips, each visitor asking for the next as soon as he has one. Raises RuntimeError where one is not
        made."""
        left = [clips]
        failed: list[str] = []

        def visit(number: int) -> None:
            headers = {"x-forwarded-for": f"10.1.{number >> 8}.{number & 255}"}
            with httpx.Client(base_url=self.server.url, headers=headers, timeout=300.0) as http:
                while not failed and (asked := self.next(left)) is not None:
                    try:
                        http.post("/v1/videos/sync", json=asked).raise_for_status()
                    except httpx.HTTPError as error:
                        failed.append(str(error))

        threads = [threading.Thread(target=visit, args=(number,)) for number in range(visitors)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise RuntimeError(failed[0])

    def next(self, left: list[int]) -> dict[str, object] | None:
        """What is asked for next, while something is."""
        with self.guard:
            if left[0] == 0:
                return None
            left[0] -= 1
            asked: dict[str, object] = {"prompt": "a red ball moving left", "seed": next(self.numbers)}
        return asked if self.steps is None else asked | {"num_inference_steps": self.steps}


def measure_visitors(report: Report, programs: Programs, *, quick: bool, rounds: int, limit_s: float) -> None:
    with running(programs) as server:
        server.wait_for("/ready")
        at_rest = server.resident_mb("VmRSS")
        crowd = Crowd(server, 2 if quick else None, iter(range(1, 1_000_000)))
        crowd.serve(1, 1)  # what is made when it is first needed
        clips = {number: (number if quick else CLIPS[number]) for number in VISITORS}

        def served(number: int) -> Callable[[], None]:
            return lambda: crowd.serve(number, clips[number])

        times = alternate({str(number): served(number) for number in VISITORS}, rounds=rounds, limit_s=limit_s)
        each = {
            number: [Took(wall=took.wall / clips[number], cpu=0.0) for took in times[str(number)]]
            for number in VISITORS
        }
        for number, took in each.items():
            found = ratio(each[1], took).without_computing()
            name = "1 visitor" if number == 1 else f"{number} visitors at once"
            hourly = 3600 / median_s(took)
            report.add(
                Row(group="visitors", name=name, value=hourly, unit="an hour", of="as for one visitor", ratio=found)
            )
        resident = {"the server, model loaded": at_rest, "the server, most of all": server.resident_mb("VmHWM")}
        report.memory |= {name: value for name, value in resident.items() if value is not None}


def measure_browser(report: Report, programs: Programs, *, rounds: int, limit_s: float) -> None:
    """Click to clip in Chromium against /v1/videos/sync of the same server. Needs Chromium and Playwright."""
    import shutil

    from playwright.sync_api import sync_playwright

    from benchmarks.page import ARGUMENTS, COUNT_RUNS, DONE

    with running(programs) as server, sync_playwright() as playwright:
        server.wait_for("/ready")
        crowd = Crowd(server, None, iter(range(1, 1_000_000)))
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(120_000)
        page.goto(server.url)
        page.wait_for_selector("#generate")
        page.fill("#prompt textarea", "a red ball moving left")
        page.evaluate(COUNT_RUNS)
        made = [0]

        def click() -> None:
            made[0] += 1
            page.click("#generate")
            page.wait_for_function(DONE, arg=made[0])

        click()
        crowd.serve(1, 1)
        times = alternate({"click": click, "asked": lambda: crowd.serve(1, 1)}, rounds=rounds, limit_s=limit_s)
        browser.close()
    report.add(
        Row(
            group="page",
            name="click to clip in Chromium",
            value=median_s(times["click"]),
            unit="s",
            of="browser / /v1/videos/sync",
            ratio=ratio(times["click"], times["asked"]).without_computing(),
        )
    )
