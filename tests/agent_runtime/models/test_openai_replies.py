"""The forms of a reply that servers send, over a real socket."""

import asyncio
import gzip
import json
from typing import Any

import pytest

from agent_runtime import ModelError, Usage
from agent_runtime.config import ModelConfig
from agent_runtime.events import Message, ModelChunk, ToolCall, ToolSpec
from agent_runtime.models import model_for
from tests.openai_server import Reply, answers_with, call, calls, refuses, says, sends, serving_openai, streams

PING = ToolSpec("ping", "Ping.", {"type": "object", "properties": {}})
END: dict[str, Any] = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
WHOLE = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Four."}, "finish_reason": "stop"}]}


async def ask(reply: Reply, *tools: ToolSpec) -> list[ModelChunk]:
    async with asyncio.timeout(20), serving_openai(reply) as server:
        config = ModelConfig.model_validate({"name": "test-model", "endpoint": server.url, "max_retries": 0})
        async with model_for(config) as model:
            return [chunk async for chunk in model.stream([Message("user", "2 + 2?")], tools)]


async def failure(reply: Reply) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await ask(reply)
    return caught.value


def text(content: Any, reason: str | None = None) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": reason}]})


def body(*lines: str, end: str = "\n") -> bytes:
    return "".join(f"{line}{end}" for line in lines).encode()


@pytest.mark.parametrize(
    "extra",
    [
        "data:", "data: ", "data: null", ": keep-alive", ":", "retry: 3000", "id: 7", "event: message",
        "event: ping", "unknown: field", "no colon", "",
    ],
)  # fmt: skip
async def test_lines_that_carry_no_chunk_are_skipped(extra: str) -> None:
    reply = body(f"data: {text('Fo')}", "", extra, "", f"data: {text('ur.', 'stop')}", "", "data: [DONE]", "")
    assert await ask(sends(reply)) == ["Fo", "ur.", Usage()]


@pytest.mark.parametrize(
    "reply",
    [
        body(f"data: {text('Fo')}", "", f"data: {text('ür.', 'stop')}", "", "data: [DONE]", "", end="\r\n"),
        body(f"data: {text('Fo')}", "", f"data: {text('ür.', 'stop')}", "", end="\r"),
        body(f"data:{text('Fo')}", "", f"data:{text('ür.', 'stop')}", "", "data:[DONE]", ""),
        b"\xef\xbb\xbf" + body(f"data: {text('Fo')}", "", f"data: {text('ür.', 'stop')}", "", "data: [DONE]", ""),
        body(f"data: {text('Fo')}", f"data: {text('ür.', 'stop')}", "data: [DONE]"),
        body(f"data: {text('Fo')}", "", f"data: {text('ür.')}", "", "data: [DONE]", ""),
        body(f"data: {text('Fo')}", "", f"data: {text('ür.', 'stop')}", ""),
        body(f"data: {text('Fo')}", "", f"data: {text('ür.', 'stop')}").rstrip(),
        body(*(f"data: {line}" for line in json.dumps(json.loads(text("Fo")), indent=1).splitlines()), "")
        + body(f"data: {text('ür.', 'stop')}", ""),
    ],
    ids=["CRLF", "CR", "no space", "BOM", "no blank lines", "no reason", "no [DONE]", "no last line end", "lines"],
)
@pytest.mark.parametrize("size", [None, 1, 7])
async def test_events_are_read_in_every_form_and_cut_anywhere(reply: bytes, size: int | None) -> None:
    pieces = [reply[start : start + size] for start in range(0, len(reply), size)] if size else [reply]
    assert await ask(sends(*pieces)) == ["Fo", "ür.", Usage()]


async def test_a_single_json_body_is_a_reply() -> None:
    usage = {"usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    reply = json.dumps({**WHOLE, **usage}, indent=2)
    assert await ask(answers_with(reply, "application/json")) == ["Four.", Usage(3, 1)]


async def test_a_tool_call_in_a_single_json_body_is_read() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [call("ping", "{}")]}
    reply = json.dumps({"choices": [{"message": message, "finish_reason": "tool_calls"}]})
    assert await ask(answers_with(reply, "application/json"), PING) == [ToolCall("call_a", "ping", "{}"), Usage()]


async def test_content_as_a_list_of_parts_is_its_text() -> None:
    thinking = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]
    reply = streams(json.loads(text(thinking)), json.loads(text([{"type": "text", "text": "Four."}])), END)
    assert await ask(reply) == ["Four.", Usage()]


@pytest.mark.parametrize(
    ("arguments", "expected"), [({"city": "Paris"}, '{"city": "Paris"}'), ("null", "{}"), ("{}", "{}")]
)
async def test_arguments_are_a_json_object_whatever_was_sent(arguments: Any, expected: str) -> None:
    reply = calls([call("ping", arguments)])
    assert await ask(reply, PING) == [ToolCall("call_a", "ping", expected), Usage(10, 5)]


async def test_calls_with_the_same_index_and_different_ids_are_different_calls() -> None:
    reply = calls([call("ping", "{}", call_id="a")], [call("ping", '{"n": 1}', call_id="b")])
    assert await ask(reply, PING) == [ToolCall("a", "ping", "{}"), ToolCall("b", "ping", '{"n": 1}'), Usage(10, 5)]


async def test_pieces_of_a_call_without_an_index_belong_to_the_last_call() -> None:
    first = {"id": "a", "type": "function", "function": {"name": "ping", "arguments": "{"}}
    reply = calls([first], [{"function": {"arguments": "}"}}])
    assert await ask(reply, PING) == [ToolCall("a", "ping", "{}"), Usage(10, 5)]


