"""What becomes of a word from an agent, and of silence: each function reads a draft and adds the changes. Pure."""

from datetime import datetime
from itertools import compress
from operator import is_not
from typing import NamedTuple

from discovery.contract import Conflict, Reachability, Registration
from discovery.registry.contract_diff import contract_diff
from discovery.registry.leases import LIVE, Record, Turn, mass_silence, reported, turn
from discovery.registry.table import Draft, Key, Table, turned

REMEMBERED_PROCESSES = 8
STATUS_FIELDS = {"status", "checks"}


class Superseded(Exception):
    """A process spoke for an entry that a newer process has taken over; the newer one keeps it."""


class Said(NamedTuple):
    """A word from a process: what it registers, from where, and what of that was news when it came."""

    registration: Registration
    caller: str | None
    key: Key
    known: Record | None
    fields: tuple[str, ...]  # that differ from the known record's

    @classmethod
    def of(cls, registration: Registration, caller: str | None, table: Table) -> "Said":
        """Compare it with what is known."""
        key = registration.name, registration.instance_id
        known = table.get(key)
        return cls(registration, caller, key, known, () if known is None else _changed_fields(known, registration))

    def news(self, known: Record) -> tuple[str, ...]:
        """The fields that differ from this record's."""
        return self.fields if known is self.known else _changed_fields(known, self.registration)


class Accepted(NamedTuple):
    """What became of it."""

    record: Record
    changed: bool  # whether anything in the body was news
    new: bool


def superseded(known: Record | None, registration: Registration, now: datetime) -> Superseded | None:
    """Whether a newer process holds the entry, and is alive: then the older one must not take it back."""
    if known is None or not known.earlier or known.lease is None or now >= known.believed_from + known.lease:
        return None
    if registration.boot_id not in {other.boot_id for other in known.earlier}:
        return None
    name, instance_id = known.key
    return Superseded(
        f"another process registered as {name[:128]}/{instance_id} after this one, from {known.registration.endpoint}"
    )


def claimed_again(known: Record, registration: Registration, now: datetime) -> tuple[Record, Superseded] | None:
    """The record that notes the claim, and the refusal of a process that was refused before and only asks again."""
    conflict = known.conflict
    if conflict is None or conflict.boot_id != registration.boot_id:
        return None
    refusal = superseded(known, registration, now)
    if refusal is None:
        return None
    return known._replace(conflict=conflict.model_copy(update={"last_seen": now})), refusal


def register(draft: Draft, said: Said) -> Accepted | Superseded:
    """Add or renew one instance; or say who holds the entry."""
    now, registration = draft.now, said.registration
    known = draft.get(said.key)
    refusal = superseded(known, registration, now)
    if known is not None and refusal is not None:
        _rival(draft, known, registration)
        return refusal
    status, reason = reported(registration)
    if known is None:
        fresh = Record(registration, draft.next, now, now, now, status, reason, now, said.caller)
        return Accepted(draft.put("registered", fresh), changed=True, new=True)
    fields = said.news(known)
    fresh = Record(
        registration=registration,
        revision=draft.next,
        registered_at=known.registered_at,
        last_seen=now,
        believed_from=now,
        status=known.status,
        reason=reason,
        since=known.since,
        observed_address=said.caller if fields else known.observed_address,
        turns=known.turns,
        earlier=_earlier(known, registration, draft),
        conflict=None if known.conflict and known.conflict.boot_id == registration.boot_id else known.conflict,
        reachability=None if "endpoint" in fields else known.reachability,
    )
    if status != known.status:
        fresh = turned(fresh, Turn(status, reason, now), now)
    tools = contract_diff(known.registration.tools, registration.tools) if "tools" in fields else None
    kind = "status" if STATUS_FIELDS.issuperset(fields) else "updated"
    return Accepted(draft.put(kind, fresh, fields=fields, tools=tools), changed=bool(fields), new=False)


def remove(draft: Draft, name: str, instance_id: str | None, boot_id: str | None) -> Superseded | None:
    """Take one instance out, or all of a name; none where there is none."""
    meant = [key for key in draft.keys_of(name) if instance_id in {None, key[1]}]
    owned = [key for key in meant if boot_id in {None, _boot_id(draft, key)}]
    if meant and not owned:
        return Superseded(f"the entry of {name[:128]} belongs to another process now")
    for key in owned:
        draft.remove(key, "its own process took it out" if boot_id else "taken out by request")
    return None


def sweep(draft: Draft, horizon: datetime) -> None:
    """Do what time asks for until a moment. While many are silent at once they are stale, and nothing goes further."""
    for record in list(draft.table):
        step = turn(record, horizon)
        if step is not None and step.status not in {"down", "removed"}:
            draft.turn(record, step)
    records = draft.records()
    guard = mass_silence(records, draft.now)
    if (guard and guard.until) != (draft.guard and draft.guard.until):
        draft.set_guard(guard)
    for record in records:
        step = turn(record, horizon) if guard is None else None
        if step is not None and step.status == "removed":
            draft.remove(record.key, step.reason)
        elif step is not None:
            draft.turn(record, step)
        elif record.conflict and record.lease and draft.now >= record.conflict.last_seen + record.lease:
            reason = f"the process at {record.conflict.endpoint} claims this entry no longer"
            draft.put("conflict", record._replace(conflict=None), reason=reason)


def is_due(table: Table, now: datetime, horizon: datetime) -> bool:
    """Whether time asks for anything; a table that is at rest is not looked through again before it may."""
    if table.is_quiet(now):
        return False
    trial = Draft(table, now)
    sweep(trial, horizon)
    if not trial.changes:
        table.rest()
    return bool(trial.changes)


def reached(draft: Draft, key: Key, found: Reachability) -> None:
    """Keep what the probe found at an endpoint; a change of it is a change of the record."""
    known = draft.get(key)
    if known is not None:
        reason = f"its endpoint answers: {found.reason}" if found.ok else f"its endpoint: {found.reason}"
        draft.put("status", known._replace(reachability=found), reason=reason)


def is_alive(record: Record) -> bool:
    """Whether it is believed to answer: within its lease, or without one."""
    return record.status in LIVE or record.lease is None


def _rival(draft: Draft, known: Record, registration: Registration) -> None:
    other = Conflict(boot_id=registration.boot_id or "", endpoint=registration.endpoint, last_seen=draft.now)
    reason = f"two live processes claim this entry; the older one is at {other.endpoint}"
    draft.put("conflict", known._replace(conflict=other), reason=reason)


def _changed_fields(known: Record, registration: Registration) -> tuple[str, ...]:
    then, now = vars(known.registration), vars(registration)  # both in the order of the model's fields
    other = compress(then, map(is_not, then.values(), now.values()))
    return tuple([name for name in other if then[name] != now[name]])


def _earlier(known: Record, registration: Registration, draft: Draft) -> tuple[Conflict, ...]:
    """Who held the entry and may still be alive, the latest last. Processes that name no `boot_id` replace freely."""
    held = known.registration.boot_id
    if held == registration.boot_id and not known.earlier:
        return ()
    others = tuple(other for other in known.earlier if other.boot_id != registration.boot_id)
    alive = known.lease is not None and draft.now < known.believed_from + known.lease
    if held and registration.boot_id and held != registration.boot_id and alive:
        other = Conflict(boot_id=held, endpoint=known.registration.endpoint, last_seen=known.last_seen)
        others = (*(one for one in others if one.boot_id != held), other)
    return others[-REMEMBERED_PROCESSES:]


def _boot_id(draft: Draft, key: Key) -> str | None:
    record = draft.get(key)
    return record and record.registration.boot_id
