"""The registry: register, remove, find, sweep. Owns the clock; reads come from memory, changes are stored first.

What was acknowledged is in the store. The table in memory is the result of the store's changes, in their order: our
own once they are durable, those of other registries on the same store when they are read. A heartbeat that changes
nothing moves times in memory only, so agents keep their leases while the storage fails.
"""

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TypeVar, cast

from discovery.contract import AgentRecord, Reachability, Registration
from discovery.registry import rules
from discovery.registry.history import GuardState, HistoryEntry
from discovery.registry.leases import Record, after_restart, elapsed
from discovery.registry.listing import Listing, Prepared, agent_record, hits_of, tag_of
from discovery.registry.rules import Accepted
from discovery.registry.search import Hit, ranked
from discovery.registry.store import LastSeen, Store, StoreError, Transaction
from discovery.registry.table import Change, Draft, Key, Table
from discovery.registry.watch import Watch
from infrastructure.group_commit import GroupCommit

SWEEP_SECONDS = 1.0
LATE_SECONDS = 2.0  # a sweep this late means that the process was held up, and with it the agents' heartbeats
SAVE_SECONDS = 5.0  # between two writes of the latest heartbeats
HISTORY_KEPT = timedelta(days=30)
PRUNE_SECONDS = 3600.0
# Another registry's heartbeats are read within two sweeps: no lease ends before.
SHARED_MARGIN = timedelta(seconds=2 * SWEEP_SECONDS)