async def test_half_a_surrogate_pair_is_replaced_so_that_the_text_can_be_sent_on() -> None:
    reply = streams(json.loads(text("\ud83d")), json.loads(text("ok", "stop")))
    assert await ask(reply) == ["?", "ok", Usage()]


@pytest.mark.parametrize(
    ("tokens", "expected"), [("3", 3), (3.0, 3), (None, 0)], ids=["text", "float", "null"]
)  # fmt: skip
async def test_tokens_are_whole_numbers_whatever_was_sent(tokens: Any, expected: int) -> None:
    assert await ask(streams(json.loads(text("Four.", "stop")), {"usage": {"prompt_tokens": tokens}})) == [
        "Four.",
        Usage(expected, 0),
    ]


async def test_tokens_that_are_no_number_are_a_failure() -> None:
    error = await failure(streams('{"usage": {"prompt_tokens": NaN}}'))
    assert str(error) == "the model's reply does not have the form of OpenAI's chat completions"


async def test_the_id_of_a_call_is_text_whatever_was_sent() -> None:
    reply = calls([{"index": 0, "id": 5, "function": {"name": "ping", "arguments": "{}"}}])
    assert await ask(reply, PING) == [ToolCall("5", "ping", "{}"), Usage(10, 5)]


async def test_an_error_event_without_a_message_is_a_failure() -> None:
    error = await failure(sends(body("event: error", "data: null", "")))
    assert str(error) == "the model test-model failed: an error without a message"


@pytest.mark.parametrize(
    "reply",
    [
        answers_with('{"error": {"message": "overloaded", "code": 1}}', "application/json"),
        answers_with('[{"error": {"message": "overloaded", "code": 503}}]', "application/json"),
        answers_with('{"error": "overloaded"}', "application/json"),
        streams(json.loads(text("Fo")), {"error": {"message": "overloaded"}}),
        streams(json.loads(text("Fo")), {"error": "overloaded"}),
        streams(json.loads(text("Fo")), '[{"error": {"message": "overloaded"}}]'),
        sends(body("event: error", 'data: {"message": "overloaded"}', "")),
        sends(body("event: error", 'data: {"error": {"message": "overloaded"}}', "")),
        sends(body('error: {"code": 500, "message": "overloaded"}', "")),
    ],
    ids=["object", "list", "text", "in a stream", "text in a stream", "list in a stream", "event", "both", "field"],
)  # fmt: skip
async def test_an_error_with_status_200_is_a_failure_in_the_providers_words(reply: Reply) -> None:
    error = await failure(reply)
    assert (error.fault, str(error)) == ("failed", "the model test-model failed: overloaded")


async def test_an_empty_balance_is_a_used_up_quota_whatever_the_status() -> None:
    reply = answers_with('{"error": {"message": "insufficient balance", "code": "1008"}}', "application/json")
    assert (await failure(reply)).fault == "quota"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            '{"object": "error", "message": "bad temperature", "type": "BadRequestError"}',
            "bad temperature",
        ),
        ('{"detail": "bad temperature"}', "bad temperature"),
        ('{"error": "bad temperature"}', "bad temperature"),
        ('[{"error": {"message": "bad temperature"}}]', "bad temperature"),
        ('{"detail": [{"msg": "bad"}]}', '[{"msg": "bad"}]'),
        ("bad temperature", "bad temperature"),
        ("", ""),
    ],
)
async def test_a_rejection_is_read_in_every_form(content: str, words: str) -> None:
    error = await failure(sends(content.encode(), status=400))
    assert (error.fault, str(error)) == ("invalid_request", f"the model test-model failed: HTTP 400: {words}".strip())


# --- bounds


@pytest.mark.parametrize("start", [b"data: ", b"{", b"data: {\ndata: "])
async def test_an_event_without_an_end_is_given_up(start: bytes) -> None:
    error = await failure(sends(start, b"x" * 65536, endless=True))
    assert str(error) == "the model's reply has an event of more than 8 MiB"


async def test_deeply_nested_json_is_a_failure() -> None:
    error = await failure(sends(b"data: " + b"[" * 100_000 + b"\n\n"))
    assert str(error) == "the model's reply is nested too deeply"


async def test_an_error_without_an_end_is_cut() -> None:
    error = await failure(sends(b"x" * 1024, status=500, endless=True))
    assert str(error).startswith("the model test-model failed: HTTP 500: xxx")


async def test_a_compressed_error_is_read_up_to_its_bound() -> None:
    large = gzip.compress(b"no such parameter " + b"x" * 64 * 1024 * 1024)
    error = await failure(sends(large, status=400, headers={"content-encoding": "gzip"}))
    assert str(error).startswith("the model test-model failed: HTTP 400: no such parameter xxx")


@pytest.mark.parametrize("encoding", ["gzip", "GZIP"])
async def test_a_compressed_error_keeps_its_code(encoding: str) -> None:
    content = gzip.compress(b'{"error": {"message": "no", "code": "context_length_exceeded"}}')
    error = await failure(sends(content, status=400, headers={"content-encoding": encoding}))
    assert error.fault == "context_overflow"


async def test_a_reply_that_was_read_leaves_its_connection_for_the_next_request() -> None:
    async with asyncio.timeout(10), serving_openai(says("one"), says("two"), refuses(400), says("three")) as server:
        config = ModelConfig.model_validate({"name": "test-model", "endpoint": server.url, "max_retries": 0})
        async with model_for(config) as model:
            for _ in range(2):
                [chunk async for chunk in model.stream([Message("user", "hi")])]
    assert len({asked.port for asked in server.asked}) == 1
