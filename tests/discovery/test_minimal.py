"""The promise of the first table: its client works against every registry, and every client against its registry."""

import logging
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from discovery.client import DiscoveryClient, DiscoveryError, registered
from tests.discovery.conftest import MINIMAL, RunRegistry, eventually, registration
from tests.minimal_registry import FIELDS, minimal_registry

# ---- a client that read the first table only ----


async def register(http: httpx.AsyncClient, **fields: Any) -> int:
    return (await http.post("/register", json=MINIMAL | fields)).status_code


async def agents(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    answer = await http.get("/agents")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    return [{field: agent[field] for field in FIELDS} for agent in answer.json()]


async def test_the_minimal_client_has_all_it_was_promised_of_the_whole_registry(registry: RunRegistry) -> None:
    tool = {"name": "y", "description": "Does y.", "input_schema": {"type": "object"}}
    async with registry() as http:
        assert await agents(http) == []
        assert await register(http, name="b") == 201
        assert await register(http, name="a", tools=[], agent_type="mcp_server") == 201
        moved = {"endpoint": "http://127.0.0.1:9999", "version": "2", "tools": ["x", tool]}
        assert await register(http, name="a", **moved) == 200
        assert await agents(http) == [MINIMAL | {"name": "a"} | moved, MINIMAL | {"name": "b"}]


async def test_the_minimal_client_never_expires_whatever_else_the_registry_knows(registry: RunRegistry) -> None:
    async with registry() as http:
        await register(http)
        [agent] = (await http.get("/agents")).json()
    assert (agent["status"], agent["next_transition_at"]) == ("registered", None)


# ---- the whole client, against a registry that knows the first table only ----


@pytest.mark.parametrize("is_strict", [False, True], ids=["deaf", "strict"])
async def test_every_call_of_the_client_works_or_says_in_one_error_that_it_cannot(is_strict: bool) -> None:
    async with minimal_registry(is_strict=is_strict) as registry, DiscoveryClient(registry.url) as client:
        assert await client.agents() == []
        answer = await client.register(registration(name="b", ttl_seconds=30, boot_id="x", tags=["money"]))
        assert (answer.name, answer.instance_id, answer.lease) == ("b", "default", None)
        await client.register(registration(name="a", agent_type="react"))
        await client.register(registration(name="a", agent_type="planning"))
        assert [(agent.name, agent.status) for agent in await client.agents()] == [
            ("a", "registered"),
            ("b", "registered"),
        ]
        assert [agent.name for agent in await client.agents(type="planning", q="SEARCH")] == ["a"]
        assert await client.agents(tag="money") == []
        found = await client.agent("b")
        assert found is not None
        assert found.endpoint == MINIMAL["endpoint"]
        assert await client.agent("c") is None
        with pytest.raises(DiscoveryError, match="404"):
            await client.remove("a")
        async with aclosing(client.events()) as events:
            with pytest.raises(DiscoveryError, match="404"):
                await anext(events)


async def test_registered_keeps_its_own_pace_and_leaves_without_a_word_of_complaint(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "discovery.client.registration")
    async with (
        minimal_registry() as registry,
        registered(registration(), url=registry.url, heartbeat_seconds=0.02) as state,
    ):
        await eventually(lambda: registry.asked.count("POST /register") >= 3)
        assert state.registered
    assert registry.asked[-1] == "DELETE /agents/customer-service"
    assert [record.levelname for record in caplog.records] == ["INFO"]
