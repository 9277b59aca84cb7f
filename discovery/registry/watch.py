"""The readers of the table's events: one ring buffer of the latest events, and each reader's position in it.

A reader costs a position, not a queue: one that is too slow finds its position overwritten and is disconnected.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import datetime

from discovery.registry.history import AgentEvent, GuardEvent, ResetEvent
from discovery.registry.leases import Record
from discovery.registry.listing import merged
from discovery.registry.table import Change

RING_EVENTS = 2048
KEEP_ALIVE_SECONDS = 10.0
KEEP_ALIVE = b": still here\n\n"


@dataclass(slots=True)
class _Event:
    change: Change
    instances: tuple[Record, ...]
    guarded_until: datetime | None
    _encoded: bytes = field(default=b"")

    def encoded(self, lineage: str) -> bytes:
        """The event as sent, encoded once for all readers when the first one needs it."""
        if not self._encoded:
            self._encoded = _frame(lineage, self.change.revision, self.change.kind, self._data().model_dump_json())
        return self._encoded

    def _data(self) -> AgentEvent | GuardEvent:
        change = self.change
        if change.kind == "guard":
            until, silent = (change.guard.until, change.guard.silent) if change.guard else (None, [])
            return GuardEvent(
                revision=change.revision, at=change.at, active=change.guard is not None, until=until, silent=silent
            )
        return AgentEvent(
            revision=change.revision,
            at=change.at,
            name=change.key[0],
            instance_id=change.key[1],
            status="removed" if change.record is None else change.record.status,
            reason=change.reason,
            agent=merged(self.instances, self.guarded_until),
        )


class Watch:
    """The latest events of one table. Publishing never waits for a reader."""

    def __init__(self) -> None:
        self.readers = 0
        self.dropped = 0  # readers disconnected as too slow
        self._lineage = ""
        self._revision = 0
        self._ring: deque[_Event] = deque(maxlen=RING_EVENTS)
        self._closed = False
        self._published = asyncio.Event()

    def begin(self, lineage: str, revision: int) -> None:
        """Start at a revision of a table; readers of another lineage get a reset."""
        self._lineage, self._revision = lineage, revision
        self._ring.clear()
        self._notify()

    def publish(self, change: Change, instances: tuple[Record, ...], guarded_until: datetime | None) -> None:
        """Publish a change; `instances` are all of its name after it."""
        self._revision = change.revision
        self._ring.append(_Event(change, instances, guarded_until))
        if self.readers:
            self._notify()

    def close(self) -> None:
        """Disconnect all readers: the process ends."""
        self._closed = True
        self._notify()

    async def follow(self, last_event_id: str | None, now: datetime) -> AsyncGenerator[bytes]:
        """Server-sent events after an id, as long as the reader keeps up. A chunk may hold several events."""
        self.readers += 1
        try:
            lineage, position = self._lineage, self._position(last_event_id)
            if position is None:
                position = self._revision
                reason = "this stream begins here" if last_event_id is None else "earlier events are not kept any more"
                reset = ResetEvent(revision=position, at=now, reason=reason)
                yield _frame(lineage, position, "reset", reset.model_dump_json())
            while not self._closed and lineage == self._lineage:
                if self._revision == position:
                    if await self._idle():
                        yield KEEP_ALIVE
                    continue
                if self._ring[0].change.revision > position + 1:
                    self.dropped += 1
                    return
                # The ring holds consecutive revisions: an index in it is a difference of two.
                behind = self._revision - position
                fresh = [self._ring[index] for index in range(-behind, 0)]
                position = self._revision
                yield b"".join(event.encoded(lineage) for event in fresh)
        finally:
            self.readers -= 1

    def _position(self, last_event_id: str | None) -> int | None:
        """The revision in an event id, or None where the stream cannot go on from it."""
        lineage, _, revision = (last_event_id or "").rpartition("-")
        if lineage != self._lineage[:8] or not (revision.isascii() and revision.isdigit()):
            return None
        position = int(revision[:18])
        first = self._ring[0].change.revision if self._ring else self._revision + 1
        return position if first - 1 <= position <= self._revision else None

    async def _idle(self) -> bool:
        """Wait for an event; True if there was none for a while."""
        try:
            async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                await self._published.wait()
        except TimeoutError:
            return True
        return False

    def _notify(self) -> None:
        self._published.set()
        self._published.clear()  # wakes the readers that wait now; later ones wait for the next event


def _frame(lineage: str, revision: int, kind: str, data: str) -> bytes:
    return f"id: {lineage[:8]}-{revision}\nevent: {kind}\ndata: {data}\n\n".encode()
