"""The table over time, with a clock that is turned by hand."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from discovery.api.agents import acknowledgement
from discovery.contract import Registered, Registration
from discovery.registry import LastSeen, Store, StoreError
from discovery.registry.leases import Record
from discovery.registry.registry import Registry
from discovery.registry.rules import Superseded
from discovery.registry.search import Found
from discovery.registry.table import Change
from discovery.stores import open_store
from discovery.stores.memory import MemoryStore
from tests.discovery.conftest import Clock, registration


class WatchedStore(MemoryStore):
    """Counts what is written, and fails while it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []
        self.broken = False

    def _write(self, what: str) -> None:
        if self.broken:
            raise StoreError("the disk is on fire")
        self.writes.append(what)

    async def append(self, changes: Sequence[Change]) -> None:
        self._write("append")
        await super().append(changes)

    async def save_last_seen(self, heartbeats: Iterable[LastSeen]) -> None:
        self._write("last seen")
        await super().save_last_seen(heartbeats)

    async def refill(self, records: Iterable[Record], revision: int, lineage: str) -> None:
        self._write("refill")
        await super().refill(records, revision, lineage)

    async def search(self, words: Sequence[str], *, every: bool, limit: int) -> Sequence[Found]:
        if self.broken:
            raise StoreError("the disk is on fire")
        return await super().search(words, every=every, limit=limit)

    async def check(self) -> None:
        if self.broken:
            raise StoreError("the disk is on fire")


@pytest.fixture
def store() -> WatchedStore:
    return WatchedStore()


@pytest.fixture
async def table(store: WatchedStore, clock: Clock) -> AsyncGenerator[Registry]:
    registry = Registry(store, clock=clock, elapsed=clock.elapsed)
    await registry.sweep()
    yield registry
    store.broken = False
    await registry.aclose()


async def pass_time(registry: Registry, clock: Clock, seconds: float) -> None:
    """As the sweeper sees it: a sweep every second."""
    for _ in range(int(seconds)):
        clock.turn(1)
        await registry.sweep()


async def told(registry: Registry, said: Registration, caller: str | None = None) -> tuple[Registered, bool]:
    """What an agent hears of its registration, and whether it is new."""
    accepted = await registry.register(said, caller)
    return acknowledgement(accepted, caller), accepted.new


def status(registry: Registry, name: str = "customer-service") -> str | None:
    agent = registry.agent(name)
    return agent and agent.status


async def test_an_agent_that_falls_silent_is_stale_then_down_then_gone(table: Registry, clock: Clock) -> None:
    await table.register(registration(ttl_seconds=30))
    seen: list[tuple[int, str | None]] = [(0, status(table))]
    for second in range(1, 700):
        await pass_time(table, clock, 1)
        if status(table) != seen[-1][1]:
            seen.append((second, status(table)))
    assert seen == [(0, "up"), (30, "stale"), (90, "down"), (690, None)]


async def test_a_heartbeat_brings_it_back_and_says_since_when(table: Registry, clock: Clock) -> None:
    await table.register(registration(ttl_seconds=30))
    await pass_time(table, clock, 100)
    assert status(table) == "down"
    answer, new = await told(table, registration(ttl_seconds=30))
    assert (answer.changed, new, status(table)) == (False, False, "up")
    agent = table.agent("customer-service")
    assert agent is not None
    assert agent.since == clock.now


async def test_an_unchanged_repeat_costs_no_write_and_no_revision(
    table: Registry, store: WatchedStore, clock: Clock
) -> None:
    first, _ = await told(table, registration(ttl_seconds=30))
    store.writes.clear()
    for _ in range(4):
        clock.turn(1)
        again, new = await told(table, registration(ttl_seconds=30))
        assert (again.revision, again.changed, new) == (first.revision, False, False)
    assert store.writes == []
    agent = table.agent("customer-service")
    assert agent is not None
    assert agent.last_seen == clock.now


