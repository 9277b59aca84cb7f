"""Agents that ask each other: served for real, found through a real registry, asked over A2A."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("a2a", reason="needs the a2a extra")

from agent_runtime import Agent, ConfigError, ModelError, StartError
from agent_runtime.agent_file import load
from agent_runtime.events import Decision, Message, ToolSpec, Usage
from agent_runtime.models.scripted import Reply, ScriptedModel
from agent_runtime.server.app import create_app
from agent_runtime.tools.remote import MAX_DEPTH
from discovery.app import create_app as create_registry
from discovery.settings import Settings
from tests.agents import called, eventually, free_port, write_agent
from tests.serving import serve

ASK = called("billing", '{"message": "What does order 7 cost?"}')


@asynccontextmanager
async def registry() -> AsyncGenerator[str]:
    async with asyncio.timeout(40), serve(create_registry(Settings(database_url="memory://"))) as url:
        yield url


@asynccontextmanager
async def served(
    folder: Path, registry: str, name: str, model: ScriptedModel, **sections: Any
) -> AsyncGenerator[Agent]:
    """An agent that others find at the registry."""
    port = free_port()
    file = write_agent(folder / name, name=name, discovery={"url": registry}, **sections)
    async with Agent(file, model=model, environment={}) as agent, serve(create_app(agent, port=port), port=port):
        async with httpx.AsyncClient(trust_env=False) as http:

            async def listed() -> bool:
                return (await http.get(f"{registry}/agents/{name}")).status_code == 200

            await eventually(listed)
        yield agent


def asking(folder: Path, registry: str, replies: Sequence[Reply], **tool: Any) -> tuple[Agent, ScriptedModel]:
    """An agent that may ask the agent billing."""
    model = ScriptedModel(replies)
    tools = [{"agent": "billing", **tool}]
    file = write_agent(folder / "asking", name="asking", discovery={"url": registry}, tools=tools)
    return Agent(file, model=model, environment={}), model


async def test_an_agent_asks_another_one_and_reads_its_answer(tmp_path: Path) -> None:
    billing = ScriptedModel([["It costs ", "7 pounds.", Usage(100, 20)]])
    async with registry() as url, served(tmp_path, url, "billing", billing, description="Knows prices."):
        agent, model = asking(tmp_path, url, [[ASK, Usage(10, 1)], ["7 pounds.", Usage(20, 2)]])
        async with agent:
            result = await agent.run("What does order 7 cost?")
    [use] = result.steps[0].tool_calls
    assert (use.result, use.is_error, result.answer) == ("It costs 7 pounds.", False, "7 pounds.")
    assert billing.asked[0].messages == (Message("user", "What does order 7 cost?"),)
    [spec] = model.asked[0].tools
    assert (spec.name, spec.description) == ("billing", "Ask the agent billing. Knows prices.")
    assert result.usage == Usage(130, 23)  # the other agent's tokens count


async def test_the_answer_of_another_agent_can_be_the_answer_word_for_word(tmp_path: Path) -> None:
    async with registry() as url, served(tmp_path, url, "billing", ScriptedModel(["7 pounds."])):
        agent, _ = asking(tmp_path, url, [[ASK]], answer="direct")
        async with agent:
            assert (await agent.run("What does order 7 cost?")).answer == "7 pounds."


async def test_a_question_to_another_agent_can_wait_for_a_person(tmp_path: Path) -> None:
    billing = ScriptedModel(["7 pounds."])
    async with registry() as url, served(tmp_path, url, "billing", billing):
        agent, _ = asking(tmp_path, url, [[ASK], "7 pounds."], approval="required")
        async with agent:
            assert (await agent.run("What does order 7 cost?")).stop_reason == "approval_required"
            assert billing.asked == []
            [waiting] = await agent.approvals()
            async for _ in agent.resolve(waiting.id, Decision("approve")):
                pass
            assert len(billing.asked) == 1


async def test_an_agent_that_is_not_there_fails_or_is_gone_is_the_models_to_read(tmp_path: Path) -> None:
    async def told(agent: Agent) -> str:
        [use] = (await agent.run("What does order 7 cost?")).steps[0].tool_calls
        assert use.is_error
        return use.result

    async with registry() as url:
        agent, _ = asking(tmp_path, url, [[ASK], "I do not know."] * 3)
        async with agent:
            assert await told(agent) == "There is no agent billing in the registry."
            broken = ScriptedModel([ModelError("its model is away")])
            async with served(tmp_path, url, "billing", broken):
                assert await told(agent) == "The agent billing did not answer (failed): its model is away"
            assert "The agent billing cannot be reached: " in await told(agent)


async def test_a_registry_that_is_away_is_the_models_to_read_too(tmp_path: Path) -> None:
    agent, _ = asking(tmp_path, "http://127.0.0.1:9", [[ASK], "I do not know."])
    async with asyncio.timeout(20), agent:
        [use] = (await agent.run("What does order 7 cost?")).steps[0].tool_calls
    assert "the registry does not answer" in use.result


async def test_a_key_opens_the_other_agent_and_without_one_the_model_reads_why_not(tmp_path: Path) -> None:
    server = {"api_keys": ["k1"]}
    async with registry() as url, served(tmp_path, url, "billing", ScriptedModel(["7 pounds."]), server=server):
        agent, _ = asking(tmp_path, url, [[ASK], "Aha."], api_key="k1")
        async with agent:
            [use] = (await agent.run("A price?")).steps[0].tool_calls
            assert use.result == "7 pounds."
        agent, _ = asking(tmp_path, url, [[ASK], "Aha."])
        async with agent:
            [use] = (await agent.run("A price?")).steps[0].tool_calls
            assert use.is_error
            assert "401" in use.result


class Passing(ScriptedModel):
    """Asks the other agent whatever it is asked, and repeats what it is told."""

    def __init__(self, other: str) -> None:
        super().__init__([])
        self.other = other

    async def stream(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), **options: Any) -> Any:
        if messages[-1].role == "tool":
            yield messages[-1].content
            yield Usage(100, 0)
        else:
            yield called(self.other, '{"message": "Do you know?"}')
            yield Usage(100, 0)


async def both(folder: Path, url: str, stack: AsyncExitStack, **limits: Any) -> Agent:
    """Two agents that ask each other; the first one."""
    agents = [
        await stack.enter_async_context(
            served(folder, url, name, Passing(other), tools=[{"agent": other}], limits=limits)
        )
        for name, other in (("ping", "pong"), ("pong", "ping"))
    ]
    return agents[0]


async def test_agents_that_ask_each_other_stop_with_a_sentence(tmp_path: Path) -> None:
    async with registry() as url, AsyncExitStack() as stack:
        ping = await both(tmp_path, url, stack)
        result = await ping.run("Do you know?")
    assert f"No further agent can be called: {MAX_DEPTH} agents are waiting" in result.answer
    assert result.stop_reason == "finished"
    assert result.usage.total_tokens == 200 * (MAX_DEPTH + 1)


async def test_agents_that_ask_each_other_share_one_budget(tmp_path: Path) -> None:
    async with registry() as url, AsyncExitStack() as stack:
        ping = await both(tmp_path, url, stack, max_tokens=250)
        result = await ping.run("Do you know?")
    # 250 - 100 - 100 leaves 50 for the third agent, which may ask once more and nobody has anything left to answer with
    assert result.stop_reason == "max_tokens"
    assert result.usage.total_tokens <= 250 + 100


async def test_the_time_that_is_left_goes_along_and_giving_up_stops_the_other_agent(tmp_path: Path) -> None:
    class Endless(ScriptedModel):
        begun, stopped = asyncio.Event(), asyncio.Event()

        async def stream(self, messages: Any, tools: Any = (), **options: Any) -> Any:
            self.begun.set()
            try:
                yield "Let me see"
                await asyncio.Event().wait()
            finally:
                self.stopped.set()

    async with registry() as url:
        endless = Endless([])
        async with served(tmp_path, url, "billing", endless):
            agent, _ = asking(tmp_path, url, [[ASK], "Aha."], timeout_seconds=1)
            async with agent:
                result = await agent.run("A price?")
            [use] = result.steps[0].tool_calls
            assert (use.result, use.is_error) == ("Let me see", False)  # its best answer, before the time was over
            await asyncio.wait_for(endless.stopped.wait(), 5)
            endless.begun.clear()
            endless.stopped.clear()
            agent, _ = asking(tmp_path, url, [[ASK]])
            async with agent:
                run = asyncio.create_task(agent.run("A price?"))
                await asyncio.wait_for(endless.begun.wait(), 5)
                run.cancel()
                await asyncio.wait_for(endless.stopped.wait(), 5)


async def test_other_agents_need_a_registry_and_mistakes_are_reported_with_their_line(tmp_path: Path) -> None:
    file = write_agent(tmp_path, tools=[{"agent": "billing", "timeout": 3}, {"agent": "Billing!"}])
    with pytest.raises(ConfigError) as raised:
        await load(file, environment={})
    text = str(raised.value)
    assert "tools[0].timeout: unknown key; did you mean `timeout_seconds`?" in text
    assert "tools[1].agent: must be" in text
    with pytest.raises(ConfigError, match=r"discovery: needs a `url` \(or MYAGENT_DISCOVERY_URL\)"):
        await load(write_agent(tmp_path, tools=[{"agent": "billing"}]), environment={})


async def test_without_the_extra_the_agent_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "a2a" or name.endswith("tools.remote.a2a")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "a2a", None)
    agent, _ = asking(tmp_path, "http://127.0.0.1:9", [])
    with pytest.raises(StartError, match=r"pip install 'myagent\[a2a\]'"):
        await agent.run("hello")
