"""The statements of the SQLite store, and what their rows mean."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from discovery.registry.leases import Record
from discovery.registry.search import WEIGHTS, indexed
from discovery.registry.store import Line
from discovery.registry.table import Change, Key
from discovery.stores.rows import (
    AGENT_COLUMNS,
    HISTORY_COLUMNS,
    TIMES,
    Work,
    agent_values,
    change_of,
    difference,
    history_values,
    left_out,
    line_values,
    record_of,
    work_of,
)
from discovery.stores.sqlite_file import Row
from discovery.stores.sqlite_process import Statement


def _places(columns: Sequence[str]) -> str:
    return f"VALUES ({', '.join('?' * len(columns))})"


_CHANGING = ", ".join(f"{one} = excluded.{one}" for one in AGENT_COLUMNS if one not in {"name", "instance_id"})
_PUT = (
    f"INSERT INTO agents ({', '.join(AGENT_COLUMNS)}) {_places(AGENT_COLUMNS)} "
    f"ON CONFLICT (name, instance_id) DO UPDATE SET {_CHANGING}"
)
_LOG = f"INSERT OR REPLACE INTO history ({', '.join(HISTORY_COLUMNS)}) {_places(HISTORY_COLUMNS)}"
_INDEX = f"INSERT INTO agents_search (rowid, agent, {', '.join(WEIGHTS)}) {_places(('rowid', 'agent', *WEIGHTS))}"
_DROP = "DELETE FROM agents WHERE name = ? AND instance_id = ?"
_UNINDEX = "DELETE FROM agents_search WHERE rowid = ?"
BEGIN: Statement = ("BEGIN IMMEDIATE", [()])
COMMIT: Statement = ("COMMIT", [()])
# A file that may not be written gives its lock all the same: this is what it refuses.
TOUCH: Statement = ("UPDATE counters SET value = value WHERE name = 'revision'", [()])
# Names of the history are brought up to date together, in their order: one by one, each is a page to write.
NAMED_EVERY = 8192
NAME: Sequence[Statement] = (
    (
        "INSERT OR IGNORE INTO history_names SELECT name, revision FROM history "
        "WHERE revision > (SELECT value FROM counters WHERE name = 'named') ORDER BY name, revision",
        [()],
    ),
    ("UPDATE counters SET value = (SELECT value FROM counters WHERE name = 'revision') WHERE name = 'named'", [()]),
)
STATE: Statement = ("SELECT value, id FROM counters, lineage WHERE counters.name = 'revision'", [()])


def revised(revision: int) -> Statement:
    """What makes `STATE` bring this revision."""
    return "UPDATE counters SET value = ? WHERE name = 'revision'", [(revision,)]


def advanced(before: int, after: int, lineage: str) -> Statement:
    """As `revised`, and it changes no row where the file is not at the revision before, or holds another table."""
    sql, _ = revised(after)
    return f"{sql} AND value = ? AND EXISTS (SELECT 1 FROM lineage WHERE id = ?)", [(after, before, lineage)]


def history(name: str, before: int, limit: int) -> Statement:
    """What brings the latest changes of a name before a revision."""
    sql = (
        "SELECT history.* FROM history_names AS found JOIN history USING (name, revision) "
        "WHERE found.name = ? AND found.revision < ? ORDER BY found.revision DESC LIMIT ?"
    )
    return sql, [(name, before, limit)]


def forgotten(before: datetime) -> list[Statement]:
    """What drops the history from before a moment."""
    return [
        ("DELETE FROM history WHERE at < ?", [(before.isoformat(),)]),
        ("DELETE FROM history_names WHERE revision NOT IN (SELECT revision FROM history)", [()]),
    ]


def since(revision: int) -> list[Statement]:
    """What brings the changes after a revision, and the records that they are about."""
    about = "(name, instance_id) IN (SELECT name, instance_id FROM history WHERE revision > ?)"
    return [
        ("SELECT * FROM history WHERE revision > ? ORDER BY revision", [(revision,)]),
        (f"SELECT * FROM agents WHERE {about}", [(revision,)]),
    ]


def changes(history: Sequence[Row], agents: Sequence[Row]) -> list[Change]:
    """See `Store.since`, of what `since` brought."""
    records = {one.key: one for row in agents if (one := record(row))}
    return [change_of(timed(row), records.get((row["name"], row["instance_id"]))) for row in history]


def changed(changes: Sequence[Change]) -> list[Statement]:
    """What writes changes into the table, the history and the index."""
    work = work_of(changes)
    statements: list[Statement] = [
        (_LOG, [history_values(change, _text) for change in changes]),
        (_DROP, work.gone),
        _putting([record for key, record in work.there.items() if key not in work.moved]),
        *_moving(work),
        (_UNINDEX, [(_rowid(key),) for key in (*work.gone, *(record.key for record in work.told))]),
        indexing(work.told),
    ]
    if changes[-1].revision // NAMED_EVERY != (changes[0].revision - 1) // NAMED_EVERY:
        statements += NAME
    return [statement for statement in statements if statement[1]]


def filled(records: Sequence[Record]) -> list[Statement]:
    """What makes the table and the index hold exactly these records."""
    return [
        ("DELETE FROM agents", [()]),
        ("DELETE FROM agents_search", [()]),
        ("UPDATE counters SET value = 0 WHERE name = 'named'", [()]),  # changes of other tables have the same numbers
        _putting(records),
        indexing(records),
    ]


def logged(lines: Iterable[Line]) -> Statement:
    """What writes history that was made elsewhere."""
    return _LOG, [line_values(line, _text) for line in lines]


def indexing(records: Iterable[Record]) -> Statement:
    """What makes records findable."""
    words = [(record.key, indexed(record.registration)) for record in records]
    return _INDEX, [(_rowid(key), key[0], *(said[one] for one in WEIGHTS)) for key, said in words]


def _putting(records: Iterable[Record]) -> Statement:
    return _PUT, [agent_values(record, _text) for record in records]


def _moving(work: Work) -> Iterable[Statement]:
    """What writes the columns that are different, of records that differ in the same ones together."""
    alike: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    for key, (before, fields) in work.moved.items():
        if key in work.there:
            columns = difference(before, work.there[key], fields, _text)
            alike.setdefault(tuple(columns), []).append((*columns.values(), *key))
    return [(_update(columns), values) for columns, values in alike.items() if columns]


@lru_cache
def _update(columns: tuple[str, ...]) -> str:
    changed = ", ".join(f"{column} = ?" for column in columns)
    return f"UPDATE agents SET {changed} WHERE name = ? AND instance_id = ?"


# What is written together has the same moment many times.
_text = lru_cache(maxsize=64)(datetime.isoformat)


def record(row: Row) -> Record | None:
    """The record in a row; None for one that makes no sense."""
    try:
        return record_of(timed(row))
    except ValueError as error:  # a time that is none
        left_out(row, error)
        return None


def timed(row: Row) -> dict[str, Any]:
    """A row with its times as datetimes."""
    return row | {one: datetime.fromisoformat(row[one]) for one in TIMES if one in row}


def _rowid(key: Key) -> int:
    """An index row's number, from the key alone: a table's own numbers change when somebody vacuums the file."""
    return int.from_bytes(blake2b(json.dumps(key).encode(), digest_size=8).digest(), "big") >> 1
