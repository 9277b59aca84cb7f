"""Two processes of one name, fleets that fall silent at once, and the promises of the protocol as properties."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.contract import AgentRecord, Reachability
from discovery.registry.history import AgentEvent
from discovery.registry.registry import Registry
from discovery.registry.rules import Superseded
from discovery.stores.memory import MemoryStore
from tests.discovery.conftest import Clock, registration
from tests.discovery.registry.test_registry import pass_time, status


@pytest.fixture
async def table(clock: Clock) -> AsyncGenerator[Registry]:
    registry = Registry(MemoryStore(), clock=clock, elapsed=clock.elapsed)
    await registry.sweep()
    yield registry
    await registry.aclose()


def process(boot_id: str, **more: Any) -> Any:
    return registration(boot_id=boot_id, endpoint=f"http://{boot_id}:1", ttl_seconds=30, **more)


def endpoint(table: Registry) -> str:
    agent = table.agent("customer-service")
    assert agent is not None
    return agent.endpoint


async def kinds(table: Registry, name: str = "customer-service") -> list[str]:
    return [entry.kind for entry in await table.history(name, limit=100)][::-1]


async def test_the_newest_process_wins_and_the_older_is_refused_while_the_newer_lives(
    table: Registry, clock: Clock
) -> None:
    await table.register(process("old"))
    await table.register(process("new"))
    for _ in range(5):
        clock.turn(10)
        await table.sweep()
        await table.register(process("new"))
        with pytest.raises(Superseded, match="http://new:1"):
            await table.register(process("old"))
    assert endpoint(table) == "http://new:1"
    await pass_time(table, clock, 31)
    assert (await table.register(process("old"))).changed
    assert (endpoint(table), status(table)) == ("http://old:1", "up")


async def test_both_are_shown_as_a_conflict_until_the_older_one_is_silent(table: Registry, clock: Clock) -> None:
    await table.register(process("old"))
    await table.register(process("new"))
    agent = table.agent("customer-service")
    assert agent is not None
    assert agent.conflict is None  # a restart looks like this, too
    for _ in range(3):
        with pytest.raises(Superseded):
            await table.register(process("old"))
    agent = table.agent("customer-service")
    assert agent is not None
    assert agent.conflict is not None
    assert (agent.conflict.boot_id, agent.conflict.endpoint) == ("old", "http://old:1")
    assert agent.instances[0].conflict == agent.conflict
    for _ in range(31):
        await pass_time(table, clock, 1)
        await table.register(process("new"))
    agent = table.agent("customer-service")
    assert agent is not None
    assert agent.conflict is None
    assert await kinds(table) == ["registered", "updated", "conflict", "conflict"]


async def test_who_was_there_first_is_remembered_over_a_restart_of_the_registry(clock: Clock) -> None:
    store = MemoryStore()
    first = Registry(store, clock=clock, elapsed=clock.elapsed)
    await first.sweep()
    await first.register(process("old"))
    await first.register(process("new"))
    await first.aclose()
    again = Registry(store, clock=clock, elapsed=clock.elapsed)
    await again.sweep()
    with pytest.raises(Superseded):
        await again.register(process("old"))
    assert endpoint(again) == "http://new:1"


async def test_replicas_with_instance_ids_are_no_conflict(table: Registry) -> None:
    for one in "abc":
        await table.register(process(one, instance_id=one))
        await table.register(process(one, instance_id=one))
    agent = table.agent("customer-service")
    assert agent is not None
    assert [(one.instance_id, one.conflict) for one in agent.instances] == [("a", None), ("b", None), ("c", None)]


async def test_a_process_without_a_boot_id_replaces_and_is_replaced_freely(table: Registry) -> None:
    for port in (1, 2, 1):
        await table.register(registration(endpoint=f"http://h:{port}"))
    assert endpoint(table) == "http://h:1"


async def silence(table: Registry, clock: Clock, *, of: int, seconds: int, size: int = 20) -> None:
    """All but the first so many send heartbeats for so long."""
    for second in range(seconds):
        await pass_time(table, clock, 1)
        if second % 10 == 0:
            for number in range(of, size):
                await table.register(registration(name=f"agent-{number:02}", ttl_seconds=30))


def statuses(table: Registry) -> dict[str, int]:
    found: dict[str, int] = {}
    for record in table.records:
        found[record.status] = found.get(record.status, 0) + 1
    return found


async def enrol(table: Registry, size: int = 20) -> None:
    for number in range(size):
        await table.register(registration(name=f"agent-{number:02}", ttl_seconds=30))


async def test_many_that_fall_silent_at_once_are_stale_and_kept_for_a_quarter_of_an_hour(
    table: Registry, clock: Clock
) -> None:
    await enrol(table)
    await silence(table, clock, of=4, seconds=60)
    assert table.guard is not None
    assert table.guard.silent == [f"agent-{number:02}" for number in range(4)]
    assert statuses(table) == {"up": 16, "stale": 4}
    held = table.agent("agent-00")
    assert held is not None
    assert held.next_transition_at == table.guard.until
    await silence(table, clock, of=4, seconds=860)
    assert statuses(table) == {"up": 16, "stale": 4}
    await silence(table, clock, of=4, seconds=20)
    assert (table.guard, statuses(table)) == (None, {"up": 16, "down": 4})
    await silence(table, clock, of=4, seconds=600)
    assert statuses(table) == {"up": 16}


async def test_a_few_that_fall_silent_are_removed_as_ever(table: Registry, clock: Clock) -> None:
    await enrol(table)
    await silence(table, clock, of=2, seconds=700)
    assert (table.guard, statuses(table)) == (None, {"up": 18})


async def test_the_guard_ends_when_they_are_back_and_nobody_was_lost(table: Registry, clock: Clock) -> None:
    await enrol(table)
    await silence(table, clock, of=20, seconds=40)
    assert table.guard is not None
    await enrol(table)
    await pass_time(table, clock, 1)
    assert (table.guard, statuses(table)) == (None, {"up": 20})
    assert await kinds(table, "agent-07") == ["registered", "status", "status"]


async def test_what_the_probe_finds_is_on_the_record_and_in_the_history_once(table: Registry, clock: Clock) -> None:
    await table.register(process("a"))
    for seconds, reason in ((1, "connection refused"), (2, "connection refused"), (3, "it answers")):
        clock.turn(1)
        await table.sweep()
        found = Reachability(ok=reason == "it answers", reason=reason, checked_at=clock.now, latency_ms=seconds)
        await table.reached("customer-service", "default", found)
    agent = table.agent("customer-service")
    assert agent is not None
    assert agent.reachability == Reachability(ok=True, reason="it answers", checked_at=clock.now, latency_ms=3)
    assert await kinds(table) == ["registered", "status", "status"]
    await table.register(process("b"))  # at another address: nothing is known of that one
    agent = table.agent("customer-service")
    assert agent is not None
    assert agent.reachability is None


# ---- the promises, whatever happens ----

RESTLESS = {"last_seen", "next_transition_at"}
NAMES = ["a", "b", "c"]
TTL = 10.0
steps = st.lists(
    st.one_of(
        st.tuples(st.just("register"), st.sampled_from(NAMES), st.sampled_from(["1", "2"]), st.sampled_from("xyz")),
        st.tuples(st.just("beat"), st.sampled_from(NAMES), st.just(""), st.just("")),
        st.tuples(st.just("remove"), st.sampled_from(NAMES), st.just(""), st.just("")),
        st.tuples(st.just("wait"), st.integers(1, 40), st.just(""), st.just("")),
    ),
    max_size=25,
)


def shown(agents: dict[str, AgentRecord]) -> dict[str, Any]:
    """What readers must agree on: all but what heartbeats move."""
    excluded: Any = {**dict.fromkeys(RESTLESS, True), "instances": {"__all__": RESTLESS}}
    return {name: agent.model_dump(exclude=excluded) for name, agent in agents.items()}


@given(steps)
@settings(max_examples=60)
def test_events_folded_are_the_table_at_every_revision_and_no_lease_is_cut_short(happened: list[Any]) -> None:
    asyncio.run(_fold(happened))


async def _fold(happened: list[Any]) -> None:
    clock = Clock()
    registry = Registry(MemoryStore(), clock=clock, elapsed=clock.elapsed)
    await registry.sweep()
    folded: dict[str, AgentRecord] = {}
    tables: dict[int, Any] = {0: {}}
    heard: dict[str, Any] = {}
    async with aclosing(registry.watch.follow(None, clock.now)) as events:
        assert b"event: reset" in await anext(events)
        for what, subject, version, boot_id in happened:
            if what == "wait":
                for _ in range(subject):
                    await pass_time(registry, clock, 1)
                    _check_leases(registry, clock)
                    tables[registry.revision] = _now(registry)
            elif what == "remove":
                await registry.remove(subject)
                heard.pop(subject, None)
            else:
                said = registration(name=subject, version=version or "1", boot_id=boot_id or "x", ttl_seconds=TTL)
                said = heard.get(subject, said) if what == "beat" else said
                try:
                    await registry.register(said)
                    heard[subject] = said
                except Superseded:
                    pass
            tables[registry.revision] = _now(registry)
        last = 0
        while last < registry.revision:
            for frame in (await anext(events)).decode().split("\n\n")[:-1]:
                event = AgentEvent.model_validate(json.loads(frame.partition("data: ")[2]))
                assert event.revision == last + 1
                last = event.revision
                if event.agent is None:
                    folded.pop(event.name)
                else:
                    folded[event.name] = event.agent
                assert last not in tables or shown(folded) == tables[last]
    await registry.aclose()


def _now(registry: Registry) -> Any:
    return shown({agent.name: agent for agent in registry.listing().agents})


def _check_leases(registry: Registry, clock: Clock) -> None:
    for record in registry.records:
        silence = clock.now - record.last_seen
        if silence < timedelta(seconds=TTL):
            assert record.status == "up", "stale before its lease ended"
        if silence >= timedelta(seconds=TTL + 1):
            assert record.status != "up", "not stale one sweep after its lease"
