"""The probe beside a running registry: what it finds is shown, and it is in nobody's way."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from agent_runtime import Agent
from agent_runtime.models.scripted import ScriptedModel
from agent_runtime.server.app import create_app as create_agent
from discovery.contract import AgentRecord
from tests.agents import write_agent
from tests.discovery.conftest import MINIMAL, Clock, RunRegistry, eventually
from tests.serving import serve

OFTEN: dict[str, Any] = {"probe": True, "probe_seconds": 0.05}


@asynccontextmanager
async def agent() -> AsyncGenerator[tuple[str, list[str]]]:
    asked: list[str] = []

    async def livez(_: Any) -> JSONResponse:
        asked.append("livez")
        return JSONResponse({"status": "ok"})

    async with serve(Starlette(routes=[Route("/livez", livez)])) as url:
        yield url, asked


def hanging() -> tuple[socket.socket, str]:
    """A port that takes connections and never answers."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    return listener, f"http://127.0.0.1:{listener.getsockname()[1]}"


async def add(http: httpx.AsyncClient, **changes: Any) -> None:
    (await http.post("/register", json=MINIMAL | changes)).raise_for_status()


async def shown(http: httpx.AsyncClient, name: str = "customer-service") -> AgentRecord:
    return AgentRecord.model_validate((await http.get(f"/agents/{name}")).json())


async def looked_at(http: httpx.AsyncClient, name: str = "customer-service", **is_so: Any) -> AgentRecord:
    async def known() -> AgentRecord | None:
        found = await shown(http, name)
        well = found.reachability is not None
        return found if well and all(getattr(found.reachability, key) == so for key, so in is_so.items()) else None

    return await eventually(known)


async def test_without_the_probe_nobody_is_called_and_nothing_is_claimed(registry: RunRegistry) -> None:
    async with agent() as (url, asked), registry(probe_seconds=0.01) as http:
        await add(http, endpoint=url)
        async with agent() as (other, seen), registry(**OFTEN) as probing:
            await add(probing, endpoint=other)
            await looked_at(probing)
        assert seen
        assert asked == []
        assert (await shown(http)).reachability is None


async def test_what_the_probe_found_stands_on_the_agent_and_on_the_instance(registry: RunRegistry) -> None:
    async with agent() as (url, _), registry(**OFTEN) as http:
        await add(http, endpoint=url)
        found = await looked_at(http)
        assert found.reachability is not None
        assert (found.reachability.ok, found.reachability.reason) == (True, "health responds")
        assert found.instances[0].reachability == found.reachability


async def test_an_agent_of_the_runtime_answers_in_all_its_protocols(registry: RunRegistry, tmp_path: Path) -> None:
    pytest.importorskip("mcp", reason="needs the mcp extra")
    pytest.importorskip("a2a", reason="needs the a2a extra")
    async with (
        registry(**OFTEN) as http,
        Agent(write_agent(tmp_path), model=ScriptedModel([])) as agent,
        serve(create_agent(agent)) as url,
    ):
        await add(http, endpoint=url, protocols=["chat", "a2a", "mcp"], links={"health": f"{url}/health"})
        found = await looked_at(http)
    assert found.reachability is not None
    assert found.reachability.reason == "health, agent card and MCP respond"


async def test_an_endpoint_that_goes_away_and_one_that_comes_back_are_noticed(registry: RunRegistry) -> None:
    async with registry(**OFTEN) as http:
        async with agent() as (url, _):
            await add(http, endpoint=url)
            await looked_at(http, ok=True)
        gone = await looked_at(http, ok=False)
        assert gone.reachability is not None
        assert gone.reachability.reason == "connection refused"
        async with agent() as (url, _):
            await add(http, endpoint=url)
            await looked_at(http, ok=True)


