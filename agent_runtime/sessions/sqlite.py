"""Conversations in one SQLite file that any SQLite viewer reads."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiosqlite

from agent_runtime.errors import StartError, StoreError
from agent_runtime.messages import Message
from agent_runtime.sessions.base import SessionKey, from_row, to_row, whole_turns

_SCHEMA = """
CREATE TABLE IF NOT EXISTS session_messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    agent TEXT NOT NULL,
    owner TEXT NOT NULL,
    session_id TEXT NOT NULL,
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    tool_calls TEXT,
    tool_call_id TEXT,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
CREATE INDEX IF NOT EXISTS session_messages_by_session ON session_messages (agent, owner, session_id, id);
"""
_FROM = "FROM session_messages WHERE agent = ? AND owner = ? AND session_id = ?"


class SqliteSessions:
    """One connection, one writer, WAL: a reader never waits for a writer."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stack = AsyncExitStack()
        self._writing = asyncio.Lock()  # statements of two turns must not share a transaction
        self._connection: aiosqlite.Connection

    async def __aenter__(self) -> SqliteSessions:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._connection = await self._stack.enter_async_context(aiosqlite.connect(self._file))
            await self._connection.execute("PRAGMA busy_timeout = 5000")
            await self._connection.execute("PRAGMA journal_mode = WAL")
            await self._connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            await self._stack.aclose()
            raise StartError(f"the session store {self._file} cannot be opened: {error}") from error
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def load(self, key: SessionKey, *, limit: int) -> list[Message]:
        query = f"SELECT role, content, tool_calls, tool_call_id {_FROM} ORDER BY id DESC LIMIT ?"
        async with self._translated():
            rows = await self._connection.execute_fetchall(query, (*_columns(key), limit))
        return whole_turns([from_row(row) for row in reversed(list(rows))])

    async def append(self, key: SessionKey, messages: Sequence[Message]) -> None:
        insert = (
            "INSERT INTO session_messages (agent, owner, session_id, role, content, tool_calls, tool_call_id)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)"
        )
        async with self._transaction():
            await self._connection.executemany(insert, [(*_columns(key), *to_row(message)) for message in messages])

    async def delete(self, key: SessionKey) -> bool:
        async with self._transaction():
            cursor = await self._connection.execute(f"DELETE {_FROM}", _columns(key))
        return cursor.rowcount > 0

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[None]:
        async with self._translated(), self._writing:
            try:
                yield
                await self._connection.commit()
            except BaseException:
                await self._connection.rollback()
                raise

    @asynccontextmanager
    async def _translated(self) -> AsyncGenerator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"the session store {self._file.name} failed: {error}") from error


def _columns(key: SessionKey) -> tuple[str, str, str]:
    return key.agent, key.owner, key.session_id
