"""Who follows the table: one ring of the latest events, and each reader's place in it.

A reader costs a place, not a queue: one that is too slow finds its place gone and is let go.
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

RING = 2048
PULSE_SECONDS = 10.0
PULSE = b": still here\n\n"


@dataclass(slots=True)
class _Event:
    change: Change
    instances: tuple[Record, ...]
    guarded_until: datetime | None
    _sent: bytes = field(default=b"")

    def as_sent(self, lineage: str) -> bytes:
        """Encoded when the first reader wants it, once for all."""
        if not self._sent:
            self._sent = _frame(lineage, self.change.revision, self.change.kind, self._data().model_dump_json())
        return self._sent

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
        self.dropped = 0  # readers that were too slow
        self._lineage = ""
        self._revision = 0
        self._ring: deque[_Event] = deque(maxlen=RING)
        self._closed = False
        self._news = asyncio.Event()

    def begin(self, lineage: str, revision: int) -> None:
        """From here on events follow each other; readers of another lineage are told to read the list again."""
        self._lineage, self._revision = lineage, revision
        self._ring.clear()
        self._wake()

    def publish(self, change: Change, instances: tuple[Record, ...], guarded_until: datetime | None) -> None:
        """Tell the readers of a change; `instances` are all of its name as they stand after it."""
        self._revision = change.revision
        self._ring.append(_Event(change, instances, guarded_until))
        if self.readers:
            self._wake()

    def close(self) -> None:
        """Let all readers go: the process ends."""
        self._closed = True
        self._wake()

    async def follow(self, last_event_id: str | None, now: datetime) -> AsyncGenerator[bytes]:
        """Server-sent events after an id, for as long as the reader keeps up. Several events may come in one piece."""
        self.readers += 1
        try:
            lineage, place = self._lineage, self._place(last_event_id)
            if place is None:
                place = self._revision
                reason = "this stream begins here" if last_event_id is None else "what came before is not kept"
                reset = ResetEvent(revision=place, at=now, reason=reason)
                yield _frame(lineage, place, "reset", reset.model_dump_json())
            while not self._closed and lineage == self._lineage:
                if self._revision == place:
                    if await self._is_quiet():
                        yield PULSE
                    continue
                if self._ring[0].change.revision > place + 1:
                    self.dropped += 1
                    return
                # The ring holds every revision from its first on: a place in it is a difference.
                behind = self._revision - place
                fresh = [self._ring[index] for index in range(-behind, 0)]
                place = self._revision
                yield b"".join(event.as_sent(lineage) for event in fresh)
        finally:
            self.readers -= 1

    def _place(self, last_event_id: str | None) -> int | None:
        """The revision that a reader has, or None where it cannot go on from there."""
        lineage, _, revision = (last_event_id or "").rpartition("-")
        if lineage != self._lineage[:8] or not (revision.isascii() and revision.isdigit()):
            return None
        place = int(revision[:18])
        first = self._ring[0].change.revision if self._ring else self._revision + 1
        return place if first - 1 <= place <= self._revision else None

    async def _is_quiet(self) -> bool:
        """Wait for news; True when there were none for a while."""
        try:
            async with asyncio.timeout(PULSE_SECONDS):
                await self._news.wait()
        except TimeoutError:
            return True
        return False

    def _wake(self) -> None:
        self._news.set()
        self._news.clear()  # who waits now goes on; who comes later waits for what is next


def _frame(lineage: str, revision: int, kind: str, data: str) -> bytes:
    return f"id: {lineage[:8]}-{revision}\nevent: {kind}\ndata: {data}\n\n".encode()
