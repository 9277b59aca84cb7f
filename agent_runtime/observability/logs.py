"""The log of a process: one line an entry, as text or as JSON, each with the run and the session that it belongs to.

No line of it holds a secret, whoever wrote it; and none holds what was said. Libraries write what they send and receive
into their debug lines, so at `debug` those do that are known not to, and no others.
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

CHATTY = ("httpx", "httpx2", "uvicorn", "sentence_transformers", "botocore", "aiobotocore", "mcp", "a2a")
DISCREET = (
    "agent_runtime",
    "discovery",
    "myagent",
    "asyncio",
    "uvicorn",
    "httpx",
    "httpx2",
    "botocore.credentials",
)
"""Whose debug lines hold neither prompts nor answers nor secrets that nobody knows yet."""

# Run id and session id of the run that the code is in.
current_run: ContextVar[tuple[str, str] | None] = ContextVar("current_run", default=None)


def set_up_logging(level: str, form: str) -> None:
    """Write to standard error from `level` on, and what would end the process as well.

    Libraries that say a line a request do so only when it is `debug`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level="INFO" if level == "debug" else level.upper(), handlers=[handler])
    for name in DISCREET if level == "debug" else CHATTY:
        logging.getLogger(name).setLevel("DEBUG" if level == "debug" else "WARNING")
    logging.raiseExceptions = False  # a line that cannot be formatted would be shown with all that it was given
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    sys.unraisablehook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    logging.getLogger("myagent").critical("a defect", exc_info=(kind, error or kind(), trace))


class TextFormatter(logging.Formatter):
    """For people."""

    def __init__(self) -> None:
        super().__init__("%(levelname)-7s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The line, with the run that it belongs to behind it."""
        line = super().format(record)
        run = current_run.get()
        # Masked as a whole: a secret may be put together from the arguments of a line, or stand in a traceback.
        return LOG_MASK(f"{line} (run {run[0]}, session {run[1]})" if run else line)


class JsonFormatter(logging.Formatter):
    """For machines: one object a line, times in UTC (RFC 3339)."""

    def format(self, record: logging.LogRecord) -> str:
        """The object of one entry."""
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
