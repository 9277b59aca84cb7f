"""The registry itself: register, remove, find, sweep. Owns the clock; reads come from memory, changes are stored first.

What was acknowledged is in the store. The table in memory is what the store's changes make of it, in their order: our
own after they are durable, those of other registries on the same store when we hear of them. A heartbeat that changes
nothing moves times in memory only, so agents keep their leases while the storage is in trouble.
"""

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from discovery.contract import AgentRecord, Reachability, Registration
from discovery.registry import rules as decisions
from discovery.registry.finding import find
from discovery.registry.heartbeats import Heartbeats, elapsed
from discovery.registry.history import GuardState, HistoryEntry
from discovery.registry.leases import Record, after_restart
from discovery.registry.listing import Listing, Prepared, agent_record, tag_of
from discovery.registry.rules import Accepted, Said
from discovery.registry.search import Hit
from discovery.registry.store import Store, StoreError, Writing
from discovery.registry.table import Change, Draft, Table
from discovery.registry.watch import Watch
from discovery.registry.writer import Decide, Writer, answered

SWEEP_SECONDS = 1.0
LATE_SECONDS = 2.0  # a sweep this much behind its time was held up: the agents' heartbeats may have been, too
HISTORY_LASTS = timedelta(days=30)
FORGET_SECONDS = 3600.0
# Another registry's heartbeats reach us within two sweeps; nobody is judged on what we may not know yet.
SHARED_MARGIN = timedelta(seconds=2 * SWEEP_SECONDS)

logger = logging.getLogger(__name__)


