"""The table in one SQLite file: plain columns that any viewer shows, one writer, nothing acknowledged is lost."""

import asyncio
import json
import logging
import os
import sqlite3
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

import aiosqlite
from pydantic import ValidationError

from discovery.contract import Registration
from discovery.leases import Record
from discovery.stores.base import Sighting, StoreError, Table

VERSION = 1
BUSY_SECONDS = 1.0
LONGEST_CALL_SECONDS = 3.0  # waiting for our own lock included: a client gives up after five

SCHEMA = """
CREATE TABLE IF NOT EXISTS agents (
    name TEXT NOT NULL,
    instance_id TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    status TEXT NOT NULL,          -- as last swept
    agent_type TEXT NOT NULL,
    version TEXT NOT NULL,
    description TEXT,
    owner TEXT,
    last_seen TEXT NOT NULL,       -- times are UTC; written every few seconds
    since TEXT NOT NULL,
    registered_at TEXT NOT NULL,
    reported_status TEXT NOT NULL, -- what the agent said itself
    ttl_seconds REAL,
    public_endpoint TEXT,
    observed_address TEXT,
    boot_id TEXT,
    tools TEXT NOT NULL,           -- JSON from here on, but for the last two
    tags TEXT NOT NULL,
    checks TEXT NOT NULL,
    skills TEXT NOT NULL,
    protocols TEXT NOT NULL,
    links TEXT,
    model TEXT,
    metadata TEXT NOT NULL,
    config_fingerprint TEXT,
    revision INTEGER NOT NULL,
    PRIMARY KEY (name, instance_id)
);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT OR IGNORE INTO counters VALUES ('revision', 0);
"""
JSON_COLUMNS = ("tools", "tags", "checks", "skills", "protocols", "links", "model", "metadata")
BUMP = "UPDATE counters SET value = value + 1 WHERE name = 'revision' RETURNING value"

logger = logging.getLogger(__name__)


class SqliteStore:
    """Opens its file at the first call, and again after every failure, so that it recovers when the file does."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: aiosqlite.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._lock = asyncio.Lock()

    async def load(self) -> Table:
        """See `Store`. A row that no longer makes sense (someone edited the file) is logged and left out."""
        async with self._transaction() as connection:
            rows = await connection.execute_fetchall("SELECT * FROM agents")
            counters = list(await connection.execute_fetchall("SELECT value FROM counters WHERE name = 'revision'"))
        return Table([record for row in rows if (record := _record(row))], int(counters[0][0]))

    async def put(self, record: Record) -> int:
        """See `Store`."""
        async with self._transaction() as connection:
            revision = await _bump(connection)
            await _insert(connection, [_row(record, revision)])
        return revision

    async def remove(self, name: str, instance_id: str) -> int:
        """See `Store`."""
        async with self._transaction() as connection:
            key = (name, instance_id)
            gone = await connection.execute("DELETE FROM agents WHERE name = ? AND instance_id = ?", key)
            if gone.rowcount:
                return await _bump(connection)
            counters = list(await connection.execute_fetchall("SELECT value FROM counters WHERE name = 'revision'"))
            return int(counters[0][0])

    async def note(self, sightings: Iterable[Sighting]) -> None:
        """See `Store`."""
        rows = [(s.last_seen.isoformat(), s.status, s.since.isoformat(), s.name, s.instance_id) for s in sightings]
        async with self._transaction() as connection:
            await connection.executemany(
                "UPDATE agents SET last_seen = ?, status = ?, since = ? WHERE name = ? AND instance_id = ?", rows
            )

    async def replace(self, records: Iterable[Record], revision: int) -> None:
        """See `Store`."""
        rows = [_row(record, record.revision) for record in records]
        async with self._transaction() as connection:
            await connection.execute("DELETE FROM agents")
            await _insert(connection, rows)
            await connection.execute("UPDATE counters SET value = MAX(value, ?) WHERE name = 'revision'", (revision,))

    async def check(self) -> None:
        """See `Store`."""
        async with self._transaction():
            pass  # taking the write lock and committing nothing is the check

    async def aclose(self) -> None:
        """See `Store`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                await connection.close()

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[aiosqlite.Connection]:
        try:
            async with asyncio.timeout(LONGEST_CALL_SECONDS), self._lock:
                try:
                    connection = await self._open()
                    await connection.execute("BEGIN IMMEDIATE")
                    yield connection
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
            await _prepare(connection, self._path)
        except BaseException:
            await connection.close()
            raise
        self._connection, self._identity = connection, _identity(self._path)
        return connection


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


async def _prepare(connection: aiosqlite.Connection, path: str) -> None:
    connection.row_factory = sqlite3.Row
    (found,) = await connection.execute_fetchall("PRAGMA user_version")
    if found[0] > VERSION:
        raise StoreError(f"{path} was written by a newer version of discovery (format {found[0]}): upgrade this one")
    await connection.execute("PRAGMA journal_mode = WAL")
    await connection.execute("PRAGMA synchronous = FULL")
    if found[0] < VERSION:
        await connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


async def _bump(connection: aiosqlite.Connection) -> int:
    ((value,),) = await connection.execute_fetchall(BUMP)
    return int(value)


async def _insert(connection: aiosqlite.Connection, rows: list[dict[str, Any]]) -> None:
    if rows:
        names = ", ".join(rows[0])
        places = ", ".join(f":{column}" for column in rows[0])
        await connection.executemany(f"INSERT OR REPLACE INTO agents ({names}) VALUES ({places})", rows)


def _row(record: Record, revision: int) -> dict[str, Any]:
    said = record.registration.model_dump(mode="json")
    said |= {
        column: None if said[column] is None else json.dumps(said[column], ensure_ascii=False)
        for column in JSON_COLUMNS
    }
    reported = said.pop("status")
    return said | {
        "status": "registered" if record.registration.ttl_seconds is None else reported,
        "reported_status": reported,
        "revision": revision,
        "registered_at": record.registered_at.isoformat(),
        "since": record.changed_at.isoformat(),
        "last_seen": record.last_seen.isoformat(),
        "observed_address": record.observed_address,
    }


def _record(row: sqlite3.Row) -> Record | None:
    columns: dict[str, Any] = dict(row)
    try:
        said = {field: columns[field] for field in Registration.model_fields if field != "status"}
        said |= {column: json.loads(said[column]) for column in JSON_COLUMNS if said[column] is not None}
        last_seen = datetime.fromisoformat(columns["last_seen"])
        return Record(
            registration=Registration(**said, status=columns["reported_status"]),
            revision=columns["revision"],
            registered_at=datetime.fromisoformat(columns["registered_at"]),
            changed_at=datetime.fromisoformat(columns["since"]),
            last_seen=last_seen,
            believed_from=last_seen,
            observed_address=columns["observed_address"],
        )
    except (ValidationError, ValueError, TypeError) as error:
        logger.error("a row of the registry's file is left out, %s/%s: %s", row["name"], row["instance_id"], error)
        return None
