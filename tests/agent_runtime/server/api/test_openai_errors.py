"""What OpenAI's face refuses and how it fails, in the shape that OpenAI's clients read."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from agent_runtime import ModelError
from agent_runtime.models.scripted import ScriptedModel
from tests.agent_runtime.server.openai_asking import HI, SAY, asking, error_of
from tests.agent_runtime.server.served import serving
from tests.agent_runtime.speaking import Gated


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
            assert refused.value.response.headers["www-authenticate"] == 'Bearer error="invalid_token"'


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
        ("auth", openai.InternalServerError, "model_auth"),
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
