"""What a store must do.

A store keeps the table and its history, and says in which order changes happened. It knows nothing of leases. Every
method but `aclose` and `now` raises `StoreError` when the storage cannot be used, and may be called again later: a
store recovers by itself once its storage does.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from discovery.registry.history import HistoryEntry
from discovery.registry.leases import Record
from discovery.registry.search import Found
from discovery.registry.table import Change


class StoreError(Exception):
    """The storage cannot be used now; the message says why and holds no secret."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a store holds, the revision of its latest change, and which table that counts: its lineage.

    The lineage is drawn when a table is created. Two tables of one lineage have the same history.
    """

    records: Sequence[Record]
    revision: int
    lineage: str


@dataclass(frozen=True, slots=True)
class Sighting:
    """A heartbeat that is not written down yet: not a change of its own."""

    name: str
    instance_id: str
    last_seen: datetime


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an export: a change as the history keeps it, with the name it was about."""

    name: str
    entry: HistoryEntry


class Writing(Protocol):
    """A transaction that nobody else can write beside. Leaving its block without an exception makes it durable."""

    @property
    def revision(self) -> int:
        """The revision that the storage is at."""
        ...

    @property
    def lineage(self) -> str:
        """Which table the storage holds."""
        ...

    async def since(self, revision: int) -> Sequence[Change]:
        """As `Store.since`."""
        ...

    async def append(self, changes: Sequence[Change]) -> None:
        """Write changes whose revisions follow on the storage's; the last one is its revision then."""
        ...

    async def refill(self, records: Iterable[Record], revision: int, lineage: str) -> None:
        """Make the storage hold exactly these records. The history that it has stays."""
        ...


async def added(store: "Store", changes: Sequence[Change], lineage: str) -> bool:
    """`Store.add` for a store that needs nothing but its `writing` for it."""
    async with store.writing() as writing:
        if follows := (writing.lineage, writing.revision) == (lineage, changes[0].revision - 1):
            await writing.append(changes)
    return follows


class Store(Protocol):
    """One table of records by (name, instance_id), its history, and a counter of its changes."""

    shared: bool  # whether other registries may write to it, too

    def now(self) -> datetime:
        """The clock that leases go by: the storage's own where several registries share it."""
        ...

    async def load(self) -> Snapshot:
        """Read everything."""
        ...

    async def add(self, changes: Sequence[Change], lineage: str) -> bool:
        """Write changes in one go where they follow on what the storage holds, a table of this lineage.

        False where they do not: nothing was written, and `writing` shows what is there.
        """
        ...

    def writing(self) -> AbstractAsyncContextManager[Writing]:
        """Begin a transaction; waits, within bounds, for whoever writes."""
        ...

    async def since(self, revision: int) -> Sequence[Change]:
        """The changes after a revision, in order. Their records are as they stand now: the newest for each key."""
        ...

    async def note(self, sightings: Iterable[Sighting]) -> None:
        """Write a batch of sightings; those of unknown records are ignored, and none goes back in time."""
        ...

    async def sightings(self, after: datetime) -> Sequence[Sighting]:
        """Whom this or another registry heard after a moment."""
        ...

    async def history(self, name: str, *, limit: int, before: int | None = None) -> Sequence[HistoryEntry]:
        """Changes of a name, the newest first; `before` is a revision to go on from."""
        ...

    async def forget(self, before: datetime) -> None:
        """Drop the history from before a moment."""
        ...

    async def search(self, words: Sequence[str], *, every: bool, limit: int) -> Sequence[Found]:
        """Names where words, or words that begin like them, stand; with `every`, all of them. The best first."""
        ...

    async def export(self) -> Sequence[Line]:
        """The whole history, the oldest first."""
        ...

    async def fill(self, snapshot: Snapshot, history: Sequence[Line]) -> None:
        """Fill an empty store. StoreError where it is not empty: nothing is overwritten."""
        ...

    async def woken(self) -> None:
        """Return when another registry may have written; never, where there can be none."""
        ...

    async def check(self) -> None:
        """Return if a write would succeed now."""
        ...

    async def aclose(self) -> None:
        """Let go of the storage; never fails."""
        ...