class Registry:
    """One registry over one store. Every method may raise `StoreError`: nothing was changed then."""

    def __init__(
        self,
        store: Store,
        *,
        watch: Watch | None = None,
        clock: Callable[[], datetime] | None = None,
        elapsed: Callable[[], float] = elapsed,
    ) -> None:
        self._store, self._clock, self._elapsed = store, clock or store.now, elapsed
        self.watch = watch or Watch()
        self._table, self._listing = Table(), Listing()
        self._writer = Writer(self._commit)
        self._loaded = False
        self._trouble: str | None = "the table is not loaded yet"
        self._heartbeats = Heartbeats(store, elapsed)
        self._awake = elapsed()
        self._forgot = self._awake - FORGET_SECONDS
        self._margin = SHARED_MARGIN if store.shared else timedelta(0)

    @property
    def revision(self) -> int:
        """How many changes the table has seen."""
        return self._table.revision

    @property
    def trouble(self) -> str | None:
        """Why changes cannot be kept now, as far as the last attempt showed."""
        return self._trouble

    @property
    def heartbeats(self) -> int:
        """How many unchanged registrations came."""
        return self._heartbeats.heard

    @property
    def records(self) -> Sequence[Record]:
        """All instances as they stand."""
        return list(self._table)

    @property
    def guard(self) -> GuardState | None:
        """Mass silence, while it lasts."""
        return self._table.guard

    async def check(self) -> None:
        """Return if the table is loaded and could be written to now; StoreError says why not."""
        if self._trouble is not None:
            raise StoreError(self._trouble)
        await self._store.check()

    async def register(self, registration: Registration, caller: str | None = None) -> Accepted:
        """Add or renew one instance.

        A repeat with an unchanged body touches neither the store nor the revision.

        Raises:
            Superseded: A newer process holds the entry and is alive.
        """
        heard = self.hear(registration, caller)
        return await answered(lambda tell: self.submit(heard, tell)) if isinstance(heard, Said) else heard

    def hear(self, registration: Registration, caller: str | None) -> Accepted | Said:
        """Renew one instance at once, if there is no news; else what there is to `submit`. Raises as `register`."""
        self._tick()
        said = Said.of(registration, caller, self._table)
        if said.known is not None and not said.fields and decisions.is_alive(said.known):
            return self._hear(said.known, registration)
        if said.known is None or said.known.conflict is None:
            return said
        again = decisions.claimed_again(said.known, registration, self._clock())
        if again is None:
            return said
        self._table.put(again[0])  # everybody has been told: no write for it
        self._listing.heard(registration.name)
        raise again[1]

    def submit(self, said: Said, tell: Callable[[Accepted | BaseException], None]) -> None:
        """Add or change one instance. `tell` hears of it once it is durable, or hears what `register` raises."""
        self._writer.submit(partial(decisions.register, said=said), partial(self._tell, said, tell))

    def _tell(self, said: Said, tell: Callable[[Accepted | BaseException], None], decided: Any) -> None:
        known = self._table.get(said.key) if isinstance(decided, StoreError) else None
        if known is not None and not said.news(known):
            decided = self._hear(known, said.registration)  # it is back; the sweep will tell others
        tell(decided)

    async def remove(self, name: str, instance_id: str | None = None, boot_id: str | None = None) -> None:
        """Take one instance out, or all of a name; nothing happens where there is none.

        Raises:
            Superseded: `boot_id` is not the process that holds the entry.
        """
        self._tick()
        await self._writer.write(lambda draft: decisions.remove(draft, name, instance_id, boot_id))

    async def reached(self, name: str, instance_id: str, found: Reachability) -> None:
        """Keep what the probe found at an endpoint."""
        self._tick()
        known = self._table.get((name, instance_id))
        old = known and known.reachability
        if known is not None and old is not None and (old.ok, old.reason) == (found.ok, found.reason):
            self._table.put(known._replace(reachability=found))
            self._listing.heard(name)
        elif known is not None:
            await self._writer.write(lambda draft: decisions.reached(draft, (name, instance_id), found))

    @property
    def tag(self) -> str:
        """The tag that the whole list has now."""
        self._tick()
        return tag_of(self._table)

    def listing(self) -> Prepared:
        """The whole list, ready to send; moved times may lag by a second."""
        self._tick()
        return self._listing.prepared(self._table, self._clock())

    def agent(self, name: str) -> AgentRecord | None:
        """One name with all its instances."""
        self._tick()
        return agent_record(self._table, name)

    async def history(self, name: str, *, limit: int, before: int | None = None) -> Sequence[HistoryEntry]:
        """What changed about a name, the newest first; `before` is a revision to go on from."""
        self._tick()
        return await self._store.history(name, limit=limit, before=before)

    async def search(self, words: Sequence[str], *, every: bool = False, limit: int = 20) -> list[Hit]:
        """The agents where words stand, or words that begin like them; with `every`, all of them. The best first."""
        self._tick()
        return await find(self._store, self._table, words, every=every, limit=limit)

    async def sweep(self) -> None:
        """Do what time asks for: load or mend after trouble, let statuses turn, write down who was seen."""
        if not self._loaded:
            await self._load()
        self._tick()
        if self._store.shared:
            await self.catch_up()
            await self._hear_of_others()
        now = self._clock()
        if self._trouble is not None or decisions.is_due(self._table, now, now - self._margin):
            await self._writer.write(lambda draft: decisions.sweep(draft, draft.now - self._margin))
        with self._minded():
            await self._heartbeats.note()
            if self._elapsed() - self._forgot >= FORGET_SECONDS:
                await self._store.forget(self._clock() - HISTORY_LASTS)
                self._forgot = self._elapsed()

    async def catch_up(self) -> None:
        """Take the steps that other registries on the same store made."""
        self._apply(await self._store.since(self._table.revision))

    async def follow(self) -> None:
        """Catch up once another registry has written; waits for ever where there is none."""
        await self._store.woken()
        if self._loaded:
            await self.catch_up()

    async def aclose(self) -> None:
        """Finish what was asked for and write down who was seen. The store is its owner's to close."""
        self.watch.close()
        await self._writer.aclose()
        try:
            if self._loaded:
                await self._heartbeats.note(at_once=True)
        except StoreError as error:
            logger.warning("the latest heartbeats are not on disk: %s", error)

    async def _load(self) -> None:
        with self._minded():
            found = await self._store.load()
        # A registry that was away heard nobody: every lease gets one full term from here.
        now = self._clock()
        self._table = Table([after_restart(one, now) for one in found.records], found.revision, found.lineage)
        self._listing.forget()
        self.watch.begin(found.lineage, found.revision)
        self._loaded, self._trouble, self._awake = True, None, self._elapsed()

    def _tick(self) -> None:
        """Called before anything is said about time: silence while this process was held up is not the agents'."""
        if not self._loaded:
            raise StoreError(self._trouble or "the table is not loaded yet")
        awake, self._awake = self._awake, self._elapsed()
        if (late := self._awake - awake - SWEEP_SECONDS) < LATE_SECONDS:
            return
        logger.warning("held up for %.1f s: all leases are extended by it", late)
        self._table.excuse(timedelta(seconds=late), self._clock())
        self._listing.heard(*self._table.names)

    def _hear(self, known: Record, registration: Registration) -> Accepted:
        """The object that was sent is kept, not its equal: who repeats it is recognised by it."""
        now = self._clock()
        fresh = known._replace(registration=registration, last_seen=now, believed_from=now)
        self._table.put(fresh)
        self._heartbeats.hear(fresh)
        self._listing.heard(fresh.registration.name)
        return Accepted(fresh, changed=False, new=False)

    async def _commit(self, batch: Sequence[Decide]) -> Sequence[Any]:
        with self._minded():
            changes, answers = self._decided(batch)
            if not (changes and await self._store.add(changes, self._table.lineage)):
                # The storage holds something else than this was decided from. Or nothing is written: could it be?
                async with self._store.writing() as writing:
                    await self._fall_in(writing)
                    changes, answers = self._decided(batch)
                    if changes:
                        await writing.append(changes)
        self._trouble = None
        self._apply(changes)
        return answers

    def _decided(self, batch: Sequence[Decide]) -> tuple[Sequence[Change], Sequence[Any]]:
        draft = Draft(self._table, self._clock())
        return draft.changes, [decide(draft) for decide in batch]

    @contextmanager
    def _minded(self) -> Generator[None]:
        """What goes wrong with the storage is remembered: the next sweep mends it, and `check` says why meanwhile."""
        try:
            yield
        except StoreError as error:
            self._trouble = str(error)
            raise

    async def _fall_in(self, writing: Writing) -> None:
        """Before the next step, table and store are at the same one."""
        if writing.lineage != self._table.lineage or writing.revision < self._table.revision:
            if not self._table.revision:  # nothing of ours is in it, and somebody filled it meanwhile
                self._loaded = False
                raise StoreError("the storage holds another table now: it is loaded again")
            logger.warning("the storage lost what it held, or holds another table: it is filled from memory")
            await writing.refill(self._table, self._table.revision, self._table.lineage)
        elif writing.revision > self._table.revision:
            self._apply(await writing.since(self._table.revision))

    def _apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if not self._table.apply(change):
                continue
            name = change.key[0]
            if change.kind == "guard":
                logger.warning("mass silence: %s", change.reason)
                self._listing.heard(*self._table.names)  # what comes next for the silent ones has moved
            else:
                self._listing.changed(name)
            if change.kind == "removed":
                self._heartbeats.forget(change.key)
                logger.info("removed %s/%s: %s", *change.key, change.reason)
            until = None if self._table.guard is None else self._table.guard.until
            self.watch.publish(change, self._table.instances(name), until)

    async def _hear_of_others(self) -> None:
        for seen in await self._heartbeats.of_others(self._clock()):
            if self._table.hear((seen.name, seen.instance_id), seen.last_seen):
                self._listing.heard(seen.name)
