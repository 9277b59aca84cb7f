"""Conversations in Postgres, shared by every replica of an agent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from agent_runtime.errors import StartError, StoreError
from agent_runtime.events import Message
from agent_runtime.secrets import Credential, PostgresLogin
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
from agent_runtime.sessions.postgres_locks import FAILURES, AdvisoryLocks
from agent_runtime.sessions.turns import WAIT_SECONDS, Turns

_SCHEMA_LOCK = 0x6D79_6167  # any fixed number: replicas that start together migrate one after the other


def _sql(text: str) -> str:
    return text.format(*(f"${number}" for number in range(1, 10)))


class PostgresSessions:
    """The conversations of the database at an address."""

    def __init__(self, url: Credential[str], *, wait_seconds: float = WAIT_SECONDS) -> None:
        self._login = PostgresLogin(url)
        self._turns = Turns(wait_seconds)
        self._locks = AdvisoryLocks(self._login)
        self._held: dict[SessionKey, Any] = {}
        self._stack = AsyncExitStack()
        self._pool: Any

    async def __aenter__(self) -> PostgresSessions:
        try:
            self._pool = await self._stack.enter_async_context(self._login.pool(max_size=10, command_timeout=30))
            self._stack.push_async_callback(self._locks.close)
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock($1)", _SCHEMA_LOCK)
                await _migrate(connection)
        except (*FAILURES, ValueError) as error:
            await self._stack.aclose()
            raise StartError(f"the session store in Postgres cannot be opened: {_reason(error)}") from error
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def turn(self, key: SessionKey) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            deadline = await stack.enter_async_context(self._turns.turn(key))
            try:
                held = self._locks.held(str(key), deadline=deadline)
                self._held[key] = await stack.enter_async_context(held)
            except FAILURES as error:
                raise StoreError(f"the session store in Postgres failed: {_reason(error)}") from error
            stack.callback(self._held.pop, key)
            yield

    async def load(self, key: SessionKey, *, limit: int) -> History:
        async with self._translated():
            rows = await self._pool.fetch(_sql(schema.LOAD), *_columns(key), limit)
        return whole_turns([from_row(row) for row in reversed(rows)])

    async def count(self, key: SessionKey) -> int:
        async with self._translated():
            return int(await self._pool.fetchval(_sql(schema.COUNT), *_columns(key)))

    async def append(self, key: SessionKey, messages: Sequence[Message]) -> None:
        held = self._held.get(key)
        if held is not None and held.is_closed():  # another replica may be in its turn by now
            raise StoreError("the session store in Postgres failed: the connection that held this session was lost")
        rows = [(*_columns(key), *to_row(message)) for message in messages]
        async with self._translated(), self._pool.acquire() as connection, connection.transaction():
            # Whoever appends without a turn of its own must not interleave its rows either.
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", str(key))
            await connection.executemany(_sql(schema.APPEND), rows)

    async def delete(self, key: SessionKey) -> bool:
        async with self._translated(), self._pool.acquire() as connection, connection.transaction():
            return await _forget(connection, key)

    async def list(self, agent: str, owner: str, *, limit: int) -> Sequence[SessionInfo]:
        async with self._translated():
            rows = await self._pool.fetch(_sql(schema.LIST), agent, owner, limit, TITLE_CHARACTERS)
        return [SessionInfo(*row) for row in rows]

    async def load_summary(self, key: SessionKey) -> Summary | None:
        async with self._translated():
            row = await self._pool.fetchrow(_sql(schema.LOAD_SUMMARY), *_columns(key))
        return Summary(*row) if row else None

    async def save_summary(self, key: SessionKey, summary: Summary) -> None:
        values = (*_columns(key), storable(summary.text), summary.covered)
        async with self._translated():
            await self._pool.execute(_sql(schema.SAVE_SUMMARY), *values)

    async def save_approval(self, approval: Approval) -> None:
        async with self._translated():
            await self._pool.execute(_sql(schema.SAVE_APPROVAL), *approval_to_row(approval))

    async def approvals(self, agent: str, owner: str) -> Sequence[Approval]:
        async with self._translated():
            return [approval_from_row(row) for row in await self._pool.fetch(_sql(schema.APPROVALS), agent, owner)]

    async def take_approval(self, agent: str, owner: str, approval_id: str) -> Approval | None:
        async with self._translated():
            row = await self._pool.fetchrow(_sql(schema.TAKE_APPROVAL), agent, owner, approval_id)
        return approval_from_row(row) if row else None

    async def expire(self, agent: str, *, before: datetime, limit: int) -> int:
        async with self._translated(), self._pool.acquire() as connection, connection.transaction():
            await connection.execute(_sql(schema.OLD_APPROVALS), agent, before.astimezone(UTC).isoformat())
            old = await connection.fetch(_sql(schema.OLD), agent, before, limit)
            for owner, session_id in old:
                await _forget(connection, SessionKey(agent, owner, session_id))
        return len(old)

    @asynccontextmanager
    async def _translated(self) -> AsyncGenerator[None]:
        try:
            yield
        except FAILURES as error:
            raise StoreError(f"the session store in Postgres failed: {_reason(error)}") from error


async def _migrate(connection: Any) -> None:
    # Asked first: a role that may not create tables can still use those that are there.
    if await connection.fetchval("SELECT to_regclass('session_schema')") is None:
        await connection.execute("CREATE TABLE session_schema (version integer NOT NULL)")
    version = await connection.fetchval("SELECT max(version) FROM session_schema")
    missing = schema.missing_from(version or 0, "in Postgres")
    for migration in missing:
        for statement in migration.postgres:
            await connection.execute(statement)
    if missing:
        await connection.execute("DELETE FROM session_schema")
        await connection.execute("INSERT INTO session_schema VALUES ($1)", len(schema.MIGRATIONS))


async def _forget(connection: Any, key: SessionKey) -> bool:
    await connection.execute(_sql(schema.DELETE_SUMMARY), *_columns(key))
    await connection.execute(_sql(schema.DELETE_APPROVALS), *_columns(key))
    status: str = await connection.execute(_sql(schema.DELETE), *_columns(key))
    return status != "DELETE 0"


def _columns(key: SessionKey) -> tuple[str, str, str]:
    return key.agent, key.owner, key.session_id


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
