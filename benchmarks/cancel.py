"""How soon the device is free after Stop, at eight stages of a run:

    python -m benchmarks.cancel [--model nano] [--steps 16] [--runs 3]

A run is stopped from another thread shortly after the stage has begun, while another one waits. "stopped after" is when
its reader hears of it, "next has the device after" when the waiting run begins to load; of several runs the worst. What
is being written is a run that has ended: its file comes to be, and the device is free already.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from opensora_demo.catalog import find_model
from opensora_demo.errors import Cancelled
from opensora_demo.request.events import Encoded, Finished, Started, StepPreview
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.bundle import Bundles
from opensora_demo.service.engine import Loading, State, Waiting
from opensora_demo.service.local import LocalEngine, LocalJob

INTO_S = 0.005  # so long after the event that begins a stage it is stopped: in the middle of a block
PATIENCE_S = 600.0


def stages(steps: int) -> dict[str, Callable[[Any], bool]]:
    """The event that begins a stage."""
    return {
        "queued": lambda event: isinstance(event, Waiting),
        "loading": lambda event: isinstance(event, Loading),
        "text encoding": lambda event: isinstance(event, Started),
        "first step": lambda event: isinstance(event, Encoded),
        "middle step": lambda event: isinstance(event, StepPreview) and event.index == steps // 2 - 1,
        "last step": lambda event: isinstance(event, StepPreview) and event.index == steps - 2,
        "decoding": lambda event: isinstance(event, StepPreview) and event.index == steps - 1,
        "writing": lambda event: isinstance(event, Finished),
    }


@dataclass
class Reader:
    """Reads a job in a thread of its own, and notes when the first event of a kind came and when it was over. With
    `stops` it asks the job to stop right there."""

    job: LocalJob[Any]
    wanted: Callable[[Any], bool]
    stops: bool = False
    reached: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    reached_at: float = 0.0
    over_at: float = 0.0
    blocks_after: int = 0  # events after the wanted one

    def __post_init__(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for event in self.job.events():
                if self.reached.is_set():
                    self.blocks_after += not isinstance(event, Waiting)
                elif self.wanted(event):
                    self.reached_at = time.perf_counter()
                    if self.stops:
                        self.job.cancel()
                    self.reached.set()
        except Cancelled:
            pass
        finally:
            self.over_at = time.perf_counter()
            self.over.set()
            self.reached.set()


@dataclass(frozen=True, slots=True)
class Stopped:
    """Of one stage: the seconds until the run's reader hears of it and until the next has the device, how many events
    still came, and the run's last state."""

    after_s: float
    next_s: float
    blocks: int
    state: State


def stop_at(stage: str, request: GenerationRequest, engine: LocalEngine, into_s: float = INTO_S) -> Stopped:
    """Stop a run at a stage, `into_s` after it has begun, while another waits for the device."""
    wanted = stages(request.steps)[stage]
    before = Reader(engine.submit(request), lambda event: isinstance(event, Started)) if stage == "queued" else None
    if before is not None:
        before.reached.wait(PATIENCE_S)
    stopped = Reader(engine.submit(request), wanted, stops=not into_s)
    following = Reader(engine.submit(request), lambda event: isinstance(event, Loading))
    assert stopped.reached.wait(PATIENCE_S)
    time.sleep(into_s)
    began = time.perf_counter() if into_s else stopped.reached_at
    stopped.job.cancel()
    assert stopped.over.wait(PATIENCE_S)
    if before is not None:
        before.job.cancel()
        assert before.over.wait(PATIENCE_S)
    assert following.reached.wait(PATIENCE_S)
    result = Stopped(
        after_s=max(stopped.over_at - began, 0.0),
        next_s=max(following.reached_at - (began if before is None else before.over_at), 0.0),
        blocks=stopped.blocks_after,
        state=stopped.job.state,
    )
    following.job.cancel()
    assert following.over.wait(PATIENCE_S)
    return result


def measure(model: str, steps: int, into_s: float = INTO_S) -> dict[str, Stopped]:
    """Each stage once, with a model that is loaded anew where the loading is what is stopped."""
    spec = find_model(model)
    request = parse_request({"prompt": "a red ball", "seed": 1, "steps": steps}, model_id=spec.id, limits=spec.limits)
    warm, found = LocalEngine(Bundles()), {}
    for stage in stages(steps):
        engine = LocalEngine(Bundles()) if stage == "loading" else warm
        found[stage] = stop_at(stage, request, engine, into_s)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    rounds = [measure(args.model, args.steps) for _ in range(args.runs)]
    print(
        "| stage | stopped after, s | next has the device after, s | events still | state |\n|---|---:|---:|---:|---|"
    )
    for stage in stages(args.steps):
        of_stage = [found[stage] for found in rounds]
        after_s, next_s = max(one.after_s for one in of_stage), max(one.next_s for one in of_stage)
        blocks, states = max(one.blocks for one in of_stage), "/".join(sorted({one.state for one in of_stage}))
        print(f"| {stage} | {after_s:.3f} | {next_s:.3f} | {blocks} | {states} |")


if __name__ == "__main__":
    main()
