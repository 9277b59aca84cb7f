"""The statements of the SQLite store: columns in and out of an open transaction."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import cache
from hashlib import blake2b
from itertools import chain
from typing import Any

from discovery.leases import Record
from discovery.search import WEIGHTS, indexed
from discovery.stores.base import Line
from discovery.stores.rows import (
    AGENT_COLUMNS,
    HISTORY_COLUMNS,
    agent_values,
    change_of,
    history_values,
    left_out,
    line_values,
    record_of,
    work_of,
)
from discovery.table import Change, Key

Statement = tuple[str, Sequence[Any]]

TIMES = ("last_seen", "since", "registered_at", "at")
_CHANGING = ", ".join(f"{one} = excluded.{one}" for one in AGENT_COLUMNS if one not in {"name", "instance_id"})
_PUT = (
    f"INSERT INTO agents ({', '.join(AGENT_COLUMNS)}) VALUES {{}} "
    f"ON CONFLICT (name, instance_id) DO UPDATE SET {_CHANGING}"
)
_LOG = f"INSERT OR REPLACE INTO history ({', '.join(HISTORY_COLUMNS)}) VALUES {{}}"
_INDEX = f"INSERT INTO agents_search (rowid, agent, {', '.join(WEIGHTS)}) VALUES {{}}"
_DROP = "DELETE FROM agents WHERE (name, instance_id) IN (VALUES {})"
_UNINDEX = "DELETE FROM agents_search WHERE rowid IN (VALUES {})"
# A file that may not be written gives its lock all the same: this is what it refuses.
TOUCH: Statement = ("UPDATE counters SET value = value WHERE name = 'revision'", ())
MOST_ROWS = 32  # in one statement: SQLite has always taken 999 values


def execute(connection: sqlite3.Connection, statements: Iterable[Statement]) -> None:
    """Execute in order."""
    for sql, values in statements:
        connection.execute(sql, values)


def state(connection: sqlite3.Connection) -> tuple[int, str]:
    """The revision, and the lineage."""
    query = "SELECT value, id FROM counters, lineage WHERE counters.name = 'revision'"
    ((revision, lineage),) = connection.execute(query)
    return int(revision), str(lineage)


def revised(revision: int) -> Statement:
    """What makes `state` answer this revision."""
    return "UPDATE counters SET value = ? WHERE name = 'revision'", (revision,)


def changes(connection: sqlite3.Connection, revision: int) -> list[Change]:
    """See `Store.since`."""
    found = connection.execute("SELECT * FROM history WHERE revision > ? ORDER BY revision", (revision,))
    result: list[Change] = []
    for row in found:
        key: Key = (row["name"], row["instance_id"])
        rows = connection.execute("SELECT * FROM agents WHERE name = ? AND instance_id = ?", key)
        result.append(change_of(timed(row), next((record(one) for one in rows), None)))
    return result


def appended(changes: Sequence[Change]) -> list[Statement]:
    """What writes changes into the table, the history and the index, and makes `state` answer the last of them."""
    return [*_changed(changes), revised(changes[-1].revision)]


def _changed(changes: Sequence[Change]) -> Iterator[Statement]:
    work = work_of(changes)
    yield from _with(_LOG, [history_values(change, datetime.isoformat) for change in changes])
    yield from _with(_DROP, work.gone)
    yield from _putting(work.there)
    yield from _with(_UNINDEX, [(_rowid(key),) for key in (*work.gone, *(record.key for record in work.told))])
    yield from indexing(work.told)


def filled(records: Sequence[Record]) -> Iterator[Statement]:
    """What makes the table and the index hold exactly these records."""
    yield "DELETE FROM agents", ()
    yield "DELETE FROM agents_search", ()
    yield from _putting(records)
    yield from indexing(records)


def logged(lines: Iterable[Line]) -> Iterator[Statement]:
    """What writes history that was made elsewhere."""
    return _with(_LOG, [line_values(line, datetime.isoformat) for line in lines])


def indexing(records: Iterable[Record]) -> Iterator[Statement]:
    """What makes records findable."""
    words = [(record.key, indexed(record.registration)) for record in records]
    return _with(_INDEX, [(_rowid(key), key[0], *(said[one] for one in WEIGHTS)) for key, said in words])


def _putting(records: Iterable[Record]) -> Iterator[Statement]:
    return _with(_PUT, [agent_values(record, datetime.isoformat) for record in records])


def _with(statement: str, rows: Sequence[Sequence[Any]]) -> Iterator[Statement]:
    """One statement for many rows: a step for each would wait each time until the interpreter is free."""
    for begun in range(0, len(rows), MOST_ROWS):
        some = rows[begun : begun + MOST_ROWS]
        yield _written(statement, len(some), len(some[0])), list(chain.from_iterable(some))


@cache
def _written(statement: str, rows: int, columns: int) -> str:
    places = f"({', '.join('?' * columns)})"
    return statement.format(", ".join([places] * rows))


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


def _rowid(key: Key) -> int:
    """An index row's number, from the key alone: a table's own numbers change when somebody vacuums the file."""
    return int.from_bytes(blake2b(json.dumps(key).encode(), digest_size=8).digest(), "big") >> 1
