"""A small registry that has a stream of events and breaks it off when a test says so: real HTTP, told what to send."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from tests.serving import serve


class EventRegistry:
    """Serves `agents` at GET /agents and everything that is `sent` at GET /events."""

    def __init__(self) -> None:
        self.url = ""
        self.agents: list[dict[str, Any]] = []
        self.lists = 0  # how often the list was read
        self.readers: list[str | None] = []  # the Last-Event-ID of every stream that was opened
        self.status = 200
        self.kind = b"text/event-stream; charset=utf-8"
        self._streams: list[asyncio.Queue[bytes | None]] = []

    def send(self, kind: str, revision: int, **data: Any) -> None:
        """One event to every reader."""
        text = json.dumps({"revision": revision, "at": "2026-03-01T12:00:00Z", **data}, ensure_ascii=False)
        self.send_raw(f"id: t-{revision}\nevent: {kind}\ndata: {text}\n\n".encode())

    def send_raw(self, data: bytes) -> None:
        """Bytes as they are to every reader."""
        for stream in self._streams:
            stream.put_nowait(data)

    def break_off(self) -> None:
        """End every stream in the middle."""
        for stream in self._streams:
            stream.put_nowait(None)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer GET /agents and GET /events."""
        if scope["path"] == "/agents":
            self.lists += 1
            await _head(send, 200, b"application/json")
            await send({"type": "http.response.body", "body": json.dumps(self.agents).encode()})
        elif scope["path"] == "/events" and self.status == 200:
            await self._stream(dict(scope["headers"]), receive, send)
        else:
            await _head(send, self.status if scope["path"] == "/events" else 404, b"application/json")
            await send({"type": "http.response.body", "body": b"{}"})

    async def _stream(self, headers: dict[bytes, bytes], receive: Any, send: Any) -> None:
        last = headers.get(b"last-event-id")
        self.readers.append(None if last is None else last.decode())
        stream = asyncio.Queue[bytes | None]()
        self._streams.append(stream)
        await _head(send, 200, self.kind)
        left = asyncio.create_task(_left(receive, stream))
        try:
            while (data := await stream.get()) is not None:
                await send({"type": "http.response.body", "body": data, "more_body": True})
        finally:
            left.cancel()
            self._streams.remove(stream)


async def _left(receive: Any, stream: asyncio.Queue[bytes | None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    stream.put_nowait(None)


async def _head(send: Any, status: int, kind: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})


@asynccontextmanager
async def event_registry(port: int = 0) -> AsyncGenerator[EventRegistry]:
    """Serve one, on a port of its own."""
    registry = EventRegistry()
    async with serve(registry, port=port, lifespan="off") as registry.url:
        yield registry
