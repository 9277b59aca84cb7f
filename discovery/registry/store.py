"""The interface of a store: the table and its history on disk, and the order in which changes happened.

A store knows nothing of leases. Every method but `aclose` and `now` raises `StoreError` when the storage cannot be
used, and may be called again later: a store recovers by itself once its storage does.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from discovery.registry.history import HistoryEntry
from discovery.registry.leases import Record
from discovery.registry.search import Found
from discovery.registry.table import Change


class StoreError(Exception):
    """The storage cannot be used now; the message says why and holds no secret."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a store holds, the revision of its latest change, and the lineage of its table.

    The lineage is drawn when a table is created. Two tables of one lineage have the same history.
    """

    records: Sequence[Record]
    revision: int
    lineage: str


class LastSeen(NamedTuple):
    """The time of an instance's latest heartbeat. Not a change: it has no revision."""

    name: str
    instance_id: str
    last_seen: datetime


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an export: an entry of the history, with the name of the agent."""

    name: str
    entry: HistoryEntry


class Transaction(Protocol):
    """An exclusive write transaction. Leaving its block without an exception makes it durable."""

    revision: int  # of the storage when the transaction began
    lineage: str

    async def since(self, revision: int) -> Sequence[Change]:
        """As `Store.since`."""
        ...

    async def append(self, changes: Sequence[Change]) -> None:
        """Write changes whose revisions follow the storage's; the last one becomes its revision."""
        ...

    async def refill(self, records: Iterable[Record], revision: int, lineage: str) -> None:
        """Replace all records by these. The history is kept."""
        ...


class Store(Protocol):
    """One table of records by (name, instance_id), its history, and a counter of its changes."""

    shared: bool  # whether other registries may write to it, too

    def now(self) -> datetime:
        """The clock for leases: the storage's own where several registries share it."""
        ...

    async def load(self) -> Snapshot:
        """Read everything."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Begin to write; waits, within bounds, for other writers."""
        ...

    async def since(self, revision: int) -> Sequence[Change]:
        """The changes after a revision, in order, each with the newest record of its key."""
        ...

    async def save_last_seen(self, heartbeats: Iterable[LastSeen]) -> None:
        """Write a batch of heartbeats; unknown instances are ignored, and no time moves back."""
        ...

    async def seen_after(self, moment: datetime) -> Sequence[LastSeen]:
        """The instances with a heartbeat after a moment, at any registry on this storage."""
        ...

    async def history(self, name: str, *, limit: int, before: int | None = None) -> Sequence[HistoryEntry]:
        """Changes of a name, the newest first; `before` is a revision to go on from."""
        ...

    async def prune_history(self, before: datetime) -> None:
        """Delete the history before a moment."""
        ...

    async def search(self, words: Sequence[str], *, every: bool, limit: int) -> Sequence[Found]:
        """Names with words that begin like these; with `every`, with all of them. The best match first."""
        ...

    async def export(self) -> Sequence[Line]:
        """The whole history, the oldest first."""
        ...

    async def fill(self, snapshot: Snapshot, history: Sequence[Line]) -> None:
        """Fill an empty store. StoreError where it is not empty: nothing is overwritten."""
        ...

    async def wait_for_changes(self) -> None:
        """Return when another registry may have written; never, if the storage is not shared."""
        ...

    async def check(self) -> None:
        """Return if a write would succeed now."""
        ...

    async def aclose(self) -> None:
        """Release the storage; never fails."""
        ...