async def test_heartbeats_are_written_down_in_one_batch_every_few_seconds(
    table: Registry, store: WatchedStore, clock: Clock
) -> None:
    names = [f"agent-{number}" for number in range(10)]
    for name in names:
        await table.register(registration(name=name, ttl_seconds=30))
    store.writes.clear()
    for _ in range(20):
        await pass_time(table, clock, 1)
        for name in names:
            await table.register(registration(name=name, ttl_seconds=30))
    assert set(store.writes) == {"last seen"}
    assert 2 <= len(store.writes) <= 4
    await table.aclose()
    assert {record.last_seen for record in (await store.load()).records} == {clock.now}


async def test_a_changed_body_is_a_change_with_a_revision_of_its_own(table: Registry) -> None:
    first, _ = await told(table, registration())
    second, new = await told(table, registration(version="2.0.0"))
    assert (second.changed, new, second.revision) == (True, False, (first.revision or 0) + 1)


async def test_the_lease_that_is_answered_asks_for_three_beats_in_a_lease(table: Registry, clock: Clock) -> None:
    answer, _ = await told(table, registration(ttl_seconds=90))
    assert answer.lease is not None
    assert (answer.lease.ttl_seconds, answer.lease.interval_seconds) == (90, 30)
    assert answer.lease.expires_at == clock.now + timedelta(seconds=90)
    answer, _ = await told(table, registration(name="other"))
    assert answer.lease is None


async def test_after_a_restart_every_lease_gets_one_full_term(
    table: Registry, store: WatchedStore, clock: Clock
) -> None:
    await table.register(registration(ttl_seconds=30))
    await table.aclose()
    clock.turn(3600)
    again = Registry(store, clock=clock, elapsed=clock.elapsed)
    await again.sweep()
    assert status(again) == "up"
    await pass_time(again, clock, 29)
    assert status(again) == "up"
    await pass_time(again, clock, 1)
    assert status(again) == "stale"


async def test_a_sweep_that_was_held_up_extends_all_leases_by_its_lateness(table: Registry, clock: Clock) -> None:
    await table.register(registration(ttl_seconds=30))
    await pass_time(table, clock, 20)
    clock.turn(500)  # the process was stopped: neither did it sweep nor could anyone reach it
    assert status(table) == "up"
    await pass_time(table, clock, 8)
    assert status(table) == "up"
    await pass_time(table, clock, 2)
    assert status(table) == "stale"


async def test_a_wall_clock_that_jumps_while_the_process_runs_is_no_lateness(store: WatchedStore, clock: Clock) -> None:
    registry = Registry(store, clock=clock, elapsed=lambda: 0.0)
    await registry.sweep()
    await registry.register(registration(ttl_seconds=30))
    clock.turn(31)
    await registry.sweep()
    assert status(registry) == "stale"


async def test_the_best_instance_stands_on_top(table: Registry, clock: Clock) -> None:
    for instance, changes in {"a": {"status": "degraded"}, "b": {}, "c": {"status": "draining"}}.items():
        await table.register(
            registration(instance_id=instance, endpoint=f"http://{instance}:1", ttl_seconds=30, **changes)
        )
    agent = table.agent("customer-service")
    assert agent is not None
    assert (agent.status, agent.endpoint) == ("up", "http://b:1")
    assert [one.instance_id for one in agent.instances] == ["a", "b", "c"]
    await table.remove("customer-service", "b")
    assert status(table) == "degraded"


async def test_a_process_that_was_replaced_cannot_take_the_entry_away(table: Registry) -> None:
    await table.register(registration(boot_id="old"))
    await table.register(registration(boot_id="new", endpoint="http://127.0.0.1:8001"))
    with pytest.raises(Superseded):
        await table.remove("customer-service", "default", "old")
    assert status(table) == "registered"
    await table.remove("customer-service", "default", "new")
    assert status(table) is None


