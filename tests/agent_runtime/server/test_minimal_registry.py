"""Agents and commands with a registry that knows the first table of the protocol and nothing else."""

import json
from pathlib import Path

import httpx
import pytest

from agent_runtime import Agent
from agent_runtime.models.scripted import ScriptedModel
from agent_runtime.server.app import create_app
from discovery.client import DiscoveryClient
from discovery.contract import Registration
from tests.agents import called, eventually, free_port, myagent, started, write_agent
from tests.minimal_registry import MinimalRegistry, minimal_registry
from tests.serving import serve


async def known(registry: MinimalRegistry, *names: str) -> None:
    async with DiscoveryClient(registry.url) as client:
        for name in names:
            fields = {"endpoint": "http://127.0.0.1:8001", "agent_type": "tool", "tools": ["add"], "version": "1"}
            await client.register(Registration(name=name, **fields))


async def test_an_agent_registers_serves_and_stops_as_ever(tmp_path: Path) -> None:
    async with minimal_registry() as registry:
        file = write_agent(tmp_path, server={"port": 0}, discovery={"url": registry.url, "heartbeat_seconds": 0.2})
        async with started("run", "--config", file, cwd=tmp_path) as process, DiscoveryClient(registry.url) as client:
            found = await eventually(lambda: client.agent("helper"), 20)
            async with httpx.AsyncClient(base_url=found.endpoint, trust_env=False) as http:

                async def well() -> bool:
                    return (await http.get("/health")).json()["discovery"]["registered"]

                await eventually(well)
            process.terminate()
            _, errors = await process.communicate()
    assert process.returncode == 0
    assert b"WARNING" not in errors
    assert [tool if isinstance(tool, str) else tool.name for tool in found.tools] == []


async def test_an_agent_finds_another_one_through_it(tmp_path: Path) -> None:
    pytest.importorskip("a2a", reason="needs the a2a extra")
    billing = write_agent(tmp_path / "billing", name="billing")
    model = ScriptedModel([[called("billing", '{"message": "how much?"}')], "Nine pounds."])
    port = free_port()
    async with minimal_registry() as registry:
        discovery = {"url": registry.url}
        asking = write_agent(tmp_path / "asking", discovery=discovery, tools=[{"agent": "billing"}])
        async with (
            Agent(billing, model=ScriptedModel(["9 pounds"]), environment={}) as other,
            serve(create_app(other, port=port), port=port) as url,
            DiscoveryClient(registry.url) as client,
            Agent(asking, model=model, environment={}) as agent,
        ):
            fields = {"agent_type": "tool", "tools": [], "version": "1"}
            await client.register(Registration(name="billing", endpoint=url, **fields))
            answer = await agent.run("What do I owe?")
    assert answer.answer == "Nine pounds."
    assert "9 pounds" in str(model.asked[1].messages[-1].content)


async def test_the_list_in_the_terminal_shows_what_there_is(tmp_path: Path) -> None:
    async with minimal_registry(is_strict=True) as registry:
        await known(registry, "billing", "mail")
        environment = {"XDG_CACHE_HOME": str(tmp_path), "MYAGENT_DISCOVERY_URL": registry.url}
        ended = await myagent("agents", cwd=tmp_path, environment=environment)
        filtered = await myagent("agents", "-q", "BILL", "--json", cwd=tmp_path, environment=environment)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.splitlines() == [
        "NAME     STATUS      VERSION  MODEL  TOOLS  OWNER  ENDPOINT               SEEN",
        "billing  registered  1        -          1  -      http://127.0.0.1:8001  -",
        "mail     registered  1        -          1  -      http://127.0.0.1:8001  -",
        f"2 agents at {registry.url}: 2 registered",
    ]
    assert [agent["name"] for agent in json.loads(filtered.out)] == ["billing"]


async def test_a_watch_asks_again_and_again_where_there_are_no_events(tmp_path: Path) -> None:
    async with minimal_registry() as registry:
        command = ("agents", "--watch", "--discovery-url", registry.url)
        async with started(*command, cwd=tmp_path, environment={"XDG_CACHE_HOME": str(tmp_path)}) as process:
            assert process.stdout is not None
            while b"No agents at" not in (line := await process.stdout.readline()):
                assert line
            await known(registry, "billing")
            while b"1 agent at" not in (line := await process.stdout.readline()):
                assert line
    assert registry.asked.count("GET /events") == 1


async def test_a_side_process_keeps_its_entry(tmp_path: Path) -> None:
    async with minimal_registry() as registry, DiscoveryClient(registry.url) as client:
        command = ("register", "--name", "billing", "--endpoint", "http://h:1", "--discovery-url", registry.url)
        async with started(*command, cwd=tmp_path) as process:
            await eventually(lambda: client.agent("billing"), 15)
            process.terminate()
            assert await process.wait() == 0
        once = await myagent(*command, "--once", cwd=tmp_path)
    assert (once.status, once.out) == (0, f"billing/default is registered at {registry.url}\n")
