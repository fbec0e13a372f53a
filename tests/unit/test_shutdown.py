"""The end of a process that serves: wound up, within a time, whatever hangs."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PROCESS = """
import signal, sys, threading, time
from opensora_demo.service.shutdown import Shutdown

def say(text):
    print(text, flush=True)

def fail():
    raise ValueError("a step")

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts the tests in the background ignores it
shutdown = Shutdown(lambda: say("cleanup"), deadline_s=float(sys.argv[2]))
shutdown.listen()
say("ready")
shutdown.wait()
steps = {"well": [lambda: say("one"), fail, lambda: say("two")], "hang": [lambda: say("hangs"), threading.Event().wait]}
shutdown.finish(steps[sys.argv[1]])
"""


def ended(
    kind: str, *signals: signal.Signals, deadline_s: float = 60.0, between: bool = False
) -> tuple[int, list[str]]:
    """The exit status and what was said of a process that gets these signals, with a word of it `between` them."""
    command = [sys.executable, "-c", PROCESS, kind, str(deadline_s)]
    with subprocess.Popen(command, stdout=-1, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline().split()
        for number in signals:
            process.send_signal(number)
            if between:
                said += process.stdout.readline().split()
        said += process.stdout.read().split()
    return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_every_step_is_done_though_one_fails(number: signal.Signals) -> None:
    assert ended("well", number) == (0, ["ready", "one", "two", "cleanup"])


def test_a_second_signal_ends_at_once() -> None:
    status, said = ended("hang", signal.SIGINT, signal.SIGTERM, between=True)
    assert (status, said) == (128 + signal.SIGTERM, ["ready", "hangs", "cleanup"])


def test_what_hangs_is_left_after_the_deadline() -> None:
    assert ended("hang", signal.SIGTERM, deadline_s=0.1) == (0, ["ready", "hangs", "cleanup"])
