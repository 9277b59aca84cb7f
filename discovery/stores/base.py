"""What a store must do, and the one that keeps everything in memory.

A store keeps what was acknowledged; it knows nothing of time. Every method but `aclose` raises `StoreError` when the
storage cannot be used, and may be called again later: a store recovers by itself once its storage does.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from discovery.leases import Record, Status


class StoreError(Exception):
    """The storage cannot be used now; the message says why and holds no secret."""


@dataclass(frozen=True, slots=True)
class Table:
    """Everything a store holds, and the revision of its latest change."""

    records: Sequence[Record]
    revision: int


@dataclass(frozen=True, slots=True)
class Sighting:
    """What heartbeats and time changed on a record since it was last written: not a change of its own."""

    name: str
    instance_id: str
    last_seen: datetime
    status: Status
    since: datetime


class Store(Protocol):
    """One table of records by (name, instance_id), and a counter of its changes."""

    async def load(self) -> Table:
        """Read everything."""
        ...

    async def put(self, record: Record) -> int:
        """Add or replace one record, durably, and answer the revision it got (the record's own is not looked at)."""
        ...

    async def remove(self, name: str, instance_id: str) -> int:
        """Take one record away, durably, and answer the new revision; removing what is not there is no error."""
        ...

    async def note(self, sightings: Iterable[Sighting]) -> None:
        """Write a batch of sightings; those of unknown records are ignored."""
        ...

    async def replace(self, records: Iterable[Record], revision: int) -> None:
        """Make the table hold exactly these records, and the counter at least this revision."""
        ...

    async def check(self) -> None:
        """Return if a write would succeed now."""
        ...

    async def aclose(self) -> None:
        """Let go of the storage; never fails."""
        ...


class MemoryStore:
    """Forgets when the process ends: for tests, and for a registry whose agents all send heartbeats."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, str], Record] = {}
        self._revision = 0

    async def load(self) -> Table:
        """See `Store`."""
        return Table(list(self._records.values()), self._revision)

    async def put(self, record: Record) -> int:
        """See `Store`."""
        self._revision += 1
        self._records[record.key] = replace(record, revision=self._revision)
        return self._revision

    async def remove(self, name: str, instance_id: str) -> int:
        """See `Store`."""
        if self._records.pop((name, instance_id), None) is not None:
            self._revision += 1
        return self._revision

    async def note(self, sightings: Iterable[Sighting]) -> None:
        """See `Store`."""
        for seen in sightings:
            key = (seen.name, seen.instance_id)
            if key in self._records:
                self._records[key] = replace(
                    self._records[key],
                    last_seen=seen.last_seen,
                    believed_from=seen.last_seen,
                    changed_at=seen.since,
                )

    async def replace(self, records: Iterable[Record], revision: int) -> None:
        """See `Store`."""
        self._records = {record.key: record for record in records}
        self._revision = max(self._revision, revision)

    async def check(self) -> None:
        """See `Store`."""

    async def aclose(self) -> None:
        """See `Store`."""
