"""Every limit has its own stop reason, and a run that reaches one ends with the best answer so far."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import Usage
from agent_runtime.models.scripted import ScriptedModel
from tests.agent_runtime.speaking import Speaker, events_of, finished, scripted_agent


@pytest.fixture(params=["native", "react"])
def speaker(request: pytest.FixtureRequest) -> Speaker:
    return Speaker(request.param)


async def stopped(folder: Path, speaker: Speaker, replies: list[Any], **limits: Any) -> tuple[str, str]:
    agent = scripted_agent(folder, speaker.dialect, ScriptedModel(replies), limits=limits)
    end = finished(await events_of(agent))
    return end.stop_reason, end.answer


async def test_max_steps_ends_with_the_last_result(tmp_path: Path, speaker: Speaker) -> None:
    replies = [speaker.calls("add", a=1, b=1), speaker.calls("add", a=2, b=2)]
    assert await stopped(tmp_path, speaker, replies, max_steps=2) == ("max_steps", "4")


async def test_an_answer_at_the_last_allowed_step_is_an_answer(tmp_path: Path, speaker: Speaker) -> None:
    replies = [speaker.calls("add", a=1, b=1), speaker.answers("2")]
    assert await stopped(tmp_path, speaker, replies, max_steps=2) == ("finished", "2")


async def test_max_tool_calls_runs_no_call_too_many(tmp_path: Path, speaker: Speaker) -> None:
    replies = [speaker.calls("add", a=1, b=1), speaker.calls("add", a=2, b=2)]
    assert await stopped(tmp_path, speaker, replies, max_tool_calls=1) == ("max_tool_calls", "2")


async def test_without_any_result_the_answer_names_the_limit(tmp_path: Path, speaker: Speaker) -> None:
    answer = "I stopped before I had an answer: the limit max_tool_calls was reached."
    replies = [speaker.calls("add", a=1, b=1)]
    assert await stopped(tmp_path, speaker, replies, max_tool_calls=0) == ("max_tool_calls", answer)


async def test_max_tokens_counts_input_and_output(tmp_path: Path, speaker: Speaker) -> None:
    replies = [speaker.calls("add", a=1, b=1, usage=Usage(60, 40)), speaker.answers("never asked")]
    assert await stopped(tmp_path, speaker, replies, max_tokens=100) == ("max_tokens", "2")


async def test_an_answer_that_used_the_last_token_is_an_answer(tmp_path: Path, speaker: Speaker) -> None:
    replies = [speaker.answers("Hello", usage=Usage(900, 900))]
    assert await stopped(tmp_path, speaker, replies, max_tokens=100) == ("finished", "Hello")


async def test_the_same_call_again_and_again_is_a_loop(tmp_path: Path, speaker: Speaker) -> None:
    replies = [speaker.calls("add", a=1, b=1) for _ in range(3)]
    assert await stopped(tmp_path, speaker, replies, max_repeated_calls=3) == ("repeated_calls", "2")


async def test_the_same_tool_with_other_arguments_is_no_loop(tmp_path: Path, speaker: Speaker) -> None:
    replies = [*(speaker.calls("add", a=n, b=1) for n in range(4)), speaker.answers("done")]
    assert await stopped(tmp_path, speaker, replies, max_repeated_calls=2) == ("finished", "done")


async def test_time_runs_out_while_a_tool_works(tmp_path: Path, speaker: Speaker) -> None:
    code = "import asyncio\nasync def dream() -> str:\n    await asyncio.Event().wait()\n"
    agent = scripted_agent(
        tmp_path,
        speaker.dialect,
        ScriptedModel([speaker.calls("dream")]),
        code=code,
        tools=["calculator:dream"],
        limits={"timeout_seconds": 0.05},
    )
    end = finished(await events_of(agent))
    assert end.stop_reason == "timeout"
    assert end.answer == "I stopped before I had an answer: the limit timeout was reached."


async def test_time_runs_out_while_the_model_streams_and_its_text_is_the_answer(
    tmp_path: Path, speaker: Speaker
) -> None:
    class Stuck(ScriptedModel):
        closed = False

        async def stream(self, messages: Any, tools: Any = (), *, stop: Any = ()) -> AsyncGenerator[str]:
            try:
                yield "Final Answer: It is " if speaker.dialect == "react" else "It is "
                await asyncio.Event().wait()
            finally:
                self.closed = True

    model = Stuck([])
    end = finished(await events_of(scripted_agent(tmp_path, speaker.dialect, model, limits={"timeout_seconds": 0.05})))
    assert (end.stop_reason, end.answer) == ("timeout", "It is ")
    assert model.closed


async def test_a_run_that_hit_a_limit_is_remembered_as_a_whole_turn(tmp_path: Path, speaker: Speaker) -> None:
    model = ScriptedModel([speaker.calls("add", a=1, b=1), speaker.answers("Yes, 2.")])
    agent = scripted_agent(
        tmp_path,
        speaker.dialect,
        model,
        reasoning={"dialect": speaker.dialect, "memory": True},
        limits={"max_steps": 1},
    )
    async with agent:
        result = await agent.run("1 + 1?", session_id="s")
        assert result.stop_reason == "max_steps"
        await agent.run("Sure?", session_id="s")
        roles = [message.role for message in await agent.history("s")]
    assert roles == ["user", "assistant", "tool", "assistant", "user", "assistant"]
