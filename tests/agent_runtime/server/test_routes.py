"""Every route of an agent, and who asks: nobody, a stranger, the owner of a session, and the holder of another key."""

import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Route

from agent_runtime import Agent
from agent_runtime.events import Message, ToolCall
from agent_runtime.models.scripted import ScriptedModel
from agent_runtime.server.app import create_app
from agent_runtime.server.auth.authenticator import AuthenticatedRoute, is_public
from agent_runtime.server.lazy_mount import CARD_PATH, LazyMount
from tests.agent_runtime.server.auth.test_authenticator import bearer
from tests.agent_runtime.server.served import is_problem, serving
from tests.agents import write_agent

pytest.importorskip("mcp", reason="needs the mcp extra")
pytest.importorskip("a2a", reason="needs the a2a extra")

ADA, OTHER = bearer("key-one"), bearer("key-two")
PRIVATE = "my number is 4711"
CODE = '''
def refund(note: str) -> str:
    """Pay money back."""
    return "paid"
'''
SECTIONS: dict[str, Any] = {
    "server": {"api_keys": ["key-one", "key-two"]},
    "agent_type": "stateful",
    "code": CODE,
    "tools": [{"function": "calculator:refund", "approval": "required"}],
}
OPEN = {
    "GET /",
    "GET /page/{name}",
    "GET /livez",
    "GET /readyz",
    "GET /health",
    "GET /metrics",
    "GET /openapi.json",
    "GET /docs",
    "GET /docs/oauth2-redirect",
    "GET /redoc",
    f"POST {CARD_PATH}",  # as all of its methods: it is one application, which says itself what it takes
}
COMPLETION = {"model": "helper", "messages": [{"role": "user", "content": "hi"}], "metadata": {"session_id": "s"}}
RESPONSE = {"model": "helper", "input": "hi", "metadata": {"session_id": "s"}}
ASKING = {"message": "hi", "session_id": "s"}
TASK = {
    "kind": "message",
    "messageId": "m",
    "role": "user",
    "contextId": "s",
    "parts": [{"kind": "text", "text": "hi"}],
}
CALL = {"name": "helper", "arguments": ASKING}
# What each route is asked with, and what it answers: to Ada, and to the other key about what is Ada's.
ROUTES: dict[str, tuple[Any, int, int]] = {
    "POST /chat": (ASKING, 200, 200),
    "POST /chat/stream": (ASKING, 200, 200),
    "GET /runs/{run_id}/events": (None, 200, 404),
    "POST /runs/{run_id}/cancel": (None, 200, 404),
    "GET /sessions": (None, 200, 200),
    "GET /sessions/{session_id}": (None, 200, 200),
    "DELETE /sessions/{session_id}": (None, 204, 204),
    "GET /approvals": (None, 200, 200),
    "POST /approvals/{approval_id}": ({"decision": "deny"}, 200, 404),
    "GET /v1/models": (None, 200, 200),
    "GET /v1/models/{model}": (None, 200, 200),
    "POST /v1/chat/completions": (COMPLETION, 200, 200),
    "POST /v1/responses": (RESPONSE, 200, 200),
    "GET /page/agent": (None, 200, 200),
    "POST /a2a": ({"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": TASK}}, 200, 200),
    "POST /mcp": ({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": CALL}, 200, 200),
}
# Routes that show Ada what is hers; the same must show nothing of it to another key.
SHOWING = {
    "POST /chat",
    "POST /chat/stream",
    "GET /runs/{run_id}/events",
    "GET /sessions",
    "GET /sessions/{session_id}",
    "GET /approvals",
    "POST /approvals/{approval_id}",
    "POST /v1/chat/completions",
    "POST /v1/responses",
    "POST /a2a",
    "POST /mcp",
}


class Telltale(ScriptedModel):
    """Repeats all that it is shown; asked for a refund, it calls the tool."""

    def __init__(self) -> None:
        super().__init__([])

    async def stream(self, messages: Sequence[Message], tools: Any = (), **options: Any) -> AsyncGenerator[Any]:
        if messages[-1].content.startswith("refund"):
            yield ToolCall("c1", "refund", json.dumps({"note": PRIVATE}))
        else:
            yield " | ".join(message.content for message in messages)


def routes_of(routes: Sequence[BaseRoute]) -> Iterator[tuple[str, BaseRoute]]:
    """Every route by method and path; fails at a kind that nobody taught this test to look into."""
    for route in routes:
        if isinstance(route, Route) and isinstance(route.endpoint, LazyMount):
            yield f"POST {route.path}", route
        elif isinstance(route, APIRoute | Route):
            yield from ((f"{method} {route.path}", route) for method in (route.methods or ()) if method != "HEAD")
        else:
            inner = getattr(route, "original_router", None)
            assert inner is not None, f"{route!r} is checked by nobody: make it a AuthenticatedRoute route"
            yield from routes_of(inner.routes)


async def all_routes(folder: Path) -> dict[str, BaseRoute]:
    async with Agent(write_agent(folder), model=ScriptedModel([]), environment={}) as agent:
        return dict(routes_of(create_app(agent).routes))


async def test_every_route_is_guarded_or_is_listed_as_open_and_the_table_misses_none(tmp_path: Path) -> None:
    found = await all_routes(tmp_path)
    assert set(found) == OPEN | set(ROUTES)
    for name, route in found.items():
        if isinstance(route, APIRoute):
            assert isinstance(route, AuthenticatedRoute), f"{name} is not checked: use route_class=AuthenticatedRoute"
            assert is_public(route) == (name in OPEN), name


@dataclass(frozen=True, slots=True)
class Hers:
    """What Ada has: a session, a run, and a call that waits."""

    session_id: str
    run_id: str
    approval_id: str

    def path(self, template: str) -> str:
        return template.format(
            session_id=self.session_id,
            run_id=self.run_id,
            approval_id=self.approval_id,
            model="helper",
            name="style.css",
        )


async def prepared(client: httpx.AsyncClient) -> Hers:
    body = {"message": PRIVATE, "session_id": "s"}
    run = (await client.post("/chat", headers=ADA, json=body)).json()
    await client.post("/chat", headers=ADA, json={"message": "refund", "session_id": "waiting"})
    [waiting] = (await client.get("/approvals", headers=ADA)).json()
    return Hers("s", run["run_id"], waiting["id"])


async def ask(client: httpx.AsyncClient, route: str, hers: Hers, headers: dict[str, str]) -> httpx.Response:
    method, template = route.split()
    body = ROUTES[route][0] if route in ROUTES else None
    more = {"accept": "application/json, text/event-stream"} if template == "/mcp" else {}
    return await client.request(method, hers.path(template), headers={**headers, **more}, json=body)


@pytest.mark.parametrize("route", sorted(ROUTES))
async def test_a_route_answers_its_owner_and_shows_nothing_of_it_to_anybody_else(
    tmp_path: Path, route: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="agent_runtime")
    _, expected, expected_of_others = ROUTES[route]
    async with serving(tmp_path, Telltale(), **SECTIONS) as client:
        hers = await prepared(client)
        refusals: list[str] = []
        for headers in ({}, bearer("key-three"), {"authorization": "Basic key-one"}, {"x-api-key": "key-one"}):
            answer = await ask(client, route, hers, headers)
            refusals.append(answer.text)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")
            if "/v1/" not in route:
                is_problem(answer, 401, "unauthorized")
        other = await ask(client, route, hers, OTHER)
        assert other.status_code == expected_of_others, other.text
        own = await ask(client, route, hers, ADA)
        assert own.status_code == expected, own.text
        assert (PRIVATE in own.text) == (route in SHOWING)
        for text in (other.text, *refusals):
            assert PRIVATE not in text
            assert "key-three" not in text
    assert "key-three" not in caplog.text


@pytest.mark.parametrize("route", sorted(OPEN))
async def test_an_open_route_asks_for_no_key_and_shows_nothing_of_a_session(tmp_path: Path, route: str) -> None:
    async with serving(tmp_path, Telltale(), system_prompt="Mind the prompt.", **SECTIONS) as client:
        hers = await prepared(client)
        answer = await ask(client, route.replace("POST", "GET"), hers, {})
        assert answer.status_code == 200
        for text in (PRIVATE, "Mind the prompt", "key-one"):
            assert text not in answer.text


async def test_a_task_of_one_key_is_not_found_with_another(tmp_path: Path) -> None:
    async with serving(tmp_path, Telltale(), **SECTIONS) as client:
        hers = await prepared(client)
        task = (await ask(client, "POST /a2a", hers, ADA)).json()["result"]["id"]
        body = {"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"id": task}}
        assert PRIVATE in (await client.post("/a2a", headers=ADA, json=body)).text
        answer = (await client.post("/a2a", headers=OTHER, json=body)).json()
        assert answer["error"]["code"] == -32001  # task not found
