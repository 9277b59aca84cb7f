"""MCP servers as tools: real programs and real HTTP servers, that die, hang and come back."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("mcp", reason="needs the mcp extra")

from mcp.server import MCPServer

from agent_runtime import Agent, StartError
from agent_runtime.events import Decision, Finished, ToolCall, ToolResult
from agent_runtime.models.scripted import ScriptedModel
from agent_runtime.server.app import create_app
from agent_runtime.tools import run_tool
from discovery.app import create_app as create_registry
from discovery.settings import Settings
from tests.agents import called, eventually, free_port, write_agent
from tests.serving import serve

HERE = Path(__file__).parent
PROGRAM: dict[str, Any] = {"command": sys.executable, "args": [str(HERE / "server_program.py")]}


def mute(answers: str, **more: Any) -> dict[str, Any]:
    return {"command": sys.executable, "args": [str(HERE / "mute_server.py"), answers], **more}


def agent_with(folder: Path, servers: dict[str, Any], model: ScriptedModel | None = None, **sections: Any) -> Agent:
    file = write_agent(folder, mcp_servers=servers, **sections)
    return Agent(file, model=model or ScriptedModel([]), environment={"TOKEN": "hush-token-1"})


async def call(agent: Agent, name: str, **arguments: Any) -> ToolResult:
    tools = {tool.spec.name: tool for tool in agent.tools}
    return await run_tool(tools, ToolCall("c", name, json.dumps(arguments)))


async def whoami(agent: Agent) -> dict[str, Any]:
    return json.loads((await call(agent, "whoami")).content)


def names(agent: Agent) -> list[str]:
    return [tool.spec.name for tool in agent.tools]


async def up(agent: Agent) -> None:
    async def is_up() -> bool:
        return not agent.is_degraded

    await eventually(is_up, 15)


async def down(agent: Agent) -> str:
    async def is_down() -> bool:
        return agent.is_degraded

    await eventually(is_down, 15)
    [reason] = [check.reason for check in agent.checks if not check.ok]
    assert reason
    return reason


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def http_server(*tools: str) -> MCPServer:
    server = MCPServer("shop")
    for tool in tools:

        def price(item: str, tool: str = tool) -> str:
            return f"{tool} {item}: 3 pounds"

        server.add_tool(price, name=tool, description=f"The {tool}.")
    return server


@asynccontextmanager
async def over_http(*tools: str, port: int = 0, seen: list[dict[str, str]] | None = None) -> AsyncGenerator[str]:
    """A served MCP server's address; the headers of every request go to `seen`."""
    app = http_server(*tools).streamable_http_app(stateless_http=True)

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        if seen is not None and scope["type"] == "http":
            seen.append({name.decode(): value.decode() for name, value in scope["headers"]})
        await app(scope, receive, send)

    async with serve(noting, port=port, lifespan="on") as url:
        yield f"{url}/mcp"


async def test_the_model_uses_the_tools_of_a_program_as_its_own(tmp_path: Path) -> None:
    model = ScriptedModel([[called("stock", '{"item": "pegs"}')], "There are 7 pegs."])
    async with asyncio.timeout(30), agent_with(tmp_path, {"warehouse": PROGRAM}, model) as agent:
        result = await agent.run("How many pegs?")
        assert not agent.is_degraded
    [use] = result.steps[0].tool_calls
    assert (use.result, use.is_error) == ("7 pegs", False)
    spec = next(spec for spec in model.asked[0].tools if spec.name == "stock")
    assert spec.description == "How many pieces of an item there are."
    assert spec.parameters["properties"]["item"]["type"] == "string"


async def test_a_server_whose_calls_need_approval_is_not_called_until_a_person_allowed_it(tmp_path: Path) -> None:
    crash = [called("crash", "{}")]  # ends the program, so that nothing can have been called before
    model = ScriptedModel([crash, "It crashed.", [called("stock", '{"item": "pegs"}')], "There are 7 pegs."])
    servers = {
        "dangerous": {**PROGRAM, "allowed_tools": ["crash"], "approval": "required"},
        "warehouse": {**PROGRAM, "allowed_tools": ["stock"]},
    }
    async with asyncio.timeout(40), agent_with(tmp_path, servers, model) as agent:
        assert (await agent.run("Crash it.")).stop_reason == "approval_required"
        assert not agent.is_degraded
        [waiting] = await agent.approvals()
        assert waiting.tool == "crash"
        events = [event async for event in agent.resolve(waiting.id, Decision("deny", "no"))]
        assert isinstance(events[-1], Finished)
        assert not agent.is_degraded
        assert (await agent.run("How many pegs?")).answer == "There are 7 pegs."  # the other server asks nobody


