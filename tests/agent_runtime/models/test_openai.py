"""The wire to a model: a real HTTP server that speaks OpenAI's chat completions, over a real socket."""

import asyncio
import gzip
import json
import socket
import time
from collections.abc import Sequence
from typing import Any

import pytest
from fastapi.responses import Response

from agent_runtime import ModelError, Usage
from agent_runtime.config import ModelConfig
from agent_runtime.events import Message, ModelChunk, ToolCall, ToolSpec
from agent_runtime.models import model_for
from tests.openai_server import (
    OpenAIServer,
    Reply,
    answers_with,
    call,
    calls,
    refuses,
    says,
    serving_openai,
    stalls,
    streams,
)

KEY = "sk-hush-hush"
HALF = {"choices": [{"delta": {"content": "Half"}}]}
END: dict[str, Any] = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
QUESTION = [Message("system", "Be brief."), Message("user", "2 + 3?")]
ADD = ToolSpec("add", "Add two numbers.", {"type": "object", "properties": {"a": {"type": "integer"}}})


def config(url: str, **more: Any) -> ModelConfig:
    return ModelConfig.model_validate(
        {"provider": "openai", "name": "test-model", "endpoint": url, "api_key": KEY, "max_retries": 0, **more}
    )


async def ask(
    server: OpenAIServer,
    messages: Sequence[Message] = tuple(QUESTION),
    tools: Sequence[ToolSpec] = (),
    *,
    stop: Sequence[str] = (),
    **more: Any,
) -> list[ModelChunk]:
    async with asyncio.timeout(10), model_for(config(server.url, **more)) as model:
        return [chunk async for chunk in model.stream(messages, tools, stop=stop)]


async def failure(*replies: Reply, **more: Any) -> ModelError:
    async with serving_openai(*replies) as server:
        with pytest.raises(ModelError) as caught:
            await ask(server, **more)
    assert KEY not in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


async def test_text_arrives_as_it_is_streamed_and_the_usage_last() -> None:
    async with serving_openai(says("It ", "is ", "fünf 🎉", usage=(12, 4))) as server:
        assert await ask(server) == ["It ", "is ", "fünf 🎉", Usage(12, 4)]


async def test_tool_calls_are_put_together_from_their_pieces() -> None:
    pieces = [
        [call("add", "", call_id="c1")],
        [{"index": 0, "function": {"arguments": '{"a"'}}],
        [{"index": 0, "function": {"arguments": ": 2}"}}],
        [call("sub", "", call_id="c2", index=1)],
        [{"index": 1, "function": {"arguments": "{}"}}],
    ]
    async with serving_openai(calls(*pieces, text="Adding.")) as server:
        reply = await ask(server, tools=[ADD])
    assert reply == ["Adding.", ToolCall("c1", "add", '{"a": 2}'), ToolCall("c2", "sub", "{}"), Usage(10, 5)]


async def test_a_server_that_sends_whole_calls_without_index_or_id_is_understood() -> None:
    whole = {"type": "function", "function": {"name": "add", "arguments": "{}"}}
    async with serving_openai(calls([whole, whole])) as server:
        first, second, _ = await ask(server, tools=[ADD])
    assert (first, second) == (ToolCall("call_0", "add", "{}"), ToolCall("call_1", "add", "{}"))


