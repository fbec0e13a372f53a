"""The end of a process that serves: on a signal it winds up what runs, within a time, and is gone."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType

log = logging.getLogger(__name__)
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))
DEADLINE_S = 9.0  # from the signal to the end of the process, whatever hangs
Step = Callable[[], object]


class Shutdown:
    """Waits for a signal that ends the process. A second one ends it at once; so does the deadline.

    The process is left by `os._exit`: threads of torch that still compute would abort an ordinary exit.
    """

    def __init__(self, cleanup: Step, deadline_s: float = DEADLINE_S) -> None:
        """`cleanup` removes files; it is called last, and before every early end."""
        self._cleanup = cleanup
        self._deadline_s = deadline_s
        self._asked = threading.Event()
        self._signal = 0

    def listen(self) -> None:
        """Take the signals; in the main thread. One that is ignored, as nohup has it, stays so."""
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._asked.is_set():
            self._leave(128 + number)
        self._signal = number
        self._asked.set()

    def wait(self) -> None:
        """Until a signal comes."""
        while not self._asked.wait(0.5):  # in slices, since on some systems a wait without end hears no signal
            pass

    def finish(self, steps: Sequence[Step]) -> None:
        """Do the steps in their order, clean up, and leave the process. A step that fails does not keep the next ones
        from being done."""
        timer = threading.Timer(self._deadline_s, self._leave, (0,))
        timer.daemon = True
        timer.start()
        for step in steps:
            try:
                step()
            except Exception:
                log.exception("a step of the shutdown failed")
        self._leave(0)

    def _leave(self, status: int) -> None:
        try:
            self._cleanup()
        finally:
            logging.shutdown()
            os._exit(status)
