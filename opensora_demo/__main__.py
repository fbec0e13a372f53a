"""The command `opensora-demo`, also `python -m opensora_demo`: `serve` opens the page, the rest is `cli`."""

from __future__ import annotations

import gc
import io
import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. Imports only what that command needs."""
    # Idle OpenMP threads should sleep, not spin: on two cores the page and the model share them. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):  # of Windows, say, which lacks Chinese: a number instead of a traceback
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["serve"]:
        gc.disable()  # until the page is there and warm (`serve.collect_from_now_on`)
        from opensora_demo import serve

        return serve.main(arguments[1:])
    from opensora_demo import cli

    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
