"""The native face, over a real socket, exactly as `agent-file.md` documents it."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import ModelError, Usage
from agent_runtime.models.scripted import ScriptedModel
from tests.agent_runtime.server.served import events, is_problem, serving
from tests.agent_runtime.speaking import Speaker

SAY = Speaker("native")


async def test_chat_answers_with_the_documented_body(tmp_path: Path) -> None:
    model = ScriptedModel([SAY.calls("add", a=2, b=3, usage=Usage(10, 2)), SAY.answers("It is 5.", usage=Usage(20, 3))])
    async with serving(tmp_path, model) as client:
        answer = await client.post("/chat", json={"message": "2 + 3?", "session_id": "s1", "user_id": "ada"})
    body = answer.json()
    assert answer.status_code == 200
    duration = body["steps"][0]["tool_calls"][0].pop("duration_ms")
    assert duration >= 0
    assert body.pop("run_id")
    assert body == {
        "session_id": "s1",
        "answer": "It is 5.",
        "stop_reason": "finished",
        "steps": [
            {
                "thought": "",
                "tool_calls": [{"name": "add", "arguments": {"a": 2, "b": 3}, "result": "5", "is_error": False}],
            }
        ],
        "usage": {"input_tokens": 30, "output_tokens": 5},
    }


async def test_a_message_without_a_session_begins_one(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel(["a", "b"])) as client:
        sessions = {(await client.post("/chat", json={"message": "hi"})).json()["session_id"] for _ in range(2)}
    assert len(sessions) == 2


async def test_a_limit_that_was_hit_still_gives_an_answer(tmp_path: Path) -> None:
    model = ScriptedModel([SAY.calls("add", a=2, b=3)])
    async with serving(tmp_path, model, limits={"max_steps": 1}) as client:
        body = (await client.post("/chat", json={"message": "2 + 3?"})).json()
    assert (body["answer"], body["stop_reason"]) == ("5", "max_steps")


async def test_chat_stream_sends_the_documented_events_with_ids(tmp_path: Path) -> None:
    model = ScriptedModel([SAY.calls("add", a=2, b=3), ["It is ", "5.", Usage(20, 3)]])
    async with serving(tmp_path, model) as client:
        answer = await client.post("/chat/stream", json={"message": "2 + 3?", "session_id": "s1"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    sent = events(answer.text)
    assert [number for number, _, _ in sent] == [str(number) for number in range(1, len(sent) + 1)]
    assert [name for _, name, _ in sent] == ["run_started", "tool_call", "tool_result", "text", "text", "finished"]
    started, called, result, first, _, finished = (data for _, _, data in sent)
    assert (started["session_id"], bool(started["run_id"])) == ("s1", True)
    assert (called["name"], called["arguments"]) == ("add", {"a": 2, "b": 3})
    assert (result["call_id"], result["content"], result["is_error"]) == (called["call_id"], "5", False)
    assert first == {"delta": "It is "}
    assert (finished["answer"], finished["stop_reason"]) == ("It is 5.", "finished")
    assert finished["usage"] == {"input_tokens": 20, "output_tokens": 3}


async def test_a_react_stream_sends_thoughts_apart_from_the_text(tmp_path: Path) -> None:
    react = Speaker("react")
    model = ScriptedModel([react.calls("add", "I must add.", a=2, b=3), list("Thought: done\nFinal Answer: It is 5.")])
    async with serving(tmp_path, model, agent_type="react") as client:
        sent = events((await client.post("/chat/stream", json={"message": "2 + 3?"})).text)
    assert [data["text"] for _, name, data in sent if name == "thought"] == ["I must add."]
    assert "".join(data["delta"] for _, name, data in sent if name == "text") == "It is 5."


async def test_text_is_sent_while_the_model_still_speaks(tmp_path: Path) -> None:
    class Gated(ScriptedModel):
        gate = asyncio.Event()

        async def stream(self, messages: Any, tools: Any = (), *, stop: Any = ()) -> Any:
            yield "first "
            await self.gate.wait()
            yield "second"

    model = Gated([])
    async with (
        serving(tmp_path, model) as client,
        client.stream("POST", "/chat/stream", json={"message": "hi"}) as answer,
    ):
        body = ""
        async for piece in answer.aiter_text():
            body += piece
            if "first" in body:
                model.gate.set()
    assert [data["delta"] for _, name, data in events(body) if name == "text"] == ["first ", "second"]


async def test_a_failure_while_streaming_is_a_failed_event(tmp_path: Path) -> None:
    model = ScriptedModel([SAY.calls("add", a=1, b=1), ModelError("the model is away", fault="unreachable")])
    async with serving(tmp_path, model) as client:
        answer = await client.post("/chat/stream", json={"message": "hi"})
    number, name, data = events(answer.text)[-1]
    assert (answer.status_code, number, name) == (200, "4", "failed")
    assert (data["message"], data["code"], data["stop_reason"]) == (
        "the model is away",
        "model_unreachable",
        "model_error",
    )


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("unreachable", 502),
        ("auth", 502),
        ("not_found", 502),
        ("invalid_request", 502),
        ("quota", 502),
        ("failed", 502),
        ("rate_limited", 503),
        ("context_overflow", 413),
    ],
)
async def test_an_error_of_the_provider_is_a_problem_with_a_stop_reason(
    tmp_path: Path, fault: Any, status: int
) -> None:
    async with serving(tmp_path, ScriptedModel([ModelError("no reply", fault=fault)])) as client:
        answer = await client.post("/chat", json={"message": "hi"})
    problem = is_problem(answer, status, f"model_{fault}")
    assert (problem["detail"], problem["stop_reason"]) == ("no reply", "model_error")
    assert ("retry-after" in answer.headers) is (status == 503)


async def test_a_defect_is_a_problem_that_tells_nothing_of_the_inside(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel([RuntimeError("inside"), RuntimeError("inside")])) as client:
        answer = await client.post("/chat", json={"message": "hi"})
        streamed = await client.post("/chat/stream", json={"message": "hi"})
    assert is_problem(answer, 500, "internal_error")["detail"] == "the agent failed; its log has the reason"
    number, name, data = events(streamed.text)[-1]
    assert (number, name, data["code"]) == ("2", "failed", "internal_error")
    assert "inside" not in answer.text + streamed.text


async def test_no_answer_shows_a_secret_that_an_error_quotes(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets.yaml"
    secrets.write_text("key: hush-hush\n")
    secrets.chmod(0o600)
    errors = [ModelError("refused for hush-hush"), ModelError("refused for hush-hush")]
    environment = {"MYAGENT_SECRETS": f"yaml:{secrets}"}
    prompt = "${secret:key}"
    async with serving(tmp_path, ScriptedModel(errors), environment=environment, system_prompt=prompt) as client:
        answers = [await client.post(path, json={"message": "hi"}) for path in ("/chat", "/chat/stream")]
    assert all("refused for ***" in answer.text for answer in answers)
    assert all("hush-hush" not in answer.text for answer in answers)


# --- what is asked wrongly


WRONG: list[tuple[Any, str]] = [
    ({}, "message: "),
    ({"message": ""}, "message: "),
    ({"message": "  \n"}, "message: "),
    ({"message": 5}, "message: "),
    ({"message": "x" * 200_001}, "message: "),
    ({"message": "hi", "session_id": ""}, "session_id: "),
    ({"message": "hi", "session_id": "x" * 129}, "session_id: "),
    ({"message": "hi", "session_id": "a\nb"}, "session_id: "),
    ({"message": "hi", "user_id": 5}, "user_id: "),
    ({"message": "hi", "sesion_id": "s"}, "sesion_id: "),
    ([], "body: "),
]


@pytest.mark.parametrize("path", ["/chat", "/chat/stream"])
async def test_a_wrong_body_names_the_field(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path, ScriptedModel([])) as client:
        for body, field in WRONG:
            problem = is_problem(await client.post(path, json=body), 422, "invalid_body")
            assert problem["detail"].startswith(field)


@pytest.mark.parametrize("content", [b"{", b"\xff", b'{"message": "half a pair \\ud83d"}', b""])
async def test_what_is_no_json_is_a_problem_too(tmp_path: Path, content: bytes) -> None:
    async with serving(tmp_path, ScriptedModel([])) as client:
        headers = {"content-type": "application/json"}
        answer = await client.post("/chat", content=content, headers=headers)
    assert answer.status_code in {400, 422}
    is_problem(answer, answer.status_code, answer.json()["code"])


async def test_a_session_id_of_another_kind_of_unprintable_characters_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel([])) as client:
        answer = await client.post("/chat", json={"message": "hi", "session_id": "a\u2028b"})
    is_problem(answer, 400, "bad_request")


async def _in_pieces(size: int) -> AsyncGenerator[bytes]:
    for _ in range(size // 65_536 + 1):
        yield b" " * 65_536


@pytest.mark.parametrize("with_length", [True, False])
async def test_a_body_that_is_too_large_is_refused(tmp_path: Path, with_length: bool) -> None:
    size = 1024 * 1024 + 1
    async with serving(tmp_path, ScriptedModel(["ok"])) as client:
        content = b" " * size if with_length else _in_pieces(size)
        answer = await client.post("/chat", content=content, headers={"content-type": "application/json"})
        assert is_problem(answer, 413, "http_error")["detail"] == f"the body is larger than {1024 * 1024} bytes"
        assert (await client.post("/chat", json={"message": "hi"})).status_code == 200


async def test_paths_and_methods_that_do_not_exist_are_problems(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel([])) as client:
        is_problem(await client.get("/nowhere"), 404, "http_error")
        answer = await client.get("/chat")
        is_problem(answer, 405, "http_error")
        assert answer.headers["allow"] == "POST"


async def test_the_callers_request_id_comes_back(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel([])) as client:
        answer = await client.get("/nowhere", headers={"x-request-id": "r-1"})
    assert is_problem(answer, 404, "http_error")["request_id"] == "r-1"


async def test_two_turns_of_one_session_are_never_interleaved(tmp_path: Path) -> None:
    class Slow(ScriptedModel):
        async def stream(self, messages: Any, tools: Any = (), *, stop: Any = ()) -> Any:
            for word in ("one ", "two"):
                await asyncio.sleep(0)
                yield word

    async with serving(tmp_path, Slow([]), agent_type="stateful") as client:
        body = {"message": "hi", "session_id": "s"}
        answers = await asyncio.gather(*(client.post("/chat", json=body) for _ in range(4)))
        history = (await client.get("/sessions/s")).json()
    assert {answer.status_code for answer in answers} == {200}
    assert [message["role"] for message in history] == ["user", "assistant"] * 4