async def test_placeholders_variables_and_the_folder_reach_the_program_and_other_secrets_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-tools")
    server = {**PROGRAM, "args": [*PROGRAM["args"], "${TOKEN}"], "env": {"TOKEN": "${TOKEN}"}}
    async with asyncio.timeout(30), agent_with(tmp_path, {"warehouse": server}) as agent:
        known = await whoami(agent)
        assert (known["token"], known["argument"], known["cwd"]) == ("hush-token-1", "hush-token-1", str(tmp_path))
        assert "OPENAI_API_KEY" not in known["variables"]
        assert "hush" not in repr(agent.config)


async def test_what_a_server_says_becomes_text_and_its_error_the_models_to_read(tmp_path: Path) -> None:
    async with asyncio.timeout(30), agent_with(tmp_path, {"warehouse": PROGRAM}) as agent:
        result = await call(agent, "files_list_all")
        assert result.content == (
            "Two files:\n\n[image, image/png, 3 KiB: not shown]\n\n[resource report: the report](file:///report.pdf)"
            "\n\nfile:///notes.txt:\nBuy more pegs."
        )
        broken = await call(agent, "broken")
        assert broken.is_error
        assert "the shelf is empty" in broken.content
        wrong = await call(agent, "stock", amount=3)
        assert wrong.is_error
        assert "item" in wrong.content
        assert not agent.is_degraded


async def test_headers_are_sent_and_only_allowed_tools_are_shown(tmp_path: Path) -> None:
    seen: list[dict[str, str]] = []
    async with asyncio.timeout(30), over_http("price", "offer", seen=seen) as url:
        server = {"url": url, "headers": {"Authorization": "Bearer ${TOKEN}"}, "allowed_tools": ["offer"]}
        async with agent_with(tmp_path, {"shop": server}) as agent:
            assert names(agent) == ["offer"]
            assert (await call(agent, "offer", item="pegs")).content == "offer pegs: 3 pounds"
    assert {headers["authorization"] for headers in seen} == {"Bearer hush-token-1"}


async def test_names_are_prefixed_only_where_they_clash(tmp_path: Path) -> None:
    async with asyncio.timeout(30), over_http("price", "add") as one, over_http("price", "offer") as two:
        servers = {"one": {"url": one}, "two": {"url": two}}
        async with agent_with(tmp_path, servers, tools=["calculator:add"]) as agent:
            assert sorted(names(agent)) == ["add", "offer", "one_add", "one_price", "two_price"]
            assert (await call(agent, "two_price", item="pegs")).content == "price pegs: 3 pounds"
            assert (await call(agent, "add", a=1, b=2)).content == "3"


async def test_a_server_killed_mid_run_is_reported_and_is_back_afterwards(tmp_path: Path) -> None:
    model = ScriptedModel(
        [
            [called("crash")],
            [called("stock", '{"item": "pegs"}', call_id="c2")],
            "The warehouse does not answer.",
            [called("stock", '{"item": "pegs"}')],
            "Seven.",
        ]
    )
    async with asyncio.timeout(40), agent_with(tmp_path, {"warehouse": PROGRAM}, model) as agent:
        first = await agent.run("How many pegs?")
        crash, stock = (use for step in first.steps for use in step.tool_calls)
        assert crash.is_error
        assert "The MCP server warehouse failed: it closed the connection" in crash.result
        assert "The MCP server warehouse" in stock.result

        async def works() -> bool:
            return not (await call(agent, "stock", item="pegs")).is_error

        await eventually(works, 15)
        second = await agent.run("How many pegs?")
        assert second.steps[0].tool_calls[0].result == "7 pegs"


async def test_a_program_killed_while_nobody_calls_it_degrades_the_agent_until_it_is_back(tmp_path: Path) -> None:
    async with asyncio.timeout(40), agent_with(tmp_path, {"warehouse": PROGRAM}) as agent:
        before = await whoami(agent)
        os.kill(before["pid"], signal.SIGKILL)
        assert "closed the connection" in await down(agent)
        told = await call(agent, "stock", item="pegs")
        assert told.is_error
        assert "The MCP server warehouse is down" in told.content
        assert "reconnected in the background" in told.content
        await up(agent)
        after = await whoami(agent)
        assert after["pid"] != before["pid"]
    assert is_gone(after["pid"])


