"""The table in one SQLite file: plain columns that any viewer shows, one writer, durable before it is acknowledged."""

import asyncio
import json
import os
import sqlite3
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any, Literal

import aiosqlite

from discovery.contract import utc_now
from discovery.registry.history import HistoryEntry
from discovery.registry.leases import Record
from discovery.registry.search import WEIGHTS, Found
from discovery.registry.store import LastSeen, Line, Snapshot, StoreError
from discovery.registry.table import Change
from discovery.stores.rows import (
    AGENT_COLUMNS,
    HISTORY_COLUMNS,
    agent_values,
    change_of,
    entry_of,
    history_values,
    insert,
    latest_records,
    line_values,
    reindexed,
    upsert,
)
from discovery.stores.sqlite_schema import index, index_id, prepare, record_from, with_times
from infrastructure.sqlite import connect

MAX_CALL_SECONDS = 3.0  # waiting for the lock included: a client gives up after five
BUSY_SECONDS = 1.0
CLOSE_SECONDS = 5.0

_PUT = upsert("agents", AGENT_COLUMNS, "?" * len(AGENT_COLUMNS))
_LOG = insert("history", HISTORY_COLUMNS, "?" * len(HISTORY_COLUMNS)).replace("INSERT", "INSERT OR REPLACE")
# Writes the counter as it is: a file that must not be written gives out its lock all the same, but refuses this.
_TOUCH = "UPDATE counters SET value = value WHERE name = 'revision'"
_STATE = "SELECT value, id FROM counters, lineage WHERE counters.name = 'revision'"
# One statement for the whole batch: SQLite then runs without taking the interpreter from the event loop.
_SAVE_LAST_SEEN = """
WITH seen AS (
    SELECT json_extract(value, '$[0]') AS name, json_extract(value, '$[1]') AS instance_id,
        json_extract(value, '$[2]') AS at FROM json_each(?)
)
UPDATE agents SET last_seen = seen.at FROM seen
WHERE agents.name = seen.name AND agents.instance_id = seen.instance_id AND agents.last_seen < seen.at
"""
_SEARCH = f"""
WITH hits AS MATERIALIZED ( -- ranked first: bm25 is not available any more once rows are grouped
    SELECT agent, bm25(agents_search, {", ".join(map(str, WEIGHTS.values()))}) AS score
    FROM agents_search WHERE agents_search MATCH ?
)
SELECT agent, -MIN(score) AS best FROM hits GROUP BY agent ORDER BY best DESC, agent LIMIT ?
"""


class SqliteStore:
    """One connection, opened at the first call and again after every failure: it recovers when the file does."""

    shared = False

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: aiosqlite.Connection | None = None
        self._identity: tuple[int, int] | None = None  # of the file that is open
        self._lock = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    def now(self) -> datetime:
        """See `Store`."""
        return utc_now()

    async def load(self) -> Snapshot:
        """See `Store`. An invalid row (someone edited the file) is logged and left out."""
        async with self._begin() as connection:
            ((revision, lineage),) = await connection.execute_fetchall(_STATE)
            rows = await connection.execute_fetchall("SELECT * FROM agents")
        return Snapshot([record for row in rows if (record := record_from(row))], revision, lineage)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator["SqliteTransaction"]:
        """See `Store`."""
        async with self._begin("IMMEDIATE") as connection:
            await connection.execute(_TOUCH)
            ((revision, lineage),) = await connection.execute_fetchall(_STATE)
            yield SqliteTransaction(connection, revision, lineage)

    async def since(self, revision: int) -> Sequence[Change]:
        """See `Store`."""
        async with self._begin() as connection:
            return await _changes(connection, revision)

    async def save_last_seen(self, heartbeats: Iterable[LastSeen]) -> None:
        """See `Store`."""
        values = [(one.name, one.instance_id, one.last_seen.isoformat()) for one in heartbeats]
        async with self._begin("IMMEDIATE") as connection:
            await connection.execute(_SAVE_LAST_SEEN, (json.dumps(values),))

    async def seen_after(self, moment: datetime) -> Sequence[LastSeen]:
        """See `Store`."""
        query = "SELECT name, instance_id, last_seen FROM agents WHERE last_seen > ?"
        rows = await self._fetch(query, moment.isoformat())
        return [LastSeen(name, instance_id, datetime.fromisoformat(seen)) for name, instance_id, seen in rows]

    async def history(self, name: str, *, limit: int, before: int | None = None) -> Sequence[HistoryEntry]:
        """See `Store`."""
        query = "SELECT * FROM history WHERE name = ? AND revision < ? ORDER BY revision DESC LIMIT ?"
        return [entry_of(with_times(row)) for row in await self._fetch(query, name, before or 2**62, limit)]

    async def prune_history(self, before: datetime) -> None:
        """See `Store`."""
        async with self._begin("IMMEDIATE") as connection:
            await connection.execute("DELETE FROM history WHERE at < ?", (before.isoformat(),))

    async def search(self, words: Sequence[str], *, every: bool, limit: int) -> Sequence[Found]:
        """See `Store`."""
        match = (" AND " if every else " OR ").join(f'"{word}"*' for word in words)
        return [Found(*row) for row in await self._fetch(_SEARCH, match, limit)]

    async def export(self) -> Sequence[Line]:
        """See `Store`."""
        rows = await self._fetch("SELECT * FROM history WHERE kind != 'guard' ORDER BY revision")
        return [Line(row["name"], entry_of(with_times(row))) for row in rows]

    async def fill(self, snapshot: Snapshot, history: Sequence[Line]) -> None:
        """See `Store`."""
        async with self.transaction() as transaction:
            if transaction.revision:
                raise StoreError(f"{self._path} is not empty: it is at revision {transaction.revision}")
            await transaction.add_history(history)
            await transaction.refill(snapshot.records, snapshot.revision, snapshot.lineage)

    async def wait_for_changes(self) -> None:
        """See `Store`."""
        await asyncio.get_running_loop().create_future()

    async def check(self) -> None:
        """See `Store`."""
        async with self.transaction():
            pass

    async def aclose(self) -> None:
        """See `Store`."""
        self._start_closing()
        if self._closing:
            await asyncio.wait(self._closing, timeout=CLOSE_SECONDS)

    async def _fetch(self, query: str, *values: Any) -> list[sqlite3.Row]:
        async with self._begin() as connection:
            return list(await connection.execute_fetchall(query, values))

    @asynccontextmanager
    async def _begin(self, mode: Literal["DEFERRED", "IMMEDIATE"] = "DEFERRED") -> AsyncGenerator[aiosqlite.Connection]:
        """One transaction at a time, committed at the end of its block."""
        try:
            async with asyncio.timeout(MAX_CALL_SECONDS), self._lock:
                try:
                    connection = await self._open()
                    await connection.execute(f"BEGIN {mode}")
                    yield connection
                    await connection.commit()
                except BaseException:  # a cancelled statement may still run: the next call opens a fresh connection
                    self._start_closing()
                    raise
        except TimeoutError as error:
            raise StoreError(f"{self._path}: no answer within {MAX_CALL_SECONDS:g} s, it is busy") from error
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self._path}: {error}") from error

    def _start_closing(self) -> None:
        """Close the connection once its current statement ends, which may take long on a disk that hangs."""
        connection, self._connection = self._connection, None
        if connection is not None:
            task = asyncio.create_task(_close(connection), name="discovery-close")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _open(self) -> aiosqlite.Connection:
        identity = await asyncio.to_thread(_identity, self._path)
        if self._connection is None:
            self._connection = await connect(self._path, busy_seconds=BUSY_SECONDS)
            self._connection.row_factory = sqlite3.Row
            await prepare(self._connection, self._path)
            self._identity = await asyncio.to_thread(_identity, self._path)
        elif identity != self._identity:
            # SQLite would go on writing to the deleted file, and every acknowledged change would be lost.
            raise OSError("it was removed or replaced while in use")
        return self._connection


