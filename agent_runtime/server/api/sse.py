"""A run as server-sent events; each protocol brings its own encoder."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import asdict, is_dataclass
from typing import Any, cast

from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT
from pydantic_core import to_json
from starlette.types import Send

from agent_runtime.server.run import Run, RunEvent

KEEP_ALIVE_SECONDS = 15.0  # below the minute after which proxies close a silent connection

EventEncoder = Callable[[int, RunEvent], Iterable[bytes]]
"""Encodes the event with this number as none, one or several server-sent events."""


def json_bytes(value: Any) -> bytes:
    """A value, dataclasses included, as JSON that every parser accepts: no NaN, no unescaped lone surrogate."""
    try:
        return to_json(value, inf_nan_mode="null")
    except ValueError:  # a model may write a lone surrogate, which only an escape can represent
        plain = asdict(cast("Any", value)) if is_dataclass(value) else value
        return json.dumps(json.loads(json.dumps(plain), parse_constant=lambda _: None)).encode()


def json_str(value: Any) -> str:
    """The same as text, for the data of a server-sent event."""
    return json_bytes(value).decode()


class RunEventStream(StreamingResponse):
    """The events of a run after number `after`, as they happen, with a comment to keep an idle connection open.

    fastapi's own `EventSourceResponse` encodes inside a route that yields; this one follows a run that several
    requests may read, and sends all events that are available in one piece.
    A client that disconnects or reads slowly does not affect the run.
    """

    def __init__(
        self, run: Run, encode: EventEncoder, *, after: int = 0, keep_alive_seconds: float | None = None
    ) -> None:
        # nginx buffers a response unless it is told not to.
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        self._chunks = _chunks(run, encode, after, keep_alive_seconds or KEEP_ALIVE_SECONDS)
        super().__init__(self._chunks, headers=headers, media_type="text/event-stream")

    async def stream_response(self, send: Send) -> None:
        """Send the stream, and close it when the client disconnects."""
        async with aclosing(self._chunks):
            await super().stream_response(send)


async def _chunks(run: Run, encode: EventEncoder, after: int, keep_alive_seconds: float) -> AsyncGenerator[bytes]:
    with run.reading():
        while True:
            try:
                async with asyncio.timeout(keep_alive_seconds):
                    events = await run.next_events(after)
            except TimeoutError:
                yield KEEPALIVE_COMMENT
                continue
            if not events:
                return
            yield b"".join(chunk for number, event in enumerate(events, after + 1) for chunk in encode(number, event))
            after += len(events)
