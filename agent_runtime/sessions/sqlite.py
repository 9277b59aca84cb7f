"""Conversations in one SQLite file that any SQLite viewer reads."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiosqlite

from agent_runtime.errors import StartError, StoreError
from agent_runtime.events import Message
from agent_runtime.sessions import schema
from agent_runtime.sessions.base import (
    TITLE_CHARACTERS,
    Approval,
    History,
    SessionInfo,
    SessionKey,
    Summary,
    approval_from_row,
    approval_to_row,
    from_row,
    storable,
    to_row,
    whole_turns,
)
from agent_runtime.sessions.file_locks import fair_file_lock, file_lock
from agent_runtime.sessions.group_commit import GroupCommit
from agent_runtime.sessions.turns import WAIT_SECONDS, Turns, busy

# All rows in one parameter, so that any number of turns is one statement, and one statement is a transaction.
_APPEND = f"""
    INSERT INTO session_messages (agent, owner, session_id, role, content, tool_calls, tool_call_id)
    SELECT {", ".join(f"json_extract(value, '$[{column}]')" for column in range(7))}
    FROM json_each(?) ORDER BY key
"""
_OPEN_SECONDS = 30  # how long to wait for another process that is migrating the file


def _sql(text: str) -> str:
    return text.format(*(f"?{number}" for number in range(1, 10)))


class SqliteSessions:
    """One connection, one writer, WAL: a reader never waits for a writer."""

    def __init__(self, file: Path, *, wait_seconds: float = WAIT_SECONDS) -> None:
        self._file = file
        self._locks = file.parent / ".myagent" / f"{file.name}-locks"
        self._turns = Turns(wait_seconds)
        self._stack = AsyncExitStack()
        self._appends = GroupCommit(self._append)
        self._writing = asyncio.Lock()  # statements of two turns must not share a transaction
        self._connection: aiosqlite.Connection

    async def __aenter__(self) -> SqliteSessions:
        try:
            await asyncio.to_thread(self._locks.mkdir, parents=True, exist_ok=True)
            self._connection = await self._stack.enter_async_context(
                aiosqlite.connect(self._file, isolation_level=None)
            )
            await self._connection.execute("PRAGMA busy_timeout = 5000")
            deadline = asyncio.get_running_loop().time() + _OPEN_SECONDS
            async with file_lock(self._locks / "schema.lock", deadline=deadline):
                await self._connection.execute("PRAGMA journal_mode = WAL")
                async with self._transaction():
                    await self._migrate()
        except (OSError, sqlite3.Error, StoreError) as error:
            await self._stack.aclose()
            reason = error.__cause__ if isinstance(error, StoreError) else error
            raise StartError(f"the session store {self._file} cannot be opened: {reason}") from error
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._appends.aclose()
        await self._stack.aclose()

    async def _migrate(self) -> None:
        await self._connection.execute("CREATE TABLE IF NOT EXISTS session_schema (version INTEGER NOT NULL)")
        rows = await self._rows("SELECT max(version) FROM session_schema")
        missing = schema.missing_from(rows[0][0] or 0, str(self._file))
        for migration in missing:
            for statement in migration.sqlite:
                await self._connection.execute(statement)
        if missing:
            await self._connection.execute("DELETE FROM session_schema")
            await self._connection.execute("INSERT INTO session_schema VALUES (?)", (len(schema.MIGRATIONS),))

    @asynccontextmanager
    async def turn(self, key: SessionKey) -> AsyncGenerator[None]:
        name = hashlib.sha256(str(key).encode(errors="surrogatepass")).hexdigest()[:32]
        async with AsyncExitStack() as stack:
            deadline = await stack.enter_async_context(self._turns.turn(key))
            try:
                lock = fair_file_lock(self._locks / f"{name}.lock", deadline=deadline)
                await stack.enter_async_context(lock)
            except TimeoutError:
                raise busy() from None
            except OSError as error:
                raise StoreError(f"the session store {self._file.name} failed: {error}") from error
            yield

    async def load(self, key: SessionKey, *, limit: int) -> History:
        async with self._translated():
            rows = await self._rows(schema.LOAD, *_columns(key), limit)
        return whole_turns([from_row(row) for row in reversed(rows)])

    async def count(self, key: SessionKey) -> int:
        async with self._translated():
            return int((await self._rows(schema.COUNT, *_columns(key)))[0][0])

    async def append(self, key: SessionKey, messages: Sequence[Message]) -> None:
        await self._appends.add([[*_columns(key), *to_row(message)] for message in messages])

    async def _append(self, turns: Sequence[Sequence[Sequence[str | None]]]) -> None:
        rows = [row for turn in turns for row in turn]
        async with self._translated(), self._writing:
            await self._connection.execute(_APPEND, (json.dumps(rows, ensure_ascii=False),))

    async def delete(self, key: SessionKey) -> bool:
        async with self._transaction():
            return await self._forget(key)

    async def list(self, agent: str, owner: str, *, limit: int) -> Sequence[SessionInfo]:
        async with self._translated():
            rows = await self._rows(schema.LIST, agent, owner, limit, TITLE_CHARACTERS)
        return [
            SessionInfo(session_id, title, count, datetime.fromisoformat(first), datetime.fromisoformat(last))
            for session_id, title, count, first, last in rows
        ]

    async def load_summary(self, key: SessionKey) -> Summary | None:
        async with self._translated():
            rows = await self._rows(schema.LOAD_SUMMARY, *_columns(key))
        return Summary(*rows[0]) if rows else None

    async def save_summary(self, key: SessionKey, summary: Summary) -> None:
        async with self._transaction():
            values = (*_columns(key), storable(summary.text), summary.covered)
            await self._connection.execute(_sql(schema.SAVE_SUMMARY), values)

    async def save_approval(self, approval: Approval) -> None:
        async with self._transaction():
            await self._connection.execute(_sql(schema.SAVE_APPROVAL), approval_to_row(approval))

    async def approvals(self, agent: str, owner: str) -> Sequence[Approval]:
        async with self._translated():
            return [approval_from_row(row) for row in await self._rows(schema.APPROVALS, agent, owner)]

    async def take_approval(self, agent: str, owner: str, approval_id: str) -> Approval | None:
        async with self._transaction():
            rows = await self._rows(schema.TAKE_APPROVAL, agent, owner, approval_id)
        return approval_from_row(rows[0]) if rows else None

    async def expire(self, agent: str, *, before: datetime, limit: int) -> int:
        # As the table's default writes it, so that texts compare as times do.
        moment = before.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        async with self._transaction():
            await self._connection.execute(_sql(schema.OLD_APPROVALS), (agent, before.astimezone(UTC).isoformat()))
            old = await self._rows(schema.OLD, agent, moment, limit)
            for owner, session_id in old:
                await self._forget(SessionKey(agent, owner, session_id))
        return len(old)

    async def _forget(self, key: SessionKey) -> bool:
        await self._connection.execute(_sql(schema.DELETE_SUMMARY), _columns(key))
        await self._connection.execute(_sql(schema.DELETE_APPROVALS), _columns(key))
        cursor = await self._connection.execute(_sql(schema.DELETE), _columns(key))
        return cursor.rowcount > 0

    async def _rows(self, query: str, *values: Any) -> Sequence[Any]:
        rows: Iterable[Any] = await self._connection.execute_fetchall(_sql(query), values)
        return [*rows]

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[None]:
        async with self._translated(), self._writing:
            try:
                await self._connection.execute("BEGIN IMMEDIATE")
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
