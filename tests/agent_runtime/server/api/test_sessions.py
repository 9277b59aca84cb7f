"""The conversations of a caller, over a real socket."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent_runtime.models.scripted import ScriptedModel
from tests.agent_runtime.server.served import is_problem, serving


async def test_a_callers_conversations_are_listed_latest_first(tmp_path: Path, durable: str) -> None:
    model = ScriptedModel(["one", "two", "three", "four"])
    async with serving(tmp_path, model, agent_type="stateful", session={"store": durable}) as client:
        for session_id, user_id in (("a", "ada"), ("b", "ada"), ("c", "bob"), ("a", "ada")):
            body = {"message": f"hello from {session_id}", "session_id": session_id, "user_id": user_id}
            await client.post("/chat", json=body)
        listed = (await client.get("/sessions", params={"user_id": "ada"})).json()
        latest = (await client.get("/sessions", params={"user_id": "ada", "limit": 1})).json()
        nobodys = (await client.get("/sessions")).json()
    assert [(one["session_id"], one["title"], one["messages"]) for one in listed] == [
        ("a", "hello from a", 4),
        ("b", "hello from b", 2),
    ]
    assert latest == listed[:1]
    assert nobodys == []
    updated = datetime.fromisoformat(listed[0]["updated_at"])
    assert timedelta(0) <= datetime.now(UTC) - updated < timedelta(seconds=20)


async def test_an_agent_that_remembers_nothing_lists_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel(["one"])) as client:
        await client.post("/chat", json={"message": "hi"})
        assert (await client.get("/sessions")).json() == []


@pytest.mark.parametrize("limit", ["0", "201", "x"])
async def test_a_limit_that_is_none_is_refused(tmp_path: Path, limit: str) -> None:
    async with serving(tmp_path, ScriptedModel([])) as client:
        is_problem(await client.get("/sessions", params={"limit": limit}), 422, "invalid_body")


async def test_a_session_id_that_no_session_can_have_is_a_bad_request(tmp_path: Path, durable: str) -> None:
    async with serving(tmp_path, ScriptedModel([]), agent_type="stateful", session={"store": durable}) as client:
        for session_id in ("a%00b", "a%0Ab", "x" * 129):
            is_problem(await client.get(f"/sessions/{session_id}"), 400, "bad_request")
            is_problem(await client.delete(f"/sessions/{session_id}"), 400, "bad_request")
