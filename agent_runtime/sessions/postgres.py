"""Conversations in Postgres, shared by every replica of an agent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg

from agent_runtime.errors import StartError, StoreError
from agent_runtime.messages import Message
from agent_runtime.sessions.base import SessionKey, from_row, to_row, whole_turns

_SCHEMA = """
CREATE TABLE IF NOT EXISTS session_messages (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent text NOT NULL,
    owner text NOT NULL,
    session_id text NOT NULL,
    role text NOT NULL,
    content text NOT NULL,
    tool_calls text,
    tool_call_id text,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS session_messages_by_session ON session_messages (agent, owner, session_id, id);
"""
_SCHEMA_LOCK = 0x6D79_6167  # any fixed number: replicas that start together create the schema one after the other
_FROM = "FROM session_messages WHERE agent = $1 AND owner = $2 AND session_id = $3"
# A connection that the server cut can show as an "internal" error of the client.
_FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)


class PostgresSessions:
    """A small pool; a connection that was lost is replaced by the pool at its next use."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stack = AsyncExitStack()
        self._pool: Any

    async def __aenter__(self) -> PostgresSessions:
        try:
            pool: Any = asyncpg.create_pool(self._url, min_size=1, max_size=10, timeout=5, command_timeout=30)  # pyright: ignore[reportUnknownMemberType]
            self._pool = await self._stack.enter_async_context(pool)
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock($1)", _SCHEMA_LOCK)
                await connection.execute(_SCHEMA)
        except (*_FAILURES, ValueError) as error:
            await self._stack.aclose()
            raise StartError(f"the session store in Postgres cannot be opened: {_reason(error)}") from error
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def load(self, key: SessionKey, *, limit: int) -> list[Message]:
        query = f"SELECT role, content, tool_calls, tool_call_id {_FROM} ORDER BY id DESC LIMIT $4"
        async with self._translated():
            rows = await self._pool.fetch(query, *_columns(key), limit)
        return whole_turns([from_row(row) for row in reversed(rows)])

    async def append(self, key: SessionKey, messages: Sequence[Message]) -> None:
        insert = (
            "INSERT INTO session_messages (agent, owner, session_id, role, content, tool_calls, tool_call_id)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7)"
        )
        rows = [(*_columns(key), *to_row(message)) for message in messages]
        async with self._translated(), self._pool.acquire() as connection, connection.transaction():
            # Replicas may answer turns of one session at once: their rows must not be interleaved.
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", "\n".join(_columns(key)))
            await connection.executemany(insert, rows)

    async def delete(self, key: SessionKey) -> bool:
        async with self._translated():
            status: str = await self._pool.execute(f"DELETE {_FROM}", *_columns(key))
        return status != "DELETE 0"

    @asynccontextmanager
    async def _translated(self) -> AsyncGenerator[None]:
        try:
            yield
        except _FAILURES as error:
            raise StoreError(f"the session store in Postgres failed: {_reason(error)}") from error


def _columns(key: SessionKey) -> tuple[str, str, str]:
    return key.agent, key.owner, key.session_id


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
