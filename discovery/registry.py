"""The table itself: register, remove, find, sweep. Owns the clock; reads come from memory, writes are stored first.

What was acknowledged is in the store. What could not be stored is not in the table either, so the two never disagree;
after any trouble the store is made equal to the table again before it is written to.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar
from urllib.parse import urlsplit

from discovery.contract import AgentRecord, Lease, Notice, Registered, Registration, is_loopback, utc_now
from discovery.leases import Record, Status, interval_seconds, standing
from discovery.listing import Listing, agent_record, make_listing
from discovery.stores.base import Sighting, Store, StoreError

SWEEP_SECONDS = 1.0
LATE_SECONDS = 2.0  # a sweep this much behind its time was held up: the agents' heartbeats may have been, too
NOTE_SECONDS = 5.0
LISTING_SECONDS = 1.0

Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)


def elapsed() -> float:
    """Seconds that passed, whatever the wall clock does; a suspended machine's sleep included where it is told."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Superseded(Exception):
    """A process spoke for an entry that a newer process has taken over; the newer one keeps it."""


class Registry:
    """One registry over one store. Every method may raise `StoreError`: nothing was changed then."""

    def __init__(
        self, store: Store, *, clock: Callable[[], datetime] = utc_now, elapsed: Callable[[], float] = elapsed
    ) -> None:
        self._store, self._clock, self._elapsed = store, clock, elapsed
        self._records: dict[tuple[str, str], Record] = {}
        self._revision = 0
        self._loaded = False
        self._in_step = True  # the store holds what the table holds
        self._trouble: str | None = "the table is not loaded yet"
        self._writing = asyncio.Lock()
        self._awake = self._noted = elapsed()
        self._seen: set[tuple[str, str]] = set()  # heard from since the last note
        self._statuses: dict[tuple[str, str], Status] = {}  # as last noted
        self._listing: Listing | None = None

    @property
    def revision(self) -> int:
        """How many changes the table has seen."""
        return self._revision

    @property
    def size(self) -> int:
        """How many instances are in the table."""
        return len(self._records)

    async def check(self) -> None:
        """Return if the table is loaded and could be written to now; StoreError says why not."""
        if not self._loaded or not self._in_step:
            raise StoreError(self._trouble or "the store is being brought up to date")
        await self._store.check()

    async def register(
        self, registration: Registration, observed_address: str | None = None
    ) -> tuple[Registered, bool]:
        """Add or renew one instance. Answers what to tell the agent, and whether it is new.

        A repeat with an unchanged body touches neither the store nor the revision.
        """
        self._tick()
        key = (registration.name, registration.instance_id)
        known = self._records.get(key)
        if known is None or known.registration != registration:
            async with self._writing:
                await self._mend()
                # Looked up again: someone else may have written the same key while this one waited.
                known = self._records.get(key)
                fresh = self._renewed(known, registration, observed_address)
                self._revision = await self._stored(self._store.put(fresh))
                self._records[key] = replace(fresh, revision=self._revision)
                self._statuses[key] = standing(fresh, self._clock()).status
                self._listing = None
                changed = True
        else:
            # Never behind a write that waits: agents keep their leases while the storage is in trouble.
            fresh = self._renewed(known, registration, observed_address)
            self._records[key] = fresh
            if fresh.changed_at != known.changed_at:
                self._listing = None
            self._seen.add(key)
            changed = False
        return self._answer(self._records[key], changed), known is None

    async def remove(self, name: str, instance_id: str | None = None, boot_id: str | None = None) -> None:
        """Take one instance out, or all of a name; nothing happens where there is none.

        Raises:
            Superseded: `boot_id` is not the process that holds the entry.
        """
        self._tick()
        async with self._writing:
            await self._mend()
            meant = [key for key in self._records if key[0] == name and instance_id in {None, key[1]}]
            owned = [key for key in meant if boot_id in {None, self._records[key].registration.boot_id}]
            if meant and not owned:
                raise Superseded(f"the entry of {name} belongs to another process now")
            for key in owned:
                await self._drop(key)

    def listing(self) -> Listing:
        """The whole list; prepared again when something changed, and for moved times at most once a second."""
        self._tick()
        now = self._clock()
        ready = self._listing
        if (
            ready is None
            or not timedelta(0) <= now - ready.made_at < timedelta(seconds=LISTING_SECONDS)
            or (ready.good_until is not None and ready.good_until <= now)
        ):
            ready = self._listing = make_listing(self._records.values(), now)
        return ready

    def agent(self, name: str) -> AgentRecord | None:
        """One name with all its instances."""
        self._tick()
        return agent_record((r for r in self._records.values() if r.registration.name == name), self._clock())

    async def sweep(self) -> None:
        """Do what time asks for: load or mend after trouble, drop what is long down, write down who was seen."""
        if not self._loaded:
            await self._load()
        self._tick()
        now = self._clock()
        async with self._writing:
            await self._mend()
            standings = {key: standing(record, now) for key, record in self._records.items()}
            for key, stands in standings.items():
                if stands.status == "removed":
                    logger.info("removed %s/%s: %s", *key, stands.reason)
                    await self._drop(key)
            turned = {key for key, stands in standings.items() if self._statuses.get(key) != stands.status}
            if turned or (self._seen and self._elapsed() - self._noted >= NOTE_SECONDS):
                await self._note(now)

    async def aclose(self) -> None:
        """Write down who was seen. The store is its owner's to close."""
        try:
            if self._loaded and self._seen:
                async with self._writing:
                    await self._mend()
                    await self._note(self._clock())
        except StoreError as error:
            logger.warning("the latest heartbeats are not on disk: %s", error)

    async def _load(self) -> None:
        table = await self._stored(self._store.load())
        self._in_step = True
        # A registry that was away heard nobody: every lease gets one full term from here.
        now = self._clock()
        self._records = {record.key: replace(record, believed_from=now) for record in table.records}
        self._revision = table.revision
        self._loaded, self._trouble, self._awake = True, None, self._elapsed()

    def _tick(self) -> None:
        """Called before anything is said about time: silence while this process was held up is not the agents'."""
        if not self._loaded:
            raise StoreError(self._trouble or "the table is not loaded yet")
        late = self._elapsed() - self._awake - SWEEP_SECONDS
        self._awake = self._elapsed()
        if late < LATE_SECONDS:
            return
        logger.warning("held up for %.1f s: all leases are extended by it", late)
        now = self._clock()
        self._listing = None
        self._records = {
            key: replace(record, believed_from=min(record.believed_from + timedelta(seconds=late), now))
            for key, record in self._records.items()
        }

    async def _stored(self, work: Awaitable[Answer]) -> Answer:
        try:
            return await work
        except StoreError as error:
            self._in_step, self._trouble = False, str(error)
            raise

    async def _mend(self) -> None:
        if not self._in_step:
            await self._stored(self._store.replace(self._records.values(), self._revision))
            self._in_step, self._trouble = True, None

    async def _drop(self, key: tuple[str, str]) -> None:
        self._revision = await self._stored(self._store.remove(*key))
        self._records.pop(key, None)
        self._statuses.pop(key, None)
        self._seen.discard(key)
        self._listing = None

    async def _note(self, now: datetime) -> None:
        sightings: list[Sighting] = []
        for key, record in self._records.items():
            stands = standing(record, now)
            if key in self._seen or self._statuses.get(key) != stands.status:
                sightings.append(Sighting(*key, record.last_seen, stands.status, stands.since))
        self._seen.clear()
        self._noted = self._elapsed()
        await self._stored(self._store.note(sightings))
        self._statuses.update({(seen.name, seen.instance_id): seen.status for seen in sightings})

    def _renewed(self, known: Record | None, registration: Registration, observed_address: str | None) -> Record:
        now = self._clock()
        fresh = Record(registration, 0, now, now, now, now, observed_address)
        if known is None:
            return fresh
        same = standing(known, now).status == standing(fresh, now).status
        return replace(
            fresh,
            revision=known.revision,
            registered_at=known.registered_at,
            changed_at=known.changed_at if same else now,
        )

    def _answer(self, record: Record, changed: bool) -> Registered:
        ttl = record.registration.ttl_seconds
        lease = None
        if ttl is not None:
            expires_at = record.believed_from + timedelta(seconds=ttl)
            lease = Lease(ttl_seconds=ttl, interval_seconds=interval_seconds(ttl), expires_at=expires_at)
        return Registered(
            name=record.registration.name,
            instance_id=record.registration.instance_id,
            revision=record.revision,
            changed=changed,
            lease=lease,
            observed_address=record.observed_address,
            warnings=_warnings(record),
        )


def _warnings(record: Record) -> list[Notice]:
    endpoint, caller = record.registration.endpoint, record.observed_address
    if urlsplit(endpoint).hostname in {"0.0.0.0", "::"}:
        message = f"{endpoint} is an address to listen on, not one to call."
        return [Notice(code="unspecified_endpoint", message=message, hint="Advertise the host's own name or address.")]
    if caller is not None and is_loopback(endpoint) and not is_loopback(caller):
        message = f"{endpoint} reaches nothing but the agent's own machine, and it registered from {caller}."
        hint = "Set server.service_url, or server.public_url, to an address that others can reach."
        return [Notice(code="loopback_endpoint", message=message, hint=hint)]
    return []
