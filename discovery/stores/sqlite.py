"""The table in one SQLite file: plain columns that any viewer shows, one writer, nothing acknowledged is lost."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any, TypeVar

import discovery.stores.sqlite_rows as rows
from discovery.contract import utc_now
from discovery.history import HistoryEntry
from discovery.leases import Record
from discovery.search import WEIGHTS, Found
from discovery.stores.base import Line, Sighting, Snapshot, StoreError, is_before
from discovery.stores.rows import entry_of
from discovery.stores.sqlite_schema import prepare
from discovery.table import Change

BUSY_SECONDS = 1.0
LONGEST_CALL_SECONDS = 3.0  # waiting for our own lock included: a client gives up after five

Answer = TypeVar("Answer")


class SqliteStore:
    """Opens its file at the first call, and again after every failure, so that it recovers when the file does."""

    shared = False

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._lock = asyncio.Lock()

    def now(self) -> datetime:
        """See `Store`."""
        return utc_now()

    async def load(self) -> Snapshot:
        """See `Store`. A row that no longer makes sense (someone edited the file) is logged and left out."""
        return await self._alone(lambda begun: Snapshot(begun.records(), begun.revision, begun.lineage))

    async def add(self, changes: Sequence[Change], lineage: str) -> bool:
        """See `Store`. One piece of work for the thread: it waits for the interpreter as seldom as can be."""
        statements = rows.appended(changes)

        def work(begun: SqliteWriting) -> bool:
            if follows := is_before(changes, lineage, begun):
                rows.execute(begun.connection, statements)
            return follows

        return await self._alone(work)

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator["SqliteWriting"]:
        """See `Store`. What was asked for is done when it is left, in one go with its COMMIT."""
        async with self._turn():
            begun = await _in_thread(self._begin)
            yield begun
            await _in_thread(begun.commit)

    async def since(self, revision: int) -> Sequence[Change]:
        """See `Store`."""
        return await self._alone(lambda begun: rows.changes(begun.connection, revision))

    async def note(self, sightings: Iterable[Sighting]) -> None:
        """See `Store`."""
        seen = [(one.last_seen.isoformat(), one.name, one.instance_id, one.last_seen.isoformat()) for one in sightings]
        statement = "UPDATE agents SET last_seen = ? WHERE name = ? AND instance_id = ? AND last_seen < ?"
        await self._alone(lambda begun: begun.connection.executemany(statement, seen))

    async def sightings(self, after: datetime) -> Sequence[Sighting]:
        """See `Store`."""
        found = await self._fetch(
            "SELECT name, instance_id, last_seen FROM agents WHERE last_seen > ?", after.isoformat()
        )
        return [Sighting(row[0], row[1], datetime.fromisoformat(row[2])) for row in found]

    async def history(self, name: str, *, limit: int, before: int | None = None) -> Sequence[HistoryEntry]:
        """See `Store`."""
        query = "SELECT * FROM history WHERE name = ? AND revision < ? ORDER BY revision DESC LIMIT ?"
        found = await self._fetch(query, name, before or 2**62, limit)
        return [entry_of(rows.timed(row)) for row in found]

    async def forget(self, before: datetime) -> None:
        """See `Store`."""
        await self._fetch("DELETE FROM history WHERE at < ?", before.isoformat())

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
        return [Found(row[0], -row[1]) for row in await self._fetch(query, match, limit)]

    async def export(self) -> Sequence[Line]:
        """See `Store`."""
        found = await self._fetch("SELECT * FROM history WHERE kind != 'guard' ORDER BY revision")
        return [Line(row["name"], entry_of(rows.timed(row))) for row in found]

    async def fill(self, snapshot: Snapshot, history: Sequence[Line]) -> None:
        """See `Store`."""
        async with self.writing() as begun:
            if begun.revision:
                raise StoreError(f"{self._path} is not empty: it is at revision {begun.revision}")
            begun.log(history)
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
                await _in_thread(connection.close)

    async def _fetch(self, query: str, *values: Any) -> list[sqlite3.Row]:
        return await self._alone(lambda begun: begun.connection.execute(query, values).fetchall())

    async def _alone(self, work: Callable[["SqliteWriting"], Answer]) -> Answer:
        """Do something as a transaction of its own, in one go."""

        def whole() -> Answer:
            begun = self._begin()
            answer = work(begun)
            begun.connection.execute("COMMIT")
            return answer

        async with self._turn():
            return await _in_thread(whole)

    @asynccontextmanager
    async def _turn(self) -> AsyncGenerator[None]:
        """Let one use the file at a time, for a while; what goes wrong says which file it was."""
        try:
            async with asyncio.timeout(LONGEST_CALL_SECONDS), self._lock:
                try:
                    yield
                except BaseException:  # cancelled as well as failed: a fresh connection cannot be in a half state
                    await self.aclose()
                    raise
        except TimeoutError as error:
            raise StoreError(f"{self._path}: no answer within {LONGEST_CALL_SECONDS:g} s, it is busy") from error
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self._path}: {error}") from error

    def _begin(self) -> "SqliteWriting":
        connection = self._open()
        connection.execute("BEGIN IMMEDIATE")
        return SqliteWriting(connection, *rows.state(connection))

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            if _identity(self._path) == self._identity:
                return self._connection
            # SQLite would go on writing to the deleted file, and everything acknowledged would die with us.
            raise StoreError(f"{self._path} was removed or replaced while in use")
        # One thread after the other uses it, never two at once.
        connection = sqlite3.connect(self._path, BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            prepare(connection, self._path)
        except BaseException:
            connection.close()
            raise
        self._connection, self._identity = connection, _identity(self._path)
        return connection


class SqliteWriting:
    """See `Writing`. Reads at once, and remembers what to write."""

    def __init__(self, connection: sqlite3.Connection, revision: int, lineage: str) -> None:
        self.connection = connection
        self.revision = revision
        self.lineage = lineage
        self._statements: list[rows.Statement] = []

    async def since(self, revision: int) -> Sequence[Change]:
        """See `Writing`."""
        return await _in_thread(lambda: rows.changes(self.connection, revision))

    async def append(self, changes: Sequence[Change]) -> None:
        """See `Writing`."""
        self._statements += rows.appended(changes)

    async def refill(self, records: Iterable[Record], revision: int, lineage: str) -> None:
        """See `Writing`."""
        other = ("UPDATE lineage SET id = ?", (lineage,))
        self._statements += [*rows.filled(list(records)), rows.revised(revision), other]

    def log(self, lines: Iterable[Line]) -> None:
        """Add lines to the history."""
        self._statements += rows.logged(lines)

    def records(self) -> list[Record]:
        """All that make sense."""
        return [one for row in self.connection.execute("SELECT * FROM agents") if (one := rows.record(row))]

    def commit(self) -> None:
        """Write what was asked for, and make it durable. Blocks."""
        rows.execute(self.connection, self._statements or [rows.TOUCH])
        self.connection.execute("COMMIT")


async def _in_thread(work: Callable[[], Answer]) -> Answer:
    """Do what blocks in a thread. Whoever is cancelled waits for its end: until then it uses the connection."""
    working = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait({working})
        working.exception()  # nobody is left whom it could tell
        raise


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
