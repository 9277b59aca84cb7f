"""The table in one SQLite file: plain columns that any viewer shows, one writer, nothing acknowledged is lost."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import discovery.stores.sqlite_rows as rows
from discovery.contract import utc_now
from discovery.registry.history import HistoryEntry
from discovery.registry.leases import Record
from discovery.registry.search import WEIGHTS, Found
from discovery.registry.store import Line, Sighting, Snapshot, StoreError
from discovery.registry.table import Change
from discovery.stores.rows import entry_of
from discovery.stores.sqlite_file import Row, SqliteFile
from discovery.stores.sqlite_process import Statement
from discovery.stores.sqlite_rows import BEGIN, COMMIT, STATE
from discovery.stores.sqlite_schema import prepare

LONGEST_CALL_SECONDS = 3.0  # waiting for our own lock included: a client gives up after five


class SqliteStore:
    """Opens its file at the first call, and again after every failure, so that it recovers when the file does."""

    shared = False

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = SqliteFile(path)
        self._is_ready = False
        self._lock = asyncio.Lock()

    def now(self) -> datetime:
        """See `Store`."""
        return utc_now()

    async def load(self) -> Snapshot:
        """See `Store`. A row that no longer makes sense (someone edited the file) is logged and left out."""
        (state,), agents = await self._alone(STATE, ("SELECT * FROM agents", [()]))
        records = [one for row in agents if (one := rows.record(row))]
        return Snapshot(records, state["value"], state["id"])

    async def add(self, changes: Sequence[Change], lineage: str) -> bool:
        """See `Store`."""
        step = rows.advanced(changes[0].revision - 1, changes[-1].revision, lineage)
        async with self._turn():
            done = await self._file.execute([BEGIN, step, *rows.changed(changes), COMMIT], needed=1)
        return bool(done)

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator["SqliteWriting"]:
        """See `Store`. What was asked for is done when it is left, in one go with its COMMIT."""
        async with self._turn():
            _, (state,) = await self._file.execute([BEGIN, STATE])
            begun = SqliteWriting(self._file, state["value"], state["id"])
            yield begun
            await self._file.execute([*(begun.asked or [rows.TOUCH]), COMMIT])

    async def since(self, revision: int) -> Sequence[Change]:
        """See `Store`."""
        return rows.changes(*await self._alone(*rows.since(revision)))

    async def note(self, sightings: Iterable[Sighting]) -> None:
        """See `Store`."""
        seen = [(one.last_seen.isoformat(), one.name, one.instance_id, one.last_seen.isoformat()) for one in sightings]
        await self._alone(
            ("UPDATE agents SET last_seen = ? WHERE name = ? AND instance_id = ? AND last_seen < ?", seen)
        )

    async def sightings(self, after: datetime) -> Sequence[Sighting]:
        """See `Store`."""
        query = "SELECT name, instance_id, last_seen FROM agents WHERE last_seen > ?"
        found = await self._fetch(query, after.isoformat())
        return [Sighting(row["name"], row["instance_id"], datetime.fromisoformat(row["last_seen"])) for row in found]

    async def history(self, name: str, *, limit: int, before: int | None = None) -> Sequence[HistoryEntry]:
        """See `Store`."""
        *_, found = await self._alone(*rows.NAME, rows.history(name, before or 2**62, limit))
        return [entry_of(rows.timed(row)) for row in found]

    async def forget(self, before: datetime) -> None:
        """See `Store`."""
        await self._alone(*rows.forgotten(before))

    async def search(self, words: Sequence[str], *, every: bool, limit: int) -> Sequence[Found]:
        """See `Store`."""
        match = (" AND " if every else " OR ").join(f'"{word}"*' for word in words)
        weights = ", ".join(str(weight) for weight in WEIGHTS.values())
        # Ranked first, and kept: bm25 is not known any more once rows are grouped.
        query = (
            f"WITH hits AS MATERIALIZED (SELECT agent, bm25(agents_search, {weights}) AS score "
            "FROM agents_search WHERE agents_search MATCH ?) "
            "SELECT agent, MIN(score) AS best FROM hits GROUP BY agent ORDER BY best, agent LIMIT ?"
        )
        return [Found(row["agent"], -row["best"]) for row in await self._fetch(query, match, limit)]

    async def export(self) -> Sequence[Line]:
        """See `Store`."""
        found = await self._fetch("SELECT * FROM history WHERE kind != 'guard' ORDER BY revision")
        return [Line(row["name"], entry_of(rows.timed(row))) for row in found]

    async def fill(self, snapshot: Snapshot, history: Sequence[Line]) -> None:
        """See `Store`."""
        async with self.writing() as begun:
            if begun.revision:
                raise StoreError(f"{self._path} is not empty: it is at revision {begun.revision}")
            begun.asked.append(rows.logged(history))
            await begun.refill(snapshot.records, snapshot.revision, snapshot.lineage)

    async def woken(self) -> None:
        """See `Store`."""
        await asyncio.get_running_loop().create_future()

    async def check(self) -> None:
        """See `Store`."""
        async with self.writing():
            pass

    async def aclose(self) -> None:
        """See `Store`."""
        self._is_ready = False
        await self._file.aclose()

    async def _fetch(self, query: str, *values: Any) -> list[Row]:
        (found,) = await self._alone((query, [values]))
        return found

    async def _alone(self, *statements: Statement) -> list[list[Row]]:
        """Execute as a transaction of its own, and say what each brought."""
        async with self._turn():
            _, *found, _ = await self._file.execute([BEGIN, *statements, COMMIT])
        return found

    @asynccontextmanager
    async def _turn(self) -> AsyncGenerator[None]:
        """Let one use the file at a time, for a while."""
        try:
            async with asyncio.timeout(LONGEST_CALL_SECONDS), self._lock:
                try:
                    if not self._is_ready:
                        await prepare(self._file)
                        self._is_ready = True
                    yield
                except BaseException:  # cancelled as well as failed: a fresh connection cannot be in a half state
                    self._is_ready = False
                    await self._file.let_go()
                    raise
        except TimeoutError as error:
            raise StoreError(f"{self._path}: no answer within {LONGEST_CALL_SECONDS:g} s, it is busy") from error


class SqliteWriting:
    """See `Writing`. Reads at once, and remembers what is asked for."""

    def __init__(self, file: SqliteFile, revision: int, lineage: str) -> None:
        self._file = file
        self.revision = revision
        self.lineage = lineage
        self.asked: list[Statement] = []

    async def since(self, revision: int) -> Sequence[Change]:
        """See `Writing`."""
        return rows.changes(*await self._file.execute(rows.since(revision)))

    async def append(self, changes: Sequence[Change]) -> None:
        """See `Writing`."""
        self.asked += [*rows.changed(changes), rows.revised(changes[-1].revision)]

    async def refill(self, records: Iterable[Record], revision: int, lineage: str) -> None:
        """See `Writing`."""
        other: Statement = ("UPDATE lineage SET id = ?", [(lineage,)])
        self.asked += [*rows.filled(list(records)), rows.revised(revision), other]
