"""The built-in model itself: text, calls, streams side by side, failures, and leaving nothing behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Literal

import pytest
import pytest_asyncio

from agent_runtime.errors import ModelError, StartError
from agent_runtime.events import Message, ModelChunk, ToolCall, Usage
from agent_runtime.models.local import LocalModel
from agent_runtime.tools import FunctionTool

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]


def get_weather(city: str, unit: Literal["celsius", "fahrenheit"], days: int | None = None) -> str:
    """Get the weather of a city.

    Args:
        city: The name of the city.
        unit: The unit of the temperature.
        days: For how many days.
    """
    return f"{city}: 21 degrees {unit}, sunny"


WEATHER = FunctionTool(get_weather).spec
STORY = [Message("user", "Tell me a long story about a lighthouse.")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model() -> AsyncIterator[LocalModel]:
    async with LocalModel() as opened:
        yield opened


async def reply(model: LocalModel, *messages: Message, **more: object) -> list[ModelChunk]:
    async with aclosing(model.stream(messages, **more)) as chunks:  # type: ignore[arg-type]
        return [chunk async for chunk in chunks]


async def drain(stream: AsyncIterator[ModelChunk]) -> None:
    async for _ in stream:
        pass


def text_of(chunks: Sequence[ModelChunk]) -> str:
    return "".join(chunk for chunk in chunks if isinstance(chunk, str))


async def test_an_answer_comes_in_pieces_and_ends_with_its_usage(model: LocalModel) -> None:
    chunks = await reply(model, Message("user", "What is the capital of France?"))
    assert "Paris" in text_of(chunks)
    assert len(chunks) > 3
    usage = chunks[-1]
    assert isinstance(usage, Usage)
    assert usage.input_tokens > 0
    assert usage.output_tokens >= len(chunks) - 2


async def test_an_answer_is_decoded_under_a_schema_with_and_without_tools(model: LocalModel) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 40}, "large": {"type": "boolean"}},
        "required": ["city", "large"],
        "additionalProperties": False,
    }
    question = Message("user", "What is the weather in Paris in celsius?")
    [call] = [one for one in await reply(model, question, tools=[WEATHER], schema=schema) if isinstance(one, ToolCall)]
    result = Message("tool", "Paris: 21 degrees celsius, sunny", tool_call_id=call.id)
    history = (question, Message("assistant", "", (call,)), result)
    for asked, tools in (((Message("user", "Which city is the capital of France?"),), []), (history, [WEATHER])):
        answer = json.loads(text_of(await reply(model, *asked, tools=tools, schema=schema)))
        assert isinstance(answer["city"], str)
        assert answer.keys() == {"city", "large"}


async def test_the_same_question_gets_the_same_answer(model: LocalModel) -> None:
    asked = Message("user", "Name three fruits.")
    assert text_of(await reply(model, asked)) == text_of(await reply(model, asked))


async def test_the_text_ends_at_a_stop_string_which_is_not_part_of_it(model: LocalModel) -> None:
    asked = Message("user", "What is the capital of France?")
    assert "Paris" not in text_of(await reply(model, asked, stop=["Paris"]))


async def test_a_question_about_a_tool_becomes_one_call_that_fits_its_schema(model: LocalModel) -> None:
    chunks = await reply(model, Message("user", "What is the weather in Lisbon for 3 days?"), tools=[WEATHER])
    assert text_of(chunks) == ""
    call, usage = chunks
    assert isinstance(call, ToolCall)
    assert call.name == "get_weather"
    arguments = json.loads(call.arguments)
    assert arguments.pop("unit") in {"celsius", "fahrenheit"}  # nothing is said of it: the model's own choice
    assert arguments == {"city": "Lisbon", "days": 3}
    assert isinstance(usage, Usage)
    assert usage.output_tokens > 0


async def test_calls_have_ids_of_their_own(model: LocalModel) -> None:
    asked = Message("user", "weather in Lisbon in celsius")
    first, second = [(await reply(model, asked, tools=[WEATHER]))[0] for _ in range(2)]
    assert isinstance(first, ToolCall)
    assert isinstance(second, ToolCall)
    assert first.id != second.id


@pytest.mark.parametrize("text", ["hello", "thanks!", "what can you do?", "What is the capital of France?"])
async def test_what_is_not_about_a_tool_is_answered_in_text(model: LocalModel, text: str) -> None:
    chunks = await reply(model, Message("user", text), tools=[WEATHER])
    assert text_of(chunks)
    assert not [chunk for chunk in chunks if isinstance(chunk, ToolCall)]


async def test_after_the_result_of_a_tool_comes_an_answer_from_it(model: LocalModel) -> None:
    call = ToolCall("1", "get_weather", '{"city": "Lisbon"}')
    chunks = await reply(
        model,
        Message("user", "What is the weather in Lisbon?"),
        Message("assistant", "", (call,)),
        Message("tool", get_weather("Lisbon", "celsius"), tool_call_id="1"),
        tools=[WEATHER],
    )
    assert "21" in text_of(chunks)
    assert not [chunk for chunk in chunks if isinstance(chunk, ToolCall)]


async def test_a_follow_up_keeps_what_the_call_before_it_said(model: LocalModel) -> None:
    call = ToolCall("1", "get_weather", '{"city": "Lisbon", "unit": "celsius", "days": 2}')
    chunks = await reply(
        model,
        Message("user", "What is the weather in Lisbon?"),
        Message("assistant", "", (call,)),
        Message("tool", "sunny", tool_call_id="1"),
        Message("assistant", "Sunny."),
        Message("user", "and in Oslo?"),
        tools=[WEATHER],
    )
    assert isinstance(chunks[0], ToolCall)
    assert json.loads(chunks[0].arguments) == {"city": "Oslo", "unit": "celsius", "days": 2}


async def test_streams_run_side_by_side_and_leave_the_event_loop_free(model: LocalModel) -> None:
    late = 0.0

    async def watch() -> None:
        nonlocal late
        clock = asyncio.get_running_loop()
        while True:
            due = clock.time() + 0.02
            await asyncio.sleep(0.02)
            late = max(late, clock.time() - due)

    watcher = asyncio.create_task(watch())
    questions = [Message("user", f"Name a city in {country}.") for country in ("France", "Spain", "Japan", "Peru")]
    answers = await asyncio.gather(*(reply(model, question) for question in questions))
    watcher.cancel()
    assert all(text_of(answer) for answer in answers)
    assert late < 0.5


async def test_closing_the_iterator_stops_the_model() -> None:
    async with LocalModel(parameters={"n_parallel": 1, "max_tokens": 3000}) as single:
        stream = single.stream(STORY)
        assert await anext(stream)
        await stream.aclose()
        # The only slot is free again: 3,000 tokens would have taken it a minute.
        async with asyncio.timeout(20):
            assert [chunk async for chunk in single.stream([Message("user", "hello")], stop=["!"])]


async def test_a_prompt_that_is_too_long_is_a_context_overflow() -> None:
    async with LocalModel(parameters={"n_ctx": 512}) as small:
        with pytest.raises(ModelError) as caught:
            await reply(small, Message("user", "word " * 2000))
        assert caught.value.fault == "context_overflow"
        assert text_of(await reply(small, Message("user", "hello")))


async def test_a_long_conversation_is_shortened_instead_of_overflowing() -> None:
    async with LocalModel(parameters={"n_ctx": 512, "max_tokens": 8}) as small:
        turns = [Message("user" if i % 2 == 0 else "assistant", f"This is turn number {i}. " * 4) for i in range(60)]
        assert text_of(await reply(small, *turns, Message("user", "hello")))


async def test_silence_beyond_the_time_out_is_an_error(model: LocalModel) -> None:
    async with LocalModel(timeout_seconds=0.05) as hurried:
        with pytest.raises(ModelError, match=r"did not answer within 0\.05 s"):
            await reply(hurried, Message("user", "Summarise: " + "lorem ipsum " * 400))


async def test_a_model_that_is_closed_says_so() -> None:
    async with LocalModel() as opened:
        pass
    with pytest.raises(ModelError, match="not running"):
        await reply(opened, Message("user", "hello"))


async def test_closing_while_a_stream_runs_ends_the_stream_with_an_error() -> None:
    async with LocalModel(parameters={"max_tokens": 3000}) as opened:
        stream = opened.stream(STORY)
        assert await anext(stream)
    with pytest.raises(ModelError):
        await asyncio.wait_for(drain(stream), 20)


@pytest.mark.parametrize("value", ["many", 0, 1.5])
async def test_a_setting_of_the_engine_that_is_no_number_is_an_error_that_names_it(value: object) -> None:
    with pytest.raises(StartError, match=r"model\.parameters\.n_ctx must be a whole number"):
        async with LocalModel(parameters={"n_ctx": value}):
            pass


async def test_a_long_stream_does_not_break_the_one_beside_it() -> None:
    # Two streams run at once: the third says nothing until one of them has ended, which takes long on a busy machine.
    async with LocalModel(timeout_seconds=300, parameters={"n_ctx": 512, "max_tokens": 150}) as small:
        asked = Message("user", "Tell me a story about ships and cats. " * 25)
        answers = await asyncio.gather(*(reply(small, asked) for _ in range(3)))
    assert all(text_of(answer) for answer in answers)


async def test_damaged_weights_are_an_error_of_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "damaged.gguf"
    file.write_bytes(b"GGUF" + b"\0" * 1000)
    with pytest.raises(StartError, match=r"damaged\.gguf could not be loaded"):
        async with LocalModel(str(file)):
            pass


async def test_a_model_that_counts_as_capable_chooses_the_tool_itself_and_its_call_is_well_formed() -> None:
    async with LocalModel(capable_from=0) as trusted:
        chunks = await reply(trusted, Message("user", "What is the weather in Paris in celsius?"), tools=[WEATHER])
    calls = [chunk for chunk in chunks if isinstance(chunk, ToolCall)]
    assert isinstance(chunks[-1], Usage)
    assert chunks[-1].output_tokens > 0  # the choice at least is the model's own
    for call in calls:
        assert call.name == "get_weather"
        assert json.loads(call.arguments)["unit"] == "celsius"
    assert calls or text_of(chunks)
