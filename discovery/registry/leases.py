"""The lease rules: what time has made of a record, and when that changes next. Pure; the clock is the caller's."""

from bisect import bisect_right
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import lru_cache
from math import ceil
from typing import Literal, NamedTuple

from discovery.contract import Conflict, Reachability, Registration, ReportedStatus
from discovery.registry.history import GuardState

STALE_AFTER_LEASES = 1
DOWN_AFTER_LEASES = 3
REMOVED_AFTER_DOWN = timedelta(minutes=10)
INTERVALS_IN_A_LEASE = 3

MASS_SHARE = 0.15
MASS_LEAST = 3
MASS_FLEET = 10
MASS_WINDOW = timedelta(minutes=1)
GUARD_LASTS = timedelta(minutes=15)

FLAPPING_TURNS = 4
FLAPPING_WINDOW = timedelta(minutes=10)

Status = Literal["registered", "up", "degraded", "draining", "stale", "down", "removed"]
LIVE: frozenset[Status] = frozenset({"up", "degraded", "draining"})


class Record(NamedTuple):
    """One instance as the registry knows it.

    `status`, `reason` and `since` are what readers were told last: they move by changes, never by themselves.
    `believed_from` is where silence is counted from. It is `last_seen`, moved later by silences that were the
    registry's own: a restart, a sweep that came late.
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
    earlier: tuple[Conflict, ...] = ()  # the processes it took the entry from while they were alive
    conflict: Conflict | None = None
    reachability: Reachability | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What makes it one: a name and an instance of it."""
        return self.registration.name, self.registration.instance_id

    @property
    def lease(self) -> timedelta | None:
        """How long it is believed without a word; None for ever."""
        return _lease(self.registration.ttl_seconds)


@lru_cache(maxsize=1024)  # asked for several times at every heartbeat
def _lease(ttl_seconds: float | None) -> timedelta | None:
    return None if ttl_seconds is None else timedelta(seconds=ttl_seconds)


class Turn(NamedTuple):
    """A status that time has brought, or a heartbeat after silence."""

    status: Status
    reason: str
    since: datetime


def reported(registration: Registration) -> tuple[Status, str]:
    """The status that a registration asks for, and why."""
    failing = [
        f"{check.name}: {check.reason}" if check.reason else check.name for check in registration.checks if not check.ok
    ]
    return _reported(registration.status, registration.ttl_seconds is not None, "; ".join(failing)[:500])


@lru_cache(maxsize=64)  # nearly all say the same
def _reported(status: ReportedStatus, is_leased: bool, failing: str) -> tuple[Status, str]:
    said = f"{status} ({failing})" if failing else status
    if is_leased:
        return status, f"reported {said} by its heartbeat"
    return "registered", f"sends no heartbeats; when it registered it reported {said}"


def changes_at(record: Record) -> datetime | None:
    """When the status changes if nothing is heard; None for never. A record exactly at that time is past it."""
    lease = record.lease
    if lease is None:
        return None
    if record.status in LIVE:
        return record.believed_from + STALE_AFTER_LEASES * lease
    down_at = record.believed_from + DOWN_AFTER_LEASES * lease
    return down_at if record.status == "stale" else max(down_at, record.since) + REMOVED_AFTER_DOWN


def due_at(record: Record) -> datetime | None:
    """Before this, time alone asks for nothing of a record that is not heard; None for never."""
    due, lease = changes_at(record), record.lease
    if due is not None and lease is not None and record.conflict is not None:
        return min(due, record.conflict.last_seen + lease)
    return due


def turn(record: Record, now: datetime) -> Turn | None:
    """The one next step that is due: silence goes from live over stale and down to removed, a word leads back."""
    due = changes_at(record)
    if due is None or record.lease is None:
        return None
    if record.status not in LIVE and record.last_seen > record.since and now < record.believed_from + record.lease:
        return Turn(*reported(record.registration), record.last_seen)
    if now < due:
        return None
    lease = f"{record.lease.total_seconds():g} s"
    if record.status in LIVE:
        return Turn("stale", f"no heartbeat within its lease of {lease}", due)
    if record.status == "stale":
        return Turn("down", f"no heartbeat for three leases of {lease}", now)
    return Turn("removed", "down for ten minutes", now)


def mass_silence(records: Iterable[Record], now: datetime) -> GuardState | None:
    """Whether so many fell silent within a minute that one fault is likelier than many; from the live set alone.

    It ends when enough of them are back, and after 15 minutes at the latest.
    """
    leased = [record for record in records if record.lease is not None]
    if len(leased) < MASS_FLEET:
        return None
    fell = sorted(
        (record.since, record.registration.name)
        for record in leased
        if record.status == "stale" and now < record.since + GUARD_LASTS
    )
    needed = max(MASS_LEAST, ceil(MASS_SHARE * len(leased)))
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
    since, until = windows[0][0], windows[-1][0] + GUARD_LASTS
    # To the millisecond, as it is sent and stored: it is compared with what others computed.
    since, until = (moment.replace(microsecond=moment.microsecond // 1000 * 1000) for moment in (since, until))
    return GuardState(since=since, until=until, silent=sorted(silent))


def after_restart(record: Record, now: datetime) -> Record:
    """What a registry believes that heard nobody while it was away: each status gets its full term again."""
    lease = record.lease
    if lease is None:
        return record
    leases = 0 if record.status in LIVE else STALE_AFTER_LEASES if record.status == "stale" else DOWN_AFTER_LEASES
    return record._replace(believed_from=now - leases * lease)


def interval_seconds(ttl_seconds: float) -> float:
    """How often the registry wants to hear from an agent with such a lease."""
    return ttl_seconds / INTERVALS_IN_A_LEASE
