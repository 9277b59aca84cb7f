"""Protocols whose libraries are optional and slow to import: mounted if installed, created at the first request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from agent_runtime.agent import Agent
from agent_runtime.budget import Budget, applied
from agent_runtime.server.registration import CARD_PATH


class Endpoint(Protocol):
    """An ASGI application that owns something."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    async def aclose(self) -> None: ...


Factory = Callable[[Agent, str], Endpoint]


def _a2a() -> Factory:
    from agent_runtime.server.api.a2a import A2AEndpoint

    return A2AEndpoint


def _mcp() -> Factory:
    from agent_runtime.server.api.mcp import McpEndpoint

    return lambda agent, _path: McpEndpoint(agent)


@dataclass(frozen=True, slots=True)
class _Kind:
    protocol: str
    load: Callable[[], Factory]  # imports the library, in a thread
    paths: tuple[str, ...]
    packages: tuple[str, ...]


_KINDS = (
    _Kind("a2a", _a2a, ("/a2a", CARD_PATH), ("a2a", "sse_starlette")),
    _Kind("mcp", _mcp, ("/mcp",), ("mcp",)),
)


class LazyMount:
    """The routes of one protocol. `path` is the prefix of the agent on its port."""

    def __init__(self, kind: _Kind, agent: Agent, path: str) -> None:
        self.protocol = kind.protocol
        self.routes = [Route(route, self, include_in_schema=False) for route in kind.paths]
        self._load = kind.load
        self._agent = agent
        self._path = path
        self._endpoint: Endpoint | None = None
        self._creating = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; the first one imports the library."""
        async with self._creating:
            if self._endpoint is None:
                create = await asyncio.to_thread(self._load)
                self._endpoint = create(self._agent, self._path)
        await self._endpoint(scope, receive, send)

    async def aclose(self) -> None:
        """Close the endpoint if it was created."""
        if self._endpoint is not None:
            await self._endpoint.aclose()


def lazy_mounts(agent: Agent, path: str) -> Sequence[LazyMount]:
    """One mount for each protocol whose library is installed."""
    return [LazyMount(kind, agent, path) for kind in _KINDS if all(find_spec(package) for package in kind.packages)]


class BudgetMiddleware:
    """Applies the time, tokens and call depth that a request was sent with to everything it starts."""

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
