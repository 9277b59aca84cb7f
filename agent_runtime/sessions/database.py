"""What the SQLite and the Postgres store share: the migrations, the queries and the methods of a session store."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, ClassVar, Self, cast

from agent_runtime.errors import StartError, StoreError
from agent_runtime.events import Message, Role, ToolCall
from agent_runtime.sessions.base import (
    TITLE_CHARACTERS,
    Approval,
    SessionInfo,
    SessionKey,
    Summary,
    from_user_message,
)
from agent_runtime.sessions.locks import SessionLocks

# The version of a database is the number of migrations it has had. A released migration is never changed: add another.
# The first one is also that of databases from before there were versions. Both databases know the types that are not
# in braces: SQLite treats `bigint` as INTEGER.
MIGRATIONS: Sequence[Sequence[str]] = (
    (
        """
        CREATE TABLE IF NOT EXISTS session_messages (
            id {identity},
            agent text NOT NULL,
            owner text NOT NULL,
            session_id text NOT NULL,
            role text NOT NULL,
            content text NOT NULL,
            tool_calls text,
            tool_call_id text,
            created_at {timestamp}
        )
        """,
        "CREATE INDEX IF NOT EXISTS session_messages_by_session ON session_messages (agent, owner, session_id, id)",
    ),
    (
        """
        CREATE TABLE session_summaries (
            agent text NOT NULL,
            owner text NOT NULL,
            session_id text NOT NULL,
            summary text NOT NULL,
            covered bigint NOT NULL,
            PRIMARY KEY (agent, owner, session_id)
        )
        """,
    ),
    (
        """
        CREATE TABLE approvals (
            id text PRIMARY KEY,
            agent text NOT NULL,
            owner text NOT NULL,
            session_id text NOT NULL,
            run_id text NOT NULL,
            tool text NOT NULL,
            arguments text NOT NULL,
            state text NOT NULL,
            created_at text NOT NULL
        )
        """,
    ),
)

_OF_SESSION = "WHERE agent = $1 AND owner = $2 AND session_id = $3"
_LOAD = f"SELECT role, content, tool_calls, tool_call_id FROM session_messages {_OF_SESSION} ORDER BY id DESC LIMIT $4"
_COUNT = f"SELECT count(*) FROM session_messages {_OF_SESSION}"
_EXISTS = f"SELECT 1 FROM session_messages {_OF_SESSION} LIMIT 1"
_DELETE = [f"DELETE FROM {table} {_OF_SESSION}" for table in ("session_summaries", "approvals", "session_messages")]
_LIST = """
    SELECT s.session_id, substr(first.content, 1, $4), s.messages, s.created_at, s.updated_at
    FROM (
        SELECT session_id, count(*) AS messages, min(created_at) AS created_at, max(created_at) AS updated_at,
            min(id) AS first_id, max(id) AS last_id
        FROM session_messages WHERE agent = $1 AND owner = $2
        GROUP BY session_id ORDER BY max(id) DESC LIMIT $3
    ) AS s JOIN session_messages AS first ON first.id = s.first_id
    ORDER BY s.last_id DESC
"""
_LOAD_SUMMARY = f"SELECT summary, covered FROM session_summaries {_OF_SESSION}"
_SAVE_SUMMARY = (
    "INSERT INTO session_summaries (agent, owner, session_id, summary, covered) VALUES ($1, $2, $3, $4, $5)"
    " ON CONFLICT (agent, owner, session_id) DO UPDATE SET summary = excluded.summary, covered = excluded.covered"
)
_APPROVAL = "id, agent, owner, session_id, run_id, tool, arguments, state, created_at"
_SAVE_APPROVAL = f"INSERT INTO approvals ({_APPROVAL}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
_APPROVALS = f"SELECT {_APPROVAL} FROM approvals WHERE agent = $1 AND owner = $2 ORDER BY created_at, id"
_TAKE_APPROVAL = f"DELETE FROM approvals WHERE agent = $1 AND owner = $2 AND id = $3 RETURNING {_APPROVAL}"
_EXPIRE_APPROVALS = "DELETE FROM approvals WHERE agent = $1 AND created_at < $2"
_EXPIRED = """
    SELECT owner, session_id FROM session_messages WHERE agent = $1
    GROUP BY owner, session_id HAVING max(created_at) < $2 LIMIT $3
