"""Conversations in Postgres, shared by all replicas of an agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg

from agent_runtime.errors import StoreError
from agent_runtime.events import Message
from agent_runtime.secrets import Credential, PostgresLogin
from agent_runtime.sessions.base import SessionKey
from agent_runtime.sessions.database import DatabaseSessions, Fetch, message_to_row
from agent_runtime.sessions.locks import WAIT_SECONDS, session_busy

# asyncpg reports some connections that the server closed as an "internal" error.
FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)

_SCHEMA_LOCK = 0x6D79_6167  # any fixed number: replicas that start together migrate one after the other
_APPEND_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"
_APPEND = (
    "INSERT INTO session_messages (agent, owner, session_id, role, content, tool_calls, tool_call_id)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7)"
)


class PostgresSessions(DatabaseSessions):
    """The conversations in the database at a URL."""

    identity = "bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
    timestamp = "timestamptz NOT NULL DEFAULT now()"
    has_schema = "SELECT 1 WHERE to_regclass('session_schema') IS NOT NULL"
    failures = FAILURES

    def __init__(self, url: Credential[str], *, wait_seconds: float = WAIT_SECONDS) -> None:
        super().__init__("in Postgres", "in Postgres", wait_seconds)
        self._login = PostgresLogin(url)
        self._locks = AdvisoryLocks(self._login)
        self._lock_connections: dict[SessionKey, Any] = {}
        self._pool: Any

    async def _open(self) -> None:
        self._pool = await self._stack.enter_async_context(self._login.pool(max_size=10, command_timeout=30))
        self._stack.push_async_callback(self._locks.close)
        async with self._transaction() as fetch:
            await fetch("SELECT pg_advisory_xact_lock($1)", _SCHEMA_LOCK)
            await self._migrate(fetch)

    @asynccontextmanager
    async def turn(self, key: SessionKey) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            deadline = await stack.enter_async_context(self._session_locks.hold(key))
            async with self._store_errors():
                lock = self._locks.hold(str(key), deadline=deadline)
                self._lock_connections[key] = await stack.enter_async_context(lock)
            stack.callback(self._lock_connections.pop, key)
            yield

    async def append(self, key: SessionKey, messages: Sequence[Message]) -> None:
        connection = self._lock_connections.get(key)
        if connection is not None and connection.is_closed():  # another replica may have begun its turn
            raise StoreError("the session store in Postgres failed: the connection that locked this session was lost")
        async with self._store_errors(), self._pool.acquire() as connection, connection.transaction():
            # A caller without a turn must not interleave its rows with others either.
            await connection.execute(_APPEND_LOCK, str(key))
            await connection.executemany(_APPEND, [message_to_row(key, message) for message in messages])

    async def _fetch(self, query: str, *values: Any) -> Sequence[Any]:
        return await self._pool.fetch(query, *values)

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[Fetch]:
        async with self._pool.acquire() as connection, connection.transaction():
            yield connection.fetch

    def _to_timestamp(self, moment: datetime) -> datetime:
        return moment

    def _from_timestamp(self, value: datetime) -> datetime:
        return value


_COMMAND_SECONDS = 10
_MAX_WAITING = 8  # connections that wait for other replicas at the same time
_LOCK_ID = "hashtextextended($1, 1)"  # 0 is the seed of _APPEND_LOCK


class AdvisoryLocks:
    """Named locks in one database, which are released when the process that holds them ends.

    A lock belongs to a connection. Locks that are free are all taken on one shared connection, so that many turns need
    no connection each. Only a caller that has to wait for another replica gets its own connection, on which it waits in
    the database's queue: first come, first served. Within one process, a name must be requested once at a time.
    """

    def __init__(self, login: PostgresLogin) -> None:
        self._login = login
        self._shared: Any = None
        self._using = asyncio.Lock()
        self._waiting = asyncio.Semaphore(_MAX_WAITING)
        self._releases: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Release all locks."""
        if self._releases:
            await asyncio.wait(self._releases, timeout=5)
        shared, self._shared = self._shared, None
        if shared is not None:
            await _close(shared)

    @asynccontextmanager
    async def hold(self, name: str, *, deadline: float) -> AsyncGenerator[Any]:
        """Hold a lock; yields the connection that it belongs to. Raises SessionBusy at the deadline."""
        try:
            connection = await self._try_shared(name)
        except BaseException:
            await self._release(name)  # it may have been taken before this was cancelled
            raise
        if connection is None:
            async with self._wait(name, deadline) as connection:
                yield connection
            return
        try:
            yield connection
        finally:
            await self._release(name)

    async def _try_shared(self, name: str) -> Any:
        """The shared connection, if the lock was free."""
        async with self._using:
            if self._shared is None or self._shared.is_closed():
                self._shared = await self._login.connect(timeout=5)
            query = f"SELECT pg_try_advisory_lock({_LOCK_ID})"
            return self._shared if await self._shared.fetchval(query, name, timeout=_COMMAND_SECONDS) else None

    async def _release(self, name: str) -> None:
        """Release a lock even if this is cancelled: otherwise the session is locked until this process ends."""
        task = asyncio.create_task(self._unlock(name))
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)
        await asyncio.shield(task)

    async def _unlock(self, name: str) -> None:
        async with self._using:
            if self._shared is None or self._shared.is_closed():
                return
            try:
                await self._shared.fetchval(f"SELECT pg_advisory_unlock({_LOCK_ID})", name, timeout=_COMMAND_SECONDS)
            except FAILURES:
                self._shared.terminate()  # releases all locks, which is better than one that is never released

    @asynccontextmanager
    async def _wait(self, name: str, deadline: float) -> AsyncGenerator[Any]:
        timeout = asyncio.timeout_at(deadline)
        async with AsyncExitStack() as stack:
            try:
                async with timeout:
                    await stack.enter_async_context(self._waiting)
                    connection = await self._login.connect(timeout=5)
                    stack.push_async_callback(_close, connection)
                    await connection.execute(f"SELECT pg_advisory_lock({_LOCK_ID})", name)
            except TimeoutError:
                if timeout.expired():
                    raise session_busy() from None
                raise
            yield connection


async def _close(connection: Any) -> None:
    try:
        await connection.close(timeout=2)
    except BaseException as error:
        connection.terminate()  # the server releases the lock when the socket is closed
        if not isinstance(error, FAILURES):
            raise
