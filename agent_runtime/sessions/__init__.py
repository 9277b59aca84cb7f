"""The door to the session stores: `store_for` picks one by its URL."""

from __future__ import annotations

from pathlib import Path

from agent_runtime.errors import StartError
from agent_runtime.secrets import Credential
from agent_runtime.sessions.base import SessionStore

__all__ = ["SessionStore", "store_for"]


def store_for(url: str, folder: Path, *, login: Credential[str] | None = None) -> SessionStore:
    """The store that a URL names: `memory`, `sqlite:///file.db` (relative to `folder`) or `postgresql://…`.

    `login` is the same URL as one that follows its secrets.

    Raises:
        StartError: the URL names no store, or its extra is not installed.
    """
    if url == "memory":
        from agent_runtime.sessions.memory import MemorySessions

        return MemorySessions()
    if url.startswith("sqlite:///"):
        from agent_runtime.sessions.sqlite import SqliteSessions

        return SqliteSessions(folder / url.removeprefix("sqlite:///"))
    if url.startswith(("postgresql://", "postgres://")):
        try:
            from agent_runtime.sessions.postgres import PostgresSessions
        except ModuleNotFoundError as error:
            raise StartError("sessions in Postgres need an extra: pip install 'myagent[postgres]'") from error
        return PostgresSessions(login or Credential(url))
    scheme = url.split(":", 1)[0]  # never the whole of it: it may hold a password
    raise StartError(f"session.store begins with {scheme!r}; use sqlite:///file.db, postgresql://… or memory")
