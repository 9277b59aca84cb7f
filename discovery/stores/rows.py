"""Records and history as plain columns: what every SQL store writes and reads. Knows no database."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from discovery.contract import Conflict, Reachability, Registration
from discovery.history import ContractDiff, GuardState, HistoryEntry
from discovery.leases import Record
from discovery.search import WEIGHTS
from discovery.stores.base import StoreError
from discovery.table import GUARD, Change, Key

JSON_COLUMNS = ("tools", "tags", "checks", "skills", "protocols", "links", "model", "metadata")
AGENT_COLUMNS = (
    *("name", "instance_id", "endpoint", "status", "status_reason", "agent_type", "version", "description", "owner"),
    *("last_seen", "since", "registered_at", "reported_status", "ttl_seconds", "public_endpoint", "observed_address"),
    *("boot_id", *JSON_COLUMNS, "config_fingerprint", "turns", "earlier", "conflict", "reachability", "revision"),
)
HISTORY_COLUMNS = (
    *("revision", "at", "kind", "name", "instance_id", "status", "reason", "version", "endpoint", "boot_id"),
    *("fields", "tools"),
)
_PLAIN_COLUMNS = tuple(name for name in Registration.model_fields if name != "status" and name not in JSON_COLUMNS)
_CONFLICTS = TypeAdapter(tuple[Conflict, ...])

logger = logging.getLogger(__name__)


def agent_row(record: Record) -> dict[str, Any]:
    """A record as columns; times are aware datetimes, nested values JSON text."""
    said = record.registration
    fields = said.__dict__
    return {
        **{column: fields[column] for column in _PLAIN_COLUMNS},
        **{column: _json(fields[column]) for column in JSON_COLUMNS},
        "status": record.status,
        "status_reason": record.reason,
        "reported_status": said.status,
        "revision": record.revision,
        "registered_at": record.registered_at,
        "since": record.since,
        "last_seen": record.last_seen,
        "observed_address": record.observed_address,
        "turns": _json([at.isoformat() for at in record.turns]),
        "earlier": _json(record.earlier),
        "conflict": _json(record.conflict),
        "reachability": _json(record.reachability),
    }


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


def history_entry(change: Change) -> HistoryEntry | None:
    """What the history keeps of a change; None for one that is about no agent."""
    record = change.record or change.before
    if record is None:
        return None
    return HistoryEntry(
        revision=change.revision,
        at=change.at,
        kind=change.kind,
        instance_id=change.key[1],
        status="removed" if change.record is None else record.status,
        reason=change.reason,
        version=record.registration.version,
        endpoint=record.registration.endpoint,
        boot_id=record.registration.boot_id,
        fields=list(change.fields),
        tools=change.tools,
    )


def history_row(name: str, entry: HistoryEntry) -> dict[str, Any]:
    """An entry as columns."""
    return {**entry.__dict__, "name": name, "fields": _json(entry.fields), "tools": _json(entry.tools)}


def guard_row(change: Change) -> dict[str, Any]:
    """A change of the guard as columns: `fields` has the names, `reason` begins with the state."""
    guard = change.guard
    row: dict[str, Any] = dict.fromkeys(HISTORY_COLUMNS, "")
    return row | {
        "revision": change.revision,
        "at": change.at,
        "kind": "guard",
        "status": "on" if guard else "off",
        "reason": change.reason,
        "fields": "[]" if guard is None else guard.model_dump_json(),
        "boot_id": None,
        "tools": None,
    }


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
    """What changes do to the tables. Keys are in order, so that two writers never wait for each other."""

    history: list[dict[str, Any]]
    gone: list[Key]
    there: list[Record]
    told: list[Record]  # those of `there` whose words are different


def work_of(changes: Sequence[Change]) -> Work:
    """Sort changes into what has to be written; of several changes of one record the last one counts."""
    last = {change.key: change.record for change in changes if change.key != GUARD}
    spoken = {change.key for change in changes if change.kind in {"registered", "updated"} and _says_other(change)}
    entries = [(change, history_entry(change)) for change in changes]
    there = [record for _, record in sorted(last.items()) if record is not None]
    return Work(
        history=[guard_row(one) if entry is None else history_row(one.key[0], entry) for one, entry in entries],
        gone=sorted(key for key, record in last.items() if record is None),
        there=there,
        told=[record for record in there if record.key in spoken],
    )


def _says_other(change: Change) -> bool:
    """Whether the words that are indexed may be different after a change."""
    before, after = change.before, change.record
    if change.fields:
        return not WEIGHTS.keys().isdisjoint(change.fields)
    if before is None or after is None:
        return True
    return any(getattr(before.registration, field) != getattr(after.registration, field) for field in WEIGHTS)


def _json(value: Any) -> str | None:
    return None if value is None else to_json(value).decode()


def too_new(where: str, found: int) -> StoreError:
    """The refusal of a table that a later version of this program wrote."""
    return StoreError(f"{where} was written by a newer version of discovery (format {found}): upgrade this one")
