"""A store that keeps nothing on disk: for tests, and for a registry whose agents all send heartbeats."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import uuid4

from discovery.contract import utc_now
from discovery.registry.history import HistoryEntry
from discovery.registry.leases import Record
from discovery.registry.search import Found, ranked
from discovery.registry.store import LastSeen, Line, Snapshot, StoreError
from discovery.registry.table import GUARD, Change, Key
from discovery.stores.rows import history_entry


class MemoryStore:
    """See `Store`."""

    shared = False

    def __init__(self) -> None:
        self.revision = 0
        self.lineage = uuid4().hex
        self._records: dict[Key, Record] = {}
        self._changes: list[Change] = []
        self._lines: list[Line] = []
        self._lock = asyncio.Lock()

    def now(self) -> datetime:
        """See `Store`."""
        return utc_now()

    async def load(self) -> Snapshot:
        """See `Store`."""
        return Snapshot(list(self._records.values()), self.revision, self.lineage)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator["MemoryStore"]:
        """See `Store`."""
        async with self._lock:
            yield self

    async def append(self, changes: Sequence[Change]) -> None:
        """See `Transaction`."""
        for change in changes:
            self.revision = change.revision
            self._changes.append(change._replace(before=None))
            entry = history_entry(change)
            if entry is not None:
                self._lines.append(Line(change.key[0], entry))
            if change.record is not None:
                self._records[change.key] = change.record
            elif change.key != GUARD:
                self._records.pop(change.key, None)

    async def refill(self, records: Iterable[Record], revision: int, lineage: str) -> None:
        """See `Transaction`."""
        self._records = {record.key: record for record in records}
        self.revision, self.lineage = revision, lineage

    async def since(self, revision: int) -> Sequence[Change]:
        """See `Store`."""
        return [
            change._replace(record=self._records.get(change.key))
            for change in self._changes
            if change.revision > revision
        ]

    async def save_last_seen(self, heartbeats: Iterable[LastSeen]) -> None:
        """See `Store`."""
        for name, instance_id, last_seen in heartbeats:
            record = self._records.get((name, instance_id))
            if record is not None and record.last_seen < last_seen:
                self._records[record.key] = record._replace(last_seen=last_seen, believed_from=last_seen)

    async def seen_after(self, moment: datetime) -> Sequence[LastSeen]:
        """See `Store`."""
        return [LastSeen(*one.key, one.last_seen) for one in self._records.values() if one.last_seen > moment]

    async def history(self, name: str, *, limit: int, before: int | None = None) -> Sequence[HistoryEntry]:
        """See `Store`."""
        found = [
            line.entry for line in self._lines if line.name == name and (before is None or line.entry.revision < before)
        ]
        return found[::-1][:limit]

    async def prune_history(self, before: datetime) -> None:
        """See `Store`."""
        self._lines = [line for line in self._lines if line.entry.at >= before]
        self._changes = [change for change in self._changes if change.at >= before]

    async def search(self, words: Sequence[str], *, every: bool, limit: int) -> Sequence[Found]:
        """See `Store`."""
        registrations = (record.registration for record in self._records.values())
        return ranked(registrations, words, every=every, limit=limit)

    async def export(self) -> Sequence[Line]:
        """See `Store`."""
        return list(self._lines)

    async def fill(self, snapshot: Snapshot, history: Sequence[Line]) -> None:
        """See `Store`."""
        if self.revision:
            raise StoreError("this store is not empty")
        await self.refill(snapshot.records, snapshot.revision, snapshot.lineage)
        self._lines = list(history)

    async def wait_for_changes(self) -> None:
        """See `Store`."""
        await asyncio.get_running_loop().create_future()

    async def check(self) -> None:
        """See `Store`."""

    async def aclose(self) -> None:
        """See `Store`."""
