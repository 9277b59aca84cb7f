"""Records and history as plain columns: the tables and values that both SQL stores share."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from discovery.contract import Conflict, Reachability, Registration
from discovery.registry.history import ContractDiff, GuardState, HistoryEntry
from discovery.registry.leases import Record
from discovery.registry.search import WEIGHTS
from discovery.registry.store import Line, StoreError
from discovery.registry.table import GUARD, Change, Key

# The agent reports a status and the registry keeps one of its own, so the reported one has a column of another name.
_REPORTED = tuple("reported_status" if name == "status" else name for name in Registration.model_fields)
_KEPT = tuple("status_reason" if name == "reason" else name for name in Record._fields[1:])
_IN_MEMORY_ONLY = "believed_from"
AGENT_COLUMNS = tuple(column for column in (*_REPORTED, *_KEPT) if column != _IN_MEMORY_ONLY)
JSON_COLUMNS = ("tools", "tags", "checks", "skills", "protocols", "links", "model", "metadata")
_AS_JSON = {*JSON_COLUMNS, "turns", "earlier", "conflict", "reachability"}
TIMES = ("last_seen", "since", "registered_at", "at")
HISTORY_COLUMNS = (
    *("revision", "at", "kind", "name", "instance_id", "status", "reason", "version", "endpoint", "boot_id"),
    *("fields", "tools"),
)
# With the names of a database's types: `schema` is a prefix of table names, `integer` one of 64 bits.
AGENTS_TABLE = """
CREATE TABLE {schema}agents (
    name text NOT NULL,
    instance_id text NOT NULL,
    endpoint text NOT NULL,
    status text NOT NULL,
    status_reason text NOT NULL,
    agent_type text NOT NULL,
    version text NOT NULL,
    description text,
    owner text,
    last_seen {time} NOT NULL,     -- times are UTC, this one is written every few seconds
    since {time} NOT NULL,         -- of the status
    registered_at {time} NOT NULL,
    reported_status text NOT NULL, -- by the agent itself
    ttl_seconds {number},
    public_endpoint text,
    observed_address text,
    boot_id text,
    tools {json} NOT NULL,
    tags {json} NOT NULL,
    checks {json} NOT NULL,
    skills {json} NOT NULL,
    protocols {json} NOT NULL,
    links {json},
    model {json},
    metadata {json} NOT NULL,
    config_fingerprint text,
    turns {json} NOT NULL,         -- when its status changed lately
    earlier {json} NOT NULL,       -- processes that held the entry before
    conflict {json},
    reachability {json},
    revision {integer} NOT NULL,
    PRIMARY KEY (name, instance_id)
)"""
HISTORY_TABLE = """
CREATE TABLE {schema}history (
    revision {integer} PRIMARY KEY,
    at {time} NOT NULL,
    kind text NOT NULL,
    name text NOT NULL,
    instance_id text NOT NULL,
    status text NOT NULL,
    reason text NOT NULL,
    version text NOT NULL,
    endpoint text NOT NULL,
    boot_id text,
    fields {json} NOT NULL,        -- which fields changed
    tools {json}                   -- how the tools changed
);
CREATE INDEX history_by_name ON {schema}history (name, revision)"""
FormatTime = Callable[[datetime], Any]
_CONFLICTS = TypeAdapter(tuple[Conflict, ...])

logger = logging.getLogger(__name__)


def insert(table: str, columns: Sequence[str], places: Sequence[str]) -> str:
    """A statement that adds a row; `places` are the placeholders of the values."""
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(places)})"


def upsert(table: str, columns: Sequence[str], places: Sequence[str]) -> str:
    """A statement that adds or replaces the row of an instance."""
    updates = ", ".join(f"{one} = excluded.{one}" for one in columns if one not in {"name", "instance_id"})
    return f"{insert(table, columns, places)} ON CONFLICT (name, instance_id) DO UPDATE SET {updates}"


def agent_values(record: Record, format_time: FormatTime = lambda at: at) -> tuple[Any, ...]:
    """The values of `AGENT_COLUMNS`: times as `format_time` writes them, nested values as JSON text."""

    def value(column: str, raw: Any) -> Any:
        if column in _AS_JSON:
            return _json(raw)
        return format_time(raw) if column in TIMES else raw

    columns = zip((*_REPORTED, *_KEPT), (*vars(record.registration).values(), *record[1:]), strict=True)
    return tuple([value(column, raw) for column, raw in columns if column != _IN_MEMORY_ONLY])


def record_of(row: Mapping[str, Any]) -> Record | None:
    """The record in a row whose times are aware datetimes. An invalid one is logged and left out."""
    try:
        fields = {field: row[field] for field in Registration.model_fields if field != "status"}
        fields |= {column: json.loads(fields[column]) for column in JSON_COLUMNS if fields[column] is not None}
        conflict, reachability = row["conflict"], row["reachability"]
        return Record(
            registration=Registration(**fields, status=row["reported_status"]),
            revision=row["revision"],
            registered_at=row["registered_at"],
            last_seen=row["last_seen"],
            believed_from=row["last_seen"],
            status=row["status"],
            reason=row["status_reason"],
            since=row["since"],
            observed_address=row["observed_address"],
            turns=tuple(datetime.fromisoformat(at) for at in json.loads(row["turns"])),
            earlier=_CONFLICTS.validate_json(row["earlier"]),
            conflict=None if conflict is None else Conflict.model_validate_json(conflict),
            reachability=None if reachability is None else Reachability.model_validate_json(reachability),
        )
    except (ValidationError, ValueError, TypeError) as error:
        log_invalid_row(row, error)
        return None


def log_invalid_row(row: Mapping[str, Any], error: Exception) -> None:
    """Report a row that is left out because it is invalid: somebody edited it."""
    logger.error(
        "an invalid row of the registry's table is left out, %s/%s: %s", row["name"], row["instance_id"], error
    )


def history_values(change: Change, format_time: FormatTime = lambda at: at) -> tuple[Any, ...]:
    """The values of `HISTORY_COLUMNS`. For the guard, `status` is on or off and `fields` is its state as JSON."""
    record = change.record or change.before
    if record is None:
        rest = "on" if change.guard else "off", change.reason, "", "", None, _json(change.guard) or "[]"
    else:
        status = record.status if change.record else "removed"
        agent = record.registration
        rest = status, change.reason, agent.version, agent.endpoint, agent.boot_id, _json(change.fields)
    return change.revision, format_time(change.at), change.kind, *change.key, *rest, _json(change.tools)


def line_values(line: Line, format_time: FormatTime = lambda at: at) -> tuple[Any, ...]:
    """The values of `HISTORY_COLUMNS` for imported history."""
    values = {**vars(line.entry), "name": line.name, "at": format_time(line.entry.at)}
    values |= {"fields": _json(line.entry.fields), "tools": _json(line.entry.tools)}
    return tuple([values[column] for column in HISTORY_COLUMNS])


def history_entry(change: Change) -> HistoryEntry | None:
    """The history entry of a change; None for one that is about no agent."""
    row: dict[str, Any] = dict(zip(HISTORY_COLUMNS, history_values(change), strict=True))
    return None if change.kind == "guard" else entry_of(row)


def entry_of(row: Mapping[str, Any]) -> HistoryEntry:
    """The history entry in a row whose time is an aware datetime."""
    tools = row["tools"]
    return HistoryEntry(
        **{column: row[column] for column in HISTORY_COLUMNS if column not in {"name", "fields", "tools"}},
        fields=json.loads(row["fields"]),
        tools=None if tools is None else ContractDiff.model_validate_json(tools),
    )


def change_of(row: Mapping[str, Any], now: Record | None) -> Change:
    """The change in a row of the history, with the record as it is now."""
    if row["kind"] == "guard":
        guard = GuardState.model_validate_json(row["fields"]) if row["status"] == "on" else None
        return Change(row["revision"], row["at"], "guard", GUARD, None, reason=row["reason"], guard=guard)
    entry = entry_of(row)
    return Change(
        revision=entry.revision,
        at=entry.at,
        kind=entry.kind,
        key=(row["name"], row["instance_id"]),
        record=None if entry.kind == "removed" else now,
        fields=tuple(entry.fields),
        tools=entry.tools,
        reason=entry.reason,
    )


def latest_records(changes: Iterable[Change]) -> dict[Key, Record | None]:
    """The last record of each key, None where it was removed; in order, so that two writers cannot deadlock."""
    latest = {change.key: change.record for change in changes if change.kind != "guard"}
    return {key: latest[key] for key in sorted(latest)}


def reindexed(changes: Iterable[Change]) -> set[Key]:
    """The keys whose searchable words may differ after changes."""
    return {
        change.key
        for change in changes
        if change.kind == "registered"
        or (change.kind == "updated" and not (change.fields and WEIGHTS.keys().isdisjoint(change.fields)))
    }


def _json(value: Any) -> str | None:
    return None if value is None else to_json(value).decode()


def too_new(where: str, found: int) -> StoreError:
    """The error for a table that was written by a later version of this program."""
    return StoreError(f"{where} was written by a newer version of discovery (format {found}): upgrade this one")
