"""Logging: one line per entry, as text or JSON, with the ids of the run and session, and without secrets or contents.

Many libraries log what they send and receive at `debug`; only those known not to are logged at that level.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from agent_runtime.masking import LOG_MASK

VERBOSE = ("httpx", "httpx2", "uvicorn", "sentence_transformers", "botocore", "aiobotocore", "mcp", "a2a")
SAFE_AT_DEBUG = (
    "agent_runtime",
    "discovery",
    "myagent",
    "asyncio",
    "uvicorn",
    "httpx",
    "httpx2",
    "botocore.credentials",
)
"""Loggers whose debug lines contain no prompts, answers or credentials."""

# Run id and session id of the run that the code is in.
current_run: ContextVar[tuple[str, str] | None] = ContextVar("current_run", default=None)


def set_up_logging(level: str, form: str) -> None:
    """Log to standard error from `level` on, uncaught exceptions included.

    Libraries that log every request are limited to warnings unless the level is `debug`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level="INFO" if level == "debug" else level.upper(), handlers=[handler])
    for name in SAFE_AT_DEBUG if level == "debug" else VERBOSE:
        logging.getLogger(name).setLevel("DEBUG" if level == "debug" else "WARNING")
    logging.raiseExceptions = False  # the report of a formatting error would show unmasked arguments
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    sys.unraisablehook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    logging.getLogger("myagent").critical("uncaught exception", exc_info=(kind, error or kind(), trace))


class TextFormatter(logging.Formatter):
    """Text for terminals."""

    def __init__(self) -> None:
        super().__init__("%(levelname)-7s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Format one line, followed by its run and session."""
        line = super().format(record)
        run = current_run.get()
        # The whole line is masked: a secret may be split over arguments or be in a traceback.
        return LOG_MASK(f"{line} (run {run[0]}, session {run[1]})" if run else line)


class JsonFormatter(logging.Formatter):
    """One JSON object per line; times are UTC (RFC 3339)."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one entry."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": LOG_MASK(record.getMessage()),
        }
        if run := current_run.get():
            entry |= {"run_id": run[0], "session_id": LOG_MASK(run[1])}
        if record.exc_info:
            entry["exception"] = LOG_MASK(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False)
