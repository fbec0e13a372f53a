"""What the program logs, as text or as one JSON object a line, with the run that a line is about.

Nothing that a visitor has typed is logged, nor the id of a run, which is a secret: `public_id` stands for it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from opensora_demo.service.options import LogFormat, LogLevel

TEXT = "%(asctime)s %(name)s: %(message)s%(about)s"
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "about"}

running: ContextVar[str] = ContextVar("running", default="")
"""`public_id` of the run that this thread works for."""


def public_id(secret: str) -> str:
    """8 hexadecimal digits that tell runs apart, and from which the secret cannot be had."""
    return hashlib.sha256(secret.encode()).hexdigest()[:8]


class AboutRun(logging.Filter):
    """Gives every record the run of its thread, as `run`."""

    def filter(self, record: logging.LogRecord) -> bool:
        if (run := running.get()) and not hasattr(record, "run"):
            record.run = run
        more = _more(record)
        record.about = "".join(f" {name}={value}" for name, value in more.items())
        return True


class JsonLines(logging.Formatter):
    """One object a line: time (UTC), level, logger, message, what was given as `extra`, the traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_more(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _more(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _OWN}


def adopt(*names: str) -> None:
    """Have loggers that other packages have set up write as the root logger does."""
    for name in names:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def configure(form: LogFormat, level: LogLevel) -> None:
    """The root logger writes to stderr; this program's records of `level` and above, other packages' warnings."""
    handler = logging.StreamHandler()
    handler.addFilter(AboutRun())
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter(TEXT))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("opensora_demo").setLevel(level.upper())