async def test_a_server_that_is_down_at_the_start_brings_its_tools_when_it_comes(tmp_path: Path) -> None:
    port = free_port()
    servers = {"shop": {"url": f"http://127.0.0.1:{port}/mcp"}}
    model = ScriptedModel(["I cannot say.", [called("price", '{"item": "pegs"}')], "3 pounds."])
    async with asyncio.timeout(40), agent_with(tmp_path, servers, model) as agent:
        assert names(agent) == []
        assert await down(agent) == "it cannot be reached (ConnectError)"
        assert (await agent.run("A price?")).answer == "I cannot say."
        async with over_http("price", port=port):
            await up(agent)
            assert (await agent.run("A price?")).answer == "3 pounds."
        assert "price" in names(agent)
        assert (await call(agent, "price", item="pegs")).is_error
        await down(agent)


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        ({"command": "no-such-program"}, "no-such-program cannot be started"),
        ({"command": sys.executable, "args": ["-c", "raise SystemExit('no licence')"]}, "it wrote: no licence"),
        ({"url": "http://127.0.0.1:9/mcp"}, "it cannot be reached"),
        (mute("nothing", timeout_seconds=0.5), "did not answer within 0.5 s"),
    ],
)
async def test_a_required_server_that_is_down_keeps_the_agent_from_starting(
    tmp_path: Path, server: dict[str, Any], reason: str
) -> None:
    async with asyncio.timeout(30):
        with pytest.raises(StartError, match="the MCP server warehouse is required and is down") as raised:
            await agent_with(tmp_path, {"warehouse": {**server, "required": True}}).run("hello")
    assert reason in str(raised.value)
    if (tmp_path / "pids").exists():
        assert all(is_gone(int(pid)) for pid in (tmp_path / "pids").read_text().split())


async def test_a_refusal_names_its_status_and_no_key(tmp_path: Path) -> None:
    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b"bad token hush-token-1"})

    async with asyncio.timeout(30), serve(refuse, lifespan="off") as url:
        server = {"url": f"{url}/mcp?key=${{TOKEN}}", "headers": {"Authorization": "Bearer ${TOKEN}"}}
        async with agent_with(tmp_path, {"shop": server}) as agent:
            reason = await down(agent)
    assert "it answered 401 Unauthorized" in reason
    assert "hush" not in reason


async def test_a_server_that_hangs_at_the_start_holds_nothing_up_for_long(tmp_path: Path) -> None:
    async with asyncio.timeout(30):
        began = time.monotonic()
        async with agent_with(tmp_path, {"warehouse": mute("nothing", timeout_seconds=0.5)}) as agent:
            assert time.monotonic() - began < 10
            assert agent.is_degraded
            closing = time.monotonic()
        assert time.monotonic() - closing < 12
    assert all(is_gone(int(pid)) for pid in (tmp_path / "pids").read_text().split())


async def test_a_call_that_hangs_is_bounded_and_the_program_is_replaced(tmp_path: Path) -> None:
    async with asyncio.timeout(50):
        async with agent_with(tmp_path, {"warehouse": mute("list", timeout_seconds=2)}) as agent:
            result = await call(agent, "wait")
            assert (result.content, result.is_error) == ("wait did not finish within 2 s.", True)
            assert "did not answer within 2 s" in await down(agent)
            await up(agent)
            first, second = (int(pid) for pid in (tmp_path / "pids").read_text().split())
            assert is_gone(first)
        assert is_gone(second)


async def test_a_run_that_is_cancelled_in_a_call_leaves_the_server_usable(tmp_path: Path) -> None:
    async with asyncio.timeout(30), agent_with(tmp_path, {"warehouse": PROGRAM}) as agent:
        task = asyncio.create_task(call(agent, "stock", item="pegs"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert (await call(agent, "stock", item="pegs")).content == "7 pegs"


async def test_health_and_the_registry_say_degraded_and_the_agent_still_takes_traffic(tmp_path: Path) -> None:
    port, own_port = free_port(), free_port()
    servers = {"shop": {"url": f"http://127.0.0.1:{port}/mcp"}}
    async with asyncio.timeout(40), serve(create_registry(Settings(database_url="memory://"))) as registry:
        agent = agent_with(
            tmp_path, servers, ScriptedModel(["Hi."]), discovery={"url": registry, "heartbeat_seconds": 0.2}
        )
        async with (
            agent,
            serve(create_app(agent, port=own_port), port=own_port) as url,
            httpx.AsyncClient(base_url=url, trust_env=False) as http,
        ):

            async def status() -> tuple[str, str, list[bool]]:
                records = (await http.get(f"{registry}/agents")).json()
                [instance] = records[0]["instances"] if records else [{"status": "", "checks": []}]
                health = (await http.get("/health")).json()
                return health["status"], instance["status"], [check["ok"] for check in instance["checks"]]

            async def is_degraded() -> bool:
                return await status() == ("degraded", "degraded", [False])

            async def is_up() -> bool:
                return await status() == ("up", "up", [True])

            await eventually(is_degraded)
            [check] = (await http.get("/health")).json()["checks"]
            assert (check["name"], check["reason"]) == ("mcp:shop", "it cannot be reached (ConnectError)")
            assert (await http.get("/readyz")).status_code == 200
            assert (await http.post("/chat", json={"message": "hi"})).json()["answer"] == "Hi."
            async with over_http("price", port=port):
                await eventually(is_up, 15)
                assert (await http.get("/health")).json()["tools"] == ["price"]


async def test_without_the_extra_the_agent_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "mcp" or name.endswith("tools.mcp.transport")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(StartError, match=r"pip install 'myagent\[mcp\]'"):
        await agent_with(tmp_path, {"warehouse": PROGRAM}).run("hello")
