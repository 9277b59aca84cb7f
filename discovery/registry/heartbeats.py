"""Who was heard from: kept in memory, written down in one batch every few seconds, exchanged between registries."""

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from discovery.registry.leases import Record
from discovery.registry.store import Sighting, Store
from discovery.registry.table import Key

NOTE_SECONDS = 5.0
_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)


def elapsed() -> float:
    """Seconds that passed, whatever the wall clock does; a suspended machine's sleep included where it is told."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


class Heartbeats:
    """Sightings that are on no disk yet. A registry that shares its store writes them at every sweep."""

    def __init__(self, store: Store, elapsed: Callable[[], float]) -> None:
        self._store, self._elapsed = store, elapsed
        self._seen: dict[Key, datetime] = {}
        self._noted = elapsed()
        self.heard = 0

    def hear(self, record: Record) -> None:
        """Remember when it was last seen."""
        self.heard += 1
        self._seen[record.key] = record.last_seen

    def forget(self, key: Key) -> None:
        """It is gone."""
        self._seen.pop(key, None)

    async def note(self, *, at_once: bool = False) -> None:
        """Write them down if it is time. After a StoreError they are still here."""
        due = at_once or self._store.shared or self._elapsed() - self._noted >= NOTE_SECONDS
        if not self._seen or not due:
            return
        seen, self._seen = self._seen, {}
        try:
            await self._store.note(Sighting(*key, last_seen) for key, last_seen in seen.items())
        except BaseException:
            self._seen = seen | self._seen
            raise
        self._noted = self._elapsed()

    async def of_others(self, now: datetime) -> Sequence[Sighting]:
        """Whom the registries on this store heard lately."""
        return await self._store.sightings(now - timedelta(seconds=3 * NOTE_SECONDS))
