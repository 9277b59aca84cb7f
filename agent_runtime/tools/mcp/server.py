"""MCP servers as a source of tools: connected, monitored, and reconnected when they fail.

Each connection is owned by one task: the `mcp` package requires that it is closed in the task that opened it. Failures
of a server are reported in the results of tool calls and in the agent's health; the agent goes on.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_runtime.config import McpServerConfig
from agent_runtime.errors import StartError, ToolError
from agent_runtime.events import ToolSpec
from agent_runtime.masking import masked
from agent_runtime.secrets import SecretResolver
from agent_runtime.tools.base import Check

if TYPE_CHECKING:
    from mcp.client import Client

_log = logging.getLogger(__name__)

START_SECONDS = 10.0  # how long the start of the agent waits for a server that is not required
CHECK_SECONDS = 30.0  # how often an idle server is checked
CLOSE_SECONDS = 10.0
MAX_BACKOFF_SECONDS = 60.0
_MAX_PAGES = 100
_MAX_REASON_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class McpTool:
    """One tool of a server. It outlives the connection: a call fails while the server is down."""

    server: _Server
    remote_name: str
    spec: ToolSpec
    timeout_seconds: float
    guarded: bool
    direct: bool = False

    async def __aenter__(self) -> McpTool:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return None

    async def call(self, arguments: Mapping[str, Any]) -> str:
        return await self.server.call(self.remote_name, arguments)


class McpServers:
    """The tools of all MCP servers of an agent file."""

    def __init__(self, configs: Mapping[str, McpServerConfig], folder: Path, resolver: SecretResolver) -> None:
        self._servers = [_Server(name, config, folder, resolver) for name, config in configs.items()]

    async def __aenter__(self) -> McpServers:
        try:
            # In a thread: the import takes a second, and the loop may be serving other agents.
            await asyncio.to_thread(_import_transport)
        except ModuleNotFoundError as error:
            raise StartError("mcp_servers needs an extra: pip install 'myagent[mcp]'") from error
        try:
            errors = await asyncio.gather(*(server.start() for server in self._servers))
            if any(errors):
                raise StartError("; ".join(filter(None, errors)))
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stop()

    async def _stop(self) -> None:
        await asyncio.gather(*(server.stop() for server in self._servers))

    @property
    def checks(self) -> Sequence[Check]:
        return [server.check for server in self._servers]

    def tools(self, taken: Collection[str]) -> Sequence[McpTool]:
        """The tools under their own names; a name in `taken` or of two servers is prefixed: `server_tool`."""
        tools = [tool for server in self._servers for tool in server.tools]
        counts = Counter(tool.spec.name for tool in tools)
        named: dict[str, McpTool] = {}
        for tool in tools:
            name = tool.spec.name
            if counts[name] > 1 or name in taken:
                name = f"{tool.server.name}_{name}"[:64]
            if name in named or name in taken:
                continue  # names of one server that differ only in characters that models do not allow
            named[name] = replace(tool, spec=replace(tool.spec, name=name))
        return list(named.values())


class _Server:
    """One server: its connection, the task that owns it, and the tools that it last reported."""

    def __init__(self, name: str, config: McpServerConfig, folder: Path, resolver: SecretResolver) -> None:
        self.name = name
        self.tools: tuple[McpTool, ...] = ()
        self._config = config
        self._folder = folder
        self._resolver = resolver
        kind, given = ("headers", config.headers) if config.url else ("env", config.env)
        plain = {key: value.get_secret_value() for key, value in given.items()}
        self._settings = resolver.credential(("mcp_servers", name, kind), plain)
        self._client: Client | None = None
        self._was_up = False
        self._reason = "it has not answered yet"
        self._tried = asyncio.Event()
        self._check_now = asyncio.Event()  # the server may be down
        self._stopping = asyncio.Event()
        self._owner: asyncio.Task[None] | None = None
        self._calls = 0

    @property
    def check(self) -> Check:
        up = self._client is not None
        return Check(f"mcp:{self.name}", up, None if up else self._reason)

    async def start(self) -> str | None:
        """Connect, if necessary in the background; returns an error if the server is required and is down."""
        self._owner = asyncio.create_task(self._own(), name=f"mcp-{self.name}")
        seconds = self._config.timeout_seconds if self._config.required else START_SECONDS
        if not await _until(self._tried, seconds):
            self._reason = f"it did not answer within {seconds:g} s"
        if self._config.required and self._client is None:
            return f"the MCP server {self.name} is required and is down: {self._reason}"
        return None

    async def stop(self) -> None:
        """Close the connection, which ends a program, within a time limit."""
        owner, self._owner = self._owner, None
        if owner is None:
            return
        self._stopping.set()
        self._check_now.set()
        if self._client is None:
            owner.cancel()
        _, pending = await asyncio.wait({owner}, timeout=CLOSE_SECONDS)
        if pending:
            owner.cancel()
            await asyncio.wait({owner}, timeout=CLOSE_SECONDS)

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> str:
        from agent_runtime.tools.mcp.transport import reason_of, text_of

        client = self._client
        if client is None:
            raise ToolError(f"The MCP server {self.name} is down: {self._reason}. It is reconnected in the background.")
        self._calls += 1
        try:
            result = await client.call_tool(tool, dict(arguments))
        except asyncio.CancelledError:
            self._check_now.set()  # probably a time-out: the server may be down
            raise
        except Exception as error:  # the package raises many types, its own and those of its transports
            self._check_now.set()
            raise ToolError(f"The MCP server {self.name} failed: {self._masked(reason_of(error))}") from error
        finally:
            self._calls -= 1
        if result.is_error:
            raise ToolError(text_of(result))
        return text_of(result)

    # --- the owner's task

    async def _own(self) -> None:
        from agent_runtime.tools.mcp.transport import Connection, reason_of

        failures = 0
        while not self._stopping.is_set():
            connection = Connection(self.name, self._config, self._folder, self._settings, self._check_now.set)
            started = asyncio.get_running_loop().time()
            try:
                async with _open_client(connection.client(), self._config.timeout_seconds) as client:
                    try:
                        self._set_up(client, await self._list_tools(client))
                        await self._watch(client)
                    except Exception as error:
                        self._reason = self._masked(reason_of(error))
                        raise
                    finally:  # at once: closing the connection may take seconds
                        self._client = None
            except Exception as error:  # a background task: no error may reach the agent
                # The standard error of a program explains why it did not start; later it may be about anything.
                details = "" if self._was_up and self._config.command else connection.last_error
                self._set_down("; ".join(filter(None, (reason_of(error), details))))
            seconds = asyncio.get_running_loop().time() - started
            failures = 1 if seconds > MAX_BACKOFF_SECONDS else failures + 1
            # Full jitter: many agents of one server do not reconnect at the same time.
            await _until(self._stopping, random.random() * min(MAX_BACKOFF_SECONDS, 2.0 ** min(failures - 1, 10)))

    async def _watch(self, client: Client) -> None:
        """Return when the connection is to be closed; raise when the server is down."""
        while True:
            requested = await _until(self._check_now, CHECK_SECONDS)
            self._check_now.clear()
            if self._stopping.is_set():
                return
            if self._calls and not requested:
                continue  # the server may process one request at a time
            self._set_up(client, await self._list_tools(client))

    async def _list_tools(self, client: Client) -> tuple[McpTool, ...]:
        from agent_runtime.tools.mcp.transport import schema_of

        allowed = self._config.allowed_tools
        tools: list[McpTool] = []
        cursor: str | None = None
        # As long as a call: a server that processes one request at a time may be busy with an abandoned call.
        async with _time_limit(self._config.timeout_seconds):
            for _ in range(_MAX_PAGES):
                page = await client.list_tools(cursor=cursor)
                for tool in page.tools:
                    if allowed is None or tool.name in allowed:
                        name = re.sub(r"[^a-zA-Z0-9_-]", "_", tool.name)[:64]
                        description = tool.description or tool.title or name.replace("_", " ")
                        spec = ToolSpec(name, description, schema_of(tool.input_schema))
                        guarded = self._config.approval == "required"
                        tools.append(McpTool(self, tool.name, spec, self._config.timeout_seconds, guarded))
                cursor = page.next_cursor
                if not cursor:
                    break
        return tuple(tools)

    def _set_up(self, client: Client, tools: tuple[McpTool, ...]) -> None:
        self.tools = tools
        if not self._was_up:
            missing = set(self._config.allowed_tools or ()) - {tool.remote_name for tool in tools}
            if missing:
                _log.warning("the MCP server %s has no tool %s", self.name, ", ".join(sorted(missing)))
            _log.info("the MCP server %s is up with %d tools", self.name, len(tools))
        self._client, self._was_up = client, True
        self._reason = "it closed the connection"
        self._tried.set()

    def _set_down(self, reason: str) -> None:
        reason = self._masked(reason)
        if self._was_up or not self._tried.is_set():
            _log.warning("the MCP server %s is down: %s; reconnecting", self.name, reason)
        self._was_up, self._reason = False, reason
        self._tried.set()

    def _masked(self, text: str) -> str:
        # masked before it is truncated: a part of a key would not be recognised
        return masked(text, {*self._resolver.values, *self._settings.value.values()})[:_MAX_REASON_CHARACTERS]


def _import_transport() -> object:
    from agent_runtime.tools.mcp.transport import Connection

    return Connection


async def _until(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event; returns whether it was set in time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


@asynccontextmanager
async def _time_limit(seconds: float) -> AsyncGenerator[None]:
    """A time limit whose error names the limit."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise TimeoutError(f"it did not answer within {seconds:g} s") from None


@asynccontextmanager
async def _open_client(client: Client, seconds: float) -> AsyncGenerator[Client]:
    """Open a client and close it, each within a time limit."""
    async with _time_limit(seconds):
        await client.__aenter__()
    try:
        yield client
    finally:
        async with _time_limit(CLOSE_SECONDS):
            await client.__aexit__(*sys.exc_info())
