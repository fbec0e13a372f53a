"""What is known of visitors: how often they ask, and whether they still listen. Thread-safe."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], float]
KNOWN = 10_000  # visitors whose rate is remembered


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """So many at once, and so many a second for long."""

    burst: float
    per_s: float


class RateLimit:
    """A token bucket for each visitor."""

    def __init__(self, rate: Rate, clock: Clock = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._guard = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when they were counted

    def take(self, visitor: str, count: float = 1.0) -> float:
        """0 where the visitor may, and then it counts; else the seconds until he may."""
        rate, now = self._rate, self._clock()
        with self._guard:
            tokens, since = self._buckets.pop(visitor, (rate.burst, now))
            tokens = min(rate.burst, tokens + max(now - since, 0.0) * rate.per_s)
            missing = min(count, rate.burst) - tokens
            self._buckets[visitor] = (tokens if missing > 0 else tokens - count, now)
            while len(self._buckets) > KNOWN:
                self._buckets.popitem(last=False)
        return max(missing, 0.0) / rate.per_s


UNREAD_S = 10.0  # how long a caller may take to ask for what he has started
STALLED_S = 2.0  # a piece that takes longer is waited for before there is another


class Readers:
    """The streams by which visitors are told of their runs, by session."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._news = threading.Condition()
        self._open: dict[str, int] = {}
        self._sending: dict[str, float] = {}  # since when a piece has been on its way

    def opened(self, session: str) -> None:
        with self._news:
            self._open[session] = self._open.get(session, 0) + 1

    def closed(self, session: str) -> None:
        with self._news:
            left = self._open.pop(session, 1) - 1
            if left > 0:
                self._open[session] = left
            self._sending.pop(session, None)
            self._news.notify_all()

    def sending(self, session: str) -> None:
        """A piece is on its way."""
        with self._news:
            self._sending[session] = self._clock()

    def sent(self, session: str) -> None:
        with self._news:
            self._sending.pop(session, None)

    def present(self, session: str) -> bool:
        """Whether a stream is open."""
        with self._news:
            return session in self._open

    def ready(self, session: str) -> bool:
        """Whether what has been sent is being taken."""
        with self._news:
            return session in self._open and self._clock() - self._sending.get(session, self._clock()) < STALLED_S

    def wait(self, timeout_s: float = 2.0) -> bool:
        """Until all streams have been read to their end; whether they have."""
        with self._news:
            return self._news.wait_for(lambda: not self._open, timeout=timeout_s)


@dataclass(frozen=True, slots=True)
class Listener:
    """One session's streams; without a session somebody who is always there."""

    readers: Readers | None = None
    session: str | None = None

    @property
    def present(self) -> bool:
        return self.readers is None or self.session is None or self.readers.present(self.session)

    @property
    def ready(self) -> bool:
        return self.readers is None or self.session is None or self.readers.ready(self.session)