async def test_without_an_instance_all_of_a_name_are_removed(table: Registry) -> None:
    for instance in ("a", "b"):
        await table.register(registration(instance_id=instance))
    await table.register(registration(name="other"))
    await table.remove("customer-service")
    assert (status(table), status(table, "other")) == (None, "registered")


async def test_the_tag_of_the_list_changes_with_what_matters_and_not_with_heartbeats(
    table: Registry, clock: Clock
) -> None:
    tags = [table.listing().etag]

    async def happens(what: Any) -> bool:
        await what
        changed = table.listing().etag != tags[-1]
        tags.append(table.listing().etag)
        return changed

    assert await happens(table.register(registration(ttl_seconds=30)))
    clock.turn(2)
    assert not await happens(table.register(registration(ttl_seconds=30)))
    assert await happens(table.register(registration(ttl_seconds=30, version="2")))
    assert await happens(pass_time(table, clock, 31))
    assert await happens(table.remove("customer-service"))


async def test_while_the_storage_fails_changes_are_refused_and_heartbeats_go_on(
    table: Registry, store: WatchedStore, clock: Clock
) -> None:
    await table.register(registration(ttl_seconds=30))
    store.broken = True
    for change in (
        lambda: table.register(registration(ttl_seconds=30, version="2")),
        lambda: table.register(registration(name="other")),
        lambda: table.remove("customer-service"),
        table.check,
    ):
        with pytest.raises(StoreError, match="on fire"):
            await change()
    clock.turn(25)
    assert (await table.register(registration(ttl_seconds=30))).changed is False
    agent = table.agent("customer-service")
    assert agent is not None
    assert (agent.version, status(table, "other")) == ("1.0.0", None)


async def test_when_the_storage_is_back_it_is_made_equal_to_the_table(
    table: Registry, store: WatchedStore, clock: Clock
) -> None:
    await table.register(registration(ttl_seconds=30))
    store.broken = True
    with pytest.raises(StoreError):
        await table.register(registration(name="other"))
    lineage = store.lineage
    await MemoryStore.refill(store, [], 0, "a new file")  # and what it held is lost
    store.broken = False
    await pass_time(table, clock, 1)
    await table.check()
    found = await store.load()
    assert [record.registration.name for record in found.records] == ["customer-service"]
    assert (found.revision, found.lineage) == (1, lineage)


async def test_a_registry_whose_store_cannot_be_read_says_so_and_loads_it_later(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "registry.db"
    path.mkdir()
    store: Store = open_store(f"sqlite:///{path}")
    registry = Registry(store, clock=clock, elapsed=clock.elapsed)
    with pytest.raises(StoreError):
        await registry.sweep()
    for question in (registry.listing, lambda: registry.agent("x")):
        with pytest.raises(StoreError, match=r"registry\.db"):
            question()
    path.rmdir()
    await registry.sweep()
    assert registry.listing().body == b"[]"
    await registry.aclose()
    await store.aclose()


async def test_many_registrations_of_one_key_at_once_end_as_one(table: Registry) -> None:
    answers = await asyncio.gather(*(table.register(registration(version=str(i))) for i in range(20)))
    assert sum(answer.new for answer in answers) == 1
    assert len(table.records) == 1
    assert table.revision == 20


@pytest.mark.parametrize(
    ("endpoint", "caller", "code"),
    [
        ("http://127.0.0.1:8000", "10.0.0.7", "loopback_endpoint"),
        ("http://localhost:8000", "10.0.0.7", "loopback_endpoint"),
        ("http://0.0.0.0:8000", "127.0.0.1", "unspecified_endpoint"),
        ("http://127.0.0.1:8000", "127.0.0.1", None),
        ("http://customer-service:8000", "10.0.0.7", None),
    ],
)
async def test_an_address_that_nobody_can_call_is_warned_about(
    table: Registry, endpoint: str, caller: str, code: str | None
) -> None:
    answer, _ = await told(table, registration(endpoint=endpoint), caller)
    assert [warning.code for warning in answer.warnings] == ([code] if code else [])
