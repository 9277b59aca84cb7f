"""Which run the code is in, for the log and the spans; set by who starts a run, read by whoever wants to say it."""

from __future__ import annotations

from contextvars import ContextVar

# (run id, session id)
current_run: ContextVar[tuple[str, str] | None] = ContextVar("current_run", default=None)
