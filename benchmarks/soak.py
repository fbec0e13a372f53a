"""A long day of the page in a few minutes: does anything grow, and does it answer while many wait?

    python -m benchmarks.soak                      # 200 jobs, then 50 visitors at once; about 10 minutes of two cores
    python -m benchmarks.soak --jobs 40 --visitors 10

The server runs in a process of its own, with a folder for temporary files of its own. Each job is another visitor, who
loads the page and then makes a clip; of ten jobs one is a comparison, two are stopped, one is left by a page that is
loaded anew and finds its run again. Then all visitors ask at once, while /health is asked 20 times a second. One JSON
object goes to stdout; the exit status is 1 where something grew or was slow. Linux, since it reads /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[1]
WARM = 20  # jobs after which nothing should grow any more
GROWTH = 0.10  # of the resident memory
SPARE_THREADS, SPARE_FILES, SPARE_TEMP = 8, 10, 12  # that come and go
HEALTH_S = 0.2  # the 95th percentile of /health
START_S = 900.0
END_S = 60.0
KEEP = 10  # clips the server keeps, so that the folder is full after the first jobs
API = "/gradio_api"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What the server holds after so many jobs. temp_files: in its folder of temporary files, of any depth."""

    jobs: int
    resident_mb: float
    threads: int
    open_files: int
    temp_files: int
    temp_mb: float


@dataclass(slots=True)
class Report:
    samples: list[Sample] = field(default_factory=list)
    ended: Counter[str] = field(default_factory=Counter)  # of the jobs one after another
    crowd: Counter[str] = field(default_factory=Counter)  # of those at once
    health_s: list[float] = field(default_factory=list)  # while these were waiting; infinite where there was no answer

    @property
    def health_p95_s(self) -> float:
        return sorted(self.health_s)[int(0.95 * (len(self.health_s) - 1))] if self.health_s else 0.0

    def faults(self) -> list[str]:
        """What should not be; empty where all is well."""
        found = [f"{n} jobs of the crowd: {how}" for how, n in self.crowd.items() if how != "done"]
        found += [f"{n} jobs: {how}" for how, n in self.ended.items() if how.startswith("lost")]
        if self.health_p95_s > HEALTH_S:
            found.append(f"/health took {1000 * self.health_p95_s:.0f} ms at the 95th percentile")
        warm = next((sample for sample in self.samples if sample.jobs >= WARM), None)
        if warm is None:
            return found
        for name, spare in (
            ("resident_mb", GROWTH * warm.resident_mb),
            ("threads", SPARE_THREADS),
            ("open_files", SPARE_FILES),
            ("temp_files", SPARE_TEMP),
        ):
            of_jobs = [s for s in self.samples if not self.crowd or s.jobs <= sum(self.ended.values())]
            # What many at once take stays with the allocator: memory is compared before they come.
            last = of_jobs[-1] if name == "resident_mb" else self.samples[-1]
            before, after = getattr(warm, name), getattr(last, name)
            if after > before + spare:
                found.append(f"{name} grew from {before} to {after}")
        return found


def measure(pid: int, temp: Path, jobs: int) -> Sample:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    files = [entry for entry in temp.rglob("*") if entry.is_file()]
    return Sample(
        jobs=jobs,
        resident_mb=round(int(status["VmRSS"].split()[0]) / 1024, 1),
        threads=int(status["Threads"]),
        open_files=len(list(Path(f"/proc/{pid}/fd").iterdir())),
        temp_files=len(files),
        temp_mb=round(sum(file.stat().st_size for file in files if file.exists()) / 1e6, 2),
    )


