"""The log of a process: one line an entry, as text or as JSON, each with the run and the session that it belongs to."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from agent_runtime.run_context import current_run

CHATTY = ("httpx", "httpx2", "uvicorn", "sentence_transformers", "botocore", "aiobotocore", "mcp", "a2a")


def set_up_logging(level: str, form: str) -> None:
    """Write to standard error from `level` on; libraries that say a line a request only when it is `debug`."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    if level != "debug":
        for name in CHATTY:
            logging.getLogger(name).setLevel("WARNING")


class TextFormatter(logging.Formatter):
    """For people."""

    def __init__(self) -> None:
        super().__init__("%(levelname)-7s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The line, with the run that it belongs to behind it."""
        line = super().format(record)
        run = current_run.get()
        return f"{line} (run {run[0]}, session {run[1]})" if run else line


class JsonFormatter(logging.Formatter):
    """For machines: one object a line, times in UTC (RFC 3339)."""

    def format(self, record: logging.LogRecord) -> str:
        """The object of one entry."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if run := current_run.get():
            entry |= {"run_id": run[0], "session_id": run[1]}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)
