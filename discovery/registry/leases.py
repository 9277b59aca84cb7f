"""The lease rules: the status of a record at a time, and when it changes next. Pure: the caller passes the time."""

import time
from bisect import bisect_right
from collections.abc import Iterable
from datetime import datetime, timedelta
from math import ceil
from typing import Literal, NamedTuple

from discovery.contract import Conflict, Reachability, Registration
from discovery.registry.history import GuardState

STALE_AFTER_LEASES = 1
DOWN_AFTER_LEASES = 3
REMOVED_AFTER_DOWN = timedelta(minutes=10)
INTERVALS_IN_A_LEASE = 3

MASS_SHARE = 0.15
MASS_MINIMUM = 3
MASS_MINIMUM_FLEET = 10
MASS_WINDOW = timedelta(minutes=1)
GUARD_DURATION = timedelta(minutes=15)

FLAPPING_TRANSITIONS = 4
FLAPPING_WINDOW = timedelta(minutes=10)

_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)

Status = Literal["registered", "up", "degraded", "draining", "stale", "down", "removed"]
LIVE: frozenset[Status] = frozenset({"up", "degraded", "draining"})


class Record(NamedTuple):
    """One instance as the registry knows it.

    `status`, `reason` and `since` change by changes of the table only, never by the passing of time alone.
    `believed_from` is the start of the current lease: `last_seen`, moved later by silences of the registry itself
    (a restart, a late sweep).
    """

    registration: Registration
    revision: int
    registered_at: datetime
    last_seen: datetime
    believed_from: datetime
    status: Status
    reason: str
    since: datetime
    observed_address: str | None = None
    turns: tuple[datetime, ...] = ()  # when its status changed lately
    earlier: tuple[Conflict, ...] = ()  # the processes that held the entry before and may be alive
    conflict: Conflict | None = None
    reachability: Reachability | None = None

    @property
    def key(self) -> tuple[str, str]:
        """The name and the instance."""
        return self.registration.name, self.registration.instance_id

    @property
    def lease(self) -> timedelta | None:
        """How long a registration is valid without a heartbeat; None for ever."""
        ttl_seconds = self.registration.ttl_seconds
        return None if ttl_seconds is None else timedelta(seconds=ttl_seconds)


def elapsed() -> float:
    """Seconds that passed, independent of the wall clock; a machine's sleep counts where the system reports it."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


class Transition(NamedTuple):
    """The next status of a record, because of silence or of a heartbeat after silence."""

    status: Status
    reason: str
    since: datetime


def reported(registration: Registration) -> tuple[Status, str]:
    """The status that a registration asks for, and why."""
    failing = [
        f"{check.name}: {check.reason}" if check.reason else check.name for check in registration.checks if not check.ok
    ]
    report = f"{registration.status} ({'; '.join(failing)[:500]})" if failing else registration.status
    if registration.ttl_seconds is not None:
        return registration.status, f"reported {report} by its heartbeat"
    return "registered", f"sends no heartbeats; when it registered it reported {report}"


def changes_at(record: Record) -> datetime | None:
    """When the status changes without a heartbeat, None for never. The change is due at exactly that time."""
    lease = record.lease
    if lease is None:
        return None
    if record.status in LIVE:
        return record.believed_from + STALE_AFTER_LEASES * lease
    down_at = record.believed_from + DOWN_AFTER_LEASES * lease
    return down_at if record.status == "stale" else max(down_at, record.since) + REMOVED_AFTER_DOWN


def due_at(record: Record) -> datetime | None:
    """The earliest time at which a sweep may have something to do for a record; None for never."""
    due = changes_at(record)
    if due is None:
        return None
    if record.status not in LIVE and record.last_seen > record.since:  # a heartbeat came after silence
        return record.last_seen
    if record.conflict is not None and record.lease is not None:
        return min(due, record.conflict.last_seen + record.lease)
    return due


def due_transition(record: Record, now: datetime) -> Transition | None:
    """The one next step that is due: silence leads from live to stale, down and removed, a heartbeat leads back."""
    due = changes_at(record)
    if due is None or record.lease is None:
        return None
    if record.status not in LIVE and record.last_seen > record.since and now < record.believed_from + record.lease:
        return Transition(*reported(record.registration), record.last_seen)
    if now < due:
        return None
    lease = f"{record.lease.total_seconds():g} s"
    if record.status in LIVE:
        return Transition("stale", f"no heartbeat within its lease of {lease}", due)
    if record.status == "stale":
        return Transition("down", f"no heartbeat for three leases of {lease}", now)
    return Transition("removed", "down for ten minutes", now)


def mass_silence(records: Iterable[Record], now: datetime) -> GuardState | None:
    """Whether so many fell silent within a minute that one fault is likelier than many; computed from the live set.

    It ends when enough of them are back, and after 15 minutes at the latest.
    """
    leased = [record for record in records if record.lease is not None]
    if len(leased) < MASS_MINIMUM_FLEET:
        return None
    fell = sorted(
        (record.since, record.registration.name)
        for record in leased
        if record.status == "stale" and now < record.since + GUARD_DURATION
    )
    needed = max(MASS_MINIMUM, ceil(MASS_SHARE * len(leased)))
    windows = [
        (fell[start][0], start)
        for start in range(len(fell) - needed + 1)
        if fell[start + needed - 1][0] - fell[start][0] <= MASS_WINDOW
    ]
    if not windows:
        return None
    silent: set[str] = set()
    seen = 0
    for first, start in windows:
        end = bisect_right(fell, first + MASS_WINDOW, key=lambda one: one[0])
        silent.update(name for _, name in fell[max(start, seen) : end])
        seen = end
    since, until = windows[0][0], windows[-1][0] + GUARD_DURATION
    # To the millisecond, as it is sent and stored: it is compared with what others computed.
    since, until = (moment.replace(microsecond=moment.microsecond // 1000 * 1000) for moment in (since, until))
    return GuardState(since=since, until=until, silent=sorted(silent))


def after_restart(record: Record, now: datetime) -> Record:
    """A record as loaded at a start: while the registry was away it received no heartbeats, so terms start again."""
    lease = record.lease
    if lease is None:
        return record
    leases = 0 if record.status in LIVE else STALE_AFTER_LEASES if record.status == "stale" else DOWN_AFTER_LEASES
    return record._replace(believed_from=now - leases * lease)


def interval_seconds(ttl_seconds: float) -> float:
    """How often an agent with such a lease should send a heartbeat."""
    return ttl_seconds / INTERVALS_IN_A_LEASE
