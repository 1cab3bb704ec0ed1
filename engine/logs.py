"""What this program says of itself on stderr: lines for people, or one JSON object per line for programs."""

import datetime
import json
import logging
import sys
from types import TracebackType
from typing import Any

log = logging.getLogger(__name__)

OURS = ("reverie", "cogs", "engine", "loopback")
"""Loggers of this program. Of libraries only warnings are heard, for their details hold prompts and tokens."""
LINE = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
OF_JOB = "job %d:"
"""How a message begins that is about a job, whose number is its first argument."""


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON: time, level, logger, message and, where there are any, the number of its job and a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end; only ASCII, so that no encoding can spoil it."""
        line: dict[str, Any] = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if isinstance(record.msg, str) and record.msg.startswith(OF_JOB) and isinstance(record.args, tuple):
            line["job"] = record.args[0]
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def start(level: str, form: str) -> None:
    """Log to stderr: this program from `level` on, libraries from warnings on; `form` is "text" or "json"."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(LINE) if form == "text" else JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for name in OURS:
        logging.getLogger(name).setLevel(level)
    if form == "json":
        # What would be printed past the log is to be one line of JSON as well.
        logging.captureWarnings(True)
        sys.excepthook = log_fault


def log_fault(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Log what ends the program, where Python would print it."""
    log.critical("the program ends by a fault of its own", exc_info=(kind, error, trace))