class SqliteTransaction:
    """See `Transaction`."""

    def __init__(self, connection: aiosqlite.Connection, revision: int, lineage: str) -> None:
        self._connection = connection
        self.revision = revision
        self.lineage = lineage

    async def since(self, revision: int) -> Sequence[Change]:
        """See `Transaction`."""
        return await _changes(self._connection, revision)

    async def append(self, changes: Sequence[Change]) -> None:
        """See `Transaction`."""
        execute, latest = self._connection.executemany, latest_records(changes)
        removed = [key for key, record in latest.items() if record is None]
        indexed = reindexed(changes)
        await execute(_LOG, [history_values(change, datetime.isoformat) for change in changes])
        if removed:
            await execute("DELETE FROM agents WHERE name = ? AND instance_id = ?", removed)
        await self._put([record for record in latest.values() if record is not None])
        if removed or indexed:
            stale = [(index_id(key),) for key in {*removed, *indexed}]
            await execute("DELETE FROM agents_search WHERE rowid = ?", stale)
            await index(self._connection, [record for key in indexed if (record := latest[key]) is not None])
        await self._set_revision(changes[-1].revision)

    async def refill(self, records: Iterable[Record], revision: int, lineage: str) -> None:
        """See `Transaction`."""
        found = list(records)
        await self._connection.execute("DELETE FROM agents")
        await self._connection.execute("DELETE FROM agents_search")
        await self._put(found)
        await index(self._connection, found)
        await self._set_revision(revision)
        await self._connection.execute("UPDATE lineage SET id = ?", (lineage,))

    async def add_history(self, lines: Iterable[Line]) -> None:
        """Add history of another store."""
        await self._connection.executemany(_LOG, [line_values(line, datetime.isoformat) for line in lines])

    async def _put(self, records: Iterable[Record]) -> None:
        await self._connection.executemany(_PUT, [agent_values(record, datetime.isoformat) for record in records])

    async def _set_revision(self, revision: int) -> None:
        await self._connection.execute("UPDATE counters SET value = ? WHERE name = 'revision'", (revision,))


async def _changes(connection: aiosqlite.Connection, revision: int) -> list[Change]:
    """See `Store.since`."""
    keys = "SELECT name, instance_id FROM history WHERE revision > ?"
    agents = await connection.execute_fetchall(
        f"SELECT * FROM agents WHERE (name, instance_id) IN ({keys})", (revision,)
    )
    history = await connection.execute_fetchall(
        "SELECT * FROM history WHERE revision > ? ORDER BY revision", (revision,)
    )
    records = {record.key: record for row in agents if (record := record_from(row))}
    return [change_of(with_times(row), records.get((row["name"], row["instance_id"]))) for row in history]


async def _close(connection: aiosqlite.Connection) -> None:
    with suppress(sqlite3.Error):
        await connection.close()


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
