"""Faces whose libraries are optional and slow to import: mounted where they are there, made at the first request."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol, cast

from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from agent_runtime.agent import Agent
from agent_runtime.budget import Budget, applied

CARD_PATH = "/.well-known/agent-card.json"


class Face(Protocol):
    """An ASGI application that owns something."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Kind:
    protocol: str
    module: str  # has `make(agent, path) -> Face`
    paths: tuple[str, ...]
    packages: tuple[str, ...]


_KINDS = (
    _Kind("a2a", "agent_runtime.server.api.a2a", ("/a2a", CARD_PATH), ("a2a", "sse_starlette")),
    _Kind("mcp", "agent_runtime.server.api.mcp", ("/mcp",), ("mcp",)),
)


class LateFace:
    """One of them. `path` is what the agent's own path on the port begins with."""

    def __init__(self, kind: _Kind, agent: Agent, path: str) -> None:
        self.protocol = kind.protocol
        self.routes = [Route(route, self, include_in_schema=False) for route in kind.paths]
        self._module = kind.module
        self._agent = agent
        self._path = path
        self._made: Face | None = None
        self._making = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, with the library loaded by now."""
        async with self._making:
            if self._made is None:
                module = await asyncio.to_thread(importlib.import_module, self._module)
                self._made = cast("Face", module.make(self._agent, self._path))
        await self._made(scope, receive, send)

    async def aclose(self) -> None:
        """Close what was made, if anything."""
        if self._made is not None:
            await self._made.aclose()


def late_faces(agent: Agent, path: str) -> Sequence[LateFace]:
    """A face for every protocol whose library is there."""
    return [LateFace(kind, agent, path) for kind in _KINDS if all(find_spec(package) for package in kind.packages)]


class Allowances:
    """Middleware: whatever a request starts has the time, tokens and depth that came with the request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        with applied(Budget.from_headers(headers)):
            await self._app(scope, receive, send)
