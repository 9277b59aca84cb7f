"""MCP servers as a source of tools: connected, watched, and started again when they die.

One task owns each connection: the library wants it left where it was entered, and a task of its own can wait for a
server to come back while the agent answers. What happens to a server reaches the model as the result of a call, and
the operator as a check; it never reaches the agent.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import random
import re
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
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

START_SECONDS = 10.0  # how long a server that is not required may hold up the agent's start
CHECK_SECONDS = 30.0  # how often a server that nobody calls is asked whether it is there
CLOSE_SECONDS = 10.0
LONGEST_BACKOFF_SECONDS = 60.0
_MAX_PAGES = 100
_LONGEST_REASON = 500


@dataclass(frozen=True, slots=True)
class McpTool:
    """One tool of a server. It outlives the connection: a call while the server is down says so."""

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
        """Ask the server; its own error is the model's to read."""
        return await self.server.call(self.remote_name, arguments)


class McpServers:
    """The tools of all servers that an agent file names."""

    def __init__(self, configs: Mapping[str, McpServerConfig], folder: Path, resolver: SecretResolver) -> None:
        self._servers = [_Server(name, config, folder, resolver) for name, config in configs.items()]

    async def __aenter__(self) -> McpServers:
        try:
            # In a thread: it takes a second, and the loop may be serving other agents.
            await asyncio.to_thread(importlib.import_module, "agent_runtime.tools.mcp.transport")
        except ModuleNotFoundError as error:
            raise StartError("mcp_servers needs an extra: pip install 'myagent[mcp]'") from error
        try:
            outcomes = await asyncio.gather(*(server.start() for server in self._servers))
            if down := [outcome for outcome in outcomes if outcome]:
                raise StartError("; ".join(down))
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
        """Names are the servers' own; one that is taken, or that two servers have, is prefixed: `server_tool`."""
        owned = [tool for server in self._servers for tool in server.tools]
        counted = Counter(tool.spec.name for tool in owned)
        named: dict[str, McpTool] = {}
        for tool in owned:
            name = tool.spec.name
            if counted[name] > 1 or name in taken:
                name = f"{tool.server.name}_{name}"[:64]
            if name in named or name in taken:
                continue  # two names of one server that differ only where a model's names may not
            named[name] = replace(tool, spec=replace(tool.spec, name=name))
        return list(named.values())


