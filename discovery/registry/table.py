"""The table in memory, the changes it is made of, and a draft of the next ones. Nothing here waits or stores."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from discovery.registry.history import ContractDiff, GuardState, Kind
from discovery.registry.leases import FLAPPING_TURNS, FLAPPING_WINDOW, LIVE, Record, Turn, due_at

Key = tuple[str, str]
GUARD: Key = ("", "")  # a change of no record
AT_ONCE, NEVER = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class Change(NamedTuple):
    """One step of the table, from the revision before to this one."""

    revision: int
    at: datetime
    kind: Kind
    key: Key
    record: Record | None  # as it stands afterwards; None where it is gone
    before: Record | None = None  # only where the change is new: what is kept of it is in the fields below
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
        self._quiet_until = AT_ONCE
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
        known = instances.get(instance_id)
        self._size += known is None
        instances[instance_id] = record
        if known is None or not _only_later(record, known):
            self._quiet_until = min(self._quiet_until, _due(record, known))

    def hear(self, key: Key, last_seen: datetime) -> bool:
        """Note when one was heard elsewhere; False where that is no news."""
        known = self.get(key)
        if known is None or last_seen <= known.last_seen:
            return False
        self.put(known._replace(last_seen=last_seen, believed_from=max(known.believed_from, last_seen)))
        return True

    def is_quiet(self, now: datetime) -> bool:
        """Whether nobody's time can have come: what a look at all of them would find."""
        return self.guard is None and now < self._quiet_until

    def rest(self) -> None:
        """Nothing is due now: find out when it may be. Heartbeats only move that later."""
        self._quiet_until = min((due_at(record) or NEVER for record in self), default=NEVER)

    def excuse(self, silence: timedelta, now: datetime) -> None:
        """Count silence from later for everybody: this much of it was not theirs."""
        for record in list(self):
            believed_from = max(record.believed_from, min(record.believed_from + silence, now))
            self.put(record._replace(believed_from=believed_from))

    def apply(self, change: Change) -> bool:
        """Take one step; False where it was taken before."""
        if change.revision <= self.revision:
            return False
        self.revision = change.revision
        if change.kind == "guard":
            self.guard = change.guard
        elif change.record is None:
            self._take_out(change.key)
        else:
            known = self.get(change.key)
            self.put(_heard_last(change.record, known) if known else change.record)
        return True

    def _take_out(self, key: Key) -> None:
        instances = self._names.get(key[0], {})
        if instances.pop(key[1], None) is not None:
            self._size -= 1
            self._quiet_until = AT_ONCE  # of fewer agents the silent ones are a larger share
        if not instances:
            self._names.pop(key[0], None)


def _only_later(record: Record, known: Record) -> bool:
    """Whether nothing can come due earlier by this record than by the one that it replaces: a live one was heard."""
    return (
        record.status in LIVE
        and record.status == known.status
        and record.believed_from >= known.believed_from
        and record.registration.ttl_seconds == known.registration.ttl_seconds
        and record.conflict is known.conflict
    )


def _due(record: Record, known: Record | None) -> datetime:
    """When to look at a record that was put; at once where more than its own time depends on it."""
    if record.lease is None:
        return NEVER if known is None or known.lease is None else AT_ONCE
    return (due_at(record) or NEVER) if record.status in LIVE else AT_ONCE


def _heard_last(record: Record, known: Record) -> Record:
    """A heartbeat may have come while the change was written: what is newer stays."""
    if known.last_seen <= record.last_seen and known.believed_from <= record.believed_from:
        return record
    return record._replace(
        last_seen=max(record.last_seen, known.last_seen),
        believed_from=max(record.believed_from, known.believed_from),
    )


@dataclass(slots=True)
class Draft:
    """Changes that are being decided: reads see them over the table, which itself does not change."""

    table: Table
    now: datetime
    changes: list[Change] = field(default_factory=list[Change])
    _records: dict[Key, Record | None] = field(default_factory=dict[Key, "Record | None"])
    _guard: list[GuardState | None] = field(default_factory=list["GuardState | None"])
    next: int = field(init=False)  # the revision of the next change

    def __post_init__(self) -> None:
        self.next = self.table.revision + 1

    def get(self, key: Key) -> Record | None:
        """One instance as it will be."""
        return self._records[key] if key in self._records else self.table.get(key)

    def records(self) -> list[Record]:
        """All of them as they will be."""
        if not self._records:
            return list(self.table)
        rest = [record for record in self.table if record.key not in self._records]
        return rest + [record for record in self._records.values() if record is not None]

    @property
    def guard(self) -> GuardState | None:
        """Mass silence, as it will be known."""
        return self._guard[-1] if self._guard else self.table.guard

    def keys_of(self, name: str) -> list[Key]:
        """The instances of a name as they will be."""
        there = {record.key for record in self.table.instances(name)} | {key for key in self._records if key[0] == name}
        return sorted(key for key in there if self.get(key) is not None)

    def put(
        self,
        kind: Kind,
        record: Record,
        *,
        fields: tuple[str, ...] = (),
        tools: ContractDiff | None = None,
        reason: str | None = None,
    ) -> Record:
        """Add or replace a record; answers it with its revision. The reason is the record's own, if none is given."""
        stored = record if record.revision == self.next else record._replace(revision=self.next)
        self._step(kind, record.key, stored, record.reason if reason is None else reason, fields, tools)
        return stored

    def turn(self, record: Record, step: Turn) -> Record:
        """Move a record to another status."""
        return self.put("status", turned(record, step, self.now))

    def remove(self, key: Key, reason: str) -> None:
        """Take a record out."""
        self._step("removed", key, None, reason)

    def set_guard(self, guard: GuardState | None) -> None:
        """Say that mass silence began, grew or ended."""
        reason = f"{len(guard.silent)} fell silent within a minute" if guard else "it is over"
        self._step("guard", GUARD, None, reason, guard=guard)
        self._guard.append(guard)

    def _step(
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


def turned(record: Record, step: Turn, now: datetime) -> Record:
    """A record in another status; one that turns again and again says so."""
    turns = (*(at for at in record.turns if now - at < FLAPPING_WINDOW), now)[-32:]
    flapping = f"; its status changed {len(turns)} times within 10 minutes" if len(turns) >= FLAPPING_TURNS else ""
    return record._replace(status=step.status, reason=step.reason + flapping, since=step.since, turns=turns)
