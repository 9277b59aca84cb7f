"""Conversations in SQLite: in one file, or in memory until the store is closed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiosqlite

from agent_runtime.errors import StoreError
from agent_runtime.events import Message
from agent_runtime.sessions.base import SessionKey
from agent_runtime.sessions.database import DatabaseSessions, Fetch, MessageRow, message_to_row, reason_of
from agent_runtime.sessions.locks import WAIT_SECONDS, fair_file_lock, file_lock, session_busy
from infrastructure.group_commit import GroupCommit
from infrastructure.sqlite import connect

# All rows in one parameter, so that any number of turns is one statement, and one statement is a transaction.
_APPEND = f"""
    INSERT INTO session_messages (agent, owner, session_id, role, content, tool_calls, tool_call_id)
    SELECT {", ".join(f"json_extract(value, '$[{column}]')" for column in range(7))}
    FROM json_each(?) ORDER BY key
"""
_OPEN_SECONDS = 30  # how long to wait for another process that is migrating the file


class SqliteSessions(DatabaseSessions):
    """One connection with one writer, in WAL mode: a reader never waits for a writer."""

    identity = "INTEGER PRIMARY KEY AUTOINCREMENT"
    timestamp = "text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))"
    has_schema = "SELECT 1 FROM sqlite_master WHERE name = 'session_schema'"
    failures = (sqlite3.Error,)

    def __init__(self, file: Path | None, *, wait_seconds: float = WAIT_SECONDS) -> None:
        """Without a `file` the conversations are in memory."""
        super().__init__(file.name if file else "in memory", str(file), wait_seconds)
        self._file = file
        # Other processes may use the file too.
        self._locks = file.parent / ".myagent" / f"{file.name}-locks" if file else None
        # An error of the file as a whole, such as a full disk, fails a batch at once.
        self._appends = GroupCommit(self._append_batch, outage=sqlite3.OperationalError)
        self._writing = asyncio.Lock()  # statements of two writers must not share a transaction
        self._connection: aiosqlite.Connection

    async def _open(self) -> None:
        self._connection = await connect(self._file or ":memory:")
        self._stack.push_async_callback(self._connection.close)
        self._stack.push_async_callback(self._appends.aclose)
        async with AsyncExitStack() as stack:
            if self._locks:
                await asyncio.to_thread(self._locks.mkdir, parents=True, exist_ok=True)
                deadline = asyncio.get_running_loop().time() + _OPEN_SECONDS
                await stack.enter_async_context(file_lock(self._locks / "schema.lock", deadline=deadline))
            await self._connection.execute("PRAGMA journal_mode = WAL")
            await self._migrate(await stack.enter_async_context(self._transaction()))

    @asynccontextmanager
    async def turn(self, key: SessionKey) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            deadline = await stack.enter_async_context(self._session_locks.hold(key))
            if self._locks:
                name = hashlib.sha256(str(key).encode(errors="surrogatepass")).hexdigest()[:32]
                try:
                    lock = fair_file_lock(self._locks / f"{name}.lock", deadline=deadline)
                    await stack.enter_async_context(lock)
                except TimeoutError:
                    raise session_busy() from None
                except OSError as error:
                    raise StoreError(f"the session store {self._name} failed: {reason_of(error)}") from error
            yield

    async def append(self, key: SessionKey, messages: Sequence[Message]) -> None:
        async with self._store_errors():
            await self._appends.run([message_to_row(key, message) for message in messages])

    async def _append_batch(self, turns: Sequence[Sequence[MessageRow]]) -> Sequence[None]:
        rows = [row for turn in turns for row in turn]
        async with self._writing:
            await self._connection.execute(_APPEND, (json.dumps(rows, ensure_ascii=False),))
        return [None] * len(turns)

    async def _fetch(self, query: str, *values: Any) -> Sequence[Any]:
        return [*await self._connection.execute_fetchall(query.replace("$", "?"), values)]

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[Fetch]:
        async with self._writing:
            try:
                await self._connection.execute("BEGIN IMMEDIATE")
                yield self._fetch
                await self._connection.commit()
            except BaseException:
                await self._connection.rollback()
                raise

    def _to_timestamp(self, moment: datetime) -> str:
        # As the default of the column, so that texts compare as times do.
        return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def _from_timestamp(self, value: str) -> datetime:
        return datetime.fromisoformat(value)
