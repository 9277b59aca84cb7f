"""The table in memory, its changes, and a draft of the next ones. Pure: no waiting, no storage."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from discovery.registry.history import ContractDiff, GuardState, Kind
from discovery.registry.leases import FLAPPING_TRANSITIONS, FLAPPING_WINDOW, LIVE, Record, Transition, due_at

Key = tuple[str, str]
GUARD: Key = ("", "")  # a change of no record
NOW, NEVER = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class Change(NamedTuple):
    """One change of the table, from the revision before to this one."""

    revision: int
    at: datetime
    kind: Kind
    key: Key
    record: Record | None  # afterwards; None where it was removed
    before: Record | None = None  # known for new changes only, not for those read from a store
    fields: tuple[str, ...] = ()
    tools: ContractDiff | None = None
    reason: str = ""
    guard: GuardState | None = None


class Table:
    """All records at one revision, by name and instance."""

    def __init__(self, records: Iterable[Record] = (), revision: int = 0, lineage: str = "") -> None:
        self.revision = revision
        self.lineage = lineage
        self.guard: GuardState | None = None
        self._names: dict[str, dict[str, Record]] = {}
        self._size = 0
        self._next_due = NOW  # no sweep has anything to do before
        for record in records:
            self.put(record)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Record]:
        for instances in self._names.values():
            yield from instances.values()

    @property
    def names(self) -> Iterable[str]:
        """Every name, in no order."""
        return self._names.keys()

    def get(self, key: Key) -> Record | None:
        """One instance."""
        instances = self._names.get(key[0])
        return None if instances is None else instances.get(key[1])

    def instances(self, name: str) -> tuple[Record, ...]:
        """All instances of a name."""
        return tuple(self._names.get(name, {}).values())

    def put(self, record: Record) -> None:
        """Add or replace one instance."""
        name, instance_id = record.key
        instances = self._names.setdefault(name, {})
        self._size += instance_id not in instances
        instances[instance_id] = record
        self._next_due = min(self._next_due, due_at(record) or NEVER)

    def heartbeat(self, key: Key, last_seen: datetime) -> bool:
        """Move the times of one instance forward; False where that changes nothing."""
        known = self.get(key)
        if known is None or last_seen <= known.last_seen:
            return False
        self.put(known._replace(last_seen=last_seen, believed_from=max(known.believed_from, last_seen)))
        return True

    def is_due(self, now: datetime) -> bool:
        """Whether a sweep may have something to do."""
        return self.guard is not None or now >= self._next_due

    def schedule(self, *, at_once: bool) -> None:
        """Set when the next sweep is due: at once after one with changes, else when the first lease ends."""
        self._next_due = NOW if at_once else min((due_at(record) or NEVER for record in self), default=NEVER)

    def extend_leases(self, silence: timedelta, now: datetime) -> None:
        """Move the start of every lease by a silence that was not the agents'."""
        for record in list(self):
            believed_from = max(record.believed_from, min(record.believed_from + silence, now))
            self.put(record._replace(believed_from=believed_from))

    def apply(self, change: Change) -> bool:
        """Apply the next change; False where it was applied before."""
        if change.revision <= self.revision:
            return False
        self.revision = change.revision
        if change.kind == "guard":
            self.guard = change.guard
        elif change.record is None:
            self._remove(change.key)
        else:
            known = self.get(change.key)
            self.put(_with_latest_times(change.record, known) if known else change.record)
        if change.record is None or change.record.status not in LIVE or "ttl_seconds" in change.fields:
            self._next_due = NOW  # the share of silent agents may have grown
        return True

    def _remove(self, key: Key) -> None:
        instances = self._names.get(key[0], {})
        if instances.pop(key[1], None) is not None:
            self._size -= 1
        if not instances:
            self._names.pop(key[0], None)


def _with_latest_times(record: Record, known: Record) -> Record:
    """A heartbeat may have arrived while the change was written: the later times are kept."""
    return record._replace(
        last_seen=max(record.last_seen, known.last_seen),
        believed_from=max(record.believed_from, known.believed_from),
    )


@dataclass(slots=True)
class Draft:
    """The changes of a transaction so far. Reads see them on top of the table, which stays as it is."""

    table: Table
    now: datetime
    changes: list[Change] = field(default_factory=list[Change])
    _records: dict[Key, Record | None] = field(default_factory=dict[Key, "Record | None"])
    next: int = field(init=False)  # the revision of the next change
    guard: GuardState | None = field(init=False)  # mass silence after the changes

    def __post_init__(self) -> None:
        self.next, self.guard = self.table.revision + 1, self.table.guard

    def get(self, key: Key) -> Record | None:
        """One instance after the changes."""
        return self._records[key] if key in self._records else self.table.get(key)

    def records(self) -> list[Record]:
        """All instances after the changes."""
        if not self._records:
            return list(self.table)
        rest = [record for record in self.table if record.key not in self._records]
        return rest + [record for record in self._records.values() if record is not None]

    def keys_of(self, name: str) -> list[Key]:
        """The instances of a name after the changes."""
        keys = {record.key for record in self.table.instances(name)} | {key for key in self._records if key[0] == name}
        return sorted(key for key in keys if self.get(key) is not None)

    def put(
        self,
        kind: Kind,
        record: Record,
        *,
        fields: tuple[str, ...] = (),
        tools: ContractDiff | None = None,
        reason: str | None = None,
    ) -> Record:
        """Add or replace a record and return it with its revision. The default reason is the record's own."""
        stored = record if record.revision == self.next else record._replace(revision=self.next)
        self._add(kind, record.key, stored, record.reason if reason is None else reason, fields, tools)
        return stored

    def move(self, record: Record, transition: Transition) -> Record:
        """Move a record to another status."""
        return self.put("status", moved(record, transition, self.now))

    def remove(self, key: Key, reason: str) -> None:
        """Remove a record."""
        self._add("removed", key, None, reason)

    def set_guard(self, guard: GuardState | None) -> None:
        """Record that mass silence began, grew or ended."""
        reason = f"{len(guard.silent)} fell silent within a minute" if guard else "it is over"
        self._add("guard", GUARD, None, reason, guard=guard)
        self.guard = guard

    def _add(
        self,
        kind: Kind,
        key: Key,
        record: Record | None,
        reason: str,
        fields: tuple[str, ...] = (),
        tools: ContractDiff | None = None,
        guard: GuardState | None = None,
    ) -> None:
        before, revision = self.get(key), self.next
        self.changes.append(Change(revision, self.now, kind, key, record, before, fields, tools, reason, guard))
        self.next = revision + 1
        if kind != "guard":
            self._records[key] = record


def moved(record: Record, transition: Transition, now: datetime) -> Record:
    """A record in another status; the reason reports frequent changes."""
    turns = (*(at for at in record.turns if now - at < FLAPPING_WINDOW), now)[-32:]
    flapping = (
        f"; its status changed {len(turns)} times within 10 minutes" if len(turns) >= FLAPPING_TRANSITIONS else ""
    )
    return record._replace(
        status=transition.status, reason=transition.reason + flapping, since=transition.since, turns=turns
    )
