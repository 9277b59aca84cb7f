"""OpenAI's face, asked by OpenAI's own client over a real socket."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from agent_runtime import ModelError, Usage
from agent_runtime.models.scripted import ScriptedModel
from tests.agent_runtime.server.served import serving
from tests.agent_runtime.speaking import Gated, Speaker

SAY = Speaker("native")
HI: Any = [{"role": "user", "content": "hi"}]


@asynccontextmanager
async def asking(
    folder: Path, model: ScriptedModel, *, key: str = "none", **sections: Any
) -> AsyncGenerator[AsyncOpenAI]:
    async with (
        serving(folder, model, **sections) as http,
        AsyncOpenAI(base_url=f"{http.base_url}/v1", api_key=key, max_retries=0, timeout=10) as client,
    ):
        yield client


def adding() -> ScriptedModel:
    """Calls a tool of the agent's own, and then answers."""
    return ScriptedModel([SAY.calls("add", a=2, b=3, usage=Usage(10, 2)), ["It is ", "5.", Usage(20, 3)]])


def error_of(refused: pytest.ExceptionInfo[openai.APIStatusError]) -> dict[str, Any]:
    """What the body says, after a check of its shape and of what else an error has."""
    body = refused.value.response.json()
    assert list(body) == ["error"]
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert refused.value.response.headers["content-type"] == "application/json"
    assert refused.value.response.headers["x-request-id"]
    return body["error"]


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


# --- responses


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


# --- what goes wrong


async def test_a_missing_key_is_an_error_in_openais_shape(tmp_path: Path) -> None:
    server = {"api_keys": ["right"]}
    async with asking(tmp_path, ScriptedModel([]), key="wrong", server=server) as client:
        calls: list[Any] = [
            lambda: client.chat.completions.create(model="helper", messages=HI),
            lambda: client.responses.create(model="helper", input="hi"),
            client.models.list,
        ]
        for call in calls:
            with pytest.raises(openai.AuthenticationError) as refused:
                await call()
            error = error_of(refused)
            assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
            assert refused.value.response.headers["www-authenticate"] == "Bearer"


async def test_the_right_key_is_enough(tmp_path: Path) -> None:
    server = {"api_keys": ["right"]}
    async with asking(tmp_path, ScriptedModel(["ok"]), key="right", server=server) as client:
        assert (await client.responses.create(model="helper", input="hi")).output_text == "ok"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"n": 2}, "n"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}, "tools"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"logprobs": True}, "logprobs"),
    ({"stop": ["x"]}, "stop"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages[0].content[0]"),
    ({"messages": [*HI, {"role": "tool", "content": "5", "tool_call_id": "c"}]}, "messages[1]"),
    ({"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}, *HI]}, "messages[0]"),
    ({"messages": [*HI, {"role": "assistant", "content": "Sure: "}]}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "nobody", "content": "hi"}]}, "messages[0].role"),
    ({"stream": "perhaps"}, "stream"),
    ({"user": "a\nb"}, "user"),
    ({"messages": "hi"}, "messages"),
]
HARMLESS: dict[str, Any] = {
    "n": 1,
    "tools": [],
    "tool_choice": "auto",
    "response_format": {"type": "text"},
    "modalities": ["text"],
    "stop": None,
    "logprobs": False,
    "seed": 5,
    "temperature": 0,
    "max_completion_tokens": 5,
    "parallel_tool_calls": True,
    "reasoning_effort": "low",
    "service_tier": "auto",
    "something_new": {"a": 1},
}


async def test_what_would_change_the_meaning_is_refused_and_named(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel([])) as client:
        for change, param in REFUSED:
            body = {"model": "helper", "messages": HI, **change}
            answer = await client.post("/v1/chat/completions", json=body)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
            assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_what_changes_nothing_is_accepted(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel(["ok"])) as client:
        answer = await client.post("/v1/chat/completions", json={"model": "helper", "messages": HI, **HARMLESS})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"text": {"format": {"type": "json_object"}}}, "text.format"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "5"}]}, "input[0]"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"metadata": {"session_id": "a\nb"}}, None),
        ({"input": " "}, None),
    ],
)
async def test_a_response_that_cannot_be_given_is_refused(
    tmp_path: Path, change: dict[str, Any], param: str | None
) -> None:
    async with serving(tmp_path, ScriptedModel([])) as client:
        answer = await client.post("/v1/responses", json={"model": "helper", "input": "hi", **change})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