async def test_a_server_that_counts_no_tokens_is_understood() -> None:
    reply = streams({"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]})
    async with serving_openai(reply) as server:
        assert await ask(server) == ["Hi", Usage()]


async def test_the_request_says_what_was_asked_with_the_parameters_of_the_file() -> None:
    async with serving_openai(says("5")) as server:
        await ask(server, tools=[ADD], stop=["\nObservation:"], parameters={"temperature": 0.2, "seed": 7})
    [asked] = server.asked
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.body == {
        "model": "test-model",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 3?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.2,
        "seed": 7,
        "tools": [
            {
                "type": "function",
                "function": {"name": "add", "description": "Add two numbers.", "parameters": dict(ADD.parameters)},
            }
        ],
        "stop": ["\nObservation:"],
    }


async def test_without_tools_and_stops_none_are_sent() -> None:
    async with serving_openai(says("5")) as server:
        await ask(server)
    assert {"tools", "stop"}.isdisjoint(server.asked[0].body)


async def test_earlier_calls_and_results_are_sent_as_openai_writes_them() -> None:
    history = [
        Message("user", "2 + 3?"),
        Message("assistant", "", (ToolCall("c1", "add", '{"a": 2}'),)),
        Message("tool", "5", tool_call_id="c1"),
        Message("assistant", "Adding.", (ToolCall("c2", "add", "{}"),)),
    ]
    async with serving_openai(says("5")) as server:
        await ask(server, history)
    _, silent, result, spoken = server.asked[0].body["messages"]
    function = {"name": "add", "arguments": '{"a": 2}'}
    assert silent == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": function}],
    }
    assert result == {"role": "tool", "content": "5", "tool_call_id": "c1"}
    assert spoken["content"] == "Adding."


async def test_an_endpoint_that_needs_no_key_is_asked_without_one_of_ours() -> None:
    async with serving_openai(says("Hi")) as server:
        await ask(server, api_key=None)
    assert server.asked[0].headers["authorization"] == "Bearer none"


def test_a_label_names_provider_and_model_and_no_address() -> None:
    assert model_for(config("http://127.0.0.1:9/v1")).label == "openai/test-model"


async def test_closing_the_stream_hangs_up() -> None:
    async with (
        asyncio.timeout(10),
        serving_openai(stalls("It is ")) as server,
        model_for(config(server.url)) as model,
    ):
        chunks = model.stream(QUESTION)
        assert await anext(chunks) == "It is "
        await chunks.aclose()
        await server.hung_up.wait()


async def test_several_runs_may_ask_one_model_at_once() -> None:
    async with serving_openai(*(says("ok") for _ in range(5))) as server, model_for(config(server.url)) as model:

        async def one() -> list[ModelChunk]:
            return [chunk async for chunk in model.stream(QUESTION)]

        assert await asyncio.gather(*(one() for _ in range(5))) == [["ok", Usage(10, 5)]] * 5


# --- what goes wrong


@pytest.mark.parametrize("words", ["unsafe: {said}", '{{"input": "{said}"}}', "x" * 280 + "{said}"])
async def test_a_refusal_that_quotes_the_conversation_is_not_passed_on(words: str) -> None:
    said = 'You know that "Ada"\nearns 80 000 a year.'
    quoted = words.format(said=json.dumps(said)[1:-1] if words.startswith("{") else said)
    async with serving_openai(refuses(400, quoted)) as server:
        with pytest.raises(ModelError) as caught:
            await ask(server, [Message("system", said), Message("user", "hi")])
    assert str(caught.value) == (
        "the model test-model failed: its reason quotes the conversation, so it is not repeated here (HTTP 400)"
    )


@pytest.mark.parametrize(
    ("reply", "fault", "message"),
    [
        (refuses(401, f"Bad key {KEY}"), "auth", "the provider refused model.api_key for test-model (HTTP 401)"),
        (refuses(403, f"Not for {KEY}"), "auth", "the provider refused model.api_key for test-model (HTTP 403)"),
        (refuses(404), "not_found", "the provider knows no model test-model, or model.endpoint is not the base"),
        (refuses(429), "rate_limited", "the model test-model is rate limited"),
        (refuses(429, code="insufficient_quota"), "quota", "the quota for the model test-model is used up"),
        (
            refuses(400, code="context_length_exceeded"),
            "context_overflow",
            "the conversation is too long for the model test-model",
        ),
        (refuses(402, "Insufficient Balance"), "quota", "the quota for the model test-model is used up"),
        (refuses(400, f"bad\nfor {KEY}"), "invalid_request", "the model test-model failed: HTTP 400: "),
        (refuses(500, f"I was asked with {KEY}"), "failed", "the model test-model failed: HTTP 500: "),
        (refuses(503, "x" * 10_000), "failed", "the model test-model failed: HTTP 503: "),
        (streams({"error": {"message": f"{KEY} broke me"}}), "failed", "the model test-model failed: *** broke me"),
    ],
)  # fmt: skip
async def test_a_refusal_says_whose_turn_it_is(reply: Reply, fault: str, message: str) -> None:
    error = await failure(reply)
    assert (error.fault, str(error)[: len(message)]) == (fault, message)
    assert len(str(error)) < 500


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (streams(HALF, whole=False), "the connection to the model test-model broke"),
        (says("No.", finish_reason="content_filter"), "the provider's content filter stopped the reply"),
        (streams("this is no JSON"), "the model test-model sent something that cannot be read"),
        (streams("[1, 2]"), "the model's reply does not have the form of OpenAI's chat completions"),
        (streams({"choices": [{"delta": {"content": ["x"]}}]}), "the model's reply does not have the form"),
        (streams({"choices": {"a": 1}}), "the model's reply does not have the form"),
        (streams({"choices": [{"delta": {"tool_calls": [5]}}]}), "the model's reply does not have the form"),
        (answers_with("<html>a login page</html>"), "the model's reply ended before it was complete"),
        (answers_with('{"choices": []}', "application/json"), "the model's reply ended before it was complete"),
    ],
)  # fmt: skip
async def test_half_a_reply_or_garbage_is_no_reply(reply: Reply, message: str) -> None:
    error = await failure(reply)
    assert (error.fault, str(error)[: len(message)]) == ("failed", message)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "This model's maximum context length is 4096 tokens. However, you requested 5000."),  # OpenAI, vLLM
        (400, "Your input exceeds the context window of this model. Please adjust your input and try again."),  # OpenAI
        (400, "You passed 9 input tokens. However, the model's context length is only 8 tokens"),  # vLLM
        (400, "The decoder prompt (length 9) is longer than the maximum model length of 8."),  # vLLM
        (400, "the request exceeds the available context size. try increasing the context size"),  # llama.cpp
        (400, "request (9000 tokens) exceeds the available context size (8192 tokens), try increasing it"),  # llama.cpp
        (400, "the input length exceeds the context length"),  # Ollama
        (500, "input length exceeds maximum context length"),  # Ollama
        (400, "litellm.ContextWindowExceededError: BadRequestError"),  # LiteLLM
        (413, "prompt is too long: 213462 tokens > 200000 maximum"),  # Anthropic's endpoint
        (422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000"),  # TGI
    ],
)  # fmt: skip
async def test_a_conversation_that_is_too_long_is_recognised_by_each_servers_words(status: int, words: str) -> None:
    error = await failure(refuses(status, words))
    assert (error.fault, str(error)) == (
        "context_overflow",
        "the conversation is too long for the model test-model",
    )