class Visitor:
    """A browser's part of the page, without the browser. Visitors come from addresses of their own, as behind a
    proxy."""

    def __init__(self, url: str, number: int) -> None:
        self.session = f"soak{number:06}{os.urandom(4).hex()}"
        headers = {"x-forwarded-for": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"}
        self.http = httpx.Client(base_url=url, headers=headers, timeout=600.0)
        self.functions: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def load(self) -> None:
        """The page, and its configuration."""
        self.http.get("/").raise_for_status()
        config = self.http.get("/config").raise_for_status().json()
        components = {part["id"]: part for part in config["components"]}
        for function in config["dependencies"]:
            function["values"] = [components[i]["props"].get("value") for i in function["inputs"]]
            function["labels"] = [components[i]["props"].get("elem_id") for i in function["inputs"]]
            self.functions.setdefault(function["api_name"], function)

    def _asked(self, name: str, values: list[Any], event: Any = None) -> dict[str, Any]:
        function = self.functions[name]
        return {"data": values, "event_data": event, "fn_index": function["id"], "session_hash": self.session}

    def join(self, name: str, values: list[Any], event: Any = None) -> None:
        """Raises httpx.HTTPStatusError where the server takes no more."""
        self.http.post(f"{API}/queue/join", json=self._asked(name, values, event)).raise_for_status()

    def call(self, name: str, values: list[Any]) -> None:
        """A function past the queue."""
        self.http.post(f"{API}/run/predict", json=self._asked(name, values)).raise_for_status()

    def news(self) -> Iterator[dict[str, Any]]:
        """What the server says of what was joined, to its end."""
        with self.http.stream("GET", f"{API}/queue/data", params={"session_hash": self.session}) as answer:
            for line in answer.iter_lines():
                if not line.startswith("data:"):
                    continue
                message = json.loads(line[5:])
                yield message
                if message["msg"] in ("process_completed", "close_stream"):
                    return

    def form(self, name: str, steps: int, **changes: Any) -> list[Any]:
        """The values of a function's inputs as the page has them, with a prompt, few steps and `changes` by elem_id."""
        function = self.functions[name]
        wanted: dict[str, Any] = dict.fromkeys(("prompt", "compare-prompt"), "a red ball moving left")
        wanted |= {"steps": steps, "seed": "7"} | changes
        return [wanted.get(label, value) for label, value in zip(function["labels"], function["values"], strict=True)]


def job_of(message: dict[str, Any]) -> str | None:
    """The secret by which a page asks for its run again, where a message has it."""
    data = (message.get("output") or {}).get("data") or [None]
    return data[0].get("job") if message["msg"] == "process_generating" and isinstance(data[0], dict) else None


def to_the_end(visitor: Visitor) -> str:
    for message in visitor.news():
        if message["msg"] == "process_completed":
            return "done" if message["success"] else "failed"
    return "lost: the stream ended"


def clip(visitor: Visitor, steps: int) -> str:
    visitor.join("make_clip", visitor.form("make_clip", steps))
    return to_the_end(visitor)


def comparison(visitor: Visitor, steps: int) -> str:
    visitor.join("make_comparison", visitor.form("make_comparison", steps))
    return to_the_end(visitor)


def stopped(visitor: Visitor, steps: int) -> str:
    """Stop is pressed at the first news of the run."""
    visitor.join("make_clip", visitor.form("make_clip", 20 * steps))
    pressed = False
    for message in visitor.news():
        if message["msg"] == "process_generating" and not pressed:
            visitor.call("stop", [])
            pressed = True
        if message["msg"] == "process_completed":
            return "stopped" if message["success"] else "failed"
    return "lost: the stream ended"


def reloaded(visitor: Visitor, steps: int) -> str:
    """The page is loaded anew in the middle of a run, and asks for it by its secret."""
    visitor.join("make_clip", visitor.form("make_clip", steps))
    job = next((job for message in visitor.news() if (job := job_of(message))), None)
    visitor.session += "again"
    visitor.load()
    visitor.join("restore", [], {"jobs": [job]})
    found = to_the_end(visitor)
    return "found again" if found == "done" and job else f"lost: {found}"


KINDS = (clip, comparison, stopped, reloaded, clip, clip, stopped, clip, clip, clip)


def one_after_another(url: str, pid: int, temp: Path, jobs: int, steps: int, report: Report) -> None:
    for number in range(jobs):
        with Visitor(url, number) as visitor:
            visitor.load()
            report.ended[KINDS[number % len(KINDS)](visitor, steps)] += 1
        if (number + 1) % 10 == 0 or number + 1 == jobs:
            report.samples.append(measure(pid, temp, number + 1))
            print(report.samples[-1], file=sys.stderr)


def at_once(url: str, visitors: int, steps: int, report: Report) -> None:
    """All join, then read; /health is asked meanwhile."""
    over = threading.Event()

    def look() -> None:
        with httpx.Client(base_url=url, timeout=10.0) as http:
            while not over.wait(0.05):
                began = time.monotonic()
                try:
                    http.get("/health").raise_for_status()
                    report.health_s.append(time.monotonic() - began)
                except httpx.HTTPError:
                    report.health_s.append(float("inf"))

    def ask(number: int) -> None:
        try:
            with Visitor(url, 100_000 + number) as visitor:
                visitor.load()
                together.wait()
                how = clip(visitor, steps)
        except httpx.HTTPStatusError as error:
            how = f"refused with {error.response.status_code}"
        except httpx.HTTPError as error:
            how = f"lost: {type(error).__name__}"
        report.crowd[how] += 1

    together = threading.Barrier(visitors)
    watcher = threading.Thread(target=look)
    watcher.start()
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(visitors)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    watcher.join()


def soak(url: str, pid: int, temp: Path, *, jobs: int, visitors: int, steps: int) -> Report:
    """The server at `url`, which is process `pid` and writes its temporary files under `temp`."""
    report = Report()
    one_after_another(url, pid, temp, jobs, steps, report)
    if visitors:
        at_once(url, visitors, steps, report)
        time.sleep(2.0)  # streams and threads of the crowd end
        report.samples.append(measure(pid, temp, jobs + visitors))
    return report


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--visitors", type=int, default=50)
    parser.add_argument("--steps", type=int, default=4)
    args = parser.parse_args(argv)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="soak-") as temp:
        options = ["--only", "nano", "--keep-clips", str(KEEP), "--gallery", "off"]
        command = [sys.executable, "app.py", "--port", str(port), *options]
        server = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"TMPDIR": temp}, stdout=sys.stderr)
        url = f"http://127.0.0.1:{port}"
        try:
            wait_for(f"{url}/ready", server)
            report = soak(url, server.pid, Path(temp), jobs=args.jobs, visitors=args.visitors, steps=args.steps)
        finally:
            ended = end(server)
    faults = report.faults() + ([] if ended else [f"the server was still there {END_S:.0f} s after SIGTERM"])
    print(
        json.dumps(
            {
                "samples": [asdict(sample) for sample in report.samples],
                "ended": report.ended,
                "crowd": report.crowd,
                "health_ms": {
                    "asked": len(report.health_s),
                    "median": round(1000 * sorted(report.health_s)[len(report.health_s) // 2], 1),
                    "p95": round(1000 * report.health_p95_s, 1),
                    "max": round(1000 * max(report.health_s), 1),
                }
                if report.health_s
                else None,
                "faults": faults,
            }
        )
    )
    return 1 if faults else 0


def end(server: subprocess.Popen[bytes]) -> bool:
    """Whether it ends as it is asked to; otherwise it is killed."""
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(END_S)
        return True
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
        return False


def wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    """Until the server can take a run."""
    end = time.monotonic() + START_S
    while time.monotonic() < end and server.poll() is None:
        try:
            if httpx.get(address, timeout=5.0).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise RuntimeError("the server is not ready")


if __name__ == "__main__":
    sys.exit(main())