"""

Fetch = Callable[..., Awaitable[Sequence[Any]]]
"""Runs a statement with its parameters and returns its rows."""


class DatabaseSessions(ABC):
    """A session store on a SQL database. Subclasses run the statements, whose parameters are `$1`, `$2` and so on."""

    identity: ClassVar[str]
    timestamp: ClassVar[str]
    has_schema: ClassVar[str]
    """A query that has a row if the table of the schema's version exists."""
    failures: ClassVar[tuple[type[Exception], ...]]

    def __init__(self, name: str, location: str, wait_seconds: float) -> None:
        """`name` is in the errors of requests, `location` in the error of a store that cannot be opened."""
        self._name = name
        self._location = location
        self._session_locks = SessionLocks(wait_seconds)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException as error:
            await self._stack.aclose()
            if isinstance(error, (*self.failures, OSError, ValueError)):
                message = f"the session store {self._location} cannot be opened: {reason_of(error)}"
                raise StartError(message) from error
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    @abstractmethod
    async def _open(self) -> None:
        """Connect and migrate; what must be closed is put on the exit stack."""

    @abstractmethod
    async def _fetch(self, query: str, *values: Any) -> Sequence[Any]: ...

    @abstractmethod
    def _transaction(self) -> AbstractAsyncContextManager[Fetch]: ...

    @abstractmethod
    def _to_timestamp(self, moment: datetime) -> Any:
        """A time as the `created_at` of messages is compared with."""

    @abstractmethod
    def _from_timestamp(self, value: Any) -> datetime: ...

    async def _migrate(self, fetch: Fetch) -> None:
        # Checked first: a role that may not create tables can still use existing ones.
        if not await fetch(self.has_schema):
            await fetch("CREATE TABLE session_schema (version integer NOT NULL)")
        [[version]] = await fetch("SELECT coalesce(max(version), 0) FROM session_schema")
        if version > len(MIGRATIONS):
            raise StartError(
                f"the session store {self._name} was made by a newer myagent (its schema is version {version}, "
                f"this one knows {len(MIGRATIONS)}): update this agent, or use another store"
            )
        for migration in MIGRATIONS[version:]:
            for statement in migration:
                await fetch(statement.format(identity=self.identity, timestamp=self.timestamp))
        if version < len(MIGRATIONS):
            await fetch("DELETE FROM session_schema")
            await fetch(f"INSERT INTO session_schema VALUES ({len(MIGRATIONS)})")

    async def load(self, key: SessionKey, *, limit: int) -> list[Message]:
        async with self._store_errors():
            rows = await self._fetch(_LOAD, *key.columns, limit)
        return from_user_message([_message_from_row(row) for row in reversed(rows)])

    async def count(self, key: SessionKey) -> int:
        async with self._store_errors():
            [[count]] = await self._fetch(_COUNT, *key.columns)
        return int(count)

    async def delete(self, key: SessionKey) -> bool:
        async with self._store_errors(), self._transaction() as fetch:
            existed = bool(await fetch(_EXISTS, *key.columns))
            await _delete(fetch, key)
        return existed

    async def list(self, agent: str, owner: str, *, limit: int) -> Sequence[SessionInfo]:
        async with self._store_errors():
            rows = await self._fetch(_LIST, agent, owner, limit, TITLE_CHARACTERS)
        return [
            SessionInfo(session_id, title, count, self._from_timestamp(first), self._from_timestamp(last))
            for session_id, title, count, first, last in rows
        ]

    async def load_summary(self, key: SessionKey) -> Summary | None:
        async with self._store_errors():
            rows = await self._fetch(_LOAD_SUMMARY, *key.columns)
        return Summary(*rows[0]) if rows else None

    async def save_summary(self, key: SessionKey, summary: Summary) -> None:
        async with self._store_errors(), self._transaction() as fetch:
            await fetch(_SAVE_SUMMARY, *key.columns, storable(summary.text), summary.covered)

    async def save_approval(self, approval: Approval) -> None:
        arguments, state = storable(approval.arguments), storable(approval.state)
        created_at = approval.created_at.astimezone(UTC).isoformat()
        values = (approval.id, *approval.key.columns, approval.run_id, approval.tool, arguments, state, created_at)
        async with self._store_errors(), self._transaction() as fetch:
            await fetch(_SAVE_APPROVAL, *values)

    async def approvals(self, agent: str, owner: str) -> Sequence[Approval]:
        async with self._store_errors():
            return [_approval_from_row(row) for row in await self._fetch(_APPROVALS, agent, owner)]

    async def take_approval(self, agent: str, owner: str, approval_id: str) -> Approval | None:
        async with self._store_errors(), self._transaction() as fetch:
            rows = await fetch(_TAKE_APPROVAL, agent, owner, approval_id)
        return _approval_from_row(rows[0]) if rows else None

    async def expire(self, agent: str, *, before: datetime, limit: int) -> int:
        async with self._store_errors(), self._transaction() as fetch:
            await fetch(_EXPIRE_APPROVALS, agent, before.astimezone(UTC).isoformat())
            expired = await fetch(_EXPIRED, agent, self._to_timestamp(before), limit)
            for owner, session_id in expired:
                await _delete(fetch, SessionKey(agent, owner, session_id))
        return len(expired)

    @asynccontextmanager
    async def _store_errors(self) -> AsyncGenerator[None]:
        try:
            yield
        except self.failures as error:
            raise StoreError(f"the session store {self._name} failed: {reason_of(error)}") from error


async def _delete(fetch: Fetch, key: SessionKey) -> None:
    for statement in _DELETE:
        await fetch(statement, *key.columns)


def reason_of(error: BaseException) -> str:
    """An error of a database driver in one line."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


MessageRow = tuple[str, str, str, str, str, str | None, str | None]


def message_to_row(key: SessionKey, message: Message) -> MessageRow:
    """The columns agent, owner, session_id, role, content, tool_calls (JSON) and tool_call_id."""
    calls = json.dumps([asdict(call) for call in message.tool_calls]) if message.tool_calls else None
    return *key.columns, message.role, storable(message.content), calls, message.tool_call_id


def _message_from_row(row: Sequence[Any]) -> Message:
    role, content, calls, call_id = row
    tool_calls = tuple(ToolCall(**call) for call in json.loads(calls)) if calls else ()
    return Message(cast("Role", role), content, tool_calls, call_id)


def _approval_from_row(row: Sequence[Any]) -> Approval:
    approval_id, agent, owner, session_id, run_id, tool, arguments, state, created_at = row
    key = SessionKey(agent, owner, session_id)
    return Approval(approval_id, key, run_id, tool, arguments, state, datetime.fromisoformat(created_at))


def storable(text: str) -> str:
    """Without NUL and lone surrogates: models and tools may write them, and databases refuse them."""
    return text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
