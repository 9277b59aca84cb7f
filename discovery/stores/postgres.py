"""The table in Postgres, shared by several registries: its clock for leases, its notifications to wake the others."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import asyncpg

import discovery.stores.postgres_rows as rows
from discovery.contract import utc_now
from discovery.registry.history import HistoryEntry
from discovery.registry.leases import Record
from discovery.registry.search import Found
from discovery.registry.store import LastSeen, Line, Snapshot, StoreError
from discovery.registry.table import Change
from discovery.stores.rows import entry_of, history_values, latest_records, line_values, record_of

MAX_CALL_SECONDS = 3.0  # waiting for a connection and for other writers included: a client gives up after five
CONNECTIONS = 4

FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


class PostgresStore:
    """Connects at the first call; the pool replaces connections that were lost, so it recovers when the server does."""

    shared = True

    def __init__(self, url: str) -> None:
        self._url = url
        parts = urlsplit(url)
        # For messages, without what may be secret in it.
        self._where = f"Postgres at {parts.hostname or 'the local socket'}{parts.path}"
        self._pool: Any = None
        self._opening = asyncio.Lock()
        self._offset = timedelta(0)  # of the server's clock to ours
        self._listener: Any = None
        self._notification = asyncio.Event()

    def now(self) -> datetime:
        """The server's clock, as far as it was last seen from ours."""
        return utc_now() + self._offset

    async def load(self) -> Snapshot:
        """See `Store`."""
        async with self._snapshot() as connection:
            revision, lineage = await self._state(connection, rows.STATE)
            found = await connection.fetch("SELECT * FROM discovery.agents")
        return Snapshot([record for row in found if (record := record_of(row))], revision, lineage)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator["PostgresTransaction"]:
        """See `Store`. The row with the revision is locked: revisions are made durable in their order."""
        async with self._connected() as connection, connection.transaction():
            yield PostgresTransaction(connection, *await self._state(connection, rows.STATE + " FOR UPDATE"))

    async def since(self, revision: int) -> Sequence[Change]:
        """See `Store`."""
        async with self._snapshot() as connection:
            return await rows.changes(connection, revision)

    async def save_last_seen(self, heartbeats: Iterable[LastSeen]) -> None:
        """See `Store`."""
        async with self._connected() as connection:
            await connection.executemany(rows.SAVE_LAST_SEEN, sorted(heartbeats))

    async def seen_after(self, moment: datetime) -> Sequence[LastSeen]:
        """See `Store`."""
        query = "SELECT name, instance_id, last_seen FROM discovery.agents WHERE last_seen > $1"
        async with self._connected() as connection:
            return [LastSeen(*row) for row in await connection.fetch(query, moment)]

    async def history(self, name: str, *, limit: int, before: int | None = None) -> Sequence[HistoryEntry]:
        """See `Store`."""
        query = (
            "SELECT * FROM discovery.history WHERE name = $1 AND ($2::bigint IS NULL OR revision < $2) "
            "ORDER BY revision DESC LIMIT $3"
        )
        async with self._connected() as connection:
            return [entry_of(row) for row in await connection.fetch(query, name, before, limit)]

    async def prune_history(self, before: datetime) -> None:
        """See `Store`."""
        async with self._connected() as connection:
            await connection.execute("DELETE FROM discovery.history WHERE at < $1", before)

    async def search(self, words: Sequence[str], *, every: bool, limit: int) -> Sequence[Found]:
        """See `Store`."""
        # Written as a query and not parsed from a text: the words are what was indexed, letter for letter.
        query = (" & " if every else " | ").join(f"'{word}':*" for word in words)
        async with self._connected() as connection:
            return [Found(*row) for row in await connection.fetch(rows.SEARCH, query, limit)]

    async def export(self) -> Sequence[Line]:
        """See `Store`."""
        query = "SELECT * FROM discovery.history WHERE kind <> 'guard' ORDER BY revision"
        async with self._connected() as connection:
            return [Line(row["name"], entry_of(row)) for row in await connection.fetch(query)]

    async def fill(self, snapshot: Snapshot, history: Sequence[Line]) -> None:
        """See `Store`."""
        async with self.transaction() as transaction:
            if transaction.revision:
                raise StoreError(f"the {self._where} is not empty: it is at revision {transaction.revision}")
            await transaction.refill(snapshot.records, snapshot.revision, snapshot.lineage)
            await transaction.add_history([line_values(line) for line in history])

    async def wait_for_changes(self) -> None:
        """See `Store`. Raises while it cannot listen: the caller has to look by itself."""
        if self._listener is None or self._listener.is_closed():
            await self._listen()
            return  # notifications before this were missed
        await self._notification.wait()
        self._notification.clear()

    async def check(self) -> None:
        """See `Store`."""
        async with self.transaction():
            pass  # takes the lock that every writer needs

    async def aclose(self) -> None:
        """See `Store`."""
        pool, self._pool = self._pool, None
        listener, self._listener = self._listener, None
        with suppress(*FAILURES, TimeoutError):
            async with asyncio.timeout(MAX_CALL_SECONDS):
                if listener is not None:
                    await listener.close()
                if pool is not None:
                    await pool.close()
                return
        if pool is not None:
            pool.terminate()

    async def _listen(self) -> None:
        try:
            async with asyncio.timeout(MAX_CALL_SECONDS):
                connection: Any = await _connect(self._url)
                await connection.add_listener(rows.CHANNEL, self._notified)
                connection.add_termination_listener(self._notified)
        except (*FAILURES, TimeoutError, ValueError) as error:
            raise StoreError(f"the {self._where} cannot be listened to: {_reason(error)}") from error
        self._listener = connection

    def _notified(self, *_: object) -> None:
        self._notification.set()

    async def _state(self, connection: Any, query: str) -> tuple[int, str]:
        revision, lineage, now = await connection.fetchrow(query)
        self._offset = now - utc_now()
        return revision, lineage

    @asynccontextmanager
    async def _snapshot(self) -> AsyncGenerator[Any]:
        async with (
            self._connected() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection

    @asynccontextmanager
    async def _connected(self) -> AsyncGenerator[Any]:
        try:
            async with asyncio.timeout(MAX_CALL_SECONDS):
                pool = await self._open()
                async with pool.acquire() as connection:
                    yield connection
        except TimeoutError as error:
            raise StoreError(f"the {self._where} does not answer within {MAX_CALL_SECONDS:g} s") from error
        except (*FAILURES, ValueError) as error:
            raise StoreError(f"the {self._where} cannot be used: {_reason(error)}") from error

    async def _open(self) -> Any:
        async with self._opening:
            if self._pool is None:
                pool: Any = asyncpg.create_pool(self._url, min_size=1, max_size=CONNECTIONS, command_timeout=30)  # pyright: ignore[reportUnknownMemberType]
                try:
                    await pool
                    async with pool.acquire() as connection, connection.transaction():
                        await rows.prepare(connection, self._where)
                except BaseException:
                    pool.terminate()
                    raise
                self._pool = pool
        return self._pool


async def _connect(url: str) -> Any:
    return await asyncpg.connect(url)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


class PostgresTransaction:
    """See `Transaction`."""

    def __init__(self, connection: Any, revision: int, lineage: str) -> None:
        self._connection = connection
        self.revision = revision
        self.lineage = lineage

    async def since(self, revision: int) -> Sequence[Change]:
        """See `Transaction`."""
        return await rows.changes(self._connection, revision)

    async def append(self, changes: Sequence[Change]) -> None:
        """See `Transaction`."""
        latest = latest_records(changes)
        await self.add_history([history_values(change) for change in changes])
        await self._connection.executemany(rows.DROP, [key for key, record in latest.items() if record is None])
        await self._connection.executemany(rows.PUT, [rows.values(record) for record in latest.values() if record])
        await self._advance(changes[-1].revision, self.lineage)

    async def refill(self, records: Iterable[Record], revision: int, lineage: str) -> None:
        """See `Transaction`."""
        await self._connection.execute("DELETE FROM discovery.agents")
        await self._connection.executemany(rows.PUT, [rows.values(record) for record in records])
        await self._advance(revision, lineage)

    async def add_history(self, history: Sequence[Sequence[Any]]) -> None:
        """Add rows to the history."""
        await self._connection.executemany(rows.LOG, history)

    async def _advance(self, revision: int, lineage: str) -> None:
        await self._connection.execute("UPDATE discovery.state SET revision = $1, lineage = $2", revision, lineage)
        await self._connection.execute(f"SELECT pg_notify('{rows.CHANNEL}', '')")


def _reason(error: Exception) -> str:
    """The driver's message on one line; it never repeats a password."""
    return " ".join(str(error).split())[:300] or type(error).__name__
