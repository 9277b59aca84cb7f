"""The MCP face, as the official client of the protocol sees it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.errors import ModelError
from agent_runtime.models.scripted import ScriptedModel
from tests.agent_runtime.server.served import is_problem, serving
from tests.agents import called
from tests.mcp_client import MODES, mcp_client, text_of


@pytest.mark.parametrize("mode", MODES)
async def test_the_agent_is_one_tool_of_its_own_name(tmp_path: Path, mode: str) -> None:
    async with serving(tmp_path, ScriptedModel([]), description="Adds.") as http, mcp_client(http, mode) as client:
        [tool] = (await client.list_tools()).tools
    assert (tool.name, tool.description) == ("helper", "Adds.")
    assert (tool.input_schema["required"], [*tool.input_schema["properties"]]) == (
        ["message"],
        ["message", "session_id"],
    )


@pytest.mark.parametrize("mode", MODES)
async def test_the_official_client_asks_and_hears_how_it_goes(tmp_path: Path, mode: str) -> None:
    model = ScriptedModel([[called("add", '{"a": 2, "b": 3}')], "It is 5."])
    heard: list[str | None] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message)

    async with serving(tmp_path, model) as http, mcp_client(http, mode) as client:
        result = await client.call_tool("helper", {"message": "2 + 3?"}, progress_callback=note)
    assert (text_of(result), result.is_error, heard) == ("It is 5.", False, ["calling add"])
    assert result.structured_content["stop_reason"] == "finished"


async def test_a_session_id_continues_a_conversation(tmp_path: Path) -> None:
    model = ScriptedModel(["Hello Ada.", "Ada.", "I do not know."])
    async with serving(tmp_path, model, agent_type="stateful") as http, mcp_client(http) as client:
        first = await client.call_tool("helper", {"message": "I am Ada."})
        session_id = first.structured_content["session_id"]
        again = await client.call_tool("helper", {"message": "Who am I?", "session_id": session_id})
        await client.call_tool("helper", {"message": "Who am I?"})
    assert text_of(again) == "Ada."
    assert [len(asked.messages) for asked in model.asked] == [1, 3, 1]


async def test_what_cannot_be_asked_is_an_error_of_the_tool_with_a_sentence(tmp_path: Path) -> None:
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("other", {"message": "hi"}, "There is no tool other; there is: helper."),
        ("helper", {}, "`message` must be a string"),
        ("helper", {"message": "hi", "session_id": 3}, "`session_id` must be a string"),
        ("helper", {"message": "hi", "mesage": "hi"}, "unknown argument mesage"),
        ("helper", {"message": " "}, "the message is empty"),
        ("helper", {"message": "hi"}, "the endpoint is away"),
    ]
    model = ScriptedModel([ModelError("the endpoint is away")])
    async with serving(tmp_path, model) as http, mcp_client(http) as client:
        for name, arguments, reason in wrong:
            result = await client.call_tool(name, arguments)
            assert result.is_error
            assert reason in text_of(result)


async def test_keys_guard_the_face_and_part_the_callers(tmp_path: Path) -> None:
    model = ScriptedModel(["Hello Ada.", "I do not know you."])
    server = {"api_keys": ["k1", "k2"]}
    async with serving(tmp_path, model, server=server, agent_type="stateful") as http:
        is_problem(await http.post("/mcp", json={}), 401, "unauthorized")
        for key in ("k1", "k2"):
            async with mcp_client(http, authorization=f"Bearer {key}") as client:
                await client.call_tool("helper", {"message": "Who am I?", "session_id": "s"})
    assert [len(asked.messages) for asked in model.asked] == [1, 1]


async def test_a_stream_that_would_stay_empty_is_not_opened(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel([])) as http:
        answer = await http.get("/mcp", headers={"accept": "text/event-stream"})
    is_problem(answer, 405, "http_error")
    assert answer.headers["allow"] == "POST"


async def test_it_answers_behind_any_name_and_not_to_the_page_of_a_stranger(tmp_path: Path) -> None:
    server = {
        "host": "0.0.0.0",
        "cors_origins": ["https://portal.example"],
        "public_url": "https://agents.example/helper",
    }
    async with serving(tmp_path, ScriptedModel([]), server=server) as http:
        async with mcp_client(http, host="helper:8000") as client:
            assert (await client.list_tools()).tools
        for origin in ("https://portal.example", "https://agents.example", "http://localhost:3000"):
            async with mcp_client(http, origin=origin) as client:
                assert (await client.list_tools()).tools
        for origin in ("https://evil.example", "null"):
            is_problem(await http.post("/mcp", json={}, headers={"origin": origin}), 403, "http_error")


async def test_a_client_that_gives_up_stops_the_model(tmp_path: Path) -> None:
    class Endless(ScriptedModel):
        begun, stopped = asyncio.Event(), asyncio.Event()

        async def stream(self, messages: Any, tools: Any = (), **options: Any) -> Any:
            self.begun.set()
            try:
                await asyncio.Event().wait()
                yield ""
            finally:
                self.stopped.set()

    model = Endless([])
    async with serving(tmp_path, model) as http, mcp_client(http) as client:
        call = asyncio.create_task(client.call_tool("helper", {"message": "Think."}))
        await asyncio.wait_for(model.begun.wait(), 5)
        call.cancel()
        await asyncio.wait_for(model.stopped.wait(), 5)
