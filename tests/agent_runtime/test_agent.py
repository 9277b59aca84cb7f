"""The Agent in asynchronous code: run, stream, sessions."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import Agent, CallerError, ConfigError, ModelError, StartError, Usage
from agent_runtime.components import PRESETS
from agent_runtime.conversation import MAX_MESSAGE_CHARACTERS
from agent_runtime.events import Message
from agent_runtime.models.scripted import ScriptedModel
from tests.agent_runtime.speaking import Speaker, scripted_agent
from tests.agents import write_agent


class Gated(ScriptedModel):
    """Says `answer` when the gate opens; knows how many it is answering at once."""

    def __init__(self) -> None:
        super().__init__([])
        self.gate = asyncio.Event()
        self.begun = asyncio.Semaphore(0)
        self.questions: list[list[str]] = []

    async def stream(self, messages: Any, tools: Any = (), *, stop: Any = ()) -> Any:
        self.questions.append([message.content for message in messages])
        self.begun.release()
        await self.gate.wait()
        yield f"answer to {messages[-1].content}"


def stateful(folder: Path, model: ScriptedModel, **sections: Any) -> Agent:
    return Agent(write_agent(folder, agent_type="stateful", **sections), model=model, environment={})


async def test_a_run_returns_the_answer_its_steps_and_usage(tmp_path: Path) -> None:
    say = Speaker("native")
    model = ScriptedModel([say.calls("add", a=2, b=3, usage=Usage(10, 2)), say.answers("5", usage=Usage(20, 3))])
    async with scripted_agent(tmp_path, "native", model) as agent:
        result = await agent.run("2 + 3?", session_id="s1")
    assert (result.answer, result.stop_reason, result.session_id, result.usage) == ("5", "finished", "s1", Usage(30, 5))
    assert [use.name for step in result.steps for use in step.tool_calls] == ["add"]
    assert result.run_id


@pytest.mark.parametrize("agent_type", PRESETS)
async def test_a_preset_sets_the_dialect_and_whether_the_session_is_remembered(tmp_path: Path, agent_type: str) -> None:
    react, remembers, plans = "react" in agent_type, "stateful" in agent_type, "plan" in agent_type
    plan = ["1. Answer"] if plans else []
    marker = "Final Answer: " if react else ""
    model = ScriptedModel([*plan, f"{marker}one", *plan, f"{marker}two"])
    file = write_agent(tmp_path, agent_type=agent_type, tools=["calculator:add"])
    async with Agent(file, model=model, environment={}) as agent:
        assert (await agent.run("first", session_id="s")).answer == "one"
        assert (await agent.run("second", session_id="s")).answer == "two"
    first, second = model.asked[len(plan) :: len(plan) + 1]
    assert bool(first.tools) is not react
    assert [message.content for message in second.messages if message.role != "system"] == (
        ["first", "one", "second"] if remembers else ["second"]
    )


async def test_reasoning_overrides_one_choice_of_the_preset(tmp_path: Path) -> None:
    model = ScriptedModel(["one", "two"])
    file = write_agent(tmp_path, agent_type="stateful_react", reasoning={"dialect": "native", "memory": False})
    async with Agent(file, model=model, environment={}) as agent:
        await agent.run("first", session_id="s")
        await agent.run("second", session_id="s")
    assert model.asked[1].messages == (Message("user", "second"),)


async def test_an_agent_opens_itself_at_its_first_run_and_only_once(tmp_path: Path) -> None:
    class Counting(ScriptedModel):
        opened = closed = 0

        async def __aenter__(self) -> ScriptedModel:
            self.opened += 1
            await asyncio.sleep(0)
            return self

        async def __aexit__(self, *exc_info: object) -> None:
            self.closed += 1

    model = Counting(["a", "b", "c"])
    agent = Agent(write_agent(tmp_path), model=model, environment={})
    assert not agent.is_open
    results = await asyncio.gather(*(agent.run("hello") for _ in range(3)))
    assert sorted(result.answer for result in results) == ["a", "b", "c"]
    assert agent.is_open
    await agent.aclose()
    await agent.aclose()
    assert (model.opened, model.closed, agent.is_open) == (1, 1, False)


async def test_concurrent_runs_do_not_wait_for_each_other(tmp_path: Path) -> None:
    model = Gated()
    async with asyncio.timeout(5), Agent(write_agent(tmp_path), model=model, environment={}) as agent:
        runs = [asyncio.create_task(agent.run(f"q{number}")) for number in range(4)]
        for _ in runs:
            await model.begun.acquire()
        model.gate.set()
        results = await asyncio.gather(*runs)
    assert [result.answer for result in results] == [f"answer to q{number}" for number in range(4)]
    assert len({result.session_id for result in results}) == len({result.run_id for result in results}) == 4


async def test_two_turns_of_one_session_come_one_after_the_other(tmp_path: Path) -> None:
    model = Gated()
    async with asyncio.timeout(5), stateful(tmp_path, model) as agent:
        first = asyncio.create_task(agent.run("one", session_id="s"))
        await model.begun.acquire()
        second = asyncio.create_task(agent.run("two", session_id="s"))
        other = asyncio.create_task(agent.run("three", session_id="another"))
        await model.begun.acquire()
        assert model.questions == [["one"], ["three"]]
        model.gate.set()
        await asyncio.gather(first, second, other)
    assert model.questions[2] == ["one", "answer to one", "two"]


async def test_a_failed_turn_is_not_saved_and_the_session_goes_on(tmp_path: Path) -> None:
    say = Speaker("native")
    model = ScriptedModel(["one", say.calls("add", a=1, b=2), ModelError("away"), "two"])
    async with stateful(tmp_path, model, tools=["calculator:add"]) as agent:
        await agent.run("first", session_id="s")
        before = await agent.history("s")
        with pytest.raises(ModelError):
            await agent.run("lost", session_id="s")
        assert await agent.history("s") == before
        await agent.run("second", session_id="s")
        assert [message.content for message in await agent.history("s")] == ["first", "one", "second", "two"]


async def test_a_cancelled_turn_is_not_saved(tmp_path: Path) -> None:
    model = Gated()
    async with asyncio.timeout(5), stateful(tmp_path, model) as agent:
        run = asyncio.create_task(agent.run("lost", session_id="s"))
        await model.begun.acquire()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert await agent.history("s") == []
        model.gate.set()
        assert (await agent.run("again", session_id="s")).answer == "answer to again"


async def test_a_session_survives_a_restart(tmp_path: Path, durable: str) -> None:
    async with stateful(tmp_path, ScriptedModel(["Hello Ada."]), session={"store": durable}) as agent:
        await agent.run("I am Ada.", session_id="s")
    model = ScriptedModel(["You are Ada."])
    async with stateful(tmp_path, model, session={"store": durable}) as agent:
        await agent.run("Who am I?", session_id="s")
    assert [message.content for message in model.asked[0].messages] == ["I am Ada.", "Hello Ada.", "Who am I?"]


async def test_a_conversation_belongs_to_its_owner(tmp_path: Path) -> None:
    async with stateful(tmp_path, ScriptedModel(["one", "two"])) as agent:
        await agent.run("first", session_id="s", owner="ada")
        assert await agent.history("s", owner="bob") == []
        assert not await agent.forget("s", owner="bob")
        assert len(await agent.history("s", owner="ada")) == 2
        assert await agent.forget("s", owner="ada")
        assert await agent.history("s", owner="ada") == []


async def test_the_model_is_shown_the_latest_messages_only(tmp_path: Path) -> None:
    model = ScriptedModel(["one", "two", "three"])
    async with stateful(tmp_path, model, session={"store": "memory", "history_messages": 3}) as agent:
        for question in ("first", "second", "third"):
            await agent.run(question, session_id="s")
    assert [message.content for message in model.asked[2].messages] == ["second", "two", "third"]


async def test_an_agent_that_remembers_nothing_has_no_history(tmp_path: Path) -> None:
    async with Agent(write_agent(tmp_path), model=ScriptedModel(["one"]), environment={}) as agent:
        await agent.run("first", session_id="s")
        assert await agent.history("s") == []
        assert not await agent.forget("s")
    assert not (tmp_path / "sessions.db").exists()


@pytest.mark.parametrize(
    ("message", "session_id", "expected"),
    [
        ("", None, "the message is empty"),
        (" \n", None, "the message is empty"),
        ("x" * (MAX_MESSAGE_CHARACTERS + 1), None, "the message has 200001 characters; at most 200000 are read"),
        ("hi", "", "a session id has 1 to 128 printable characters"),
        ("hi", "x" * 129, "a session id has 1 to 128 printable characters"),
        ("hi", "a\nb", "a session id has 1 to 128 printable characters"),
    ],
)
async def test_an_invalid_message_or_session_id_is_an_error_of_the_caller(
    tmp_path: Path, message: str, session_id: str | None, expected: str
) -> None:
    async with Agent(write_agent(tmp_path), model=ScriptedModel([]), environment={}) as agent:
        with pytest.raises(CallerError, match=f"^{expected}$"):
            await agent.run(message, session_id=session_id)


async def test_an_invalid_file_is_reported_at_every_run(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "none.yaml")
    for _ in range(2):
        with pytest.raises(ConfigError, match="no such file"):
            await agent.run("hello")


async def test_two_tools_with_one_name_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("def add() -> str:\n    return ''\n")
    agent = Agent(write_agent(tmp_path, tools=["calculator:add", "other:add"]), model=ScriptedModel([]))
    with pytest.raises(StartError, match="two tools are named add; rename one of them"):
        await agent.run("hello")


async def test_components_that_were_opened_before_a_failure_are_closed(tmp_path: Path) -> None:
    class Closing(ScriptedModel):
        closed = False

        async def __aexit__(self, *exc_info: object) -> None:
            self.closed = True

    model = Closing([])
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="the session store"):
        await stateful(tmp_path, model, session={"store": "sqlite:///file/sessions.db"}).run("hello")
    assert model.closed