async def test_an_overflow_that_is_said_in_the_stream_is_recognised() -> None:
    body = {"error": {"message": "This model's maximum context length is 8 tokens", "code": "context_length_exceeded"}}
    assert (await failure(streams(body))).fault == "context_overflow"


async def test_a_schema_goes_with_a_request_that_offers_no_tools() -> None:
    schema = {"type": "object"}
    async with (
        asyncio.timeout(10),
        serving_openai(says("{}"), says("{}")) as server,
        model_for(config(server.url)) as model,
    ):
        for tools in ((), (ADD,)):  # servers that decode under a schema could then call no tool
            assert [chunk async for chunk in model.stream(QUESTION, tools, schema=schema)] == ["{}", Usage(10, 5)]
    with_schema, with_tools = (asked.body for asked in server.asked)
    assert with_schema["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema},
    }
    assert "response_format" not in with_tools


async def test_an_endpoint_that_nobody_listens_at_cannot_be_reached() -> None:
    with socket.socket() as unused:  # bound and not listening
        unused.bind(("127.0.0.1", 0))
        server = OpenAIServer(f"http://127.0.0.1:{unused.getsockname()[1]}/v1")
        with pytest.raises(ModelError, match=r"the model test-model cannot be reached at model\.endpoint: ") as caught:
            await ask(server)
    assert caught.value.fault == "unreachable"


@pytest.mark.parametrize("deltas", [(), ("It is ",)])
async def test_a_model_that_falls_silent_times_out(deltas: tuple[str, ...]) -> None:
    error = await failure(stalls(*deltas), timeout_seconds=0.2)
    assert (error.fault, str(error)) == ("unreachable", "the model test-model did not answer within 0.2 s")


async def test_what_may_pass_is_tried_again_after_the_time_that_was_asked_for() -> None:
    replies = [
        refuses(429, headers={"retry-after-ms": "50"}),
        refuses(500, headers={"retry-after-ms": "50"}),
        says("5"),
    ]
    async with serving_openai(*replies) as server:
        began = time.monotonic()
        assert (await ask(server, max_retries=2))[0] == "5"
        assert time.monotonic() - began >= 0.1
    assert len(server.asked) == 3


async def test_it_is_tried_no_more_often_than_the_file_says() -> None:
    replies = [refuses(429, headers={"retry-after-ms": "1"})] * 3
    async with serving_openai(*replies) as server:
        with pytest.raises(ModelError):
            await ask(server, max_retries=1)
    assert len(server.asked) == 2


async def test_what_the_provider_says_may_pass_is_tried_again() -> None:
    async with serving_openai(refuses(400, headers={"x-should-retry": "true"}), says("5")) as server:
        assert (await ask(server, max_retries=1))[0] == "5"


async def test_a_compressed_reply_is_understood() -> None:
    def squeezed() -> Response:
        body = b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in (HALF, END))
        return Response(gzip.compress(body), headers={"content-encoding": "gzip"}, media_type="text/event-stream")

    async with serving_openai(squeezed) as server:
        assert await ask(server) == ["Half", Usage()]


async def test_a_key_is_not_carried_to_another_address() -> None:
    async with serving_openai(says("never")) as other:
        moved = f"{other.url}/chat/completions?state=hush"
        error = await failure(refuses(308, headers={"location": moved}))
    assert other.asked == []
    assert (error.fault, str(error)) == (
        "not_found",
        "model.endpoint of test-model has moved (HTTP 308): set it to where it redirects to, "
        f"{other.url}/chat/completions",
    )


HARD_QUOTA = "You exceeded your current quota, please check your plan and billing details."
LATER = {"retry-after": "3600"}  # nobody waits so long for an answer
ANOTHER_YEAR = {"retry-after": "Fri, 01 Jan 2199 00:00:00 GMT"}


@pytest.mark.parametrize(
    "reply",
    [
        refuses(401),
        refuses(400),
        refuses(429, code="insufficient_quota"),
        refuses(429, HARD_QUOTA),
        refuses(429, headers=LATER),
        refuses(503, headers=LATER),
        refuses(503, headers=ANOTHER_YEAR),
        refuses(503, headers={"x-should-retry": "false"}),
    ],
)
async def test_what_will_not_pass_is_not_tried_again(reply: Reply) -> None:
    async with serving_openai(reply, says("never")) as server:
        with pytest.raises(ModelError):
            await ask(server, max_retries=2)
    assert len(server.asked) == 1
