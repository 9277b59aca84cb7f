"""`GET /events` and the history over a real socket."""

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Message

import discovery.api.events as events_module
import discovery.registry.watch as watch_module
from discovery.registry.history import AgentEvent
from tests.discovery.api.test_agents import problem
from tests.discovery.conftest import MINIMAL, Clock, RunRegistry, eventually

Event = tuple[str, str, dict[str, Any]]


@asynccontextmanager
async def following(http: httpx.AsyncClient, last: str | None = None) -> AsyncGenerator[AsyncGenerator[Event]]:
    """The events of a stream as (id, kind, data)."""
    headers = {} if last is None else {"last-event-id": last}
    async with http.stream("GET", "/events", headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        async with aclosing(events_in(response)) as events:
            yield events


async def events_in(response: httpx.Response) -> AsyncGenerator[Event]:
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        name, _, value = line.partition(": ")
        if line and name:
            fields[name] = value
        elif not line and "data" in fields:
            yield fields["id"], fields["event"], json.loads(fields["data"])
            fields = {}


async def test_a_reader_is_told_to_read_the_list_and_then_of_every_change(registry: RunRegistry) -> None:
    async with registry() as http, following(http) as events:
        first, kind, data = await anext(events)
        assert (kind, data["revision"], first.rpartition("-")[2]) == ("reset", 0, "0")
        await http.post("/register", json=MINIMAL | {"ttl_seconds": 30})
        await http.post("/register", json=MINIMAL | {"ttl_seconds": 30})  # a heartbeat is no event
        await http.post("/register", json=MINIMAL | {"ttl_seconds": 30, "version": "2", "tools": ["a"]})
        await http.post(
            "/register", json=MINIMAL | {"ttl_seconds": 30, "version": "2", "tools": ["a"], "status": "degraded"}
        )
        await http.delete("/agents/customer-service")
        seen = [await anext(events) for _ in range(4)]
    assert [kind for _, kind, _ in seen] == ["registered", "updated", "status", "removed"]
    assert [data["revision"] for _, _, data in seen] == [1, 2, 3, 4]
    assert [data["agent"] and data["agent"]["status"] for _, _, data in seen] == ["up", "up", "degraded", None]
    assert all(AgentEvent.model_validate(data).name == "customer-service" for _, _, data in seen)


async def test_the_agent_in_an_event_is_the_one_in_the_list(registry: RunRegistry) -> None:
    async with registry() as http, following(http) as events:
        await anext(events)
        await http.post("/register", json=MINIMAL | {"tags": ["x"]})
        _, _, data = await anext(events)
        assert [data["agent"]] == (await http.get("/agents")).json()


async def test_a_reader_goes_on_after_its_last_event(registry: RunRegistry) -> None:
    async with registry() as http:
        async with following(http) as events:
            first, _, _ = await anext(events)
        for name in ("a", "b", "c"):
            await http.post("/register", json=MINIMAL | {"name": name})
        async with following(http, first) as events:
            seen = [await anext(events) for _ in range(3)]
        assert [data["name"] for _, _, data in seen] == ["a", "b", "c"]
        async with following(http, seen[1][0]) as events:
            assert (await anext(events))[2]["name"] == "c"


@pytest.mark.parametrize(
    "last", ["", "x", "5", "00000000-1", "LINEAGE-99", "LINEAGE--1", "LINEAGE-9999999999999999999999"]
)
async def test_a_reader_whose_place_is_unknown_begins_anew(registry: RunRegistry, last: str) -> None:
    async with registry() as http:
        await http.post("/register", json=MINIMAL)
        async with following(http) as events:
            known, _, _ = await anext(events)
        async with following(http, last.replace("LINEAGE", known.partition("-")[0])) as events:
            _, kind, data = await anext(events)
        assert (kind, data["revision"]) == ("reset", 1)


async def test_a_reader_of_a_registry_that_began_anew_is_told_so(registry: RunRegistry) -> None:
    async with registry() as http:
        await http.post("/register", json=MINIMAL)
        async with following(http) as events:
            last, _, _ = await anext(events)
    async with registry() as http:
        for name in ("a", "b"):
            await http.post("/register", json=MINIMAL | {"name": name})
        async with following(http, last) as events:
            assert (await anext(events))[1] == "reset"


async def test_after_a_restart_the_stream_goes_on_where_nothing_was_missed(
    registry: RunRegistry, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    async with registry(database_url=url) as http:
        await http.post("/register", json=MINIMAL)
        async with following(http) as events:
            last, _, _ = await anext(events)
    async with registry(database_url=url) as http, following(http, last) as events:
        await http.post("/register", json=MINIMAL | {"name": "b"})
        assert (await anext(events))[1] == "registered"


async def test_what_is_older_than_the_ring_begins_anew(registry: RunRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "RING_EVENTS", 4)
    async with registry() as http:
        async with following(http) as events:
            last, _, _ = await anext(events)
        for number in range(5):
            await http.post("/register", json=MINIMAL | {"version": str(number)})
        async with following(http, last) as events:
            assert (await anext(events))[1] == "reset"


async def test_a_status_that_time_brings_is_an_event(registry: RunRegistry, clock: Clock) -> None:
    async with registry(clock=clock) as http, following(http) as events:
        await anext(events)
        await http.post("/register", json=MINIMAL | {"ttl_seconds": 30})
        clock.turn(31)
        assert [(await anext(events))[1] for _ in range(2)] == ["registered", "status"]
        history = (await http.get("/agents/customer-service/history")).json()
        assert [(entry["kind"], entry["status"]) for entry in history] == [("status", "stale"), ("registered", "up")]
        assert history[0]["reason"] == "no heartbeat within its lease of 30 s"


async def test_a_silent_stream_says_now_and_then_that_it_lives(
    registry: RunRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "KEEP_ALIVE_SECONDS", 0.05)
    async with registry() as http, http.stream("GET", "/events") as response:
        lines = response.aiter_lines()
        async with asyncio.timeout(5):
            while await anext(lines) != ": still here":
                pass


BULK = {"description": "x" * 8000, "metadata": {"x": "y" * 15_000}}


async def stuck(http: httpx.AsyncClient) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A reader of events that reads no further than the head."""
    reader, writer = await asyncio.open_connection("127.0.0.1", http.base_url.port)
    writer.write(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def test_a_reader_that_does_not_read_is_let_go_and_delays_nobody(
    registry: RunRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "RING_EVENTS", 64)
    async with registry() as http:
        reader, writer = await stuck(http)
        async with following(http) as events:
            await anext(events)
            for number in range(600):
                await http.post("/register", json=MINIMAL | BULK | {"version": str(number)})
                assert (await anext(events))[2]["revision"] == number + 1

        async def is_dropped() -> bool:
            writer.transport.resume_reading()
            while await reader.read(1 << 20):
                pass
            return "discovery_event_readers_dropped_total 1.0" in (await http.get("/metrics")).text

        assert await eventually(is_dropped, 10)
        writer.close()


async def test_a_reader_whose_connection_stays_full_is_let_go(
    registry: RunRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "MAX_SEND_SECONDS", 0.05)
    async with registry() as http:
        _, writer = await stuck(http)
        turns = itertools.count()

        async def is_let_go() -> bool:
            await http.post("/register", json=MINIMAL | BULK | {"version": str(next(turns))})
            return "discovery_event_readers 0.0" in (await http.get("/metrics")).text

        assert await eventually(is_let_go, 20)
        writer.close()


async def test_what_fails_while_events_are_sent_reaches_the_server_and_its_log() -> None:
    async def stays() -> Message:
        return await asyncio.get_running_loop().create_future()

    async def fails(message: Message) -> None:
        if message["type"] == "http.response.body":
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await events_module.EventStream(watch_module.Watch(), None)({}, stays, fails)


async def test_history_is_newest_first_with_what_changed_and_outlives_the_agent(registry: RunRegistry) -> None:
    async with registry() as http:
        await http.post("/register", json=MINIMAL | {"tools": ["a", "b"]})
        await http.post("/register", json=MINIMAL | {"tools": ["b", "c"], "version": "2"})
        await http.delete("/agents/customer-service")
        newest, middle, oldest = (await http.get("/agents/customer-service/history")).json()
        assert (newest["kind"], newest["status"], newest["version"]) == ("removed", "removed", "2")
        assert middle["fields"] == ["tools", "version"]
        assert middle["tools"] == {"added": ["c"], "removed": ["a"], "changed": [], "breaking": True}
        assert (oldest["kind"], oldest["tools"]) == ("registered", None)
        page = (await http.get(f"/agents/customer-service/history?limit=1&before={newest['revision']}")).json()
        assert page == [middle]
        problem(await http.get("/agents/nobody/history"), 404, "agent_not_found")
        problem(await http.get("/agents/customer-service/history?limit=0"), 400, "invalid_parameter")
        problem(await http.get("/agents/customer-service/history?since=1"), 400, "unknown_parameter")


async def test_a_second_process_of_a_name_is_a_409_for_the_first_and_a_conflict_for_all(registry: RunRegistry) -> None:
    one, two = (MINIMAL | {"ttl_seconds": 30, "boot_id": boot_id} for boot_id in ("one", "two"))
    async with registry() as http, following(http) as events:
        await anext(events)
        assert [(await http.post("/register", json=body)).status_code for body in (one, two)] == [201, 200]
        for _ in range(2):
            body = problem(await http.post("/register", json=one), 409, "superseded")
            assert "instance_id" in body["hint"]
        assert [(await anext(events))[1] for _ in range(3)] == ["registered", "updated", "conflict"]
        (agent,) = (await http.get("/agents")).json()
        assert agent["conflict"]["boot_id"] == "one"
        assert agent["instances"][0]["boot_id"] == "two"


async def test_metrics_count_what_the_list_shows(registry: RunRegistry) -> None:
    async with registry() as http:
        await http.post("/register", json=MINIMAL)
        for _ in range(3):
            await http.post("/register", json=MINIMAL | {"name": "b", "ttl_seconds": 30})
        lines = (await http.get("/metrics")).text.splitlines()
        for line in (
            'discovery_instances{status="up"} 1.0',
            'discovery_instances{status="registered"} 1.0',
            'discovery_instances{status="stale"} 0.0',
            "discovery_agents 2.0",
            "discovery_changes_total 2.0",
            "discovery_heartbeats_total 2.0",
            "discovery_store_up 1.0",
            "discovery_guard_active 0.0",
        ):
            assert line in lines


async def test_a_hit_of_a_search_says_why_it_is_one(registry: RunRegistry) -> None:
    async with registry() as http:
        tools = [{"name": "get_order", "description": "Reads one order"}, "refund"]
        await http.post("/register", json=MINIMAL | {"tools": tools, "tags": ["orders"]})
        (agent,) = (await http.get("/agents?q=ORDER")).json()
        assert agent["matched"] == [
            {"field": "tags", "text": "orders"},
            {"field": "tools", "text": "get_order: Reads one order"},
        ]
        (agent,) = (await http.get("/agents")).json()
        assert "matched" not in agent
