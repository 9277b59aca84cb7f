"""The MCP server example: a real server in a real registry, and the agent that uses its tools."""

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

pytest.importorskip("mcp", reason="needs the mcp extra")

from agent_runtime import Agent
from agent_runtime.agent_file import load
from agent_runtime.cli.stack import LocalStack
from agent_runtime.models.scripted import ScriptedModel
from agent_runtime.server.app import create_app
from discovery.app import create_app as create_registry
from discovery.client import DiscoveryClient
from discovery.contract import AgentRecord, ToolInfo
from discovery.settings import Settings
from tests.agents import called, eventually, free_port, running
from tests.serving import serve

FOLDER = Path(__file__).parents[2] / "examples" / "mcp-server"


@asynccontextmanager
async def warehouse(registry: DiscoveryClient, folder: Path) -> AsyncGenerator[AgentRecord]:
    """The server as a program of its own; its record, as soon as it is listed."""
    command = [sys.executable, "-W", "error", str(FOLDER / "server.py"), "--port", str(free_port())]
    async with running(command, folder, {"MYAGENT_DISCOVERY_URL": registry.url}) as process:

        async def found() -> AgentRecord | None:
            assert process.returncode is None
            return await registry.agent("warehouse")

        yield await eventually(found, 20)
        process.terminate()
        _, errors = await process.communicate()
        assert b"Traceback" not in errors, errors.decode()


@asynccontextmanager
async def a_registry() -> AsyncGenerator[DiscoveryClient]:
    app = create_registry(Settings(database_url="memory://"))
    async with serve(app) as url, DiscoveryClient(url) as client:
        yield client


async def test_the_server_is_listed_with_its_tools_and_their_schemas_and_gone_when_it_stops(tmp_path: Path) -> None:
    async with a_registry() as registry:
        async with warehouse(registry, tmp_path) as record:
            assert (record.agent_type, record.protocols, record.status) == ("mcp_server", ["mcp"], "up")
            assert record.links is not None
            assert record.links.health is not None
            async with httpx.AsyncClient(trust_env=False) as http:
                assert (await http.get(record.links.health)).text == "ok"
            tools = {tool.name: tool for tool in record.tools if isinstance(tool, ToolInfo)}
            assert tools.keys() == {"find_stock", "when_available"}
            schema = tools["when_available"].input_schema
            assert schema is not None
            assert schema["required"] == ["product"]
        assert await registry.agents() == []


async def test_the_agent_answers_with_the_servers_tools(tmp_path: Path) -> None:
    asks = called("when_available", '{"product": "Standing desk", "pieces": 6}')
    looks = called("find_stock", '{"words": "chair", "at_most": 30}', call_id="c2")
    wrong = called("when_available", '{"product": "Throne"}', call_id="c3")
    model = ScriptedModel([[asks, looks, wrong], "Six, after the next delivery."])
    async with a_registry() as registry, warehouse(registry, tmp_path) as record:
        environment = {"WAREHOUSE_URL": record.endpoint, "MYAGENT_SESSION_STORE": "memory"}
        overrides = {"discovery": {"url": registry.url}}
        file = await load(FOLDER / "agent.yaml", environment=environment, overrides=overrides)
        port = free_port()
        async with (
            Agent(file, model=model, environment=environment) as agent,
            serve(create_app(agent, port=port), port=port) as url,
            httpx.AsyncClient(base_url=url, trust_env=False, timeout=10) as client,
        ):
            answer = (await client.post("/chat", json={"message": "Can I have six standing desks?"})).json()
            listed = await eventually(lambda: registry.agent("stock-desk"))
    assert answer["answer"] == "Six, after the next delivery."
    first, second, third = [message.content for message in model.asked[1].messages[-3:]]
    assert "5 of Standing desk (DSK-10) are free; 6 after the delivery of 20 on" in first
    assert "| CHR-10 | Ergonomic chair | 25 | B1 |" in second
    assert "There is no product 'Throne'" in third
    assert {tool.name for tool in listed.tools} == {"find_stock", "when_available"}
    assert listed.status == "up"


def test_the_local_stack_leaves_an_agent_out_that_needs_a_server_of_its_own() -> None:
    stack = LocalStack([], port=9000, model=None, install=None)
    assert "mcp-server" not in {folder.name for folder in stack.folders}
    assert "customer-service" in {folder.name for folder in stack.folders}
