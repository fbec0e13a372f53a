"""What the page costs a browser: bytes and requests of its first load, and nodes, listeners and heap over runs.

    python benchmarks/page.py http://127.0.0.1:7860/ --runs 50

Needs Chromium and Playwright. A first load is counted until the first clip moves.
"""

from __future__ import annotations

import argparse
import shutil
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
QUIET_MS = 2000  # without an answer
MOVES = "() => document.querySelector('#stage video.os-video')?.currentTime > 0"
DONE = "(run) => document.querySelector('#stage section').dataset.phase === 'done' && window.runs === run"
COUNT_RUNS = """() => {
  window.runs = 0;
  const stage = document.querySelector('#stage section');
  let before = stage.dataset.phase;
  new MutationObserver(() => {
    if (stage.dataset.phase === 'done' && before !== 'done') window.runs += 1;
    before = stage.dataset.phase;
  }).observe(stage, { attributeFilter: ['data-phase'] });
}"""


@dataclass
class Traffic:
    """What came over the wire, as it was sent (compressed), by the kind of what it is."""

    sent: Counter[str] = field(default_factory=Counter)
    count: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, str] = field(default_factory=dict)

    def watch(self, session: Any) -> None:
        session.send("Network.enable")
        session.on("Network.responseReceived", lambda e: self.kinds.update({e["requestId"]: e["type"]}))
        session.on("Network.loadingFinished", self._finished)

    def _finished(self, event: dict[str, Any]) -> None:
        kind = self.kinds.get(event["requestId"], "Other")
        self.sent[kind] += int(event["encodedDataLength"])
        self.count[kind] += 1


def metrics(session: Any) -> dict[str, float]:
    """Nodes, listeners and the heap in bytes, once rubbish is collected."""
    session.send("HeapProfiler.collectGarbage")
    found = {m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}
    return {name: found[name] for name in ("Nodes", "JSEventListeners", "JSHeapUsedSize")}


def first_load(page: Any, session: Any, address: str) -> None:
    traffic = Traffic()
    traffic.watch(session)
    page.goto(address)
    page.wait_for_function(MOVES)
    before = -1
    while before != (before := sum(traffic.count.values())):  # Gradio keeps a stream open, so it is never idle
        page.wait_for_timeout(QUIET_MS)
    for kind, size in traffic.sent.most_common():
        print(f"{kind:12} {traffic.count[kind]:4} requests {size / 1000:8.0f} kB")
    print(f"{'all':12} {sum(traffic.count.values()):4} requests {sum(traffic.sent.values()) / 1000:8.0f} kB")


def repeated_runs(page: Any, session: Any, runs: int, every: int) -> None:
    session.send("Performance.enable")
    page.get_by_label("number input for Steps").fill("2")
    page.get_by_label("number input for Steps").blur()
    page.fill("#prompt textarea", "a red ball")
    page.evaluate(COUNT_RUNS)
    for run in range(1, runs + 1):
        page.click("#generate")
        page.wait_for_function(DONE, arg=run)
        if run == 1 or run % every == 0:
            now = metrics(session)
            heap = now["JSHeapUsedSize"] / 1e6
            print(f"run {run:3}: {now['Nodes']:6.0f} nodes {now['JSEventListeners']:5.0f} listeners {heap:6.1f} MB")


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--runs", type=int, default=0, help="clips of two steps, one after the other")
    parser.add_argument("--every", type=int, default=5, help="runs between two counts")
    arguments = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(300_000)
        session = page.context.new_cdp_session(page)
        first_load(page, session, arguments.address)
        if arguments.runs:
            repeated_runs(page, session, arguments.runs, arguments.every)
        browser.close()


if __name__ == "__main__":
    main()
