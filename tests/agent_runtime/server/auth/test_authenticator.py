"""Who may ask, who may read which session, and which pages may call."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_runtime.models.scripted import ScriptedModel
from tests.agent_runtime.server.served import is_problem, serving

KEYS: dict[str, Any] = {"server": {"api_keys": ["key-one", "key-two"]}, "agent_type": "stateful"}
PAGE = "http://portal.example:9000"


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        bearer("wrong"),
        bearer("key-one2"),
        bearer("key-on"),
        {"authorization": "Basic key-one"},
        {"authorization": "key-one"},
        {"x-api-key": "key-one"},
    ],
)
async def test_without_one_of_the_keys_nothing_is_answered(tmp_path: Path, headers: dict[str, str]) -> None:
    async with serving(tmp_path, ScriptedModel([]), **KEYS) as client:
        bodies: list[dict[str, Any]] = []
        for method, path in (
            ("POST", "/chat"),
            ("POST", "/chat/stream"),
            ("GET", "/sessions/s"),
            ("DELETE", "/sessions/s"),
        ):
            answer = await client.request(method, path, headers=headers, json={"message": "hi"})
            body = is_problem(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"] in {"Bearer", 'Bearer error="invalid_token"'}
            bodies.append(body | {"request_id": ""})
    assert all(body == bodies[0] for body in bodies)
    hint = "Send a valid key or token as `Authorization: Bearer …`; the agent's operator can give you one."
    assert bodies[0]["hint"] == hint


async def test_every_key_of_the_file_is_good(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel(["a", "b", "c"]), **KEYS) as client:
        for headers in (bearer("key-one"), bearer("key-two"), {"authorization": "bearer key-one"}):
            assert (await client.post("/chat", headers=headers, json={"message": "hi"})).status_code == 200


async def test_a_wrong_body_without_a_key_is_still_a_missing_key_or_a_wrong_body(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel([]), **KEYS) as client:
        answer = await client.post("/chat", json={"mesage": "hi"})
    assert answer.status_code == 401


async def test_operators_need_no_key(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel([]), **KEYS) as client:
        for path in ("/livez", "/readyz", "/health"):
            assert (await client.get(path)).status_code == 200


# --- sessions


async def test_a_session_is_read_and_forgotten(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel(["Hello Ada."]), agent_type="stateful") as client:
        assert (await client.get("/sessions/s")).json() == []
        await client.post("/chat", json={"message": "I am Ada.", "session_id": "s"})
        messages = (await client.get("/sessions/s")).json()
        assert [(message["role"], message["content"]) for message in messages] == [
            ("user", "I am Ada."),
            ("assistant", "Hello Ada."),
        ]
        for _ in range(2):
            answer = await client.delete("/sessions/s")
            assert (answer.status_code, answer.content) == (204, b"")
        assert (await client.get("/sessions/s")).json() == []


async def test_a_session_of_one_key_is_not_read_with_another(tmp_path: Path) -> None:
    model = ScriptedModel(["one", "two"])
    body = {"message": "hi", "session_id": "s"}
    async with serving(tmp_path, model, **KEYS) as client:
        await client.post("/chat", headers=bearer("key-one"), json=body)
        assert (await client.get("/sessions/s", headers=bearer("key-two"))).json() == []
        await client.delete("/sessions/s", headers=bearer("key-two"))
        await client.post("/chat", headers=bearer("key-two"), json=body)
        assert len((await client.get("/sessions/s", headers=bearer("key-one"))).json()) == 2
    assert [message.content for message in model.asked[1].messages] == ["hi"]


async def test_a_session_of_one_user_is_not_read_by_another(tmp_path: Path) -> None:
    model = ScriptedModel(["one", "two", "three"])
    async with serving(tmp_path, model, agent_type="stateful") as client:
        for user in ("ada", "bob"):
            await client.post("/chat", json={"message": f"I am {user}", "session_id": "s", "user_id": user})
        await client.post("/chat", json={"message": "I am nobody", "session_id": "s"})
        read = {
            user: (await client.get("/sessions/s", params={"user_id": user} if user else {})).json()[0]["content"]
            for user in ("ada", "bob", "")
        }
    assert read == {"ada": "I am ada", "bob": "I am bob", "": "I am nobody"}
    assert all(len(asked.messages) == 1 for asked in model.asked)


async def test_a_store_that_fails_while_serving_is_a_problem_for_later(tmp_path: Path) -> None:
    import sqlite3
    from contextlib import closing

    sections: dict[str, Any] = {"agent_type": "stateful", "session": {"store": "sqlite:///sessions.db"}}
    async with serving(tmp_path, ScriptedModel(["a", "b"]), **sections) as client:
        with closing(sqlite3.connect(tmp_path / "sessions.db")) as other:
            other.execute("DROP TABLE session_messages")
            other.commit()
        answer = await client.post("/chat", json={"message": "hi", "session_id": "s"})
        problem = is_problem(answer, 503, "store_failed")
    assert "nothing of this turn was saved" in problem["hint"]
    assert answer.headers["retry-after"]


# --- pages of other origins


async def preflight(client: httpx.AsyncClient, origin: str) -> httpx.Response:
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    return await client.options("/chat/stream", headers=headers)


async def test_pages_of_the_listed_origins_may_call(tmp_path: Path) -> None:
    server = {"cors_origins": [PAGE], "api_keys": ["k"]}
    async with serving(tmp_path, ScriptedModel(["a"]), server=server) as client:
        asked = await preflight(client, PAGE)
        answer = await client.post("/chat", headers={"origin": PAGE, **bearer("k")}, json={"message": "hi"})
        refused = await client.post("/chat", headers={"origin": PAGE}, json={"message": "hi"})
    assert asked.status_code == 200
    assert {response.headers["access-control-allow-origin"] for response in (asked, answer, refused)} == {PAGE}
    assert "authorization" in asked.headers["access-control-allow-headers"]


FORMS: dict[str, bytes] = {  # what a form of any page can send, without the browser asking first
    "/chat": b'{"message": "hi"}',
    "/v1/chat/completions": b'{"model": "helper", "messages": [{"role": "user", "content": "hi"}]}',
    "/a2a": b'{"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"id": "t"}}',
    "/mcp": b'{"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}',
}


@pytest.mark.parametrize("path", FORMS)
async def test_a_strangers_page_starts_nothing_where_nobody_is_asked_for_a_key(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path, ScriptedModel([])) as client:
        for origin in ("http://evil.example", "null"):
            headers = {"origin": origin, "content-type": "text/plain"}
            assert (await client.post(path, content=FORMS[path], headers=headers)).status_code == 403


async def test_a_name_that_points_at_this_machine_is_not_let_in_unless_the_file_has_it(tmp_path: Path) -> None:
    rebound = {"host": "evil.example:8000", "origin": "http://evil.example:8000"}
    async with serving(tmp_path / "1", ScriptedModel([])) as client:
        for headers in (rebound, {"host": "evil.example:8000"}):
            for path in ("/sessions", "/v1/models", "/page/agent"):
                assert (await client.get(path, headers=headers)).status_code == 403
            assert (await client.post("/chat", headers=headers, json={"message": "hi"})).status_code == 403
        assert (await client.get("/sessions", headers={"host": "localhost:8000"})).status_code == 200
        assert (await client.get("/sessions", headers={"origin": "http://localhost:9000"})).status_code == 200
    public = {"public_url": "http://agents.example"}
    async with serving(tmp_path / "2", ScriptedModel([]), server=public) as client:
        named = {"host": "agents.example", "origin": "http://agents.example"}
        assert (await client.get("/sessions", headers=named)).status_code == 200
    async with serving(tmp_path / "3", ScriptedModel([]), server={"host": "0.0.0.0"}) as client:
        own = {"host": "agent-host:8000", "origin": "http://agent-host:8000"}
        assert (await client.get("/sessions", headers=own)).status_code == 200
        assert (await client.get("/sessions", headers=own | {"origin": "http://evil.example"})).status_code == 403


@pytest.mark.parametrize("server", [{"cors_origins": [PAGE]}, {}])
async def test_pages_of_other_origins_may_not(tmp_path: Path, server: dict[str, Any]) -> None:
    async with serving(tmp_path, ScriptedModel(["a"]), server=server) as client:
        other = "http://evil.example"
        asked = await preflight(client, other)
        answer = await client.post("/chat", headers={"origin": other}, json={"message": "hi"})
    assert asked.status_code in {400, 405}
    assert "access-control-allow-origin" not in asked.headers
    assert "access-control-allow-origin" not in answer.headers