class _Server:
    """One server: its connection, the task that owns it, and the tools it had when it was last there."""

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
        self._doubt = asyncio.Event()  # somebody has a reason to believe that the server has gone
        self._stopping = asyncio.Event()
        self._owner: asyncio.Task[None] | None = None
        self._calls = 0

    @property
    def check(self) -> Check:
        up = self._client is not None
        return Check(f"mcp:{self.name}", up, None if up else self._reason)

    async def start(self) -> str | None:
        """Connect, or leave it to the background; says what is wrong where the agent must not start without it."""
        self._owner = asyncio.create_task(self._own(), name=f"mcp-{self.name}")
        patience = self._config.timeout_seconds if self._config.required else START_SECONDS
        if not await _until(self._tried, patience):
            self._reason = f"it did not answer within {patience:g} s"
        if self._config.required and self._client is None:
            return f"the MCP server {self.name} is required and is down: {self._reason}"
        return None

    async def stop(self) -> None:
        """End the connection and the program behind it; never longer than some seconds."""
        owner, self._owner = self._owner, None
        if owner is None:
            return
        self._stopping.set()
        self._doubt.set()
        if self._client is None:
            owner.cancel()
        _, late = await asyncio.wait({owner}, timeout=CLOSE_SECONDS)
        if late:
            owner.cancel()
            await asyncio.wait({owner}, timeout=CLOSE_SECONDS)

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> str:
        from agent_runtime.tools.mcp.results import reason_of, text_of

        client = self._client
        if client is None:
            raise ToolError(f"The MCP server {self.name} is down: {self._reason}. It is tried again in the background.")
        self._calls += 1
        try:
            result = await client.call_tool(tool, dict(arguments))
        except asyncio.CancelledError:
            self._doubt.set()  # a time-out, perhaps: is it still there at all?
            raise
        except Exception as error:  # the library raises many kinds, of its own and of its transports
            self._doubt.set()
            raise ToolError(f"The MCP server {self.name} failed: {self._masked(reason_of(error))}") from error
        finally:
            self._calls -= 1
        if result.is_error:
            raise ToolError(text_of(result))
        return text_of(result)

    # --- the owner's task

    async def _own(self) -> None:
        from agent_runtime.tools.mcp.results import reason_of
        from agent_runtime.tools.mcp.transport import Link

        failures = 0
        while not self._stopping.is_set():
            link = Link(self.name, self._config, self._folder, self._settings, self._doubt.set)
            began = asyncio.get_running_loop().time()
            try:
                async with _bounded(link.client(), self._config.timeout_seconds) as client:
                    try:
                        self._came_up(client, await self._listed(client))
                        await self._watch(client)
                    except Exception as error:
                        self._reason = self._masked(reason_of(error))
                        raise
                    finally:  # at once: it may take seconds until the connection is closed
                        self._client = None
            except Exception as error:  # a background loop: nothing that happens here may reach the agent
                # A program's last words tell why it did not start; later ones may be about anything.
                words = "" if self._was_up and self._config.command else link.complaint
                self._went_down("; ".join(filter(None, (reason_of(error), words))))
            lived = asyncio.get_running_loop().time() - began
            failures = 1 if lived > LONGEST_BACKOFF_SECONDS else failures + 1
            # Full jitter: many agents of one server do not come back in the same instant.
            await _until(self._stopping, random.random() * min(LONGEST_BACKOFF_SECONDS, 2.0 ** min(failures - 1, 10)))

    async def _watch(self, client: Client) -> None:
        """Return when it is time to close; raise when the server has gone."""
        while True:
            asked = await _until(self._doubt, CHECK_SECONDS)
            self._doubt.clear()
            if self._stopping.is_set():
                return
            if self._calls and not asked:
                continue  # it may answer one at a time
            self._came_up(client, await self._listed(client))

    async def _listed(self, client: Client) -> tuple[McpTool, ...]:
        from agent_runtime.tools.mcp.results import schema_of

        allowed = self._config.allowed_tools
        found: list[McpTool] = []
        cursor: str | None = None
        # The whole of a call's time: a server that answers one at a time may be busy with a call nobody waits for.
        async with _told(self._config.timeout_seconds):
            for _ in range(_MAX_PAGES):
                page = await client.list_tools(cursor=cursor)
                for tool in page.tools:
                    if allowed is None or tool.name in allowed:
                        name = re.sub(r"[^a-zA-Z0-9_-]", "_", tool.name)[:64]
                        about = tool.description or tool.title or name.replace("_", " ")
                        spec = ToolSpec(name, about, schema_of(tool.input_schema))
                        guarded = self._config.approval == "required"
                        found.append(McpTool(self, tool.name, spec, self._config.timeout_seconds, guarded))
                cursor = page.next_cursor
                if not cursor:
                    break
        return tuple(found)

    def _came_up(self, client: Client, tools: tuple[McpTool, ...]) -> None:
        self.tools = tools
        if not self._was_up:
            missing = set(self._config.allowed_tools or ()) - {tool.remote_name for tool in tools}
            if missing:
                _log.warning("the MCP server %s has no tool %s", self.name, ", ".join(sorted(missing)))
            _log.info("the MCP server %s is up with %d tools", self.name, len(tools))
        self._client, self._was_up = client, True
        self._reason = "it closed the connection"
        self._tried.set()

    def _went_down(self, reason: str) -> None:
        reason = self._masked(reason)
        if self._was_up or not self._tried.is_set():
            _log.warning("the MCP server %s is down: %s; it is tried again", self.name, reason)
        self._was_up, self._reason = False, reason
        self._tried.set()

    def _masked(self, text: str) -> str:
        # masked before it is cut: a part of a key would not be known again
        return masked(text, {*self._resolver.values, *self._settings.value.values()})[:_LONGEST_REASON]


async def _until(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, and say whether it came in time."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


@asynccontextmanager
async def _told(seconds: float) -> AsyncGenerator[None]:
    """A time limit that says in its error what it was."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise TimeoutError(f"it did not answer within {seconds:g} s") from None


@asynccontextmanager
async def _bounded(client: Client, seconds: float) -> AsyncGenerator[Client]:
    """A client's lifetime; neither its beginning nor its end takes for ever."""
    async with _told(seconds):
        await client.__aenter__()
    try:
        yield client
    except BaseException:
        async with _told(CLOSE_SECONDS):
            await client.__aexit__(*sys.exc_info())
        raise
    else:
        async with _told(CLOSE_SECONDS):
            await client.__aexit__(None, None, None)
