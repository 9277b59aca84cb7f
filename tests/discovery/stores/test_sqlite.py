"""What only a file can do: be read by a viewer, locked, deleted, spoilt, or written by another version."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from discovery.registry.store import Store, StoreError
from discovery.stores import open_store
from tests.discovery.conftest import registration
from tests.discovery.stores.test_stores import FULL, change, record, write


@pytest.fixture
async def file_store(tmp_path: Path) -> AsyncGenerator[tuple[Store, Path]]:
    path = tmp_path / "registry.db"
    opened = open_store(f"sqlite:///{path}")
    await opened.load()
    yield opened, path
    await opened.aclose()


FileStore = tuple[Store, Path]


async def test_the_file_reads_like_the_list_in_any_viewer(file_store: FileStore) -> None:
    store, path = file_store
    await write(store, change(record()))
    with closing(sqlite3.connect(path)) as viewer:
        found = viewer.execute("SELECT name, endpoint, status, status_reason, tags, last_seen FROM agents").fetchall()
        said = viewer.execute("SELECT at, kind, name, status, reason FROM history").fetchall()
    seen = "2026-03-03T12:00:00.123456+00:00"
    assert found == [(FULL.name, FULL.endpoint, "degraded", "because 'so'", '["x","y"]', seen)]
    assert said == [("2026-03-01T12:00:00.123456+00:00", "registered", FULL.name, "degraded", "because")]


async def test_a_locked_file_is_an_error_within_seconds_and_usable_afterwards(file_store: FileStore) -> None:
    store, path = file_store
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        async with asyncio.timeout(5):
            with pytest.raises(StoreError, match="locked"):
                await write(store, change(record()))
        other.execute("ROLLBACK")
    await write(store, change(record()))


async def test_waiting_behind_others_for_a_locked_file_is_bounded_as_well(file_store: FileStore) -> None:
    store, path = file_store
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        async with asyncio.timeout(5):
            results = await asyncio.gather(*(write(store, change(record())) for _ in range(8)), return_exceptions=True)
        other.execute("ROLLBACK")
    assert [type(result) for result in results] == [StoreError] * 8


async def test_a_file_that_vanished_is_an_error_and_not_a_write_into_nowhere(file_store: FileStore) -> None:
    store, path = file_store
    await write(store, change(record()))
    path.unlink()
    with pytest.raises(StoreError, match="removed or replaced"):
        await write(store, change(record(revision=2), "updated"))
    async with store.transaction() as transaction:
        assert transaction.revision == 0
        await transaction.refill([record()], 1, "mine")
    with closing(sqlite3.connect(path)) as viewer:
        assert viewer.execute("SELECT COUNT(*) FROM agents").fetchone() == (1,)


@pytest.mark.parametrize("spoil", [lambda path: path.write_text("not a database " * 100), lambda path: path.mkdir()])
async def test_a_file_that_is_no_database_is_an_error_that_names_it(
    tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    path = tmp_path / "registry.db"
    spoil(path)
    store = open_store(f"sqlite:///{path}")
    with pytest.raises(StoreError, match=r"registry\.db"):
        await store.load()


async def test_a_file_of_a_newer_version_is_refused_and_left_as_it_is(file_store: FileStore) -> None:
    store, path = file_store
    await write(store, change(record()))
    await store.aclose()
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version = 5")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"newer version of discovery \(format 5\): upgrade this one"):
        await store.load()
    assert path.read_bytes() == before


# What the first release wrote, as it wrote it.
FIRST_FORMAT = """
CREATE TABLE agents (
    name TEXT NOT NULL, instance_id TEXT NOT NULL, endpoint TEXT NOT NULL, status TEXT NOT NULL,
    agent_type TEXT NOT NULL, version TEXT NOT NULL, description TEXT, owner TEXT, last_seen TEXT NOT NULL,
    since TEXT NOT NULL, registered_at TEXT NOT NULL, reported_status TEXT NOT NULL, ttl_seconds REAL,
    public_endpoint TEXT, observed_address TEXT, boot_id TEXT, tools TEXT NOT NULL, tags TEXT NOT NULL,
    checks TEXT NOT NULL, skills TEXT NOT NULL, protocols TEXT NOT NULL, links TEXT, model TEXT,
    metadata TEXT NOT NULL, config_fingerprint TEXT, revision INTEGER NOT NULL, PRIMARY KEY (name, instance_id)
);
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT INTO counters VALUES ('revision', 41);
INSERT INTO agents VALUES (
    'orders', 'default', 'http://h:1', 'stale', 'tool', '1', 'Answers about parcels', NULL,
    '2026-03-01T12:00:00+00:00', '2026-03-01T12:00:30+00:00', '2026-03-01T11:00:00+00:00', 'up', 30.0,
    NULL, NULL, 'b', '["find"]', '[]', '[]', '[]', '[]', NULL, NULL, '{}', NULL, 41
);
PRAGMA user_version = 1;
"""


async def test_a_file_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    with closing(sqlite3.connect(path)) as earlier:
        earlier.executescript(FIRST_FORMAT)
    store = open_store(f"sqlite:///{path}")
    found = await store.load()
    (one,) = found.records
    assert (found.revision, one.registration.name, one.status, one.revision) == (41, "orders", "stale", 41)
    assert one.reason == "no heartbeat within its lease"
    assert [hit.name for hit in await store.search(["parcel"], every=True, limit=9)] == ["orders"]
    await write(store, change(record(revision=42)))
    await store.aclose()


# The history in the second and third format, where the rest is as it is now.
LATER_FORMATS = {
    2: "PRAGMA user_version = 2;",
    3: """
