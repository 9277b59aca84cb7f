"""A run as server-sent events, in whatever words a face has for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import asdict, is_dataclass
from typing import Any, cast

from fastapi.responses import StreamingResponse
from pydantic_core import to_json
from starlette.types import Send

from agent_runtime.server.runs import Run, RunEvent

KEEP_ALIVE_SECONDS = 15.0  # below the minute after which proxies take a silent connection for a dead one

Words = Callable[[int, RunEvent], Iterable[bytes]]
"""What a face sends for an event of this number: none, one or several `sse` blocks."""


def encoded(value: Any) -> bytes:
    """A value, dataclasses included, as JSON that every reader takes: no NaN, no half surrogate pair as it is."""
    try:
        return to_json(value, inf_nan_mode="null")
    except ValueError:  # a model may write half a pair, which only an escape can carry
        plain = asdict(cast("Any", value)) if is_dataclass(value) else value
        return json.dumps(json.loads(json.dumps(plain), parse_constant=lambda _: None)).encode()


def sse(data: bytes, *, event: str | None = None, number: int | None = None) -> bytes:
    """One server-sent event; `data` is JSON, so it has no line break."""
    name = f"event: {event}\n".encode() if event else b""
    identity = f"id: {number}\n".encode() if number is not None else b""
    return b"%b%bdata: %b\n\n" % (identity, name, data)


class EventStream(StreamingResponse):
    """The events of a run behind number `after`, as they come; a comment where none comes for a while.

    The run does not hang on it: a reader who goes, or reads slowly, leaves the run as it is.
    """

    def __init__(self, run: Run, words: Words, *, after: int = 0, keep_alive_seconds: float | None = None) -> None:
        # Nginx buffers what it is not told to pass on.
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        self._blocks = _blocks(run, words, after, keep_alive_seconds or KEEP_ALIVE_SECONDS)
        super().__init__(self._blocks, headers=headers, media_type="text/event-stream")

    async def stream_response(self, send: Send) -> None:
        """Send the stream, and end it when the client hangs up."""
        async with aclosing(self._blocks):
            await super().stream_response(send)


async def _blocks(run: Run, words: Words, after: int, keep_alive_seconds: float) -> AsyncGenerator[bytes]:
    with run.reading():
        while True:
            try:
                async with asyncio.timeout(keep_alive_seconds):
                    events = await run.next_events(after)
            except TimeoutError:
                yield b": still here\n\n"
                continue
            if not events:
                return
            # All that is there in one piece: a reader who is behind catches up, and pays for one write.
            yield b"".join(block for at, event in enumerate(events, after + 1) for block in words(at, event))
            after += len(events)
