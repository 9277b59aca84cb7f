"""The lease rules: how a record stands at an instant, and when that changes next. Pure; the clock is the caller's."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from discovery.contract import Registration

STALE_AFTER_LEASES = 1
DOWN_AFTER_LEASES = 3
REMOVED_AFTER_DOWN = timedelta(minutes=10)
INTERVALS_IN_A_LEASE = 3

Status = Literal["registered", "up", "degraded", "draining", "stale", "down", "removed"]


@dataclass(frozen=True, slots=True)
class Record:
    """One instance as the registry knows it.

    `believed_from` is where silence is counted from. It is `last_seen`, moved later by silences that were the
    registry's own: a restart, a sweep that came late.
    """

    registration: Registration
    revision: int
    registered_at: datetime
    changed_at: datetime  # since when the reported status is what it is
    last_seen: datetime
    believed_from: datetime
    observed_address: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What makes it one: a name and an instance of it."""
        return self.registration.name, self.registration.instance_id


@dataclass(frozen=True, slots=True)
class Standing:
    """What is said of a record at an instant, why, since when, and until when at the latest."""

    status: Status
    reason: str
    since: datetime
    until: datetime | None


def standing(record: Record, now: datetime) -> Standing:
    """Apply the lease rules. A record exactly at the end of its lease is past it."""
    ttl = record.registration.ttl_seconds
    if ttl is None:
        return Standing("registered", _unleased_reason(record), record.changed_at, None)
    lease = timedelta(seconds=ttl)
    stale_at = record.believed_from + STALE_AFTER_LEASES * lease
    down_at = record.believed_from + DOWN_AFTER_LEASES * lease
    removed_at = down_at + REMOVED_AFTER_DOWN
    if now < stale_at:
        return Standing(record.registration.status, _live_reason(record), record.changed_at, stale_at)
    if now < down_at:
        return Standing("stale", f"no heartbeat within its lease of {ttl:g} s", stale_at, down_at)
    if now < removed_at:
        return Standing("down", f"no heartbeat for three leases of {ttl:g} s", down_at, removed_at)
    return Standing("removed", "down for ten minutes", removed_at, None)


def interval_seconds(ttl_seconds: float) -> float:
    """How often the registry wants to hear from an agent with such a lease."""
    return ttl_seconds / INTERVALS_IN_A_LEASE


def _unleased_reason(record: Record) -> str:
    return f"sends no heartbeats; when it registered it reported {_reported(record)}"


def _live_reason(record: Record) -> str:
    if record.believed_from > record.last_seen:
        return f"last reported {_reported(record)}; the registry itself was away, so it waits one full lease"
    return f"reported {_reported(record)} by its heartbeat"


def _reported(record: Record) -> str:
    failing = [
        f"{check.name}: {check.reason}" if check.reason else check.name
        for check in record.registration.checks
        if not check.ok
    ]
    status = record.registration.status
    return f"{status} ({'; '.join(failing)[:500]})" if failing else status