DROP INDEX history_by_name;
CREATE TABLE history_names (
    name TEXT NOT NULL, revision INTEGER NOT NULL, PRIMARY KEY (name, revision)
) WITHOUT ROWID;
INSERT INTO counters VALUES ('named', 0);
PRAGMA user_version = 3;
""",
}


@pytest.mark.parametrize("version", LATER_FORMATS)
async def test_a_file_of_a_later_version_keeps_its_history(file_store: FileStore, version: int) -> None:
    store, path = file_store
    await write(store, change(record()), change(record(registration(name="other"), revision=2)))
    await store.aclose()
    with closing(sqlite3.connect(path)) as earlier:
        earlier.executescript(LATER_FORMATS[version])
    assert [entry.revision for entry in await store.history("other", limit=9)] == [2]
    await write(store, change(record(revision=3), "updated"))
    assert [entry.revision for entry in await store.history(FULL.name, limit=9)] == [3, 1]
    with closing(sqlite3.connect(path)) as viewer:
        (plan,) = viewer.execute(
            "EXPLAIN QUERY PLAN SELECT * FROM history WHERE name = 'x' AND revision < 9"
        ).fetchall()
        assert "history_by_name" in plan[3]


async def test_a_row_that_someone_broke_is_left_out_and_the_rest_is_loaded(
    file_store: FileStore, caplog: pytest.LogCaptureFixture
) -> None:
    store, path = file_store
    await write(store, change(record()), change(record(registration(name="whole"), revision=2)))
    await write(store, change(record(registration(name="late"), revision=3)))
    with closing(sqlite3.connect(path, isolation_level=None)) as editor:
        editor.execute("UPDATE agents SET endpoint = 'nonsense' WHERE name = ?", (FULL.name,))
        editor.execute("UPDATE agents SET last_seen = 'yesterday' WHERE name = 'late'")
    assert [one.registration.name for one in (await store.load()).records] == ["whole"]
    assert caplog.text.count("left out") == 2


async def test_a_file_that_somebody_vacuums_is_searched_as_before(file_store: FileStore) -> None:
    store, path = file_store
    for place, name in enumerate(["first", "second", "third"], 1):
        await write(store, change(record(registration(name=name), revision=place)))
    with closing(sqlite3.connect(path, isolation_level=None)) as editor:
        editor.execute("DELETE FROM agents WHERE name = 'first'")
        editor.execute("VACUUM")
    said = registration(name="third", description="a lighthouse")
    await write(store, change(record(said, revision=4), "updated", fields=("description",)))
    assert [hit.name for hit in await store.search(["lighthouse"], every=True, limit=9)] == ["third"]
    assert [hit.name for hit in await store.search(["second"], every=True, limit=9)] == ["second"]
