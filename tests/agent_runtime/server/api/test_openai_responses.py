"""The Responses API, asked by OpenAI's own client."""

from pathlib import Path
from typing import Any

import openai
import pytest

from agent_runtime.models.scripted import ScriptedModel
from tests.agent_runtime.server.openai_asking import HI, adding, asking, error_of


async def test_a_response_is_the_answer_without_the_agents_own_tool_calls(tmp_path: Path) -> None:
    async with asking(tmp_path, adding()) as client:
        response = await client.responses.create(model="helper", input="2 + 3?", metadata={"a": "b"}, store=False)
    assert response.id.startswith("resp_")
    assert (response.object, response.status, response.model) == ("response", "completed", "helper")
    assert (response.output_text, response.error, response.metadata) == ("It is 5.", None, {"a": "b"})
    assert [item.type for item in response.output] == ["message"]
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (30, 5, 35)


async def test_a_streamed_response_is_made_of_typed_events_in_order(tmp_path: Path) -> None:
    async with asking(tmp_path, adding()) as client:
        stream = await client.responses.create(model="helper", input="2 + 3?", stream=True)
        events = [event async for event in stream]
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(10))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "It is 5."
    last = events[-1]
    assert last.type == "response.completed"
    assert (last.response.output_text, last.response.usage and last.response.usage.total_tokens) == ("It is 5.", 35)


async def test_the_clients_own_reader_of_a_streamed_response_understands_it(tmp_path: Path) -> None:
    async with asking(tmp_path, adding()) as client, client.responses.stream(model="helper", input="hi") as stream:
        assert (await stream.get_final_response()).output_text == "It is 5."


async def test_responses_of_a_stateful_agent_are_chained(tmp_path: Path) -> None:
    model = ScriptedModel(["Hello Ada.", "Ada.", "Still Ada."])
    async with asking(tmp_path, model, agent_type="stateful") as client:
        first = await client.responses.create(model="helper", input="I am Ada.")
        second = await client.responses.create(
            model="helper", input="Who am I?", previous_response_id=first.id, store=False
        )
        await client.responses.create(model="helper", input=HI, previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert [[message.content for message in asked.messages] for asked in model.asked] == [
        ["I am Ada."],
        ["I am Ada.", "Hello Ada.", "Who am I?"],
        ["I am Ada.", "Hello Ada.", "hi"],  # what was not stored is not remembered
    ]


async def test_a_response_that_was_not_stored_or_is_somebody_elses_cannot_be_followed(tmp_path: Path) -> None:
    model = ScriptedModel(["one", "two"])
    async with asking(tmp_path, model, agent_type="stateful") as client:
        forgotten = await client.responses.create(model="helper", input="hi", store=False)
        adas = await client.responses.create(model="helper", input="hi", user="ada")
        given = [
            (forgotten.id, {}),
            (adas.id, {}),
            (adas.id, {"user": "bob"}),
            ("resp_x", {}),
            ("none", {}),
            ("é" * 60, {}),
        ]
        for previous, options in given:
            with pytest.raises(openai.BadRequestError) as refused:
                await client.responses.create(model="helper", input="hi", previous_response_id=previous, **options)
            error = error_of(refused)
            assert (error["code"], error["param"]) == ("previous_response_not_found", "previous_response_id")


async def test_a_response_may_bring_its_own_history(tmp_path: Path) -> None:
    model = ScriptedModel(["Ada.", "again"])
    said: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": "I am Ada."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello."}]},
        {"role": "user", "content": "Who am I?"},
    ]
    async with asking(tmp_path, model, agent_type="stateful") as client:
        answer = await client.responses.create(model="helper", input=said, instructions="Be a pirate.")
        for previous in (answer.id,):
            with pytest.raises(openai.BadRequestError):
                await client.responses.create(model="helper", input=said, previous_response_id=previous)
    assert [message.content for message in model.asked[0].messages] == ["I am Ada.", "Hello.", "Who am I?"]
