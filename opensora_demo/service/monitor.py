"""What an engine has done since it began, counted for the host: jobs by model and end, how long they waited and ran.

`exposition` writes numbers in the text format of Prometheus, version 0.0.4
(https://prometheus.io/docs/instrumenting/exposition_formats/).
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from opensora_demo.service.engine import State

BUCKETS_S = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)  # upper bounds of a histogram
Kind = Literal["counter", "gauge", "histogram"]
Labels = Mapping[str, str]
Sample = tuple[str, Labels, float]  # what is added to the metric's name, labels, value


@dataclass(slots=True)
class Histogram:
    """Seconds: how many up to each bound of `BUCKETS_S`, and their sum."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    sum_s: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds

    def samples(self, labels: Labels) -> Iterable[Sample]:
        total = 0
        for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), self.counts, strict=True):
            total += count
            yield "_bucket", {**labels, "le": bound}, total
        yield "_sum", labels, self.sum_s
        yield "_count", labels, total


class Monitor:
    """Thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._ended: Counter[tuple[str, State]] = Counter()
        self._waited: dict[str, Histogram] = {}
        self._ran: dict[str, Histogram] = {}

    def began(self, model_id: str, waited_s: float) -> None:
        """A job has the device."""
        with self._guard:
            self._waited.setdefault(model_id, Histogram()).add(waited_s)

    def ended(self, model_id: str, state: State, ran_s: float | None) -> None:
        """A job is over; it had the device for so long, None if it never came to that."""
        with self._guard:
            self._ended[model_id, state] += 1
            if ran_s is not None:
                self._ran.setdefault(model_id, Histogram()).add(ran_s)

    def exposition(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """All of it, and `gauges`: a name to what it means and its value now."""
        with self._guard:
            ended = [("", {"model": m, "state": s}, float(n)) for (m, s), n in sorted(self._ended.items())]
            waited, ran = (
                [sample for model in sorted(of) for sample in of[model].samples({"model": model})]
                for of in (self._waited, self._ran)
            )
        return "".join(
            (
                _metric("jobs_total", "counter", "Jobs that are over, by how they ended.", ended),
                _metric("job_wait_seconds", "histogram", "From the question to the device.", waited),
                _metric("job_device_seconds", "histogram", "How long a job had the device.", ran),
                *(_metric(name, "gauge", what, [("", {}, value)]) for name, (what, value) in gauges.items()),
            )
        )


def _metric(name: str, kind: Kind, what: str, samples: Iterable[Sample]) -> str:
    name = f"opensora_demo_{name}"
    lines = [f"# HELP {name} {what}", f"# TYPE {name} {kind}"]
    for suffix, labels, value in samples:
        named = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        lines.append(f"{name}{suffix}{{{named}}} {value:.15g}" if named else f"{name}{suffix} {value:.15g}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
