"""The registry as an MCP server: what the official client, and an agent with one line in its file, find with it."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_runtime import Agent
from agent_runtime.models.scripted import ScriptedModel
from discovery.probe.check import INITIALIZE
from discovery.tokens import read_tokens
from tests.agents import called, write_agent
from tests.discovery.conftest import MINIMAL, Clock, RunRegistry, eventually
from tests.mcp_client import MODES, MCPError, mcp_client, text_of

TOKENS = read_tokens("read:tok-reader,register:tok-writer")
ORDERS: dict[str, Any] = {
    "name": "orders",
    "endpoint": "http://orders:8000",
    "description": "Knows what customers bought.",
    "protocols": ["chat", "mcp"],
    "tools": [{"name": "search_orders", "description": "Find orders by customer"}, "refund"],
}
BILLING: dict[str, Any] = {"name": "billing", "endpoint": "http://billing:8000", "tools": ["print_invoice"]}


async def add(http: httpx.AsyncClient, *agents: dict[str, Any]) -> None:
    for agent in agents:
        (await http.post("/register", json=MINIMAL | agent)).raise_for_status()


@pytest.mark.parametrize("mode", MODES)
async def test_the_official_client_finds_one_tool_and_with_it_an_agent(registry: RunRegistry, mode: str) -> None:
    async with registry() as http, mcp_client(http, mode) as client:
        await add(http, ORDERS, BILLING)
        [tool] = (await client.list_tools()).tools
        result = await client.call_tool("find_agent", {"question": "Who can look up the orders of a customer?"})
    assert tool.name == "find_agent"
    assert tool.input_schema["required"] == ["question"]
    assert [*tool.input_schema["properties"]] == ["question", "limit"]
    assert result.is_error is False
    [found] = result.structured_content["agents"]
    assert found["why"]
    assert found | {"why": []} == {
        "name": "orders",
        "endpoint": "http://orders:8000",
        "agent_type": "tool",
        "status": "registered",
        "description": "Knows what customers bought.",
        "protocols": ["chat", "mcp"],
        "tools": ["search_orders", "refund"],
        "why": [],
    }
    said = text_of(result)
    for words in ("orders (registered) at http://orders:8000", "tools: search_orders, refund", "matched: "):
        assert words in said


async def test_a_limit_is_kept_and_the_best_comes_first(registry: RunRegistry) -> None:
    other = {"name": "archive", "description": "Old things, a few orders among them"}
    async with registry() as http, mcp_client(http) as client:
        await add(http, other, ORDERS)
        both = await client.call_tool("find_agent", {"question": "orders"})
        one = await client.call_tool("find_agent", {"question": "orders", "limit": 1})
    assert [agent["name"] for agent in both.structured_content["agents"]] == ["orders", "archive"]
    assert [agent["name"] for agent in one.structured_content["agents"]] == ["orders"]


async def test_who_is_down_is_left_out_and_said_to_be(registry: RunRegistry, clock: Clock) -> None:
    async with registry(clock=clock) as http, mcp_client(http) as client:
        await add(http, ORDERS | {"ttl_seconds": 10})
        clock.turn(31)

        async def down() -> bool:
            return (await http.get("/agents/orders")).json()["status"] == "down"

        await eventually(down)
        result = await client.call_tool("find_agent", {"question": "orders"})
    assert result.structured_content == {"agents": []}
    assert "No agent matches." in text_of(result)
    assert "Left out because they are down: orders." in text_of(result)


async def test_nothing_found_is_an_answer(registry: RunRegistry) -> None:
    async with registry() as http, mcp_client(http) as client:
        result = await client.call_tool("find_agent", {"question": "zeppelins?"})
    assert (result.is_error, result.structured_content) == (False, {"agents": []})
    assert text_of(result) == "No agent matches. Try other words."


async def test_what_cannot_be_asked_is_told_in_a_sentence(registry: RunRegistry) -> None:
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("other", {"question": "x"}, "Unknown tool other. The only tool is find_agent."),
        ("find_agent", {}, "`question`: Field required"),
        ("find_agent", {"question": ""}, "`question`: String should have at least 1 character"),
        ("find_agent", {"question": "x", "limit": 0}, "`limit`: Input should be greater than or equal to 1"),
        ("find_agent", {"question": "x", "limit": "5"}, "`limit`: Input should be a valid integer"),
        ("find_agent", {"question": "x", "limt": 5}, "`limt`: Extra inputs are not permitted"),
    ]
    async with registry() as http, mcp_client(http) as client:
        for name, arguments, sentence in wrong:
            result = await client.call_tool(name, arguments)
            assert (result.is_error, text_of(result)) == (True, sentence)


async def test_a_token_with_read_is_needed_where_there_are_tokens(registry: RunRegistry) -> None:
    async with registry(tokens=TOKENS) as http:
        async with mcp_client(http, authorization="Bearer tok-reader") as client:
            result = await client.call_tool("find_agent", {"question": "orders"})
            assert result.is_error is False
        for headers in ({}, {"authorization": "Bearer tok-writer"}):
            with pytest.raises((MCPError, ExceptionGroup)):
                async with mcp_client(http, **headers) as client:
                    await client.list_tools()


async def test_a_page_of_a_stranger_is_refused_and_one_that_is_named_is_not(registry: RunRegistry) -> None:
    call = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": INITIALIZE}
    accept = {"accept": "application/json, text/event-stream"}
    async with registry(cors_origins=("https://portal.example",)) as http:
        for origin, status in (
            ("https://evil.example", 403),
            ("null", 403),
            ("https://portal.example", 200),
            ("http://localhost:5173", 200),
            (str(http.base_url).rstrip("/"), 200),
        ):
            response = await http.post("/mcp", json=call, headers=accept | {"origin": origin})
            assert response.status_code == status, origin
            if status == 403:
                assert response.json()["code"] == "forbidden_origin"


async def test_other_methods_and_bodies_that_are_too_large_are_refused(registry: RunRegistry) -> None:
    headers = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    async with registry() as http:
        assert (await http.get("/mcp", headers=headers)).status_code == 405
        assert (await http.post("/mcp", content=b"x" * 300_000, headers=headers)).status_code == 413
        assert 400 <= (await http.post("/mcp", content=b"{", headers=headers)).status_code < 500


async def test_an_agent_finds_others_with_one_line_in_its_file(registry: RunRegistry, tmp_path: Path) -> None:
    model = ScriptedModel([[called("find_agent", '{"question": "customer orders"}')], "Ask orders."])
    async with registry(tokens=TOKENS) as http:
        headers = {"authorization": "Bearer tok-writer"}
        (await http.post("/register", json=MINIMAL | ORDERS, headers=headers)).raise_for_status()
        server = {"url": f"{str(http.base_url).rstrip('/')}/mcp", "headers": {"Authorization": "Bearer ${TOKEN}"}}
        file = write_agent(tmp_path, mcp_servers={"registry": server | {"required": True}})
        async with Agent(file, model=model, environment={"TOKEN": "tok-reader"}) as agent:
            answer = await agent.run("Who knows about orders?")
    assert answer.answer == "Ask orders."
    heard = str(model.asked[-1].messages)
    assert "orders (registered) at http://orders:8000" in heard