async def test_another_models_name_is_refused_with_the_right_one(tmp_path: Path) -> None:
    async with asking(tmp_path, ScriptedModel([])) as client:
        for call in (
            client.chat.completions.create(model="gpt-4o", messages=HI),
            client.responses.create(model="gpt-4o", input="hi"),
        ):
            with pytest.raises(openai.NotFoundError, match="helper") as refused:
                await call
            assert error_of(refused)["param"] == "model"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        ("rate_limited", openai.RateLimitError, "rate_limit_exceeded"),
        ("quota", openai.RateLimitError, "insufficient_quota"),
        ("context_overflow", openai.BadRequestError, "context_length_exceeded"),
        ("unreachable", openai.InternalServerError, "model_unreachable"),
    ],
)
async def test_an_error_of_the_model_has_the_status_that_clients_act_upon(
    tmp_path: Path, fault: Any, kind: type[openai.APIStatusError], code: str, stream: bool
) -> None:
    errors = [ModelError("no reply", fault=fault)] * 2
    async with asking(tmp_path, ScriptedModel(errors)) as client:
        calls: list[Any] = [
            client.chat.completions.create(model="helper", messages=HI, stream=stream),
            client.responses.create(model="helper", input="hi", stream=stream),
        ]
        for call in calls:
            with pytest.raises(kind, match="no reply") as refused:
                await call
            assert error_of(refused)["code"] == code


async def test_an_error_in_the_middle_of_a_stream_reaches_the_client(tmp_path: Path) -> None:
    replies = [SAY.calls("add", a=1, b=1), ModelError("the model is away")] * 2
    async with asking(tmp_path, ScriptedModel(replies)) as client:
        stream = await client.chat.completions.create(model="helper", messages=HI, stream=True)
        with pytest.raises(openai.APIError, match="the model is away"):
            [chunk async for chunk in stream]
        events = [event async for event in await client.responses.create(model="helper", input="hi", stream=True)]
    last = events[-1]
    assert last.type == "response.failed"
    assert last.response.status == "failed"
    assert last.response.error is not None
    assert (last.response.error.code, last.response.error.message) == ("server_error", "the model is away")


async def test_no_secret_of_the_agents_is_in_an_error(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets.yaml"
    secrets.write_text("key: hush-hush\n")
    secrets.chmod(0o600)
    replies: list[Any] = [ModelError("for hush-hush"), SAY.calls("add", a=1, b=1), ModelError("for hush-hush")] * 2
    environment = {"MYAGENT_SECRETS": f"yaml:{secrets}"}
    async with serving(
        tmp_path, ScriptedModel(replies), environment=environment, system_prompt="${secret:key}"
    ) as client:
        for path, asked in (("chat/completions", {"messages": HI}), ("responses", {"input": "hi"})):
            for _ in range(2):
                answer = await client.post(f"/v1/{path}", json={"model": "helper", "stream": True, **asked})
                assert "for ***" in answer.text
                assert "hush" not in answer.text


async def test_what_is_no_json_and_what_is_no_route_are_errors_in_openais_shape_too(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel([])) as client:
        broken = await client.post("/v1/responses", content=b"{", headers={"content-type": "application/json"})
        answers = [(broken, 400), (await client.get("/v1/files"), 404), (await client.get("/v1/responses"), 405)]
        for answer, status in answers:
            assert (answer.status_code, list(answer.json())) == (status, ["error"])
            assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_a_client_that_hangs_up_cancels_nothing_here_either(tmp_path: Path) -> None:
    model = Gated()
    async with serving(tmp_path, model, agent_type="stateful") as http:
        body = {"model": "helper", "input": "hi", "stream": True, "metadata": {"session_id": "s"}}
        async with http.stream("POST", "/v1/responses", json=body) as answer:
            run_id = answer.headers["x-run-id"]
            async for piece in answer.aiter_text():
                if "first" in piece:
                    break
        model.gate.set()
        async with asyncio.timeout(5):
            resumed: httpx.Response = await http.get(f"/runs/{run_id}/events")
        assert "first second" in resumed.text
        assert len((await http.get("/sessions/s")).json()) == 2
