"""The tables of the registry's SQLite file, and the upgrade of a file that an earlier version wrote."""

import json
import sqlite3
from collections.abc import Iterable
from datetime import datetime
from hashlib import blake2b
from typing import Any
from uuid import uuid4

import aiosqlite

from discovery.registry.leases import Record
from discovery.registry.search import WEIGHTS, indexed
from discovery.registry.table import Key
from discovery.stores.rows import AGENTS_TABLE, HISTORY_TABLE, TIMES, log_invalid_row, record_of, too_new

VERSION = 4

_TYPES = {"schema": "", "time": "text", "json": "text", "integer": "integer", "number": "real"}
AGENTS = f"""
{AGENTS_TABLE.format(**_TYPES)};
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT INTO counters VALUES ('revision', 0);
"""
REST = f"""
{HISTORY_TABLE.format(**_TYPES)};
CREATE TABLE lineage (id TEXT NOT NULL);
CREATE VIRTUAL TABLE agents_search USING fts5({", ".join(WEIGHTS)}, agent UNINDEXED);
"""
FROM_1 = """
ALTER TABLE agents ADD COLUMN status_reason TEXT NOT NULL DEFAULT '';
ALTER TABLE agents ADD COLUMN turns TEXT NOT NULL DEFAULT '[]';
ALTER TABLE agents ADD COLUMN earlier TEXT NOT NULL DEFAULT '[]';
ALTER TABLE agents ADD COLUMN conflict TEXT;
ALTER TABLE agents ADD COLUMN reachability TEXT;
UPDATE agents SET status_reason = CASE status
    WHEN 'registered' THEN 'sends no heartbeats'
    WHEN 'stale' THEN 'no heartbeat within its lease'
    WHEN 'down' THEN 'no heartbeat for three leases'
    ELSE 'reported ' || status || ' by its heartbeat' END;
"""
FROM_3 = """
DROP TABLE history_names;
DELETE FROM counters WHERE name = 'named';
CREATE INDEX history_by_name ON history (name, revision);
"""


async def prepare(connection: aiosqlite.Connection, path: str) -> None:
    """Set up a connection that was just opened, and bring the file's tables to this version.

    Raises:
        StoreError: A later version wrote the file; it is left as it is.
    """
    version = await _user_version(connection)
    if version > VERSION:
        raise too_new(path, version)
    settings = (
        "journal_mode = WAL",
        "synchronous = FULL",
        "wal_autocheckpoint = 4096",  # every 16 MiB: pages that changed several times are written back once
        "cache_size = -8192",  # KiB: the pages of a fleet, which change all the time, stay in memory
    )
    for setting in settings:
        await connection.execute(f"PRAGMA {setting}")
    if version == VERSION:
        return
    await connection.execute("BEGIN IMMEDIATE")
    version = await _user_version(connection)  # another process may have been faster
    lineage = f"INSERT INTO lineage VALUES ('{uuid4().hex}');"
    scripts = {0: AGENTS + REST + lineage, 1: FROM_1 + REST + lineage, 2: "", 3: FROM_3, VERSION: ""}
    for statement in scripts[version].split(";"):
        await connection.execute(statement)
    if version == 1:
        rows = await connection.execute_fetchall("SELECT * FROM agents")
        await index(connection, [record for row in rows if (record := record_from(row))])
    await connection.execute(f"PRAGMA user_version = {VERSION}")
    await connection.commit()


async def _user_version(connection: aiosqlite.Connection) -> int:
    ((version,),) = await connection.execute_fetchall("PRAGMA user_version")
    return int(version)


async def index(connection: aiosqlite.Connection, records: Iterable[Record]) -> None:
    """Add records to the full-text index."""
    words = [(record.key, indexed(record.registration)) for record in records]
    columns = ("rowid", "agent", *WEIGHTS)
    await connection.executemany(
        f"INSERT INTO agents_search ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
        [(index_id(key), key[0], *(texts[field] for field in WEIGHTS)) for key, texts in words],
    )


def index_id(key: Key) -> int:
    """The number of an index row, from the key alone: a table's own numbers change when someone vacuums the file."""
    return int.from_bytes(blake2b(json.dumps(key).encode(), digest_size=8).digest(), "big") >> 1


def record_from(row: sqlite3.Row) -> Record | None:
    """The record in a row; an invalid one is logged and left out."""
    try:
        return record_of(with_times(row))
    except ValueError as error:  # a time that is none
        log_invalid_row({"name": row["name"], "instance_id": row["instance_id"]}, error)
        return None


def with_times(row: sqlite3.Row) -> dict[str, Any]:
    """A row with its times as datetimes."""
    columns = dict(row)
    return columns | {time: datetime.fromisoformat(columns[time]) for time in TIMES if time in columns}
