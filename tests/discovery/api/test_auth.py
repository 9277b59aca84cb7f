"""Who may do what, over a real socket: every route against every kind of caller."""

from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from discovery.api.auth import Scoped, declared
from discovery.app import create_app
from discovery.client import DiscoveryClient, RegistrationRefused
from discovery.contract import AgentRecord
from discovery.probe.check import INITIALIZE
from discovery.settings import Settings
from discovery.tokens import read_tokens
from tests.discovery.conftest import MINIMAL, RunRegistry, registration

TOKENS = read_tokens(
    "read:tok-reader-1,read:tok-reader-2,register:tok-writer,register:tok-bound:team-a-*,admin:tok-root,"
    "read:tok-both,register:tok-both"
)
OPEN = {"GET /", "GET /portal/{name}", "GET /livez", "GET /readyz"}
CALLERS = {
    "nobody": None,
    "a stranger": "Bearer tok-stranger",
    "another scheme": "Basic dG9rLXJlYWRlci0x",
    "a bare word": "tok-root",
    "an empty token": "Bearer",
    "a reader": "Bearer tok-reader-1",
    "the next reader": "bearer  tok-reader-2",
    "a writer": "Bearer tok-writer",
    "a writer of others": "Bearer tok-bound",
    "both": "Bearer tok-both",
    "admin": "Bearer tok-root",
}
# What a route of a scope answers to whom: 200 stands for all but 401 and 403, and whoever is not listed gets 401.
READERS = {"a reader", "the next reader", "both", "admin"}
WRITERS = {"a writer", "both", "admin"}
KNOWN = READERS | WRITERS | {"a writer of others"}
READ = {caller: 200 if caller in READERS else 403 for caller in KNOWN}
REGISTER = {caller: 200 if caller in WRITERS else 403 for caller in KNOWN}
ROUTES = {
    "GET /agents": READ,
    "GET /agents/{name}": READ,
    "GET /agents/{name}/history": READ,
    "GET /events": READ,
    "POST /ard/search": READ,
    "GET /ard/agents": READ,
    "GET /.well-known/ai-catalog.json": READ,
    "GET /.well-known/ard.json": READ,
    "GET /ard/agents/{identifier}": READ,
    "POST /mcp": READ,
    "GET /metrics": READ,
    "GET /health": READ,
    "GET /docs": READ,
    "GET /openapi.json": READ,
    "POST /register": REGISTER,
    "DELETE /agents/{name}": REGISTER,
}


