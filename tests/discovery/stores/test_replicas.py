"""Three registries over one Postgres: whichever is asked, it is one table."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import asyncpg
import httpx
import pytest

from discovery.registry.registry import SHARED_MARGIN, Registry
from discovery.stores import open_store
from tests.discovery.api.test_events import following
from tests.discovery.conftest import MINIMAL, Clock, RunRegistry, eventually, registration


@pytest.fixture
async def three(registry: RunRegistry, postgres_url: str) -> AsyncGenerator[list[httpx.AsyncClient]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(registry(database_url=postgres_url)) for _ in range(3)]


async def names(http: httpx.AsyncClient) -> list[str]:
    return [agent["name"] for agent in (await http.get("/agents")).json()]


async def test_a_watcher_on_one_sees_what_is_written_on_another(three: list[httpx.AsyncClient]) -> None:
    one, two, other = three
    async with following(other) as events:
        await anext(events)
        await one.post("/register", json=MINIMAL | {"name": "a"})
        await two.post("/register", json=MINIMAL | {"name": "b"})
        await one.delete("/agents/a")
        seen = [await anext(events) for _ in range(3)]
    assert [(kind, data["name"], data["revision"]) for _, kind, data in seen] == [
        ("registered", "a", 1),
        ("registered", "b", 2),
        ("removed", "a", 3),
    ]
    for http in three:

        async def is_level(http: httpx.AsyncClient = http) -> bool:
            return await names(http) == ["b"]

        await eventually(is_level)
        assert len((await http.get("/agents/a/history")).json()) == 2


async def test_an_event_of_one_replica_is_a_place_to_go_on_from_at_another(three: list[httpx.AsyncClient]) -> None:
    one, two, _ = three
    async with following(two) as events:
        await anext(events)
        await one.post("/register", json=MINIMAL | {"name": "a"})
        place, _, _ = await anext(events)
    await two.post("/register", json=MINIMAL | {"name": "b"})
    async with following(one, place) as events:
        assert (await anext(events))[2]["name"] == "b"


async def test_many_writers_on_all_of_them_lose_nothing_and_get_a_revision_each(three: list[httpx.AsyncClient]) -> None:
    jobs = [
        http.post("/register", json=MINIMAL | {"name": f"agent-{place}-{number:02}"})
        for number in range(20)
        for place, http in enumerate(three)
    ]
    answers = await asyncio.gather(*jobs)
    assert {answer.status_code for answer in answers} == {201}
    assert sorted(answer.json()["revision"] for answer in answers) == list(range(1, 61))

    async def are_level() -> bool:
        return all([len(await names(http)) == 60 for http in three])

    await eventually(are_level)
    lists = [(await http.get("/agents")).json() for http in three]
    assert all([agent["endpoint"] for agent in one] == [agent["endpoint"] for agent in lists[0]] for one in lists)
    tags = {(await http.get("/agents")).headers["etag"] for http in three}
    assert len(tags) == 1


async def test_a_process_that_was_taken_over_at_one_is_refused_at_another(three: list[httpx.AsyncClient]) -> None:
    old, new = (MINIMAL | {"ttl_seconds": 30, "boot_id": boot_id} for boot_id in ("old", "new"))
    await three[0].post("/register", json=old)
    await three[1].post("/register", json=new)
    refused = await three[2].post("/register", json=old | {"version": "2"})
    assert (refused.status_code, refused.json()["code"]) == (409, "superseded")


async def test_what_ends_while_the_database_cuts_every_connection_goes_on_afterwards(
    three: list[httpx.AsyncClient], postgres_url: str
) -> None:
    await three[0].post("/register", json=MINIMAL | {"name": "a"})
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    finally:
        await connection.close()

    async def is_kept() -> bool:
        answer = await three[1].post("/register", json=MINIMAL | {"name": "b"})
        assert answer.status_code in {200, 201, 503}
        return answer.status_code != 503

    await eventually(is_kept, 15)

    async def are_level() -> bool:
        return all([await names(http) == ["a", "b"] for http in three])

    await eventually(are_level, 15)


async def test_a_heartbeat_at_one_keeps_the_lease_at_all_and_silence_ends_it_once(postgres_url: str) -> None:
    clock = Clock()
    stores = [open_store(postgres_url) for _ in range(3)]
    replicas = [Registry(store, clock=clock, elapsed=clock.elapsed) for store in stores]

    async def pass_time(seconds: int, *, heard_by: Registry | None) -> None:
        for second in range(seconds):
            clock.turn(1)
            if heard_by is not None and second % 3 == 0:
                await heard_by.register(registration(ttl_seconds=10))
            for replica in replicas:
                await replica.sweep()

    def statuses() -> list[str]:
        return [record.status for replica in replicas for record in replica.records]

    for replica in replicas:
        await replica.sweep()
    await pass_time(30, heard_by=replicas[0])
    await pass_time(30, heard_by=replicas[2])
    assert statuses() == ["up"] * 3
    assert replicas[0].revision == 1
    await pass_time(9, heard_by=None)
    assert statuses() == ["up"] * 3
    await pass_time(2 + int(SHARED_MARGIN.total_seconds()), heard_by=None)
    assert statuses() == ["stale"] * 3
    assert [replica.revision for replica in replicas] == [2] * 3
    late = Registry(stores[0], clock=clock, elapsed=clock.elapsed)
    await late.sweep()
    assert [record.status for record in late.records] == ["stale"]
    for replica in [*replicas, late]:
        await replica.aclose()
    for store in stores:
        await store.aclose()


async def test_a_database_that_is_not_there_is_said_in_readyz_without_its_password(registry: RunRegistry) -> None:
    async with registry(database_url="postgresql://u:hush@127.0.0.1:1/d") as http:
        for answer in (
            await http.get("/readyz"),
            await http.get("/agents"),
            await http.post("/register", json=MINIMAL),
        ):
            assert answer.status_code == 503
            assert "Postgres at 127.0.0.1/d" in answer.json()["detail"]
            assert "hush" not in answer.text
        assert (await http.get("/livez")).status_code == 200


async def test_tables_of_a_newer_version_are_refused_and_left_as_they_are(postgres_url: str) -> None:
    store = open_store(postgres_url)
    await store.load()
    await store.aclose()
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute("UPDATE discovery.state SET format = 2")
        registry = Registry(store)
        for _ in range(2):
            with pytest.raises(Exception, match=r"newer version of discovery \(format 2\): upgrade this one"):
                await registry.sweep()
        assert await connection.fetchval("SELECT format FROM discovery.state") == 2
    finally:
        await connection.close()
        await store.aclose()


async def test_the_table_reads_like_the_list_in_psql(three: list[httpx.AsyncClient], postgres_url: str) -> None:
    await three[0].post("/register", json=MINIMAL | {"ttl_seconds": 30})
    connection = await asyncpg.connect(postgres_url)
    try:
        row = await connection.fetchrow("SELECT name, endpoint, status FROM discovery.agents")
    finally:
        await connection.close()
    assert tuple(row) == ("customer-service", "http://127.0.0.1:8000", "up")
