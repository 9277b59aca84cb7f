"""The agents of one process: opens them, routes requests to them, replaces them when their file is edited.

A single agent is served at the root. Several are served below `/NAME/`, and the root lists them.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from agent_runtime.agent import Agent
from agent_runtime.agent_file import AgentFile, load
from agent_runtime.errors import MyAgentError, StartError
from agent_runtime.observability import Telemetry
from agent_runtime.server.app import create_app
from agent_runtime.server.runs import Runs

_log = logging.getLogger(__name__)

WATCH_SECONDS = 1.0

Overrides = Mapping[str, Mapping[str, Any]]
Signature = tuple[tuple[str, int, int], ...]


@dataclass(slots=True)
class _Served:
    """One agent with its application; `busy` counts the requests in progress."""

    agent: Agent
    app: Any
    state: Mapping[str, Any]
    stack: AsyncExitStack
    signature: Signature
    busy: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)


class AgentHost:
    """An ASGI application over agents: open it, `add` each file, then serve it.

    Args:
        port: the bound port.
        shared: serve each agent below the path of its name.
        overrides: sections that win over the files.
        telemetry: the instruments of the process.
    """

    def __init__(self, *, port: int, shared: bool, overrides: Overrides, telemetry: Telemetry | None = None) -> None:
        self._port = port
        self._shared = shared
        self._overrides = overrides
        self._telemetry = telemetry
        self._runs = Runs()  # of all agents: a run outlives the replacement of its agent
        self._agents: dict[str, _Served] = {}
        self._paths: dict[Path, str] = {}
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def agents(self) -> list[Agent]:
        """The current agents, sorted by name."""
        return [self._agents[name].agent for name in sorted(self._agents)]

    async def __aenter__(self) -> AgentHost:
        await self._runs.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._runs.__aexit__(None, None, None)
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        await asyncio.gather(*(served.stack.aclose() for served in self._agents.values()), return_exceptions=True)
        self._agents.clear()

    async def add(self, file: AgentFile) -> Agent:
        """Open the agent of a file and serve it; the previous agent of the same file is retired.

        Raises:
            StartError: a component cannot be opened, or an agent of another file has the same name.
        """
        signature = await asyncio.to_thread(_signature, file.path)
        name = file.config.name
        duplicate = next((path for path, known in self._paths.items() if known == name and path != file.path), None)
        if duplicate is not None:
            raise StartError(f"{file.path}: there is already an agent named {name}, from {duplicate}")
        served = await self._open(file, signature)
        previous = self._agents.pop(self._paths.get(file.path, name), None)
        self._agents[name], self._paths[file.path] = served, name
        if previous is not None:
            task = asyncio.create_task(self._retire(previous), name=f"retire-{name}")
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
        return served.agent

    async def watch(self) -> None:
        """Replace each agent whose file, or a Python file beside it, is edited; runs until cancelled.

        Runs in progress finish on the old agent. An invalid edit is logged, and the old agent stays.
        """
        failed: dict[Path, Signature] = {}
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for path, name in list(self._paths.items()):
                signature = await asyncio.to_thread(_signature, path)
                if signature in {self._agents[name].signature, failed.get(path)}:
                    continue
                try:
                    await self.add(await load(path, overrides=self._overrides))
                    _log.info("%s: reloaded", name)
                except MyAgentError as error:
                    failed[path] = signature
                    _log.error("%s: the edited file is invalid, the previous agent stays:\n%s", name, error)
                except Exception:  # a background loop: the next edit may succeed
                    failed[path] = signature
                    _log.exception("%s: reloading failed, the previous agent stays", name)

    async def _retire(self, served: _Served) -> None:
        try:
            await served.idle.wait()
            await self._runs.wait_until_idle(served.agent)
        finally:
            await served.stack.aclose()

    async def _open(self, file: AgentFile, signature: Signature) -> _Served:
        async with AsyncExitStack() as stack:
            agent = await stack.enter_async_context(Agent(file, telemetry=self._telemetry))
            path = f"/{file.config.name}" if self._shared else ""
            app = create_app(agent, port=self._port, path=path, runs=self._runs)
            state = await stack.enter_async_context(app.router.lifespan_context(app))
            served = _Served(agent, app, state or {}, stack.pop_all(), signature)
            served.idle.set()
            return served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to its agent."""
        if scope["type"] == "lifespan":
            await _complete_lifespan(receive, send)
            return
        served, scope = self._routed(scope)
        if served is None:
            await self._respond(scope, send)
            return
        served.busy += 1
        served.idle.clear()
        try:
            await served.app({**scope, "state": dict(served.state)}, receive, send)
        finally:
            served.busy -= 1
            if not served.busy:
                served.idle.set()

    def _routed(self, scope: Scope) -> tuple[_Served | None, Scope]:
        if not self._shared:
            return next(iter(self._agents.values()), None), scope
        name = scope["path"].split("/", 2)[1] if scope["path"].count("/") else ""
        served = self._agents.get(name)
        return served, {**scope, "root_path": f"{scope.get('root_path', '')}/{name}"} if served else scope

    async def _respond(self, scope: Scope, send: Send) -> None:
        """The routes of the process itself if several agents share it."""
        path = scope["path"]
        if path in {"/livez", "/readyz"}:
            status, body = 200, {"status": "ok"}
        elif path in {"/", "/health"}:
            status, body = 200, {"agents": [{"name": a.config.name, "path": f"/{a.config.name}/"} for a in self.agents]}
        else:
            known = ", ".join(sorted(self._agents)) or "none"
            status, body = 404, _problem(f"there is no agent at {path[:128]}; available agents: {known}")
        kind = b"application/json" if status == 200 else b"application/problem+json"
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})


def agent_files(folder: Path) -> list[Path]:
    """The agent files of a folder, and the agent.yaml of each of its subfolders."""
    found = [*folder.glob("*.yaml"), *folder.glob("*.yml"), *folder.glob("*/agent.yaml")]
    return sorted(found)


def _problem(detail: str) -> dict[str, Any]:
    return {"type": "about:blank", "title": "Not found", "status": 404, "code": "not_found", "detail": detail}


async def _complete_lifespan(receive: Receive, send: Send) -> None:
    """The lifespan of the server: the agents are opened before it and closed after it."""
    message: Message = await receive()
    assert message["type"] == "lifespan.startup"
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


def _signature(path: Path) -> Signature:
    """Identifies a version: time and size of the agent file and of the Python files beside it."""
    found: Sequence[Path] = [path, *sorted(path.parent.glob("*.py"))]
    stats = [(str(file), file.stat()) for file in found if file.exists()]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)
