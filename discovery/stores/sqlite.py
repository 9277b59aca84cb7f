"""The table in one SQLite file: plain columns that any viewer shows, one writer, nothing acknowledged is lost."""

import asyncio
import logging
import os
import sqlite3
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime

import aiosqlite

import discovery.stores.sqlite_rows as rows
from discovery.contract import utc_now
from discovery.history import HistoryEntry
from discovery.leases import Record
from discovery.search import WEIGHTS, Found
from discovery.stores.base import Line, Sighting, Snapshot, StoreError
from discovery.stores.rows import entry_of
from discovery.stores.sqlite_schema import prepare
from discovery.table import Change

BUSY_SECONDS = 1.0
LONGEST_CALL_SECONDS = 3.0  # waiting for our own lock included: a client gives up after five

logger = logging.getLogger(__name__)


class SqliteStore:
    """Opens its file at the first call, and again after every failure, so that it recovers when the file does."""

    shared = False

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: aiosqlite.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._lock = asyncio.Lock()

    def now(self) -> datetime:
        """See `Store`."""
        return utc_now()

    async def load(self) -> Snapshot:
        """See `Store`. A row that no longer makes sense (someone edited the file) is logged and left out."""
        async with self._transaction() as begun:
            found = await begun.connection.execute_fetchall("SELECT * FROM agents")
        return Snapshot([one for row in found if (one := rows.record(row))], begun.revision, begun.lineage)

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator["SqliteWriting"]:
        """See `Store`."""
        async with self._transaction() as begun:
            yield begun
            if not begun.has_written:
                await begun.connection.execute(rows.TOUCH)

    async def since(self, revision: int) -> Sequence[Change]:
        """See `Store`."""
        async with self._transaction() as begun:
            return await begun.since(revision)

    async def note(self, sightings: Iterable[Sighting]) -> None:
        """See `Store`."""
        seen = [(one.last_seen.isoformat(), one.name, one.instance_id, one.last_seen.isoformat()) for one in sightings]
        async with self._transaction() as begun:
            await begun.connection.executemany(
                "UPDATE agents SET last_seen = ? WHERE name = ? AND instance_id = ? AND last_seen < ?", seen
            )

    async def sightings(self, after: datetime) -> Sequence[Sighting]:
        """See `Store`."""
        query = "SELECT name, instance_id, last_seen FROM agents WHERE last_seen > ?"
        async with self._transaction() as begun:
            found = await begun.connection.execute_fetchall(query, (after.isoformat(),))
        return [Sighting(row[0], row[1], datetime.fromisoformat(row[2])) for row in found]

    async def history(self, name: str, *, limit: int, before: int | None = None) -> Sequence[HistoryEntry]:
        """See `Store`."""
        query = "SELECT * FROM history WHERE name = ? AND revision < ? ORDER BY revision DESC LIMIT ?"
        async with self._transaction() as begun:
            found = await begun.connection.execute_fetchall(query, (name, before or 2**62, limit))
        return [entry_of(rows.timed(row)) for row in found]

    async def forget(self, before: datetime) -> None:
        """See `Store`."""
        async with self._transaction() as begun:
            await begun.connection.execute("DELETE FROM history WHERE at < ?", (before.isoformat(),))

    async def search(self, words: Sequence[str], *, every: bool, limit: int) -> Sequence[Found]:
        """See `Store`."""
        match = (" AND " if every else " OR ").join(f'"{word}"*' for word in words)
        weights = ", ".join(str(weight) for weight in WEIGHTS.values())
        # Ranked first, and kept: bm25 is not known any more once rows are grouped.
        query = (
            f"WITH hits AS MATERIALIZED (SELECT agent, bm25(agents_search, {weights}) AS score "
            "FROM agents_search WHERE agents_search MATCH ?) "
            "SELECT agent, MIN(score) AS best FROM hits GROUP BY agent ORDER BY best, agent LIMIT ?"
        )
        async with self._transaction() as begun:
            found = await begun.connection.execute_fetchall(query, (match, limit))
        return [Found(row[0], -row[1]) for row in found]

    async def export(self) -> Sequence[Line]:
        """See `Store`."""
        query = "SELECT * FROM history WHERE kind != 'guard' ORDER BY revision"
        async with self._transaction() as begun:
            found = await begun.connection.execute_fetchall(query)
        return [Line(row["name"], entry_of(rows.timed(row))) for row in found]

    async def fill(self, snapshot: Snapshot, history: Sequence[Line]) -> None:
        """See `Store`."""
        async with self._transaction() as begun:
            if begun.revision:
                raise StoreError(f"{self._path} is not empty: it is at revision {begun.revision}")
            await rows.execute(begun.connection, rows.logged(history))
            await begun.refill(snapshot.records, snapshot.revision, snapshot.lineage)

    async def woken(self) -> None:
        """See `Store`."""
        await asyncio.get_running_loop().create_future()

    async def check(self) -> None:
        """See `Store`."""
        async with self.writing():
            pass

    async def aclose(self) -> None:
        """See `Store`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                await connection.close()

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator["SqliteWriting"]:
        try:
            async with asyncio.timeout(LONGEST_CALL_SECONDS), self._lock:
                try:
                    connection = await self._open()
                    # Two messages on one way to its thread; where the first fails, so does the whole.
                    _, state = await asyncio.gather(connection.execute("BEGIN IMMEDIATE"), rows.state(connection))
                    yield SqliteWriting(connection, *state)
                    await connection.execute("COMMIT")
                except BaseException:  # cancelled as well as failed: a fresh connection cannot be in a half state
                    await self.aclose()
                    raise
        except TimeoutError as error:
            raise StoreError(f"{self._path}: no answer within {LONGEST_CALL_SECONDS:g} s, it is busy") from error
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self._path}: {error}") from error

    async def _open(self) -> aiosqlite.Connection:
        if self._connection is not None:
            if _identity(self._path) == self._identity:
                return self._connection
            # SQLite would go on writing to the deleted file, and everything acknowledged would die with us.
            raise StoreError(f"{self._path} was removed or replaced while in use")
        connection = await _connected(self._path)
        try:
            await prepare(connection, self._path)
        except BaseException:
            await connection.close()
            raise
        self._connection, self._identity = connection, _identity(self._path)
        return connection


class SqliteWriting:
    """See `Writing`."""

    def __init__(self, connection: aiosqlite.Connection, revision: int, lineage: str) -> None:
        self.connection = connection
        self.revision = revision
        self.lineage = lineage
        self.has_written = False

    async def since(self, revision: int) -> Sequence[Change]:
        """See `Writing`."""
        return await rows.changes(self.connection, revision)

    async def append(self, changes: Sequence[Change]) -> None:
        """See `Writing`."""
        self.has_written = True
        await rows.execute(self.connection, [*rows.changed(changes), rows.revised(changes[-1].revision)])

    async def refill(self, records: Iterable[Record], revision: int, lineage: str) -> None:
        """See `Writing`."""
        self.has_written = True
        other = ("UPDATE lineage SET id = ?", (lineage,))
        await rows.execute(self.connection, [*rows.filled(list(records)), rows.revised(revision), other])


async def _connected(path: str) -> aiosqlite.Connection:
    """Connect, whole or not at all: a connection that is given up half way leaves its thread behind."""
    opening = asyncio.ensure_future(_connect(path))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        with suppress(sqlite3.Error, OSError):
            await (await opening).close()
        raise


async def _connect(path: str) -> aiosqlite.Connection:
    # What cannot be opened fails here, for the same reason: before a thread is started for it.
    await asyncio.to_thread(lambda: sqlite3.connect(path).close())
    return await aiosqlite.connect(path, timeout=BUSY_SECONDS, isolation_level=None)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
