"""The part of a conversation that the model is shown."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import Agent, ModelError
from agent_runtime.engine.history import estimated_tokens, fitting
from agent_runtime.events import Message, ToolCall
from agent_runtime.models.scripted import ScriptedModel
from tests.agents import write_agent


def turn(question: str, answer: str) -> list[Message]:
    return [Message("user", question), Message("assistant", answer)]


def acted(question: str, result: str, answer: str) -> list[Message]:
    call = Message("assistant", "", (ToolCall("c1", "add", "{}"),))
    return [Message("user", question), call, Message("tool", result, tool_call_id="c1"), Message("assistant", answer)]


def test_the_latest_whole_turns_that_fit_are_kept() -> None:
    first, second, third = turn("a" * 400, "b"), acted("c", "d" * 400, "e"), turn("f", "g")
    history = [*first, *second, *third]
    everything = estimated_tokens(history)
    assert fitting(history, 100, everything) == history
    assert fitting(history, 100, everything - 1) == [*second, *third]
    assert fitting(history, 100, estimated_tokens([*second, *third]) - 1) == third
    assert fitting(history, 6, everything) == [*second, *third]
    assert fitting(history, 5, everything) == third
    assert fitting([], 100, 100) == []


def test_a_latest_turn_that_is_too_long_is_reduced_to_question_and_answer() -> None:
    history = [*turn("old", "old"), *acted("sum?", "x" * 4000, "five")]
    assert fitting(history, 100, 200) == turn("sum?", "five")
    assert fitting(turn("x" * 4000, "five"), 100, 200) == []


def test_tokens_are_estimated_from_bytes_so_that_other_scripts_are_not_underestimated() -> None:
    assert estimated_tokens([Message("user", "x" * 4000)]) == 1004
    assert estimated_tokens([Message("user", "漢" * 4000)]) == 3004
    assert estimated_tokens([Message("assistant", "", (ToolCall("c", "n", "x" * 400),))]) == 104
    assert estimated_tokens([Message("user", "\ud83d")]) == 4


def stateful(folder: Path, model: ScriptedModel, **session: Any) -> Agent:
    file = write_agent(folder, agent_type="stateful", session={"store": "memory", **session})
    return Agent(file, model=model, environment={})


def contents(model: ScriptedModel, number: int) -> list[str]:
    return [message.content for message in model.asked[number].messages]


async def test_a_long_conversation_is_shown_as_far_as_the_file_allows(tmp_path: Path) -> None:
    model = ScriptedModel(["one", "two", "three"])
    async with stateful(tmp_path, model, history_tokens=100) as agent:
        for question in ("first" + "!" * 400, "second", "third"):
            await agent.run(question, session_id="s")
    assert contents(model, 2) == ["second", "two", "third"]


# --- summaries


async def test_turns_that_no_longer_fit_are_summarised_once_and_stay_in_the_store(tmp_path: Path, durable: str) -> None:
    model = ScriptedModel(["one", "two", "three", "Ada likes 7.", "four", "five"])
    async with stateful(tmp_path, model, store=durable, history_messages=4, summarize=True) as agent:
        for question in ("I am Ada.", "I like 7.", "third", "fourth", "fifth"):
            await agent.run(question, session_id="s")
        assert [one.messages for one in await agent.sessions()] == [10]
    asked = model.asked[3]
    assert asked.messages[0].role == "system"
    assert asked.messages[1].content == "user: I am Ada.\n\nassistant: one\n\nuser: I like 7.\n\nassistant: two"
    assert asked.tools == ()
    told = ["What we said earlier, in short:\nAda likes 7.", "I will keep that in mind."]
    assert contents(model, 4) == [*told, "third", "three", "fourth"]
    assert contents(model, 5) == [*told, "third", "three", "fourth", "four", "fifth"]


async def test_a_summary_goes_on_from_the_one_before_and_survives_a_restart(tmp_path: Path, durable: str) -> None:
    settings = {"store": durable, "history_messages": 2, "summarize": True}
    async with stateful(tmp_path, ScriptedModel(["one", "two", "SUM 1", "three"]), **settings) as agent:
        for question in ("first", "second", "third"):
            await agent.run(question, session_id="s")
    model = ScriptedModel(["SUM 2", "four"])
    async with stateful(tmp_path, model, **settings) as agent:
        await agent.run("fourth", session_id="s")
    assert contents(model, 0)[1] == (
        "What was said before:\nSUM 1\n\nWhat was said then:\nuser: second\n\nassistant: two"
    )
    assert contents(model, 1)[0].endswith("SUM 2")
    assert contents(model, 1)[2:] == ["third", "three", "fourth"]


@pytest.mark.parametrize("reply", [ModelError("away"), "  "])
async def test_a_summary_that_fails_does_not_fail_the_run(
    tmp_path: Path, reply: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model = ScriptedModel(["one", "two", reply, "three"])
    async with stateful(tmp_path, model, history_messages=2, summarize=True) as agent:
        with caplog.at_level(logging.WARNING, "agent_runtime"):
            for question in ("first", "second", "third"):
                result = await agent.run(question, session_id="s")
    assert result.answer == "three"
    assert contents(model, 3) == ["second", "two", "third"]
    assert ("older turns could not be summarised: away" in caplog.text) is isinstance(reply, ModelError)


async def test_a_session_that_is_deleted_and_started_again_has_no_old_summary(tmp_path: Path, durable: str) -> None:
    model = ScriptedModel(["one", "two", "SUM", "three", "four"])
    async with stateful(tmp_path, model, store=durable, history_messages=2, summarize=True) as agent:
        for question in ("first", "second", "third"):
            await agent.run(question, session_id="s")
        assert await agent.forget("s")
        await agent.run("anew", session_id="s")
    assert contents(model, 4) == ["anew"]


async def test_summaries_of_two_sessions_are_written_concurrently(tmp_path: Path) -> None:
    class Echo(ScriptedModel):
        async def stream(self, messages: Any, tools: Any = (), *, stop: Any = (), schema: Any = None) -> Any:
            await asyncio.sleep(0)
            yield f"re {messages[-1].content[:40]}"

    async with stateful(tmp_path, Echo([]), history_messages=2, summarize=True) as agent:

        async def talk(name: str) -> list[str]:
            return [(await agent.run(f"{name} {n}", session_id=name)).answer for n in range(5)]

        async with asyncio.timeout(10):
            spoken = await asyncio.gather(talk("a"), talk("b"))
    assert spoken == [[f"re {name} {n}" for n in range(5)] for name in "ab"]