Answer = TypeVar("Answer")
Rule = Callable[[Draft], object]

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
        self.heartbeats = 0  # how many registrations changed nothing
        self._table, self._listing = Table(), Listing()
        self._commits = GroupCommit[Rule, object](self._commit, outage=StoreError)
        self._loaded = False
        self._trouble: str | None = "the table is not loaded yet"
        self._unsaved: dict[Key, datetime] = {}  # the latest heartbeats
        self._saved_at = self._ticked_at = elapsed()
        self._pruned_at = self._ticked_at - PRUNE_SECONDS
        self._margin = SHARED_MARGIN if store.shared else timedelta(0)

    @property
    def revision(self) -> int:
        """The number of the table's latest change."""
        return self._table.revision

    @property
    def trouble(self) -> str | None:
        """Why changes cannot be stored now, as far as the last attempt showed."""
        return self._trouble

    @property
    def records(self) -> Sequence[Record]:
        """All instances."""
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
        """Add or renew one instance. A repeat that changes nothing needs neither the store nor a revision.

        Raises:
            Superseded: A newer process holds the entry and is alive.
        """
        self._tick()
        outcome = self._heartbeat(registration)
        if outcome is None:
            try:
                outcome = await self._write(lambda draft: rules.register(draft, registration, caller))
            except StoreError:
                outcome = self._heartbeat(registration, is_store_down=True)
                if outcome is None:
                    raise
        if isinstance(outcome, rules.Superseded):
            raise outcome
        return outcome

    async def remove(self, name: str, instance_id: str | None = None, boot_id: str | None = None) -> None:
        """Remove one instance, or all of a name; nothing happens where there is none.

        Raises:
            Superseded: `boot_id` is not the process that holds the entry.
        """
        self._tick()
        refusal = await self._write(lambda draft: rules.remove(draft, name, instance_id, boot_id))
        if refusal is not None:
            raise refusal

    async def reached(self, name: str, instance_id: str, found: Reachability) -> None:
        """Record what the probe found at an endpoint."""
        self._tick()
        known = self._table.get((name, instance_id))
        old = known and known.reachability
        if known is not None and old is not None and (old.ok, old.reason) == (found.ok, found.reason):
            self._table.put(known._replace(reachability=found))
            self._listing.moved(name)
        elif known is not None:
            await self._write(lambda draft: rules.reached(draft, (name, instance_id), found))

    @property
    def etag(self) -> str:
        """The entity tag of the whole list, without encoding it."""
        self._tick()
        return tag_of(self._table)

    def listing(self) -> Prepared:
        """The whole list, ready to send; the times that heartbeats move may lag by a second."""
        self._tick()
        return self._listing.prepared(self._table, self._clock())

    def agent(self, name: str) -> AgentRecord | None:
        """One name with all its instances."""
        self._tick()
        return agent_record(self._table, name)

    async def history(self, name: str, *, limit: int, before: int | None = None) -> Sequence[HistoryEntry]:
        """The changes of a name, the newest first; `before` is a revision to go on from."""
        self._tick()
        return await self._store.history(name, limit=limit, before=before)

    async def search(self, words: Sequence[str], *, every: bool = False, limit: int = 20) -> list[Hit]:
        """The agents with words that begin like these; with `every`, with all of them. The best match first."""
        self._tick()
        if not words:
            return []
        try:
            found = await self._store.search(words, every=every, limit=limit)
        except StoreError:  # the table in memory can be searched all the same, if not as well
            found = ranked((record.registration for record in self._table), words, every=every, limit=limit)
        return hits_of(self._table, found, words)

    async def sweep(self) -> None:
        """Load, or recover after a failure; apply due status changes; save the latest heartbeats."""
        if not self._loaded:
            await self._load()
        self._tick()
        if self._store.shared:
            await self.synchronise()
            await self._read_heartbeats()
        if self._trouble is not None or self._table.is_due(self._clock()):
            changed = await self._write(lambda draft: rules.sweep(draft, draft.now - self._margin))
            self._table.schedule(at_once=changed)
        with self._tracking_errors():
            if self._store.shared or self._elapsed() - self._saved_at >= SAVE_SECONDS:
                await self._save_heartbeats()
            if self._elapsed() - self._pruned_at >= PRUNE_SECONDS:
                await self._store.prune_history(self._clock() - HISTORY_KEPT)
                self._pruned_at = self._elapsed()

    async def synchronise(self) -> None:
        """Apply the changes that other registries on the same store made."""
        self._apply(await self._store.since(self._table.revision))

    async def follow(self) -> None:
        """Synchronise once another registry has written; waits for ever where there is none."""
        await self._store.wait_for_changes()
        if self._loaded:
            await self.synchronise()

    async def aclose(self) -> None:
        """Finish pending writes and save the latest heartbeats. The store is its owner's to close."""
        self.watch.close()
        await self._commits.aclose()
        try:
            if self._loaded:
                await self._save_heartbeats()
        except StoreError as error:
            logger.warning("the latest heartbeats could not be saved: %s", error)

    async def _load(self) -> None:
        with self._tracking_errors():
            snapshot = await self._store.load()
        now = self._clock()
        records = [after_restart(record, now) for record in snapshot.records]
        self._table = Table(records, snapshot.revision, snapshot.lineage)
        self._listing.reset()
        self.watch.begin(snapshot.lineage, snapshot.revision)
        self._loaded, self._trouble, self._ticked_at = True, None, self._elapsed()

    def _tick(self) -> None:
        """Called before times are used: silence while this process was held up is not the agents'."""
        if not self._loaded:
            raise StoreError(self._trouble or "the table is not loaded yet")
        before, self._ticked_at = self._ticked_at, self._elapsed()
        late = self._ticked_at - before - SWEEP_SECONDS
        if late < LATE_SECONDS:
            return
        logger.warning("held up for %.1f s: all leases are extended by it", late)
        self._table.extend_leases(timedelta(seconds=late), self._clock())
        self._listing.moved(*self._table.names)

    def _heartbeat(
        self, registration: Registration, *, is_store_down: bool = False
    ) -> Accepted | rules.Superseded | None:
        outcome = rules.heartbeat(self._table, registration, self._clock(), is_store_down=is_store_down)
        if isinstance(outcome, Accepted):
            self.heartbeats += 1
            self._unsaved[outcome.record.key] = outcome.record.last_seen
        if outcome is not None:
            self._listing.moved(registration.name)
        return outcome

    async def _write(self, rule: Callable[[Draft], Answer]) -> Answer:
        return cast("Answer", await self._commits.run(rule))

    async def _commit(self, batch: Sequence[Rule]) -> Sequence[object]:
        """Apply rules to a draft, append its changes to the store, then apply them to the table."""
        with self._tracking_errors():
            async with self._store.transaction() as transaction:
                await self._match(transaction)
                draft = Draft(self._table, self._clock())
                answers = [rule(draft) for rule in batch]
                if draft.changes:
                    await transaction.append(draft.changes)
        self._trouble = None
        self._apply(draft.changes)
        return answers

    @contextmanager
    def _tracking_errors(self) -> Generator[None]:
        """Remember a storage failure: the next sweep tries to recover, and `check` reports it meanwhile."""
        try:
            yield
        except StoreError as error:
            self._trouble = str(error)
            raise

    async def _match(self, transaction: Transaction) -> None:
        """Bring table and store to the same revision before the next change."""
        if transaction.lineage != self._table.lineage or transaction.revision < self._table.revision:
            if not self._table.revision:  # the table is empty, and someone filled the store meanwhile
                self._loaded = False
                raise StoreError("the storage holds another table now: it is loaded again")
            logger.warning("the storage lost its table, or holds another one: it is filled from memory")
            await transaction.refill(self._table, self._table.revision, self._table.lineage)
        elif transaction.revision > self._table.revision:
            self._apply(await transaction.since(self._table.revision))

    def _apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if not self._table.apply(change):
                continue
            name = change.key[0]
            if change.kind == "guard":
                logger.warning("mass silence: %s", change.reason)
                self._listing.moved(*self._table.names)  # the next transitions of the silent ones moved
            else:
                self._listing.changed(name)
            if change.kind == "removed":
                self._unsaved.pop(change.key, None)
                logger.info("removed %s/%s: %s", *change.key, change.reason)
            until = None if self._table.guard is None else self._table.guard.until
            self.watch.publish(change, self._table.instances(name), until)

    async def _save_heartbeats(self) -> None:
        unsaved, self._unsaved = self._unsaved, {}
        try:
            if unsaved:
                await self._store.save_last_seen(LastSeen(*key, last_seen) for key, last_seen in unsaved.items())
        except BaseException:
            self._unsaved = unsaved | self._unsaved
            raise
        self._saved_at = self._elapsed()

    async def _read_heartbeats(self) -> None:
        """Apply the heartbeats that other registries on this store saved."""
        recently = self._clock() - timedelta(seconds=3 * SAVE_SECONDS)
        for name, instance_id, last_seen in await self._store.seen_after(recently):
            if self._table.heartbeat((name, instance_id), last_seen):
                self._listing.moved(name)
