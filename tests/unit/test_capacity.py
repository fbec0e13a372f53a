"""The simulated queue against what is known of queues."""

from __future__ import annotations

import math
import random

import pytest

from benchmarks.capacity import SERVICES, Scaling, erlang_wait_s, poisson, replicas_for, simulate


@pytest.mark.parametrize(("replicas", "busy"), [(1, 0.5), (1, 0.8), (3, 0.7), (20, 0.75)])
def test_it_waits_as_erlang_says(replicas: int, busy: float) -> None:
    rng = random.Random(3)
    rate = busy * replicas / 2.0  # clips take 2 s on average
    arrivals = poisson(rate, 40_000, rng)
    report = simulate(arrivals, lambda: rng.expovariate(0.5), Scaling(low=replicas, high=replicas))
    assert len(report.waits) == 40_000
    assert report.mean == pytest.approx(erlang_wait_s(rate, 2.0, replicas), rel=0.1)


def test_erlang_by_hand() -> None:
    assert erlang_wait_s(0.5, 1.0, 1) == pytest.approx(1.0)  # M/M/1: load / (1 - load) x service
    assert erlang_wait_s(1.0, 1.0, 2) == pytest.approx(1 / 3)
    assert erlang_wait_s(2.0, 1.0, 2) == math.inf


def test_equal_clips_wait_half_as_long_as_random_ones() -> None:
    """M/D/1 (Pollaczek and Khinchine)."""
    report = simulate(poisson(0.8, 40_000, random.Random(5)), lambda: 1.0, Scaling(low=1, high=1))
    assert report.mean == pytest.approx(erlang_wait_s(0.8, 1.0, 1) / 2, rel=0.1)


def test_eight_runs_over_two_replicas() -> None:
    """Measured with two replicas of nano on two cores on 2026-11-25: 0.96 s for one run, 4.5 s for eight. What the
    simulation leaves out, the process that hands them on, took 0.7 s there."""
    report = simulate([0.0] * 8, lambda: 0.96, Scaling(low=2, high=2))
    assert report.end_s == pytest.approx(4 * 0.96)
    assert report.end_s < 4.5 < 1.25 * report.end_s
    assert report.waits == pytest.approx([0, 0, 0.96, 0.96, 1.92, 1.92, 2.88, 2.88])


def test_replicas_start_while_runs_wait_and_end_when_idle() -> None:
    arrivals = [*(0.1 * k for k in range(100)), 1000.0]
    few = simulate(arrivals, lambda: 5.0, Scaling(low=1, high=1))
    more = simulate(arrivals, lambda: 5.0, Scaling(low=1, high=10, start_s=20.0, idle_s=60.0))
    assert max(more.waits) < max(few.waits) / 2
    ups = [up for _, _, up in more.history]
    assert max(ups) == 10
    assert ups[-1] == 1
    assert more.replica_s < 10 * more.end_s / 2
    first = next(second for second, _, up in more.history if up > 1)
    assert first >= 20.0  # nobody is there before he has started


def test_the_fewest_that_do_are_found() -> None:
    service = SERVICES[0]
    count, report = replicas_for(service, 1_000)
    assert report.quantile(0.95) <= service.patience_s
    assert count > 1
    arrivals = poisson(1_000 * 3 / 3600, 6_000, random.Random(0))
    fewer = simulate(arrivals, lambda: service.clip_s, Scaling(low=count - 1, high=count - 1))
    assert sorted(fewer.waits[3_000:])[2_850] > service.patience_s
