"""How an MCP server is reached: a program over its standard streams, or an address over streamable HTTP.

Loaded with the first server that an agent file names, because the library behind it takes a second to import.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import httpx2
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._stream_protocols import ReadStream, WriteStream
from mcp.shared.message import SessionMessage

from agent_runtime.config import McpServerConfig
from agent_runtime.secrets import Credential

_log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
_MAX_COMPLAINT_BYTES = 2000

Settings = Credential[dict[str, str]]
Read = ReadStream[SessionMessage | Exception]
Streams = tuple[Read, WriteStream[SessionMessage]]


class Link:
    """The way to one server, and what it said besides the protocol: for the reason it is down."""

    def __init__(
        self, name: str, config: McpServerConfig, folder: Path, settings: Settings, on_end: Callable[[], None]
    ) -> None:
        self._name = name
        self._config = config
        self._folder = folder
        self._settings = settings  # the headers of an address, the environment of a program
        self._on_end = on_end
        self._complaint = ""

    @property
    def complaint(self) -> str:
        """The last thing a program wrote to its standard error, or the status an address refused with."""
        return self._complaint

    def client(self) -> Client:
        """A client that is not connected yet; entering it connects."""
        streams = self._over_http() if self._config.url else self._over_stdio()
        return Client(streams, cache=None, read_timeout_seconds=self._config.timeout_seconds)

    @asynccontextmanager
    async def _over_http(self) -> AsyncGenerator[Streams]:
        config = self._config
        assert config.url is not None
        async with (
            httpx2.AsyncClient(
                auth=_Renewing(self._settings),
                timeout=httpx2.Timeout(config.timeout_seconds, connect=min(CONNECT_SECONDS, config.timeout_seconds)),
                event_hooks={"response": [self._note_refusal]},
            ) as http,
            streamable_http_client(config.url, http_client=http) as (read, write),
        ):
            yield read, write

    async def _note_refusal(self, response: httpx2.Response) -> None:
        if response.status_code >= 400 and response.status_code not in {404, 405}:  # those two are ways to say "legacy"
            self._complaint = f"it answered {response.status_code} {response.reason_phrase}".rstrip()

    @asynccontextmanager
    async def _over_stdio(self) -> AsyncGenerator[Streams]:
        config = self._config
        assert config.command is not None
        program = StdioServerParameters(
            command=self._program(config.command),
            args=config.args,
            env=self._settings.value,
            cwd=self._folder / (config.cwd or ""),
            encoding_error_handler="replace",
        )
        with self._complaints() as stderr:
            async with stdio_client(program, stderr) as (read, write):
                yield _Watched(read, self._on_end), write

    def _program(self, command: str) -> str:
        """A path with a slash in it is relative to the agent file, a bare name is looked up in PATH."""
        return str(self._folder / command) if os.path.dirname(command) else command

    @contextmanager
    def _complaints(self) -> Generator[TextIO]:
        """Where a program writes its standard error to: the log at debug, and the last line is remembered."""
        reading, writing = os.pipe()
        # A thread, because the pipe may be held open by whatever the program leaves behind.
        threading.Thread(target=self._listen, args=(reading,), name=f"mcp-{self._name}", daemon=True).start()
        with closing(os.fdopen(writing, "w", encoding="utf-8")) as stderr:
            yield stderr

    def _listen(self, pipe: int) -> None:
        with os.fdopen(pipe, "rb", buffering=0) as stderr:
            while data := stderr.read(_MAX_COMPLAINT_BYTES):
                text = data.decode(errors="replace").strip()
                if text:
                    self._complaint = "it wrote: " + text.splitlines()[-1].strip()
                    _log.debug("%s: %s", self._name, text)


class _Renewing(httpx2.Auth):
    """Sends the headers with every request; one that is refused again, where they have been rotated meanwhile."""

    def __init__(self, headers: Settings) -> None:
        self._headers = headers

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        sent = self._headers.value
        request.headers.update(sent)
        response = yield request
        if response.status_code in {401, 403} and (newer := await self._headers.renewed(sent)):
            request.headers.update(newer)
            yield request


class _Watched:
    """What a program writes, and a word when there will be no more of it.

    The library tells only those who are waiting for an answer that the program has gone.
    """

    def __init__(self, stream: Read, on_end: Callable[[], None]) -> None:
        self._stream = stream
        self._on_end = on_end

    async def receive(self) -> SessionMessage | Exception:
        return await self._stream.receive()

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> Read:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self._stream.__anext__()
        except BaseException:
            self._on_end()
            raise

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> bool | None:
        return await self._stream.__aexit__(exc_type, exc_val, exc_tb)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
