"""Records and history as plain columns: what every SQL store writes and reads. Knows no database."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import compress
from operator import is_not
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from discovery.contract import Conflict, Reachability, Registration
from discovery.registry.history import ContractDiff, GuardState, HistoryEntry
from discovery.registry.leases import Record
from discovery.registry.search import WEIGHTS
from discovery.registry.store import Line, StoreError
from discovery.registry.table import GUARD, Change, Key

# A status is said by the agent, and kept by the registry, which also keeps a reason for its own.
_COLUMN = {"status": "reported_status"}
_SAID = tuple(_COLUMN.get(name, name) for name in Registration.model_fields)
_KEPT = tuple("status_reason" if name == "reason" else name for name in Record._fields[1:])
_PLACES = range(len(_KEPT))
_ONLY_IN_MEMORY = "believed_from"
AGENT_COLUMNS = tuple(column for column in (*_SAID, *_KEPT) if column != _ONLY_IN_MEMORY)
JSON_COLUMNS = ("tools", "tags", "checks", "skills", "protocols", "links", "model", "metadata")
_AS_JSON = {*JSON_COLUMNS, "turns", "earlier", "conflict", "reachability"}
TIMES = ("last_seen", "since", "registered_at", "at")
HISTORY_COLUMNS = (
    *("revision", "at", "kind", "name", "instance_id", "status", "reason", "version", "endpoint", "boot_id"),
    *("fields", "tools"),
)
AsWritten = Callable[[datetime], Any]
_INDEXED = frozenset(WEIGHTS)
_CONFLICTS = TypeAdapter(tuple[Conflict, ...])

logger = logging.getLogger(__name__)


def agent_values(record: Record, moment: AsWritten = lambda at: at) -> tuple[Any, ...]:
    """The values of `AGENT_COLUMNS`: times as `moment` writes them, nested values as JSON text."""
    held = zip((*_SAID, *_KEPT), (*vars(record.registration).values(), *record[1:]), strict=True)
    return tuple([_value(column, value, moment) for column, value in held if column != _ONLY_IN_MEMORY])


def difference(
    before: Record, record: Record, fields: Iterable[str], moment: AsWritten = lambda at: at
) -> dict[str, Any]:
    """The columns that a record holds otherwise than it did before, with their values as of `agent_values`.

    Of what was registered only these fields are looked at.
    """
    said, then, now = vars(record.registration), before[1:], record[1:]
    columns = {_COLUMN.get(field, field): said[field] for field in fields}
    for place in compress(_PLACES, map(is_not, then, now)):
        if then[place] != now[place]:
            columns[_KEPT[place]] = now[place]
    columns.pop(_ONLY_IN_MEMORY, None)
    return {column: _value(column, value, moment) for column, value in columns.items()}


def _value(column: str, held: Any, moment: AsWritten) -> Any:
    if column in _AS_JSON:
        return _json(held)
    return moment(held) if column in TIMES else held


def record_of(row: Mapping[str, Any]) -> Record | None:
    """The record in a row whose times are aware datetimes. One that makes no sense is logged and left out."""
    try:
        said = {field: row[field] for field in Registration.model_fields if field != "status"}
        said |= {column: json.loads(said[column]) for column in JSON_COLUMNS if said[column] is not None}
        conflict, reachability = row["conflict"], row["reachability"]
        return Record(
            registration=Registration(**said, status=row["reported_status"]),
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
        left_out(row, error)
        return None


def left_out(row: Mapping[str, Any], error: Exception) -> None:
    """Tell the operator of a row that makes no sense, as somebody edited it."""
    logger.error("a row of the registry's table is left out, %s/%s: %s", row["name"], row["instance_id"], error)


def history_values(change: Change, moment: AsWritten = lambda at: at) -> tuple[Any, ...]:
    """The values of `HISTORY_COLUMNS`. Of the guard, `fields` has the names, `reason` begins with the state."""
    record = change.record or change.before
    if record is None:
        told = "on" if change.guard else "off", change.reason, "", "", None, _json(change.guard) or "[]"
    else:
        status = record.status if change.record else "removed"
        said = record.registration
        told = status, change.reason, said.version, said.endpoint, said.boot_id, _names(change.fields)
    return change.revision, moment(change.at), change.kind, *change.key, *told, _json(change.tools)


def line_values(line: Line, moment: AsWritten = lambda at: at) -> tuple[Any, ...]:
    """The values of `HISTORY_COLUMNS` for history that was made elsewhere."""
    kept = {**vars(line.entry), "name": line.name, "at": moment(line.entry.at)}
    kept |= {"fields": _json(line.entry.fields), "tools": _json(line.entry.tools)}
    return tuple([kept[column] for column in HISTORY_COLUMNS])


def history_entry(change: Change) -> HistoryEntry | None:
    """What the history keeps of a change; None for one that is about no agent."""
    kept: dict[str, Any] = dict(zip(HISTORY_COLUMNS, history_values(change), strict=True))
    return None if change.kind == "guard" else entry_of(kept)


def entry_of(row: Mapping[str, Any]) -> HistoryEntry:
    """The history entry in a row whose time is an aware datetime."""
    tools = row["tools"]
    return HistoryEntry(
        **{column: row[column] for column in HISTORY_COLUMNS if column not in {"name", "fields", "tools"}},
        fields=json.loads(row["fields"]),
        tools=None if tools is None else ContractDiff.model_validate_json(tools),
    )


def change_of(row: dict[str, Any], now: Record | None) -> Change:
    """The change in a row of the history, with the record as it stands now."""
    if row["kind"] == "guard":
        guard = GuardState.model_validate_json(row["fields"]) if row["status"] == "on" else None
        return Change(
            revision=row["revision"],
            at=row["at"],
            kind="guard",
            key=GUARD,
            record=None,
            reason=row["reason"],
            guard=guard,
        )
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


@dataclass(frozen=True, slots=True)
class Work:
    """What changes do to the table. Keys are in order, so that two writers never wait for each other."""

    gone: list[Key]
    there: dict[Key, Record]
    told: list[Record]  # those of `there` whose words are different
    moved: dict[
        Key, tuple[Record, Iterable[str]]
    ]  # what those of `there` were that the table has, and what they say anew


def work_of(changes: Sequence[Change]) -> Work:
    """Sort changes into what has to be written; of several changes of one record the last one counts."""
    last: dict[Key, Record | None] = {}
    moved: dict[Key, tuple[Record, Iterable[str]]] = {}
    spoken: set[Key] = set()
    for change in changes:
        key, kind, before = change.key, change.kind, change.before
        if kind == "guard":
            continue
        if kind in {"registered", "updated"} and _says_other(change):
            spoken.add(key)
        if before is not None and kind != "registered" and key not in last:
            moved[key] = before, change.fields
        elif key in moved and kind != "registered":
            moved[key] = moved[key][0], {*moved[key][1], *change.fields}
        else:
            moved.pop(key, None)  # it is written as a whole
        last[key] = change.record
    there = {key: record for key, record in sorted(last.items()) if record is not None}
    return Work(
        gone=sorted(key for key, record in last.items() if record is None),
        there=there,
        told=[record for key, record in there.items() if key in spoken],
        moved=moved,
    )


def _says_other(change: Change) -> bool:
    """Whether the words that are indexed may be different after a change."""
    before, after = change.before, change.record
    if change.fields:
        return not _INDEXED.isdisjoint(change.fields)
    if before is None or after is None:
        return True
    return any(getattr(before.registration, field) != getattr(after.registration, field) for field in WEIGHTS)


@lru_cache(maxsize=1024)
def _names(fields: tuple[str, ...]) -> str | None:
    return _json(fields)


def _json(value: Any) -> str | None:
    if not value:  # as most are
        return None if value is None else "{}" if isinstance(value, dict) else "[]"
    return to_json(value).decode()


def too_new(where: str, found: int) -> StoreError:
    """The refusal of a table that a later version of this program wrote."""
    return StoreError(f"{where} was written by a newer version of discovery (format {found}): upgrade this one")
