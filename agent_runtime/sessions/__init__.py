"""Session stores: where conversations and pending approvals are kept."""

from __future__ import annotations

from pathlib import Path

from agent_runtime.errors import StartError
from agent_runtime.secrets import Credential
from agent_runtime.sessions.base import Approval, SessionInfo, SessionKey, SessionStore, Summary, retention

__all__ = ["Approval", "SessionInfo", "SessionKey", "SessionStore", "Summary", "retention", "store_for"]


def store_for(url: str, folder: Path, *, login: Credential[str] | None = None) -> SessionStore:
    """The store at a URL: `memory`, `sqlite:///file.db` (relative to `folder`) or `postgresql://…`.

    `login` is the same URL as a credential that follows its secrets.

    Raises:
        StartError: the URL is not one of a store, or its extra is not installed.
    """
    if url == "memory" or url.startswith("sqlite:///"):
        from agent_runtime.sessions.sqlite import SqliteSessions

        return SqliteSessions(None if url == "memory" else folder / url.removeprefix("sqlite:///"))
    if url.startswith(("postgresql://", "postgres://")):
        try:
            from agent_runtime.sessions.postgres import PostgresSessions
        except ModuleNotFoundError as error:
            raise StartError("sessions in Postgres need an extra: pip install 'myagent[postgres]'") from error
        return PostgresSessions(login or Credential(url))
    scheme = url.split(":", 1)[0]  # never the whole URL: it may contain a password
    raise StartError(f"session.store begins with {scheme!r}; use sqlite:///file.db, postgresql://… or memory")
