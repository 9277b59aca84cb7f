"""Calls that wait for a person: saved, listed, decided once, and resumed, also after a restart."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_runtime import Agent, CallerError, Decision, Finished, Plan, StoreError, Usage
from agent_runtime.events import ApprovalRequired, Event
from agent_runtime.models.scripted import ScriptedModel
from tests.agent_runtime.speaking import Speaker
from tests.agents import eventually, free_port, started, write_agent
from tests.openai_server import calls, says, serving_openai

CODE = '''
import pathlib

def refund(order: int, pounds: float) -> str:
    """Pay money back."""
    with pathlib.Path(__file__).with_name("paid").open("a") as file:
        file.write(f"{order}: {pounds:g}\\n")
    return f"paid {pounds:g}"

def look_up(order: int) -> str:
    """Look an order up."""
    return f"order {order}"
'''
TOOLS = [{"function": "calculator:refund", "approval": "required"}, "calculator:look_up"]
APPROVE = Decision("approve")


@pytest.fixture(params=["native", "react"])
def speaker(request: pytest.FixtureRequest) -> Speaker:
    return Speaker(request.param)


def guarded(folder: Path, speaker: Speaker, *replies: Any, **sections: Any) -> Agent:
    sections = {"agent_type": "stateful", "session": {"store": "sqlite:///sessions.db"}, **sections}
    file = write_agent(folder, code=CODE, tools=TOOLS, reasoning={"dialect": speaker.dialect}, **sections)
    return Agent(file, model=ScriptedModel(replies), environment={})


def paid(folder: Path) -> list[str]:
    file = folder / "paid"
    return file.read_text().splitlines() if file.exists() else []


async def resolved(agent: Agent, approval_id: str, decision: Decision) -> Finished:
    events: list[Event] = [event async for event in agent.resolve(approval_id, decision)]
    end = events[-1]
    assert isinstance(end, Finished)
    return end


async def test_a_guarded_call_waits_and_nothing_is_done_until_a_person_approves(
    tmp_path: Path, speaker: Speaker
) -> None:
    script = [speaker.calls("refund", order=7, pounds=20), speaker.answers("Refunded.")]
    async with guarded(tmp_path, speaker, *script) as agent:
        events = [event async for event in agent.stream("Refund order 7", session_id="s")]
        waiting = next(event for event in events if isinstance(event, ApprovalRequired))
        assert (waiting.tool, waiting.arguments) == ("refund", '{"order": 7, "pounds": 20}')
        assert isinstance(events[-1], Finished)
        assert events[-1].stop_reason == "approval_required"
        assert paid(tmp_path) == []
        assert await agent.history("s") == []

        [listed] = await agent.approvals()
        assert (listed.id, listed.tool, listed.key.session_id) == (waiting.approval_id, "refund", "s")
        end = await resolved(agent, listed.id, APPROVE)
        assert (end.answer, end.stop_reason) == ("Refunded.", "finished")
        assert paid(tmp_path) == ["7: 20"]
        assert await agent.approvals() == []
        roles = [message.role for message in await agent.history("s")]
        assert roles == ["user", "assistant", "tool", "assistant"]


async def test_a_denied_call_is_not_made_and_the_model_reads_why(tmp_path: Path, speaker: Speaker) -> None:
    script = [speaker.calls("refund", order=7, pounds=20), speaker.answers("I may not.")]
    async with guarded(tmp_path, speaker, *script) as agent:
        await agent.run("Refund order 7", session_id="s")
        [waiting] = await agent.approvals()
        end = await resolved(agent, waiting.id, Decision("deny", "too much"))
        assert end.answer == "I may not."
        assert paid(tmp_path) == []
        assert any("refused this call: too much" in message.content for message in await agent.history("s"))


async def test_an_edited_call_is_made_with_the_persons_arguments(tmp_path: Path, speaker: Speaker) -> None:
    script = [speaker.calls("refund", order=7, pounds=2000), speaker.answers("Refunded 20.")]
    async with guarded(tmp_path, speaker, *script) as agent:
        await agent.run("Refund order 7", session_id="s")
        [waiting] = await agent.approvals()
        end = await resolved(agent, waiting.id, Decision("approve", arguments='{"order": 7, "pounds": 20}'))
        assert paid(tmp_path) == ["7: 20"]
        assert end.steps[-1].tool_calls[0].arguments == {"order": 7, "pounds": 20}


async def test_of_many_concurrent_decisions_one_is_taken(tmp_path: Path, speaker: Speaker) -> None:
    script = [speaker.calls("refund", order=7, pounds=20), speaker.answers("Refunded.")]
    async with guarded(tmp_path, speaker, *script) as agent:
        await agent.run("Refund order 7", session_id="s")
        [waiting] = await agent.approvals()
        outcomes = await asyncio.gather(
            *(resolved(agent, waiting.id, APPROVE) for _ in range(5)), return_exceptions=True
        )
        assert sum(isinstance(outcome, Finished) for outcome in outcomes) == 1
        assert sum(isinstance(outcome, CallerError) for outcome in outcomes) == 4
        assert paid(tmp_path) == ["7: 20"]


async def test_an_approval_of_another_owner_is_not_found(tmp_path: Path, speaker: Speaker) -> None:
    async with guarded(tmp_path, speaker, speaker.calls("refund", order=7, pounds=20)) as agent:
        await agent.run("Refund order 7", session_id="s", owner="ada")
        assert await agent.approvals(owner="bob") == []
        [waiting] = await agent.approvals(owner="ada")
        with pytest.raises(CallerError, match="there is no approval"):
            await resolved(agent, waiting.id, APPROVE)
        assert len(await agent.approvals(owner="ada")) == 1


async def test_unguarded_calls_of_the_same_reply_wait_with_it_and_each_guarded_one_is_decided(tmp_path: Path) -> None:
    from agent_runtime.events import ToolCall

    speaker = Speaker("native")
    reply = [
        ToolCall("a", "refund", '{"order": 1, "pounds": 1}'),
        ToolCall("b", "look_up", '{"order": 2}'),
        ToolCall("c", "refund", '{"order": 3, "pounds": 3}'),
    ]
    async with guarded(tmp_path, speaker, reply, speaker.answers("Done.")) as agent:
        await agent.run("Refund both", session_id="s")
        [first] = await agent.approvals()
        assert (await resolved(agent, first.id, APPROVE)).stop_reason == "approval_required"
        assert paid(tmp_path) == []
        [second] = await agent.approvals()
        assert second.arguments == '{"order": 3, "pounds": 3}'
        end = await resolved(agent, second.id, Decision("deny"))
        assert [use.is_error for use in end.steps[0].tool_calls] == [False, False, True]
        assert paid(tmp_path) == ["1: 1"]


async def test_an_agent_that_remembers_nothing_can_have_guarded_tools_too(tmp_path: Path, speaker: Speaker) -> None:
    script = [speaker.calls("refund", order=7, pounds=20), speaker.answers("Refunded.")]
    async with guarded(tmp_path, speaker, *script, agent_type="tool") as agent:
        await agent.run("Refund order 7")
        [waiting] = await agent.approvals()
        assert (await resolved(agent, waiting.id, APPROVE)).answer == "Refunded."
        assert paid(tmp_path) == ["7: 20"]


REFUND = {"index": 0, "id": "c1", "function": {"name": "refund", "arguments": '{"order": 7, "pounds": 20}'}}


async def test_a_waiting_call_survives_kill_9_and_is_decided_over_http_after_the_restart(tmp_path: Path) -> None:
    async with serving_openai(calls([REFUND]), says("Refunded.")) as openai:
        port = free_port()
        sections = {"agent_type": "stateful", "session": {"store": "sqlite:///sessions.db"}, "server": {"port": port}}
        model = {"name": "test-model", "endpoint": openai.url}
        write_agent(tmp_path, code=CODE, tools=TOOLS, model=model, **sections)
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as client:

            async def alive() -> bool:
                try:
                    return (await client.get("/livez")).is_success
                except httpx.HTTPError:
                    return False

            async with started("run", cwd=tmp_path) as process:
                await eventually(alive, 15)
                asked = await client.post("/chat", json={"message": "Refund order 7", "session_id": "s"})
                assert asked.json()["stop_reason"] == "approval_required"
                process.kill()
                await process.wait()
            async with started("run", cwd=tmp_path):
                await eventually(alive, 15)
                assert (await client.get("/sessions/s")).json() == []
                [waiting] = (await client.get("/approvals")).json()
                assert (waiting["tool"], waiting["arguments"]) == ("refund", {"order": 7, "pounds": 20})
                path = f"/approvals/{waiting['id']}"
                wrong = await client.post(path, json={"decision": "approve", "arguments": {}})
                assert wrong.status_code == 422
                decided = await client.post(path, json={"decision": "approve"})
                assert decided.json()["answer"] == "Refunded."
                again = await client.post(path, json={"decision": "approve"})
                assert (again.status_code, again.json()["code"]) == (404, "approval_not_found")
                assert paid(tmp_path) == ["7: 20"]


async def test_a_run_goes_on_with_its_limits_plan_and_usage_after_a_decision(tmp_path: Path) -> None:
    say, usage = Speaker("native"), Usage(10, 5)
    look_up = say.calls("look_up", order=7, usage=usage)
    refund = say.calls("refund", order=7, pounds=20, usage=usage)
    script = ["1. Look\n2. Pay\n3. Look again", look_up, refund, look_up, "never asked"]
    limits = {"max_repeated_calls": 2}
    async with guarded(tmp_path, say, *script, agent_type="planning", limits=limits) as agent:
        assert (await agent.run("Refund order 7")).stop_reason == "approval_required"
        [waiting] = await agent.approvals()
        events = [event async for event in agent.resolve(waiting.id, APPROVE)]
    end = events[-1]
    assert isinstance(end, Finished)
    assert (end.stop_reason, end.answer, end.usage) == ("repeated_calls", "paid 20", Usage(30, 15))
    assert [use.name for step in end.steps for use in step.tool_calls] == ["look_up", "refund"]
    [plan] = [event for event in events if isinstance(event, Plan)]
    assert [step.status for step in plan.steps] == ["done", "done", "pending"]


def save_state(folder: Path, state: str) -> None:
    with closing(sqlite3.connect(folder / "sessions.db")) as database, database:
        database.execute("UPDATE approvals SET state = ?", (state,))


@pytest.mark.parametrize("state", ["", "[]", "{}", '{"state": {}}', '{"call": 1, "pending": 2}'])
async def test_a_waiting_call_whose_state_cannot_be_read_goes_on_waiting(tmp_path: Path, state: str) -> None:
    speaker = Speaker("native")
    async with guarded(tmp_path, speaker, speaker.calls("refund", order=7, pounds=20)) as agent:
        await agent.run("Refund order 7")
        [waiting] = await agent.approvals()
        save_state(tmp_path, state)
        with pytest.raises(StoreError, match="saved by another version of myagent"):
            await resolved(agent, waiting.id, APPROVE)
        assert [one.id for one in await agent.approvals()] == [waiting.id]


async def test_a_waiting_call_that_was_saved_before_the_format_changed_is_resumed(tmp_path: Path) -> None:
    call = {"id": "c1", "name": "refund", "arguments": '{"order": 7, "pounds": 20}'}
    saved: dict[str, Any] = {
        "turn": [{"role": "user", "content": "Refund order 7", "tool_calls": [], "tool_call_id": None}],
        "thought": "I pay it back.",
        "calls": [call],
        "pending": call,
        "replies": 1,
        "tool_calls": 0,
        "steps": [],
        "usage": {"input_tokens": 10, "output_tokens": 5},
        "said": "I pay it back.",
        "plan": None,
        "decisions": {},
    }
    speaker = Speaker("native")
    script = [speaker.calls("refund", order=7, pounds=20), speaker.answers("Refunded.")]
    async with guarded(tmp_path, speaker, *script) as agent:
        await agent.run("Refund order 7", session_id="s")
        [waiting] = await agent.approvals()
        save_state(tmp_path, json.dumps(saved))
        end = await resolved(agent, waiting.id, APPROVE)
        assert (end.answer, end.usage) == ("I pay it back.\n\nRefunded.", Usage(10, 5))
        assert [message.role for message in await agent.history("s")] == ["user", "assistant", "tool", "assistant"]
    assert paid(tmp_path) == ["7: 20"]
