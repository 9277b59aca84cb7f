"""The statements of the SQLite store: columns in and out of an open transaction."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any

import aiosqlite

from discovery.leases import Record
from discovery.search import WEIGHTS, indexed
from discovery.stores.base import Line
from discovery.stores.rows import (
    AGENT_COLUMNS,
    HISTORY_COLUMNS,
    agent_row,
    change_of,
    history_row,
    left_out,
    record_of,
    work_of,
)
from discovery.table import Change, Key

TIMES = ("last_seen", "since", "registered_at", "at")
_CHANGING = ", ".join(f"{one} = excluded.{one}" for one in AGENT_COLUMNS if one not in {"name", "instance_id"})
_PUT = (
    f"INSERT INTO agents ({', '.join(AGENT_COLUMNS)}) VALUES ({', '.join(':' + one for one in AGENT_COLUMNS)}) "
    f"ON CONFLICT (name, instance_id) DO UPDATE SET {_CHANGING}"
)
_LOG = (
    f"INSERT OR REPLACE INTO history ({', '.join(HISTORY_COLUMNS)}) "
    f"VALUES ({', '.join(':' + one for one in HISTORY_COLUMNS)})"
)
_INDEX = (
    f"INSERT INTO agents_search (rowid, agent, {', '.join(WEIGHTS)}) "
    f"VALUES (:rowid, :agent, {', '.join(':' + one for one in WEIGHTS)})"
)
# A file that may not be written gives its lock all the same: this is what it refuses.
TOUCH = "UPDATE counters SET value = value WHERE name = 'revision'"


async def state(connection: aiosqlite.Connection) -> tuple[int, str]:
    """The revision, and the lineage."""
    query = "SELECT value, id FROM counters, lineage WHERE counters.name = 'revision'"
    ((revision, lineage),) = await connection.execute_fetchall(query)
    return int(revision), str(lineage)


async def set_revision(connection: aiosqlite.Connection, revision: int) -> None:
    """The revision that `state` answers from now on."""
    await connection.execute("UPDATE counters SET value = ? WHERE name = 'revision'", (revision,))


async def set_lineage(connection: aiosqlite.Connection, lineage: str) -> None:
    """The lineage that `state` answers from now on."""
    await connection.execute("UPDATE lineage SET id = ?", (lineage,))


async def changes(connection: aiosqlite.Connection, revision: int) -> list[Change]:
    """See `Store.since`."""
    found = await connection.execute_fetchall("SELECT * FROM history WHERE revision > ? ORDER BY revision", (revision,))
    result: list[Change] = []
    for row in found:
        key: Key = (row["name"], row["instance_id"])
        rows = await connection.execute_fetchall("SELECT * FROM agents WHERE name = ? AND instance_id = ?", key)
        result.append(change_of(timed(row), next((record(one) for one in rows), None)))
    return result


async def write_changes(connection: aiosqlite.Connection, changes: Sequence[Change]) -> None:
    """Write changes into the table, the history and the index."""
    work = work_of(changes)
    await _many(connection, _LOG, [_told(row) for row in work.history])
    await _many(connection, "DELETE FROM agents WHERE name = ? AND instance_id = ?", work.gone)
    await _many(connection, _PUT, [_told(agent_row(record)) for record in work.there])
    await unindex(connection, [*work.gone, *(record.key for record in work.told)])
    await index(connection, work.told)


async def write_records(connection: aiosqlite.Connection, records: Sequence[Record]) -> None:
    """Write records into the table and the index, without history."""
    await connection.executemany(_PUT, [_told(agent_row(record)) for record in records])
    await index(connection, records)


async def write_history(connection: aiosqlite.Connection, lines: Iterable[Line]) -> None:
    """Write history that was made elsewhere."""
    await connection.executemany(_LOG, [_told(history_row(line.name, line.entry)) for line in lines])


async def index(connection: aiosqlite.Connection, records: Iterable[Record]) -> None:
    """Make records findable."""
    rows = [{"rowid": _rowid(record.key), "agent": record.key[0]} | indexed(record.registration) for record in records]
    await _many(connection, _INDEX, rows)


async def unindex(connection: aiosqlite.Connection, keys: Iterable[Key]) -> None:
    """Make records unfindable."""
    await _many(connection, "DELETE FROM agents_search WHERE rowid = ?", [(_rowid(key),) for key in keys])


async def _many(connection: aiosqlite.Connection, statement: str, rows: Sequence[Any]) -> None:
    if rows:  # a statement is a message to another thread and back, for nothing too
        await connection.executemany(statement, rows)


def record(row: sqlite3.Row) -> Record | None:
    """The record in a row; None for one that makes no sense."""
    try:
        return record_of(timed(row))
    except ValueError as error:  # a time that is none
        left_out(dict(row), error)
        return None


def timed(row: sqlite3.Row) -> dict[str, Any]:
    """A row with its times as datetimes."""
    columns: dict[str, Any] = dict(row)
    return columns | {one: datetime.fromisoformat(columns[one]) for one in TIMES if one in columns}


def _told(row: dict[str, Any]) -> dict[str, Any]:
    return row | {one: row[one].isoformat() for one in TIMES if one in row}


def _rowid(key: Key) -> int:
    """An index row's number, from the key alone: a table's own numbers change when somebody vacuums the file."""
    return int.from_bytes(blake2b(json.dumps(key).encode(), digest_size=8).digest(), "big") >> 1