async def test_a_heartbeat_without_an_endpoint_and_an_endpoint_without_a_heartbeat_are_two_faults(
    registry: RunRegistry, clock: Clock
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with agent() as (url, _), registry(clock=clock, **OFTEN) as http:
            await add(http, name="silent", endpoint=url, ttl_seconds=10)
            clock.turn(11)
            await add(http, name="unreachable", endpoint=nobody, ttl_seconds=10)
            await looked_at(http, "silent", ok=True)
            unreachable = await looked_at(http, "unreachable", ok=False)

            async def stale() -> bool:
                return (await shown(http, "silent")).status == "stale"

            await eventually(stale)
            assert unreachable.status == "up"


async def test_each_instance_is_asked_at_its_own_endpoint(registry: RunRegistry) -> None:
    listener, nowhere = hanging()
    listener.close()
    async with agent() as (url, _), registry(**OFTEN) as http:
        await add(http, endpoint=url, instance_id="a")
        await add(http, endpoint=nowhere, instance_id="b")

        async def both() -> dict[str, bool] | None:
            found = {one.instance_id: one.reachability for one in (await shown(http)).instances}
            return {key: it.ok for key, it in found.items() if it is not None} if None not in found.values() else None

        assert await eventually(both) == {"a": True, "b": False}


async def test_the_same_answer_again_is_no_change_of_the_list(registry: RunRegistry) -> None:
    async with agent() as (url, asked), registry(**OFTEN) as http:
        await add(http, endpoint=url)
        await looked_at(http)
        before = (await http.get("/agents")).headers
        count = len(asked)
        await eventually(lambda: len(asked) >= count + 3)
        after = (await http.get("/agents")).headers
        assert (before["etag"], before["x-registry-revision"]) == (after["etag"], after["x-registry-revision"])


async def test_hanging_endpoints_never_slow_a_registration(registry: RunRegistry) -> None:
    listener, url = hanging()
    listener.setblocking(False)
    with listener:
        async with registry(**OFTEN) as http:
            for number in range(40):
                await add(http, name=f"hanging-{number}", endpoint=url)
            loop = asyncio.get_running_loop()
            waiting = [await loop.sock_accept(listener) for _ in range(20)]  # as many looks as there are at once
            started = perf_counter()
            for number in range(40):
                await add(http, name=f"hanging-{number}", endpoint=url, version="2")
            assert perf_counter() - started < 2  # one look takes three seconds
            for connection, _ in waiting:
                connection.close()


async def test_a_registry_stops_at_once_while_looks_are_under_way(registry: RunRegistry) -> None:
    listener, url = hanging()
    listener.setblocking(False)
    with listener:
        async with registry(**OFTEN) as http:
            await add(http, endpoint=url)
            connection, _ = await asyncio.get_running_loop().sock_accept(listener)
            started = perf_counter()
        assert perf_counter() - started < 2
        connection.close()


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("127.0.0.1", "health responds"),
        ("::1", "health responds"),
        ("localhost", "health responds"),
        ("0.0.0.0", "not called: 127.0.0.1 is the registry's own machine and not in DISCOVERY_PROBE_ALLOW"),
        ("10.0.0.1", "not called: 127.0.0.1 is the registry's own machine and not in DISCOVERY_PROBE_ALLOW"),
    ],
)
async def test_loopback_is_probed_only_by_a_registry_that_listens_on_loopback(
    registry: RunRegistry, host: str, reason: str
) -> None:
    async with agent() as (url, asked), registry(host=host, allow_anonymous=True, **OFTEN) as http:
        await add(http, endpoint=url)
        found = await looked_at(http)
        assert found.reachability is not None
        assert found.reachability.reason == reason
        assert bool(asked) == (reason == "health responds")


@pytest.mark.parametrize(
    ("allow", "reason"),
    [
        ("10.0.0.0/8", "not called: 127.0.0.1 is not in DISCOVERY_PROBE_ALLOW"),
        ("127.0.0.0/8", "health responds"),
    ],
)
async def test_the_allow_list_of_the_settings_holds(registry: RunRegistry, allow: str, reason: str) -> None:
    async with agent() as (url, asked), registry(probe_allow=(allow,), **OFTEN) as http:
        await add(http, endpoint=url)
        found = await looked_at(http)
        assert found.reachability is not None
        assert found.reachability.reason == reason
        assert bool(asked) == (reason == "health responds")
