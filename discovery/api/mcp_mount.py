"""The way into the MCP face: its library is optional and slow to import, so it is loaded by the first request."""

import asyncio
import importlib
from importlib.util import find_spec
from typing import Any, cast

from fastapi import APIRouter, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from discovery.api.auth import Config, Scoped, needs
from discovery.api.problems import Refusal
from discovery.contract.models import is_loopback
from discovery.registry.registry import Registry
from discovery.settings import Settings

CLOSE_SECONDS = 3.0

router = APIRouter(route_class=Scoped, include_in_schema=False)


class McpDoor:
    """The face of one registry, made when somebody asks."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._face: ASGIApp | None = None
        self._running: asyncio.Task[None] | None = None
        self._making, self._stop = asyncio.Lock(), asyncio.Event()

    async def face(self) -> ASGIApp:
        """The application that answers."""
        async with self._making:
            if self._face is None:
                module = await asyncio.to_thread(importlib.import_module, "discovery.api.mcp")
                manager, started = module.manager_of(self._registry), asyncio.Event()
                # A task of its own: what this opens has to be closed by the task that opened it.
                self._running = asyncio.create_task(self._run(manager, started), name="discovery-mcp")
                await started.wait()
                self._face = manager.handle_request
        return cast("ASGIApp", self._face)

    async def aclose(self) -> None:
        """End what is under way."""
        self._stop.set()
        if self._running is not None:
            _, late = await asyncio.wait({self._running}, timeout=CLOSE_SECONDS)
            if late:
                self._running.cancel()

    async def _run(self, manager: Any, started: asyncio.Event) -> None:
        async with manager.run():
            started.set()
            await self._stop.wait()


def is_installed() -> bool:
    """Whether the `mcp` extra is there."""
    return find_spec("mcp") is not None


@router.post("/mcp", openapi_extra=needs("read"))
async def mcp(request: Request, settings: Config) -> Response:
    """The tool `find_agent`; the protocol has its own shapes."""
    origin = request.headers.get("origin")
    if origin is not None and not _is_known(origin, request, settings):
        hint = "A page that is served elsewhere needs its origin in DISCOVERY_CORS_ORIGINS."
        raise Refusal(403, "forbidden_origin", "This origin is not one of the registry's.", hint)
    door = cast("McpDoor", request.state.mcp)
    return _Answered(await door.face())


def _is_known(origin: str, request: Request, settings: Settings) -> bool:
    """A page of a stranger reaches this machine through a browser on it; only here it would get an answer."""
    allowed = settings.cors_origins
    return is_loopback(origin) or "*" in allowed or origin in {*allowed, f"{request.url.scheme}://{request.url.netloc}"}


class _Answered(Response):
    """Whatever the application answers."""

    def __init__(self, face: ASGIApp) -> None:
        super().__init__()
        self._face = face

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._face(scope, receive, send)
