"""What is known of visitors: their rate, and whether they listen."""

from __future__ import annotations

import threading

import pytest

from opensora_demo.service import visitors
from opensora_demo.service.visitors import STALLED_S, Listener, Rate, RateLimit, Readers


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_and_then_so_many_a_second() -> None:
    clock = Clock()
    limit = RateLimit(Rate(burst=3, per_s=0.5), clock)
    assert [limit.take("a") for _ in range(4)] == [0, 0, 0, 2]
    assert limit.take("b") == 0  # of each visitor
    clock.now = 1
    assert limit.take("a") == 1  # a question costs nothing
    clock.now = 2
    assert limit.take("a") == 0
    clock.now = 1  # a clock that goes back gives nothing and takes nothing
    assert limit.take("a") == 2
    clock.now = 1e6
    assert [limit.take("a") for _ in range(4)] == [0, 0, 0, 2]


def test_what_is_larger_than_the_burst_is_owed() -> None:
    clock = Clock()
    limit = RateLimit(Rate(burst=10, per_s=1), clock)
    assert limit.take("a", 25) == 0
    assert limit.take("a") == 16


def test_few_visitors_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitors, "KNOWN", 2)
    limit = RateLimit(Rate(burst=1, per_s=1), Clock())
    assert [limit.take(name) for name in "abca"] == [0, 0, 0, 0]


def test_a_session_is_present_while_a_stream_of_it_is_open() -> None:
    readers = Readers(Clock())
    mine, anybody = Listener(readers, "mine"), Listener()
    assert (mine.present, mine.ready) == (False, False)
    assert (anybody.present, anybody.ready) == (True, True)
    readers.opened("mine")
    readers.opened("mine")
    readers.closed("mine")
    assert (mine.present, mine.ready) == (True, True)
    readers.closed("mine")
    assert not mine.present


def test_who_takes_nothing_is_not_ready() -> None:
    clock = Clock()
    readers = Readers(clock)
    mine = Listener(readers, "mine")
    readers.opened("mine")
    readers.sending("mine")
    assert mine.ready
    clock.now = STALLED_S
    assert (mine.present, mine.ready) == (True, False)
    readers.sent("mine")
    assert mine.ready


def test_the_end_is_waited_for() -> None:
    readers = Readers()
    readers.opened("mine")
    assert not readers.wait(0.0)
    threading.Thread(target=readers.closed, args=("mine",)).start()
    assert readers.wait(60.0)
