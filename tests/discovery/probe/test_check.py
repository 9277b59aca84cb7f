"""One look at an endpoint, over real sockets: what answers, what does not, and in which words that is said."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from discovery.contract import AgentRecord, ProtocolEndpoints, Reachability, protocol_endpoints, utc_now
from discovery.probe import check as checking
from discovery.probe.addresses import AddressPolicy
from discovery.probe.check import EndpointChecker
from tests.serving import serve

CARD = {"name": "orders", "version": "1", "supportedInterfaces": [{"url": "http://a", "protocolBinding": "JSONRPC"}]}
OLD_CARD = {"name": "orders", "version": "1", "url": "http://a/a2a", "skills": [], "protocolVersion": "0.3.0"}
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}}
HOME = AddressPolicy(loopback=True)

Handler = Callable[[Request], Awaitable[Response]]


def endpoints(url: str, **paths: str) -> ProtocolEndpoints:
    return ProtocolEndpoints(endpoint=url, **{protocol: url + path for protocol, path in paths.items()})


async def check(where: ProtocolEndpoints, policy: AddressPolicy = HOME) -> Reachability:
    async with EndpointChecker.open(policy, utc_now) as checker:
        return await checker.check(where)


@asynccontextmanager
async def agent(**answers: Any) -> AsyncGenerator[tuple[str, list[Request]]]:
    """Serve answers by path (`livez` is /livez); what was asked is collected. Everything else is a 404."""
    asked: list[Request] = []

    async def answer(request: Request) -> Response:
        asked.append(request)
        await request.body()
        found = answers.get(request.url.path.strip("/").replace("-", "_").replace(".", "_").replace("/", "_"))
        if isinstance(found, Response):
            return found
        return await found(request) if found else JSONResponse({"status": 404}, 404)

    app = Starlette(routes=[Route("/{rest:path}", answer, methods=["GET", "POST", "DELETE"])])
    async with serve(app) as url:
        yield url, asked


def ok() -> Response:
    return JSONResponse({"status": "ok"})


def result(value: Any, **headers: str) -> Response:
    return JSONResponse({"jsonrpc": "2.0", "id": 1, "result": value}, headers=headers)


def error(code: int, message: str, status: int = 200) -> Response:
    return JSONResponse({"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": message}}, status)


async def test_an_endpoint_that_answers_is_reached_and_how_fast_is_told() -> None:
    async with agent(livez=ok()) as (url, asked):
        found = await check(endpoints(url))
    assert (found.ok, found.reason) == (True, "health responds")
    assert found.latency_ms is not None
    assert [(request.method, request.url.path) for request in asked] == [("GET", "/livez")]


async def test_health_is_asked_where_the_agent_says_it_is_and_only_there() -> None:
    async with agent(my_health=ok()) as (url, asked):
        assert (await check(endpoints(url, health="/my/health"))).ok
    assert [request.url.path for request in asked] == ["/my/health"]


async def test_an_agent_without_livez_is_asked_for_health_and_needs_neither() -> None:
    async with agent() as (url, asked):
        found = await check(endpoints(url))
    assert (found.ok, found.reason) == (True, "health responds")
    assert [request.url.path for request in asked] == ["/livez", "/health"]


@pytest.mark.parametrize(
    ("answer", "is_reached", "reason"),
    [
        (Response(status_code=500), False, "health returned HTTP 500"),
        (JSONResponse({"detail": "model away"}, 503), False, "health returned HTTP 503"),
        (Response(status_code=401), True, "health responds"),
        (Response(status_code=429), True, "health responds"),
        (HTMLResponse("<h1>It works!</h1>"), True, "health responds"),
        (Response(b"x" * 1_000_000), True, "health responds"),
    ],
)
async def test_any_answer_under_500_is_one(answer: Response, is_reached: bool, reason: str) -> None:
    async with agent(livez=answer) as (url, _):
        found = await check(endpoints(url))
    assert (found.ok, found.reason) == (is_reached, reason)


async def test_nobody_listening_is_a_refused_connection() -> None:
    with socket.socket() as taken:  # bound and not listening: nobody else gets the port meanwhile
        taken.bind(("127.0.0.1", 0))
        found = await check(endpoints(f"http://127.0.0.1:{taken.getsockname()[1]}"))
    assert (found.ok, found.reason, found.latency_ms) == (False, "connection refused", None)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "CHECK_SECONDS", 0.2)


@pytest.mark.usefixtures("short")
async def test_an_endpoint_that_hangs_is_left_after_its_time() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        found = await check(endpoints(f"http://127.0.0.1:{listening.getsockname()[1]}"))
    assert (found.ok, found.reason) == (False, "timed out after 0.2 s")


@pytest.mark.usefixtures("short")
async def test_a_card_that_comes_drop_by_drop_is_not_waited_for() -> None:
    async def drops(_: Request) -> Response:
        async def forever() -> AsyncGenerator[bytes]:
            while True:
                yield b" "
                await asyncio.sleep(0.01)

        return StreamingResponse(forever())

    async with agent(livez=ok(), card=drops) as (url, _):
        found = await check(endpoints(url, card="/card"))
    assert (found.ok, found.reason) == (False, "agent card failed: timed out after 0.2 s")
    assert found.latency_ms is not None


async def test_what_speaks_something_else_than_http_is_told_so() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        found = await check(endpoints(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    assert (found.ok, found.reason) == (False, "does not speak HTTP")


async def test_a_redirect_is_reported_and_never_followed() -> None:
    async with agent(inside=ok()) as (goal, followed):
        away = RedirectResponse(f"{goal}/inside?token=hush")
        async with agent(livez=away, card=away, mcp=away) as (url, _):
            plain = await check(endpoints(url))
            card = await check(endpoints(url, card="/card"))
            mcp = await check(endpoints(url, mcp="/mcp"))
    assert followed == []
    assert (plain.ok, plain.reason) == (
        True,
        f"health responds; redirects to {goal}/inside, which is not followed",
    )
    told = f"redirects to {goal}/inside, which is not followed"
    assert (card.ok, card.reason) == (False, f"agent card failed: {told}")
    assert (mcp.ok, mcp.reason) == (False, f"MCP failed: {told}")


@pytest.mark.parametrize("card", [CARD, OLD_CARD])
async def test_an_agent_card_of_either_version_parses(card: dict[str, Any]) -> None:
    async with agent(livez=ok(), card=JSONResponse(card)) as (url, _):
        found = await check(endpoints(url, card="/card"))
    assert (found.ok, found.reason) == (True, "health and agent card respond")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (HTMLResponse("<html>"), "invalid response: not JSON but text/html"),
        (Response(b"[" * 60_000), "invalid response: not JSON but without a content type"),
        (JSONResponse([]), "invalid response: Input should be an object"),
        (JSONResponse({"url": "http://a"}), "invalid response: name: Field required"),
        (JSONResponse({"name": "a"}), "invalid response: supportedInterfaces: Field required"),
        (JSONResponse(CARD | {"pad": "x" * 70_000}), "the response is larger than 64 KiB"),
        (Response(status_code=404), "HTTP 404"),
        (Response(status_code=500), "HTTP 500"),
    ],
)
async def test_a_card_that_is_none_is_told_with_the_reason(answer: Response, why: str) -> None:
    async with agent(livez=ok(), card=answer) as (url, _):
        found = await check(endpoints(url, card="/card"))
    assert (found.ok, found.reason) == (False, f"agent card failed: {why}")


async def test_a_face_behind_a_key_is_no_fault() -> None:
    async with agent(livez=ok(), card=Response(status_code=401), mcp=Response(status_code=403)) as (url, _):
        found = await check(endpoints(url, card="/card", mcp="/mcp"))
    assert found.ok
    assert found.reason == (
        "health, agent card and MCP respond; agent card requires authentication; MCP requires authentication"
    )


async def test_an_mcp_server_is_asked_to_initialize() -> None:
    async with agent(livez=ok(), mcp=result(HELLO)) as (url, asked):
        found = await check(endpoints(url, mcp="/mcp"))
    assert (found.ok, found.reason) == (True, "health and MCP respond")
    call = json.loads(await asked[-1].body())
    assert (call["jsonrpc"], call["method"], call["params"]["protocolVersion"]) == ("2.0", "initialize", "2025-11-25")
    assert {*asked[-1].headers["accept"].split(", ")} == {"application/json", "text/event-stream"}


async def test_a_session_that_was_opened_for_the_look_is_closed_again() -> None:
    async with agent(livez=ok(), mcp=result(HELLO, **{"mcp-session-id": "s-1"})) as (url, asked):
        assert (await check(endpoints(url, mcp="/mcp"))).ok
    assert [(one.method, one.headers.get("mcp-session-id")) for one in asked[1:]] == [("POST", None), ("DELETE", "s-1")]


@pytest.mark.usefixtures("short")
async def test_an_answer_in_a_stream_that_stays_open_is_enough() -> None:
    async def stream(_: Request) -> Response:
        async def events() -> AsyncGenerator[str]:
            yield ": hello\r\n\r\nid: 0\r\ndata:\r\n\r\n"
            yield 'data: {"jsonrpc": "2.0", "method": "notifications/message", "params": {}}\r\n\r\n'
            yield f"event: message\r\ndata: {json.dumps({'jsonrpc': '2.0', 'id': 1, 'result': HELLO})}\r\n\r\n"
            await asyncio.sleep(3600)

        return StreamingResponse(events(), media_type="text/event-stream")

    async with agent(livez=ok(), mcp=stream) as (url, _):
        found = await check(endpoints(url, mcp="/mcp"))
    assert (found.ok, found.reason) == (True, "health and MCP respond")


@pytest.mark.parametrize("refusal", [error(-32022, "unsupported"), error(-32601, "no such method", 404)])
async def test_a_server_that_no_longer_knows_the_handshake_is_asked_in_the_new_way(refusal: Response) -> None:
    async def modern(request: Request) -> Response:
        call = await request.json()
        if call["method"] == "initialize":
            return refusal
        assert call["method"] == request.headers["mcp-method"] == "server/discover"
        return result({"supportedVersions": ["2026-07-28"], "capabilities": {}})

    async with agent(livez=ok(), mcp=modern) as (url, _):
        found = await check(endpoints(url, mcp="/mcp"))
    assert (found.ok, found.reason) == (True, "health and MCP respond")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (HTMLResponse("<html>"), "invalid response: not JSON but text/html"),
        (ok(), "invalid response: not a JSON-RPC response"),
        (result({}), "the response names no protocol version"),
        (result([]), "invalid response: result: Input should be an object"),
        (error(-32602, "no\nsession\x07 today"), "error response: no session today"),
        (Response(b"data: " + b"x" * 70_000, media_type="text/event-stream"), "the response is larger than 64 KiB"),
        (Response(status_code=404), "HTTP 404"),
        (Response(status_code=500), "HTTP 500"),
    ],
)
async def test_an_mcp_server_that_is_none_is_told_with_the_reason(answer: Response, why: str) -> None:
    async with agent(livez=ok(), mcp=answer) as (url, _):
        found = await check(endpoints(url, mcp="/mcp"))
    assert (
        found.ok,
        found.reason.removeprefix("MCP failed: ").replace("valid dictionary", "object"),
    ) == (
        False,
        why,
    )


async def test_no_cookie_goes_back_and_no_token_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")  # would refuse
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    biscuit = ok()
    biscuit.set_cookie("session", "s")
    cases = {"livez": biscuit, "card": JSONResponse(CARD), "mcp": result(HELLO)}
    async with agent(**cases) as (url, asked), EndpointChecker.open(HOME, utc_now) as checker:
        for _ in range(2):
            assert (await checker.check(endpoints(url, card="/card", mcp="/mcp"))).ok
    assert len(asked) == 6
    for request in asked:
        assert not {"cookie", "authorization"} & {*request.headers}


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ("http://169.254.169.254/latest", "not called: 169.254.169.254 is a link-local address"),
        ("http://[::ffff:169.254.169.254]", "is a link-local address"),
        ("http://[fd00:ec2::254]", "not called: fd00:ec2::254 is a cloud's metadata service"),
        ("http://0.0.0.0:8000", "not called: 0.0.0.0 is an unspecified address"),
        ("http://2851995648", "not called: 2851995648 (169.254.0.0) is a link-local address"),
        ("http://no-such-host.invalid", "host name no-such-host.invalid cannot be resolved"),
        (f"http://{'a' * 70}.example", "cannot be resolved"),
    ],
)
async def test_what_must_not_or_cannot_be_called_is_said_without_a_call(endpoint: str, reason: str) -> None:
    found = await check(endpoints(endpoint))
    assert not found.ok
    assert reason in found.reason


async def test_this_machine_is_not_called_by_a_registry_that_serves_others() -> None:
    async with agent(livez=ok()) as (url, asked):
        for endpoint in (url, url.replace("127.0.0.1", "localhost"), url.replace("127.0.0.1", "[::ffff:127.0.0.1]")):
            found = await check(endpoints(endpoint), AddressPolicy(loopback=False))
            assert (found.ok, "the registry's own machine" in found.reason) == (False, True)
        assert (
            await check(
                endpoints(url.replace("127.0.0.1", "localhost")), AddressPolicy.of(["localhost"], loopback=False)
            )
        ).ok
    assert len(asked) == 1


async def test_a_link_to_a_forbidden_place_is_not_called_though_the_endpoint_is_fine() -> None:
    async with agent(livez=ok()) as (url, _):
        where = ProtocolEndpoints(endpoint=url, health=None, card="http://169.254.169.254/card", mcp=None)
        found = await check(where)
    assert (found.ok, found.reason) == (
        False,
        "agent card failed: not called: 169.254.169.254 is a link-local address",
    )


async def test_a_name_is_looked_up_once_and_the_connection_goes_where_the_check_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name server that says another address the second time finds nobody who asks it a second time."""
    looked_up: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if host != "agent.example":
            return real(host, port, *rest, **more)
        looked_up.append(host)
        return real("127.0.0.1" if len(looked_up) == 1 else "169.254.169.254", port, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    async with agent(livez=ok()) as (url, asked):
        found = await check(endpoints(url.replace("127.0.0.1", "agent.example")))
        again = await check(endpoints(url.replace("127.0.0.1", "agent.example")))
    assert (found.ok, looked_up) == (True, ["agent.example"] * 2)
    assert asked[0].headers["host"].startswith("agent.example:")
    assert (again.ok, again.reason) == (False, "not called: agent.example (169.254.169.254) is a link-local address")


async def test_the_next_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def several(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if host != "agent.example":
            return real(host, port, *rest, **more)
        return [found for one in ("169.254.0.9", "127.0.0.2", "127.0.0.1") for found in real(one, port, *rest, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", several)
    async with agent(livez=ok()) as (url, _):
        assert (await check(endpoints(url.replace("127.0.0.1", "agent.example")))).ok


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """agent.example is this machine."""
    real = socket.getaddrinfo

    def resolve(host: Any, *rest: Any, **more: Any) -> Any:
        return real("127.0.0.1" if host.endswith("agent.example") else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.mark.usefixtures("named")
async def test_a_certificate_is_checked_against_the_name_though_a_number_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    certificate, bundle = tmp_path / "agent.pem", tmp_path / "ca.pem"
    authority.issue_cert("agent.example").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    authority.cert_pem.write_to_path(str(bundle))

    async def hello(scope: Any, receive: Any, send: Any) -> None:
        await Response("ok")(scope, receive, send)

    async with serve(hello, ssl_certfile=str(certificate), lifespan="off") as url:
        at = f"https://agent.example:{url.rpartition(':')[2]}"
        unknown = await check(endpoints(at))
        monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
        known = await check(endpoints(at))
        other = await check(endpoints(at.replace("agent.example", "other-agent.example")))
    assert (known.ok, known.reason) == (True, "health responds")
    assert (unknown.ok, unknown.reason.partition(":")[0]) == (False, "certificate not trusted")
    assert (other.ok, "Hostname mismatch" in other.reason) == (False, True)


async def test_tls_towards_an_endpoint_that_has_none_is_told_so() -> None:
    async with agent(livez=ok()) as (url, _):
        found = await check(endpoints(url.replace("http", "https")))
    assert (found.ok, found.reason) == (False, "TLS handshake failed")


def record(**said: Any) -> AgentRecord:
    values = {"name": "a", "endpoint": "http://a:8000", "agent_type": "tool", "tools": [], "version": "1"}
    return AgentRecord(**values | said)


def test_where_an_agent_answers_follows_from_its_record() -> None:
    assert protocol_endpoints(record()) == ProtocolEndpoints(endpoint="http://a:8000", health=None, card=None, mcp=None)
    told = record(
        endpoint="http://a:8000/orders/",
        protocols=["chat", "a2a", "mcp"],
        links={"health": "http://a:8000/orders/health", "card": "http://cards/orders.json"},
    )
    assert protocol_endpoints(told) == ProtocolEndpoints(
        endpoint="http://a:8000/orders",
        health="http://a:8000/orders/health",
        card="http://cards/orders.json",
        mcp="http://a:8000/orders/mcp",
    )
    assert protocol_endpoints(record(protocols=["a2a"])).card == "http://a:8000/.well-known/agent-card.json"


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        ("http://m:9000", "http://m:9000/mcp"),
        ("http://m:9000/", "http://m:9000/mcp"),
        ("http://m:9000/mcp", "http://m:9000/mcp"),
        ("http://m:9000/tools", "http://m:9000/tools"),
    ],
)
def test_an_mcp_server_registers_its_address_or_its_host(endpoint: str, address: str) -> None:
    assert protocol_endpoints(record(endpoint=endpoint, agent_type="mcp_server")).mcp == address
