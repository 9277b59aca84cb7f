"""Models and chat completions, asked by OpenAI's own client."""

from pathlib import Path
from typing import Any

import openai
import pytest

from agent_runtime.models.scripted import ScriptedModel
from tests.agent_runtime.server.openai_asking import HI, SAY, adding, asking, error_of
from tests.agent_runtime.server.served import serving

# --- models


async def test_the_agent_is_listed_as_a_model(tmp_path: Path) -> None:
    async with asking(tmp_path, ScriptedModel([]), discovery={"owner": "maths"}) as client:
        models = [model async for model in client.models.list()]
        assert [(model.id, model.object, model.owned_by) for model in models] == [("helper", "model", "maths")]
        assert (await client.models.retrieve("helper")).id == "helper"
        with pytest.raises(openai.NotFoundError) as refused:
            await client.models.retrieve("gpt-4o")
        assert error_of(refused)["code"] == "model_not_found"


# --- chat completions


async def test_a_chat_completion_is_the_answer_without_the_agents_own_tool_calls(tmp_path: Path) -> None:
    async with asking(tmp_path, adding()) as client:
        completion = await client.chat.completions.create(model="helper", messages=HI, temperature=0.1, max_tokens=9)
    (choice,) = completion.choices
    assert completion.id.startswith("chatcmpl-")
    assert (completion.object, completion.model, completion.created > 1_700_000_000) == (
        "chat.completion",
        "helper",
        True,
    )
    assert (choice.message.role, choice.message.content, choice.message.tool_calls) == ("assistant", "It is 5.", None)
    assert (choice.index, choice.finish_reason) == (0, "stop")
    assert completion.usage is not None
    assert completion.usage.model_dump(include={"prompt_tokens", "completion_tokens", "total_tokens"}) == {
        "prompt_tokens": 30,
        "completion_tokens": 5,
        "total_tokens": 35,
    }


@pytest.mark.parametrize("include_usage", [True, False])
async def test_a_streamed_chat_completion_has_the_deltas_of_the_answer_only(
    tmp_path: Path, include_usage: bool
) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if include_usage else {}
    async with asking(tmp_path, adding()) as client:
        stream = await client.chat.completions.create(model="helper", messages=HI, stream=True, **options)
        chunks = [chunk async for chunk in stream]
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    if include_usage:
        *chunks, last = chunks
        assert (last.choices, last.usage and last.usage.total_tokens) == ([], 35)
    assert {chunk.usage for chunk in chunks} == {None}
    choices = [chunk.choices[0] for chunk in chunks]
    assert [choice.delta.role for choice in choices] == ["assistant", None, None, None]
    assert "".join(choice.delta.content or "" for choice in choices) == "It is 5."
    assert all(choice.delta.tool_calls is None for choice in choices)
    assert [choice.finish_reason for choice in choices] == [None, None, None, "stop"]


async def test_a_stream_is_as_the_wire_wants_it(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel(["Hello."])) as client:
        body = {"model": "helper", "messages": HI, "stream": True}
        answer = await client.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in answer.text.split("\n\n") if line]
    assert all(line.startswith("data: {") for line in lines[:-1])
    assert lines[-1] == "data: [DONE]"


async def test_the_messages_before_the_question_are_its_history(tmp_path: Path) -> None:
    model = ScriptedModel(["You are Ada."])
    messages: Any = [
        {"role": "system", "content": "You are a pirate."},
        {"role": "developer", "content": "Answer in French."},
        {"role": "user", "content": [{"type": "text", "text": "I am"}, {"type": "text", "text": "Ada."}]},
        {"role": "assistant", "content": "Hello Ada."},
        {"role": "user", "content": "Who am I?"},
    ]
    async with asking(tmp_path, model, system_prompt="You help.", agent_type="stateful") as client:
        for _ in range(1):
            await client.chat.completions.create(model="helper", messages=messages)
    assert [(message.role, message.content) for message in model.asked[0].messages] == [
        ("system", "You help."),
        ("user", "I am\nAda."),
        ("assistant", "Hello Ada."),
        ("user", "Who am I?"),
    ]


async def test_a_stateful_agent_remembers_the_session_that_is_named(tmp_path: Path) -> None:
    model = ScriptedModel(["Hello Ada.", "Ada.", "Who knows?"])
    async with asking(tmp_path, model, agent_type="stateful") as client:
        ask = client.chat.completions.create
        metadata = {"session_id": "s"}
        first: Any = [{"role": "user", "content": "I am Ada."}]
        again: Any = [*first, {"role": "assistant", "content": "Hello Ada."}, {"role": "user", "content": "Who am I?"}]
        await ask(model="helper", messages=first, metadata=metadata, user="ada")
        await ask(model="helper", messages=again, metadata=metadata, user="ada")
        await ask(model="helper", messages=HI, metadata=metadata, user="bob")
    assert [[message.content for message in asked.messages] for asked in model.asked] == [
        ["I am Ada."],
        ["I am Ada.", "Hello Ada.", "Who am I?"],
        ["hi"],
    ]


async def test_an_agent_that_remembers_nothing_reads_the_history_of_the_request(tmp_path: Path) -> None:
    model = ScriptedModel(["Ada."])
    messages: Any = [{"role": "user", "content": "I am Ada."}, *HI]
    async with asking(tmp_path, model) as client:
        await client.chat.completions.create(model="helper", messages=messages, metadata={"session_id": "s"})
    assert [message.content for message in model.asked[0].messages] == ["I am Ada.", "hi"]


async def test_an_answer_that_a_limit_cut_short_says_so(tmp_path: Path) -> None:
    replies = [SAY.calls("add", a=2, b=3)] * 3
    async with asking(tmp_path, ScriptedModel(replies), limits={"max_steps": 1}) as client:
        completion = await client.chat.completions.create(model="helper", messages=HI)
        response = await client.responses.create(model="helper", input="hi")
        stream = await client.chat.completions.create(model="helper", messages=HI, stream=True)
        reasons = [chunk.choices[0].finish_reason async for chunk in stream]
    assert (completion.choices[0].message.content, completion.choices[0].finish_reason) == ("5", "length")
    assert (response.status, response.output_text) == ("incomplete", "5")
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert reasons[-1] == "length"
