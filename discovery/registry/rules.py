"""What a registration, a removal and a sweep change: each function reads a draft and adds its changes. Pure."""

from datetime import datetime
from typing import NamedTuple

from discovery.contract import Conflict, Reachability, Registration
from discovery.registry.contract_diff import contract_diff
from discovery.registry.leases import LIVE, Record, Transition, due_at, due_transition, mass_silence, reported
from discovery.registry.table import Draft, Key, Table, moved

MAX_EARLIER_PROCESSES = 8
STATUS_FIELDS = {"status", "checks"}


class Superseded(Exception):
    """An older process registered or removed an entry that a newer process holds; the newer one keeps it."""


class Accepted(NamedTuple):
    """The outcome of a registration."""

    record: Record
    changed: bool  # whether any field is different
    new: bool


def superseded(known: Record | None, registration: Registration, now: datetime) -> Superseded | None:
    """The refusal of an older process while a newer one holds the entry and is alive; else None."""
    if known is None or not known.earlier or known.lease is None or now >= known.believed_from + known.lease:
        return None
    if registration.boot_id not in {other.boot_id for other in known.earlier}:
        return None
    name, instance_id = known.key
    return Superseded(
        f"another process registered as {name[:128]}/{instance_id} after this one, from {known.registration.endpoint}"
    )


def heartbeat(
    table: Table, registration: Registration, now: datetime, *, is_store_down: bool
) -> Accepted | Superseded | None:
    """Handle a registration that is no change of the table; None where it is one.

    A live agent that repeats itself only moves its times. So does a superseded process that repeats its claim: the
    conflict was recorded when it claimed first. While the store is down the times of a silent agent move as well, and
    the first sweep that can write makes it live again.
    """
    known = table.get((registration.name, registration.instance_id))
    if known is None:
        return None
    is_live = known.status in LIVE or known.lease is None
    if (is_live or is_store_down) and known.registration == registration:
        fresh = known._replace(registration=registration, last_seen=now, believed_from=now)
        table.put(fresh)
        return Accepted(fresh, changed=False, new=False)
    if known.conflict is None or known.conflict.boot_id != registration.boot_id:
        return None
    refusal = superseded(known, registration, now)
    if refusal is not None:
        table.put(known._replace(conflict=known.conflict.model_copy(update={"last_seen": now})))
    return refusal


def register(draft: Draft, registration: Registration, caller: str | None) -> Accepted | Superseded:
    """Add or renew one instance, or return the refusal of a superseded process."""
    now = draft.now
    known = draft.get((registration.name, registration.instance_id))
    refusal = superseded(known, registration, now)
    if known is not None and refusal is not None:
        _record_claim(draft, known, registration)
        return refusal
    status, reason = reported(registration)
    if known is None:
        fresh = Record(registration, draft.next, now, now, now, status, reason, now, caller)
        return Accepted(draft.put("registered", fresh), changed=True, new=True)
    fields = _changed_fields(known.registration, registration)
    fresh = Record(
        registration=registration,
        revision=draft.next,
        registered_at=known.registered_at,
        last_seen=now,
        believed_from=now,
        status=known.status,
        reason=reason,
        since=known.since,
        observed_address=caller if fields else known.observed_address,
        turns=known.turns,
        earlier=_earlier(known, registration, draft),
        conflict=None if known.conflict and known.conflict.boot_id == registration.boot_id else known.conflict,
        reachability=None if "endpoint" in fields else known.reachability,
    )
    if status != known.status:
        fresh = moved(fresh, Transition(status, reason, now), now)
    tools = contract_diff(known.registration.tools, registration.tools) if "tools" in fields else None
    kind = "status" if STATUS_FIELDS.issuperset(fields) else "updated"
    return Accepted(draft.put(kind, fresh, fields=fields, tools=tools), changed=bool(fields), new=False)


def remove(draft: Draft, name: str, instance_id: str | None, boot_id: str | None) -> Superseded | None:
    """Remove one instance, or all of a name; nothing where there is none."""
    meant = [key for key in draft.keys_of(name) if instance_id in {None, key[1]}]
    owned = [key for key in meant if boot_id in {None, _boot_id(draft, key)}]
    if meant and not owned:
        return Superseded(f"the entry of {name[:128]} belongs to another process now")
    for key in owned:
        draft.remove(key, "by its own process" if boot_id else "by request")
    return None


def sweep(draft: Draft, horizon: datetime) -> bool:
    """Make the status changes that are due at the horizon, and return whether there were any.

    During mass silence nothing goes further than stale.
    """
    before = len(draft.changes)
    due = [record for record in draft.table if (at := due_at(record)) is not None and at <= draft.now]
    for record in due:
        step = due_transition(record, horizon)
        if step is not None and step.status not in {"down", "removed"}:
            draft.move(record, step)
    guard = mass_silence(draft.records(), draft.now)
    if (guard and guard.until) != (draft.guard and draft.guard.until):
        draft.set_guard(guard)
    for record in filter(None, [draft.get(record.key) for record in due]):
        step = due_transition(record, horizon) if guard is None else None
        if step is not None and step.status == "removed":
            draft.remove(record.key, step.reason)
        elif step is not None:
            draft.move(record, step)
        elif record.conflict and record.lease and draft.now >= record.conflict.last_seen + record.lease:
            reason = f"the process at {record.conflict.endpoint} claims this entry no longer"
            draft.put("conflict", record._replace(conflict=None), reason=reason)
    return len(draft.changes) > before


def reached(draft: Draft, key: Key, found: Reachability) -> None:
    """Record what the probe found at an endpoint."""
    known = draft.get(key)
    if known is not None:
        reason = f"its endpoint answers: {found.reason}" if found.ok else f"its endpoint: {found.reason}"
        draft.put("status", known._replace(reachability=found), reason=reason)


def _record_claim(draft: Draft, known: Record, registration: Registration) -> None:
    other = Conflict(boot_id=registration.boot_id or "", endpoint=registration.endpoint, last_seen=draft.now)
    reason = f"two live processes claim this entry; the older one is at {other.endpoint}"
    draft.put("conflict", known._replace(conflict=other), reason=reason)


def _changed_fields(before: Registration, after: Registration) -> tuple[str, ...]:
    return tuple(field for field in Registration.model_fields if getattr(before, field) != getattr(after, field))


def _earlier(known: Record, registration: Registration, draft: Draft) -> tuple[Conflict, ...]:
    """The processes that held the entry and may be alive, the latest last. Those without a `boot_id` do not count."""
    holder = known.registration.boot_id
    if holder == registration.boot_id and not known.earlier:
        return ()
    others = tuple(other for other in known.earlier if other.boot_id != registration.boot_id)
    alive = known.lease is not None and draft.now < known.believed_from + known.lease
    if holder and registration.boot_id and holder != registration.boot_id and alive:
        other = Conflict(boot_id=holder, endpoint=known.registration.endpoint, last_seen=known.last_seen)
        others = (*(one for one in others if one.boot_id != holder), other)
    return others[-MAX_EARLIER_PROCESSES:]


def _boot_id(draft: Draft, key: Key) -> str | None:
    record = draft.get(key)
    return record and record.registration.boot_id
