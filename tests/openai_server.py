"""An HTTP server on loopback that answers OpenAI's chat completions as a test has scripted it.

async with serving_openai(says("Hello"), refuses(429)) as openai:
    … openai.url, openai.asked
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from tests.serving import serve

Chunk = dict[str, Any]
Reply = Callable[[], Response]


@dataclass(slots=True)
class Asked:
    """One request that reached the server."""

    body: dict[str, Any]
    headers: dict[str, str]
    query: dict[str, str] = field(default_factory=dict[str, str])
    deployment: str | None = None
    port: int = 0
    """The client's: two requests with the same one came over the same connection."""


@dataclass(slots=True)
class OpenAIServer:
    """The address to use as `model.endpoint`, and what was asked there."""

    url: str = ""
    resource: str = ""
    """The address for the provider azure_openai: Azure has paths of its own."""
    asked: list[Asked] = field(default_factory=list[Asked])
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client closed the connection of a `stalls` reply."""


@asynccontextmanager
async def serving_openai(*replies: Reply) -> AsyncGenerator[OpenAIServer]:
    """Serve one reply per request, in order; a request too many is a 500 that says so."""
    server, waiting = OpenAIServer(), iter(replies)
    app = FastAPI()

    @app.post("/v1/chat/completions")
    @app.post("/openai/deployments/{deployment}/chat/completions")
    async def _(request: Request, deployment: str | None = None) -> Response:
        asked = Asked(await request.json(), dict(request.headers), dict(request.query_params), deployment)
        asked.port = request.client.port if request.client else 0
        server.asked.append(asked)
        reply = next(waiting, refuses(500, "the script of the test is over"))()
        if isinstance(reply, StreamingResponse):
            reply.body_iterator = _watched(reply.body_iterator, server.hung_up)
        return reply

    async with serve(app) as url:
        server.url, server.resource = f"{url}/v1", url
        yield server


async def _watched(body: Any, hung_up: asyncio.Event) -> AsyncIterator[Any]:
    try:
        async for piece in body:
            yield piece
    except (asyncio.CancelledError, GeneratorExit):
        hung_up.set()
        raise


# --- replies


def says(*deltas: str, usage: tuple[int, int] = (10, 5), finish_reason: str = "stop") -> Reply:
    """Text, in these pieces."""
    return streams(*(_choice({"content": delta}) for delta in deltas), _end(finish_reason), _usage(usage))


def calls(*pieces: Sequence[dict[str, Any]], text: str = "", usage: tuple[int, int] = (10, 5)) -> Reply:
    """Tool calls as OpenAI streams them: each piece is what one chunk holds of `tool_calls`."""
    spoken = [_choice({"content": text})] if text else []
    return streams(
        *spoken, *(_choice({"tool_calls": list(piece)}) for piece in pieces), _end("tool_calls"), _usage(usage)
    )


def call(name: str, arguments: str, *, call_id: str = "call_a", index: int = 0) -> dict[str, Any]:
    """One whole tool call."""
    return {
        "index": index,
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def streams(*chunks: Chunk | str, whole: bool = True) -> Reply:
    """Chunks as they are; a string is sent as raw data. Without `whole`, the connection just ends."""
    return lambda: StreamingResponse(_lines(chunks, whole), media_type="text/event-stream")


def stalls(*deltas: str) -> Reply:
    """Text, and then nothing more until the client hangs up."""
    return lambda: StreamingResponse(_stalling(deltas), media_type="text/event-stream")


def refuses(
    status: int, message: str = "no", *, code: str | None = None, headers: dict[str, str] | None = None
) -> Reply:
    """An error as OpenAI words it."""
    body = {"error": {"message": message, "type": "test", "code": code, "param": None}}
    return lambda: JSONResponse(body, status, headers)


def answers_with(text: str, media_type: str = "text/html") -> Reply:
    """A page where an API was expected."""
    return lambda: Response(text, media_type=media_type)


def sends(*pieces: bytes, status: int = 200, headers: dict[str, str] | None = None, endless: bool = False) -> Reply:
    """These bytes, one write each; the last one for ever if `endless`."""

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece
            await asyncio.sleep(0)
        while endless:
            yield pieces[-1]
            await asyncio.sleep(0)

    return lambda: StreamingResponse(body(), status, {"content-type": "text/event-stream", **(headers or {})})


class Broken(Exception):
    """Ends a connection in the middle of a body."""


async def _lines(chunks: Iterable[Chunk | str], whole: bool) -> AsyncIterator[str]:
    for chunk in chunks:
        yield f"data: {chunk if isinstance(chunk, str) else json.dumps(chunk)}\n\n"
    if not whole:
        raise Broken
    yield "data: [DONE]\n\n"


async def _stalling(deltas: Iterable[str]) -> AsyncIterator[str]:
    for delta in deltas:
        yield f"data: {json.dumps(_choice({'content': delta}))}\n\n"
    await asyncio.Event().wait()


def _choice(delta: dict[str, Any], finish_reason: str | None = None) -> Chunk:
    return {
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
    }


def _end(finish_reason: str) -> Chunk:
    return _choice({}, finish_reason)


def _usage(usage: tuple[int, int]) -> Chunk:
    return {"choices": [], "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]}}
