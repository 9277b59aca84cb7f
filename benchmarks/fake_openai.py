"""A fast stand-in for OpenAI's chat completions, so that what is measured is the caller.

Run it in a process of its own: `python -m benchmarks.fake_openai` prints its port and serves until its standard input
ends. Offered a tool, the model calls it once with two numbers, then tells the result; offered none, it talks. How it
behaves stands in the path: `http://127.0.0.1:PORT/delay_ms-200/words-300/pace_ms-1/v1`.

    delay_ms   before a reply begins
    words      how long its talk is, a chunk each
    pace_ms    between two chunks of a stream; without it the whole stream is sent at once
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from functools import lru_cache
from typing import Any, NamedTuple

import httptools  # pyright: ignore[reportMissingTypeStubs]
import uvloop

ARGUMENTS = '{"a": 17, "b": 25}'
PIECES = ('{"', "a", '":', " 17", ', "', "b", '":', " 25", "}")  # of the arguments, as a model writes them
_OPTION = re.compile(r"/([a-z_]+)-(\d+)")
_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
_EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_USAGE = {"prompt_tokens": 60, "completion_tokens": 12, "total_tokens": 72}


class Connection(asyncio.Protocol):
    """One connection; its requests are answered one after the other."""

    def __init__(self) -> None:
        self._parser: Any = None
        self._transport: Any = None
        self._url = b""
        self._body = b""
        self._answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answering is not None:
            self._answering.cancel()

    def data_received(self, data: bytes) -> None:
        if self._parser is None:
            self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(data)

    # --- what the parser calls

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        body, self._body, self._parser = self._body, b"", None
        options = {name: int(value) for name, value in _OPTION.findall(self._url.decode())}
        wish = Wish.of(json.loads(body), options)
        if options.get("delay_ms") or options.get("pace_ms"):
            self._answering = asyncio.create_task(self._answer(wish, options))
        else:
            self._transport.write(whole(wish))

    async def _answer(self, wish: Wish, options: dict[str, int]) -> None:
        await asyncio.sleep(options.get("delay_ms", 0) / 1000)
        if not (options.get("pace_ms") and wish.streamed):
            self._transport.write(whole(wish))
            return
        self._transport.write(_EVENTS)
        for piece in events(wish):
            self._transport.write(_chunk(piece))
            await asyncio.sleep(options["pace_ms"] / 1000)
        self._transport.write(b"0\r\n\r\n")


class Wish(NamedTuple):
    """What of a request its reply depends on."""

    model: str
    streamed: bool
    counted: bool
    tool: str | None
    words: tuple[str, ...]

    @staticmethod
    def of(asked: dict[str, Any], options: dict[str, int]) -> Wish:
        """The wish of a request's body."""
        last, tools = asked["messages"][-1], asked.get("tools") or []
        words = tuple([" word"] * options.get("words", 9))
        tool = str(tools[0]["function"]["name"]) if tools else None
        if last["role"] == "tool":
            tool = None
            words = ("The", " sum", " of", " the", " two", " numbers", " is ", _text(last["content"]), ".")
        counted = bool((asked.get("stream_options") or {}).get("include_usage"))
        return Wish(asked["model"], bool(asked.get("stream")), counted, tool, words)


@lru_cache
def whole(wish: Wish) -> bytes:
    """A reply in one piece, streamed or not, with its head."""
    if wish.streamed:
        return _EVENTS + b"".join(_chunk(event) for event in events(wish)) + b"0\r\n\r\n"
    body = json.dumps(_completion(wish)).encode()
    return _JSON % (len(body), body)


@lru_cache
def events(wish: Wish) -> list[bytes]:
    """A reply as server-sent events: one a token, as OpenAI sends them."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None if wish.tool else ""}]
    if wish.tool:
        call = {"index": 0, "id": "call_0123456789", "type": "function"}
        deltas.append({"tool_calls": [{**call, "function": {"name": wish.tool, "arguments": ""}}]})
        deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in PIECES]
    else:
        deltas += [{"content": word} for word in wish.words]
    told = [_event(wish, delta) for delta in deltas]
    told.append(_event(wish, {}, "tool_calls" if wish.tool else "stop"))
    if wish.counted:
        told.append(_event(wish, None))
    return [*told, b"data: [DONE]\n\n"]


def _event(wish: Wish, delta: dict[str, Any] | None, finish_reason: str | None = None) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]
    chunk = {
        "id": "chatcmpl-of-a-benchmark",
        "object": "chat.completion.chunk",
        "created": 1790000000,
        "model": wish.model,
        "service_tier": "default",
        "system_fingerprint": "fp_0123456789",
        "choices": choices,
        "usage": _USAGE if delta is None else None,
    }
    return b"data: %b\n\n" % json.dumps(chunk, separators=(",", ":")).encode()


def _completion(wish: Wish) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    if wish.tool:
        function = {"name": wish.tool, "arguments": ARGUMENTS}
        message["tool_calls"] = [{"id": "call_0123456789", "type": "function", "function": function}]
    else:
        message["content"] = "".join(wish.words)
    reason = "tool_calls" if wish.tool else "stop"
    return {
        "id": "chatcmpl-of-a-benchmark",
        "object": "chat.completion",
        "created": 1790000000,
        "model": wish.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
        "usage": _USAGE,
        "service_tier": "default",
        "system_fingerprint": "fp_0123456789",
    }


def _text(content: Any) -> str:
    """Content is a text, or a list of parts."""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)  # who started it has gone


if __name__ == "__main__":
    uvloop.run(_serve())
