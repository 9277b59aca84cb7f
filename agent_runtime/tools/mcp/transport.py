"""Connections to MCP servers, over stdio or streamable HTTP, and their results and errors as text.

Imported when the first server is connected: the `mcp` package takes a second to import.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TextIO, cast

import httpx2
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp.types import (
    CONNECTION_CLOSED,
    AudioContent,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from agent_runtime.config import McpServerConfig
from agent_runtime.secrets import Credential

_log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
_STDERR_BYTES = 2000

Settings = Credential[dict[str, str]]


class Connection:
    """One connection to a server, and the last error that the server reported outside the protocol.

    `settings` are the headers for a URL, or the environment of a program; `on_end` is called when a program ends.
    """

    def __init__(
        self, name: str, config: McpServerConfig, folder: Path, settings: Settings, on_end: Callable[[], None]
    ) -> None:
        self._name = name
        self._config = config
        self._folder = folder
        self._settings = settings
        self._on_end = on_end
        self.last_error = ""
        """The last line that a program wrote to standard error, or the status of a rejected HTTP request."""

    def client(self) -> Client:
        """A client that connects when it is entered."""
        streams = self._over_http() if self._config.url else self._over_stdio()
        return Client(streams, cache=None, read_timeout_seconds=self._config.timeout_seconds)

    @asynccontextmanager
    async def _over_http(self) -> AsyncGenerator[Any]:
        config = self._config
        assert config.url is not None
        async with (
            httpx2.AsyncClient(
                auth=_RotatedHeaders(self._settings),
                timeout=httpx2.Timeout(config.timeout_seconds, connect=min(CONNECT_SECONDS, config.timeout_seconds)),
                event_hooks={"response": [self._note_status]},
            ) as http,
            streamable_http_client(config.url, http_client=http) as (read, write),
        ):
            yield read, write

    async def _note_status(self, response: httpx2.Response) -> None:
        if response.status_code >= 400 and response.status_code not in {
            404,
            405,
        }:  # the older protocol
            self.last_error = f"it answered {response.status_code} {response.reason_phrase}".rstrip()

    @asynccontextmanager
    async def _over_stdio(self) -> AsyncGenerator[Any]:
        config = self._config
        assert config.command is not None
        program = StdioServerParameters(
            command=self._program(config.command),
            args=config.args,
            env=self._settings.value,
            cwd=self._folder / (config.cwd or ""),
            encoding_error_handler="replace",
        )
        with self._stderr() as stderr:
            async with stdio_client(program, stderr) as streams:
                stderr.close()  # the program has its own copy: the pipe ends with the program
                yield streams

    def _program(self, command: str) -> str:
        """A command with a slash is relative to the agent file, another one is looked up in PATH."""
        return str(self._folder / command) if os.path.dirname(command) else command

    @contextmanager
    def _stderr(self) -> Generator[TextIO]:
        """A program's standard error: logged at debug level, and the last line is kept."""
        reading, writing = os.pipe()
        ended = partial(asyncio.get_running_loop().call_soon_threadsafe, self._on_end)
        # A daemon thread: a process that the program leaves behind may keep the pipe open.
        threading.Thread(target=self._read_stderr, args=(reading, ended), name=f"mcp-{self._name}", daemon=True).start()
        with closing(os.fdopen(writing, "w", encoding="utf-8")) as stderr:
            yield stderr

    def _read_stderr(self, pipe: int, ended: Callable[[], object]) -> None:
        with os.fdopen(pipe, "rb", buffering=0) as stderr:
            while data := stderr.read(_STDERR_BYTES):
                text = data.decode(errors="replace").strip()
                if text:
                    self.last_error = "it wrote: " + text.splitlines()[-1].strip()
                    _log.debug("%s: %s", self._name, text)
        with suppress(RuntimeError):  # the loop is closed
            ended()


class _RotatedHeaders(httpx2.Auth):
    """Sends the headers with every request, and retries a rejected one if the headers were rotated."""

    def __init__(self, headers: Settings) -> None:
        self._headers = headers

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        sent = self._headers.value
        request.headers.update(sent)
        response = yield request
        if response.status_code in {401, 403} and (newer := await self._headers.renewed(sent)):
            request.headers.update(newer)
            yield request


def text_of(result: CallToolResult) -> str:
    """The content as text; binary content is represented by its type and size."""
    parts = [_block(block) for block in result.content]
    written = "\n\n".join(part for part in parts if part)
    if written:
        return written  # servers repeat structured content as text, for older clients
    if result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False)
    return "It failed without a message." if result.is_error else "Done."


def _block(block: ContentBlock) -> str:
    match block:
        case TextContent():
            return block.text
        case ImageContent() | AudioContent():
            return f"[{block.type}, {block.mime_type}, {_size(block.data)}: not shown]"
        case ResourceLink():
            about = f": {block.description}" if block.description else ""
            return f"[resource {block.title or block.name}{about}]({block.uri})"
        case EmbeddedResource(resource=TextResourceContents() as resource):
            return f"{resource.uri}:\n{resource.text}"
        case EmbeddedResource(resource=resource):
            kind = resource.mime_type or "binary"
            return f"[resource {resource.uri}, {kind}, {_size(getattr(resource, 'blob', ''))}: not shown]"


def _size(base64_text: str) -> str:
    return f"{max(1, len(base64_text) * 3 // 4 // 1024)} KiB"


def reason_of(error: BaseException) -> str:
    """An error of a connection in one line, without the URL, which may contain a key."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    if isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError):
        return f"{error.filename or 'the program'} cannot be started: {error.strerror}"
    if isinstance(error, httpx2.TransportError):
        return f"it cannot be reached ({type(error).__name__})"
    if isinstance(error, MCPError) and error.code == CONNECTION_CLOSED:
        return "it closed the connection"
    return " ".join(str(error).split()) or type(error).__name__


def schema_of(schema: dict[str, Any]) -> dict[str, Any]:
    """A tool's input schema in the form that all model providers accept: an object with properties, maybe none."""
    return {"type": "object", "properties": {}, **{key: value for key, value in schema.items() if key != "$schema"}}
