"""Any ASGI application in the registry while it is served: a real server, a real registry."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from discovery.client import RegistrationMiddleware, local_endpoint, own_endpoint
from tests.discovery.conftest import RunRegistry, eventually, registration
from tests.serving import serve


async def answer(send: Any, text: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text})


async def refuses_a_lifespan(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http", "only HTTP is spoken here"
    await answer(send, b"served")


async def overlooks_a_lifespan(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await answer(send, b"served")


async def hears_the_start_and_gives_up(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        raise NotImplementedError("what is a lifespan?")
    await answer(send, b"served")


async def leaves_after_the_start(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        return
    await answer(send, b"served")


async def speaks_the_whole_lifespan(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{step}"
            await send({"type": f"lifespan.{step}.complete"})
        return
    await answer(send, b"served")


async def served(_: Request) -> PlainTextResponse:
    return PlainTextResponse("served")


def a_fastapi_app() -> FastAPI:
    app = FastAPI()
    app.add_api_route("/", served)
    return app


def a_starlette_app() -> Starlette:
    return Starlette(routes=[Route("/", served)])


APPLICATIONS: list[Callable[[], Any]] = [
    a_fastapi_app,
    a_starlette_app,
    lambda: refuses_a_lifespan,
    lambda: overlooks_a_lifespan,
    lambda: hears_the_start_and_gives_up,
    lambda: leaves_after_the_start,
    lambda: speaks_the_whole_lifespan,
]
NAMES = ["fastapi", "starlette", "refuses", "overlooks", "gives-up", "leaves", "speaks"]


@pytest.mark.parametrize("make", APPLICATIONS, ids=NAMES)
async def test_an_application_is_listed_while_it_is_served_and_gone_after_it(
    registry: RunRegistry, make: Callable[[], Any]
) -> None:
    async with registry() as http:
        app = RegistrationMiddleware(make(), registration(), url=str(http.base_url), heartbeat_seconds=10)
        # Without our answer in the application's place, `lifespan="on"` would end the server.
        async with serve(app, lifespan="on") as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
            assert (await client.get("/")).text == "served"

            async def listed() -> Any:
                return (await http.get("/agents")).json()

            (agent,) = await eventually(listed)
            assert (agent["name"], agent["status"]) == ("customer-service", "up")
        assert (await http.get("/agents")).json() == []


async def test_the_applications_own_lifespan_stays_and_the_goodbye_is_said_before_its_end(
    registry: RunRegistry,
) -> None:
    steps: list[str] = []

    async with registry() as http:

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, Any]]:
            steps.append("opened")
            yield {"database": "open"}
            steps.append(f"closing while {len((await http.get('/agents')).json())} are listed")

        app = FastAPI(lifespan=lifespan)

        @app.get("/health")
        async def health(request: Request) -> dict[str, Any]:
            return {"registered": request.state.registration.registered, "database": request.state.database}

        app.add_middleware(RegistrationMiddleware, registration=registration(), url=str(http.base_url))
        async with serve(app) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:

            async def registered() -> bool:
                return (await client.get("/health")).json() == {"registered": True, "database": "open"}

            await eventually(registered)
    assert steps == ["opened", "closing while 0 are listed"]
    del health


async def test_an_application_that_cannot_start_is_never_listed(registry: RunRegistry) -> None:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        raise RuntimeError("the database is away")
        yield

    async with registry() as http:
        told: list[str] = []

        async def server() -> dict[str, Any]:
            return {"type": "lifespan.startup"}

        async def hears(message: Any) -> None:
            told.append(message["type"])

        app = RegistrationMiddleware(FastAPI(lifespan=lifespan), registration(), url=str(http.base_url))
        with pytest.raises(RuntimeError, match="the database is away"):
            await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, server, hears)
        assert told == ["lifespan.startup.failed"]
        assert (await http.get("/agents")).json() == []
        assert (await http.get("/health")).json()["revision"] == 0


async def test_a_registry_that_is_away_delays_neither_start_nor_answers_nor_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = RegistrationMiddleware(a_starlette_app(), registration(), url="http://127.0.0.1:9")
    with caplog.at_level(logging.WARNING, "discovery.client.registration"):
        async with asyncio.timeout(5), serve(app) as url, httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(url)).text == "served"
            await eventually(lambda: "cannot register with http://127.0.0.1:9" in caplog.text)


async def test_it_is_listed_only_when_its_own_port_answers(registry: RunRegistry) -> None:
    doors: list[str] = []

    async with registry() as http:

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                doors.append(f"{scope['path']} with {len((await http.get('/agents')).json())} listed")
            await speaks_the_whole_lifespan(scope, receive, send)

        def own() -> str:
            return f"{address[0]}/livez" if address else "http://127.0.0.1:9"

        async def ready() -> bool:
            async with httpx.AsyncClient(trust_env=False) as client:
                return (await client.get(own())).is_success

        address: list[str] = []
        app = RegistrationMiddleware(counted, registration(), url=str(http.base_url), ready=ready)
        async with serve(app) as url:
            address.append(url)

            async def listed() -> Any:
                return (await http.get("/agents")).json()

            await eventually(listed)
    assert doors == ["/livez with 0 listed"]


@pytest.mark.parametrize(
    ("host", "registry", "endpoint"),
    [
        ("127.0.0.1", "http://registry.test:9000", "http://127.0.0.1:8010"),
        ("0.0.0.0", "http://127.0.0.1:9000", "http://127.0.0.1:8010"),
        ("::", "http://[::1]:9000", "http://[::1]:8010"),
        ("::1", "http://127.0.0.1:9000", "http://[::1]:8010"),
        ("warehouse.internal", "http://127.0.0.1:9000", "http://warehouse.internal:8010"),
    ],
)
def test_the_endpoint_is_the_host_or_this_machines_address_towards_the_registry(
    host: str, registry: str, endpoint: str
) -> None:
    assert own_endpoint(8010, registry=registry, host=host) == endpoint


def test_a_registry_that_cannot_be_found_leaves_this_machines_name() -> None:
    assert own_endpoint(8010, registry="http://registry.invalid").startswith("http://")
    assert own_endpoint(8010, registry="nonsense").endswith(":8010")


def test_a_server_at_every_address_reaches_itself_over_loopback() -> None:
    assert local_endpoint(80, "0.0.0.0") == "http://127.0.0.1:80"
    assert local_endpoint(80, "::") == "http://[::1]:80"
