"""One suite for every store, and what only a file can do."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from discovery.leases import Record
from discovery.stores import open_store
from discovery.stores.base import Sighting, Store, StoreError
from tests.discovery.conftest import registration

T0 = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
FULL = registration(
    name="a'b\"ü",
    tools=["a", {"name": "b", "description": "d", "input_schema": {"type": "object", "x": [1, None, 1.5]}}],
    public_endpoint="https://a.example",
    instance_id="pod-1",
    boot_id="b1",
    ttl_seconds=90,
    status="degraded",
    checks=[{"name": "db", "ok": False, "reason": "gone"}],
    description="does\nthings 🎉",
    owner="team",
    tags=["x", "y"],
    skills=["s", {"name": "t", "tags": ["u"]}],
    protocols=["chat"],
    links={"docs": "https://docs.example"},
    model={"name": "meta/llama"},
    config_fingerprint="f00",
    metadata={"n": {"m": [1, 2.5, True, None]}},
)


def record(registered=FULL, *, revision: int = 0) -> Record:
    return Record(registered, revision, T0, T0 + timedelta(1), T0 + timedelta(2), T0 + timedelta(2), "10.0.0.7")


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Store]:
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'registry.db'}"
    opened = open_store(url)
    yield opened
    await opened.aclose()


async def test_a_new_store_is_empty_at_revision_zero(store: Store) -> None:
    table = await store.load()
    assert (list(table.records), table.revision) == ([], 0)


async def test_what_was_put_is_loaded_in_full(store: Store) -> None:
    revision = await store.put(record())
    assert list((await store.load()).records) == [record(revision=revision)]


async def test_putting_again_replaces_and_counts_up(store: Store) -> None:
    first = await store.put(record())
    second = await store.put(replace(record(), registration=registration(name=FULL.name, instance_id="pod-1")))
    table = await store.load()
    assert second == first + 1 == table.revision
    assert [one.registration.version for one in table.records] == ["1.0.0"]


async def test_instances_of_one_name_are_kept_apart(store: Store) -> None:
    await store.put(record())
    await store.put(record(FULL.model_copy(update={"instance_id": "pod-2"})))
    await store.remove(FULL.name, "pod-1")
    assert [one.registration.instance_id for one in (await store.load()).records] == ["pod-2"]


async def test_removing_counts_up_only_where_something_was(store: Store) -> None:
    await store.put(record())
    assert await store.remove(FULL.name, "pod-1") == 2
    assert await store.remove(FULL.name, "pod-1") == 2
    assert await store.remove("nobody", "default") == 2


async def test_a_sighting_moves_last_seen_and_nothing_else(store: Store) -> None:
    revision = await store.put(record())
    later = T0 + timedelta(hours=5)
    await store.note(
        [Sighting(FULL.name, "pod-1", later, "stale", later), Sighting("nobody", "default", later, "up", later)]
    )
    expected = replace(record(revision=revision), last_seen=later, believed_from=later, changed_at=later)
    assert await store.load() == replace(await store.load(), records=[expected], revision=1)


async def test_replacing_leaves_exactly_what_was_given_and_never_counts_down(store: Store) -> None:
    await store.put(record(registration(name="old")))
    await store.replace([record(revision=7)], 7)
    table = await store.load()
    assert (list(table.records), table.revision) == ([record(revision=7)], 7)
    await store.replace([], 1)
    assert (await store.load()).revision == 7


async def test_many_writers_at_once_get_a_revision_each(store: Store) -> None:
    revisions = await asyncio.gather(*(store.put(record(registration(name=f"n{i}"))) for i in range(20)))
    assert sorted(revisions) == list(range(1, 21))
    assert len((await store.load()).records) == 20


async def test_a_closed_store_opens_again_when_it_is_used(store: Store) -> None:
    await store.put(record())
    await store.aclose()
    await store.check()
    assert len((await store.load()).records) == 1


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
    await store.put(record())
    await store.note([Sighting(FULL.name, "pod-1", T0, "stale", T0)])
    with closing(sqlite3.connect(path)) as viewer:
        found = viewer.execute("SELECT name, endpoint, status, reported_status, tags, last_seen FROM agents").fetchall()
    assert found == [(FULL.name, FULL.endpoint, "stale", "degraded", '["x", "y"]', "2026-03-01T12:00:00.123456+00:00")]


async def test_a_locked_file_is_an_error_within_seconds_and_usable_afterwards(file_store: FileStore) -> None:
    store, path = file_store
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        async with asyncio.timeout(5):
            with pytest.raises(StoreError, match="locked"):
                await store.put(record())
        other.execute("ROLLBACK")
    assert await store.put(record()) == 1


async def test_waiting_behind_others_for_a_locked_file_is_bounded_as_well(file_store: FileStore) -> None:
    store, path = file_store
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        async with asyncio.timeout(5):
            results = await asyncio.gather(*(store.put(record()) for _ in range(8)), return_exceptions=True)
        other.execute("ROLLBACK")
    assert [type(result) for result in results] == [StoreError] * 8


async def test_a_file_that_vanished_is_an_error_and_not_a_write_into_nowhere(file_store: FileStore) -> None:
    store, path = file_store
    await store.put(record())
    path.unlink()
    with pytest.raises(StoreError, match="removed or replaced"):
        await store.put(record())
    await store.replace([record(revision=1)], 1)
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
    await store.put(record())
    await store.aclose()
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version = 2")
    with pytest.raises(StoreError, match="newer version"):
        await store.load()
    with closing(sqlite3.connect(path)) as viewer:
        assert viewer.execute("SELECT COUNT(*) FROM agents").fetchone() == (1,)


async def test_a_row_that_someone_broke_is_left_out_and_the_rest_is_loaded(
    file_store: FileStore, caplog: pytest.LogCaptureFixture
) -> None:
    store, path = file_store
    await store.put(record())
    await store.put(record(registration(name="whole")))
    with closing(sqlite3.connect(path, isolation_level=None)) as editor:
        editor.execute("UPDATE agents SET endpoint = 'nonsense' WHERE name != 'whole'")
    assert [one.registration.name for one in (await store.load()).records] == ["whole"]
    assert "left out" in caplog.text


async def test_a_cancelled_write_leaves_the_store_usable(file_store: FileStore) -> None:
    store, _ = file_store
    for _ in range(20):
        write = asyncio.create_task(store.put(record()))
        await asyncio.sleep(0)
        write.cancel()
        await asyncio.wait({write})
    assert await store.put(record()) >= 1
    assert len((await store.load()).records) == 1


@pytest.mark.parametrize("url", ["postgresql://u:hush@h/d", "mysql://x", "registry.db", "sqlite:///", "sqlite://x"])
def test_a_url_of_no_store_is_refused_without_repeating_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="use sqlite:///") as caught:
        open_store(url)
    assert "hush" not in str(caught.value)