READING = {"POST /ard/search", "POST /mcp"}  # questions with a body, which change nothing
BODIES = {
    "POST /register": MINIMAL | {"name": "orders"},
    "POST /ard/search": {"query": {"text": "orders"}},
    "POST /mcp": {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": INITIALIZE},
}


def routes_of(routes: list[BaseRoute]) -> Iterator[APIRoute]:
    """Every route; fails at a kind that nobody taught this test to look into."""
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        else:
            inner = getattr(route, "original_router", None)
            assert inner is not None, f"{route!r} is checked by nobody: make it a Scoped route"
            assert not getattr(route, "include_context").prefix, "teach this test about prefixes"  # noqa: B009
            yield from routes_of(inner.routes)


def all_routes() -> dict[str, APIRoute]:
    app = create_app(Settings(database_url="memory://", tokens=TOKENS))
    return {f"{method} {route.path}": route for route in routes_of(app.routes) for method in route.methods}


def test_every_route_declares_its_scope_and_only_the_listed_ones_are_open() -> None:
    found = all_routes()
    assert len(found) >= len(OPEN) + 7
    for name, route in found.items():
        assert isinstance(route, Scoped), f"{name} is not checked: use route_class=Scoped"
        assert "security" in (route.openapi_extra or {}), f"{name} declares no scope: openapi_extra=needs(…)"
        assert (declared(route.openapi_extra) is None) == (name in OPEN), name
        if not name.startswith("GET "):
            assert declared(route.openapi_extra) in {"register", "admin"} or name in READING, name


def test_the_table_below_misses_no_route() -> None:
    assert set(all_routes()) == OPEN | set(ROUTES)


def test_a_route_that_declares_nothing_is_closed_to_all_but_admin() -> None:
    assert declared(None) == declared({"tags": ["x"]}) == "admin"


async def ask(http: httpx.AsyncClient, route: str, caller: str) -> httpx.Response:
    route = route.replace("{identifier}", "urn:air:myagent.internal:registry:discovery")
    method, path = route.replace("{name}", "style.css" if "portal" in route else "orders").split()
    given = CALLERS[caller]
    headers: Mapping[str, str] = {} if given is None else {"authorization": given}
    headers = {"accept": "application/json, text/event-stream", **headers}
    body = BODIES.get(route)
    async with http.stream(method, path, headers=headers, json=body) as response:
        if route != "GET /events" or response.status_code != 200:  # which never ends
            await response.aread()
    return response


@pytest.mark.parametrize("route", sorted(OPEN | set(ROUTES)))
async def test_every_route_lets_in_whom_it_should_and_tells_the_others_why(
    registry: RunRegistry, route: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with registry(database_url="memory://", tokens=TOKENS) as http:
        for caller in CALLERS:
            response = await ask(http, route, caller)
            expected = 200 if route in OPEN else ROUTES[route].get(caller, 401)
            if expected == 200:
                assert response.status_code in {200, 201, 204, 404}, caller
                continue
            problem(response, expected, caller)
    assert "tok-" not in caplog.text


def problem(response: httpx.Response, status: int, caller: str) -> None:
    assert response.status_code == status, (caller, response.text)
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["detail"]
    assert body["hint"]
    assert "tok-" not in response.text
    if status == 401:
        assert body["code"] == "unauthorized"
        assert response.headers["www-authenticate"].startswith('Bearer realm="')
        assert ("invalid_token" in response.headers["www-authenticate"]) == (caller == "a stranger")
    else:
        bound = caller == "a writer of others" and "may not register or remove" in body["detail"]
        assert body["code"] == ("forbidden_name" if bound else "forbidden_scope")
        assert bound or "insufficient_scope" in response.headers["www-authenticate"]


async def test_a_bound_token_writes_its_own_names_and_changes_no_other(registry: RunRegistry) -> None:
    bound, root = {"authorization": "Bearer tok-bound"}, {"authorization": "Bearer tok-root"}
    async with registry(database_url="memory://", tokens=TOKENS) as http:
        assert (await http.post("/register", json=MINIMAL | {"name": "orders"}, headers=root)).status_code == 201
        for response in (
            await http.post("/register", json=MINIMAL | {"name": "orders", "version": "evil"}, headers=bound),
            await http.delete("/agents/orders", headers=bound),
        ):
            assert (response.status_code, response.json()["code"]) == (403, "forbidden_name")
            assert "team-a-*" in response.json()["hint"]
        assert (await http.post("/register", json=MINIMAL | {"name": "team-a-x"}, headers=bound)).status_code == 201
        agents: list[dict[str, Any]] = (await http.get("/agents", headers=root)).json()
        assert [(agent["name"], agent["version"]) for agent in agents] == [("orders", "1.0.0"), ("team-a-x", "1.0.0")]
        assert (await http.delete("/agents/team-a-x", headers=bound)).status_code == 204


async def test_a_stranger_is_turned_away_before_the_body_is_looked_at(registry: RunRegistry) -> None:
    async with registry(database_url="memory://", tokens=TOKENS) as http:
        for body in (b"{", b"x" * 300 * 1024):
            response = await http.post("/register", content=body, headers={"content-type": "application/json"})
            assert (response.status_code, response.json()["code"]) == (401, "unauthorized")


async def test_another_origin_is_told_that_it_may_send_a_token_and_sees_why_it_was_refused(
    registry: RunRegistry,
) -> None:
    asked = {"origin": "https://portal.example", "access-control-request-method": "GET"}
    async with registry(database_url="memory://", cors_origins=("https://portal.example",), tokens=TOKENS) as http:
        preflight = await http.options("/agents", headers=asked | {"access-control-request-headers": "authorization"})
        assert preflight.status_code == 200
        assert "authorization" in preflight.headers["access-control-allow-headers"]
        refused = await http.get("/agents", headers={"origin": "https://portal.example"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://portal.example"


async def test_without_tokens_a_name_that_points_at_this_machine_is_not_let_in(registry: RunRegistry) -> None:
    rebound = {"host": "evil.example:9000"}
    async with registry() as http:
        refused = await http.post("/register", json=MINIMAL, headers=rebound)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden_host")
        assert (await http.get("/agents", headers=rebound)).status_code == 403
        assert (await http.get("/agents", headers={"host": "localhost:9000"})).json() == []
    for settings in ({"allow_anonymous": True}, {"tokens": TOKENS}):
        async with registry(database_url="memory://", **settings) as http:
            known = rebound | {"authorization": "Bearer tok-root"}
            assert (await http.get("/agents", headers=known)).status_code == 200


async def test_the_description_shows_the_scheme_and_the_scope_of_every_call(registry: RunRegistry) -> None:
    async with registry() as http:
        schema = (await http.get("/openapi.json")).json()
    assert schema["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert schema["paths"]["/agents"]["get"]["security"] == [{"bearer": ["read"]}]
    assert schema["paths"]["/register"]["post"]["security"] == [{"bearer": ["register"]}]
    assert schema["paths"]["/livez"]["get"]["security"] == []
    assert {"401", "403"} <= schema["paths"]["/agents/{name}"]["delete"]["responses"].keys()
    assert "401" not in schema["paths"]["/readyz"]["get"]["responses"]


async def test_the_client_registers_with_one_token_and_reads_with_another(registry: RunRegistry) -> None:
    async with registry(database_url="memory://", tokens=TOKENS) as http:
        url = str(http.base_url)
        async with (
            DiscoveryClient(url, token="tok-bound") as writer,
            DiscoveryClient(url, token="tok-reader-2") as reader,
        ):
            await writer.register(registration(name="team-a-x"))
            agents: list[AgentRecord] = await reader.agents()
            assert [agent.name for agent in agents] == ["team-a-x"]
            for refused, code in (
                (writer.register(registration(name="orders")), "forbidden_name"),
                (writer.agents(), "forbidden_scope"),
                (reader.remove("team-a-x"), "forbidden_scope"),
            ):
                with pytest.raises(RegistrationRefused) as caught:
                    await refused
                assert (caught.value.status, caught.value.code) == (403, code)
            await writer.remove("team-a-x")
            assert await reader.agents() == []
