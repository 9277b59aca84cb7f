"""The limit on request heads, over a real socket."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from infrastructure.heads import bounded_heads
from tests.serving import serve

LIMIT = 8 * 1024


@asynccontextmanager
async def connected() -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async with asyncio.timeout(20), serve(echo, lifespan="off", **bounded_heads(LIMIT)) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            yield reader, writer
        finally:
            writer.close()


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer with the length of the body."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    text = str(size).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head.split(b"\r\n")[0], await reader.readexactly(length)


async def test_heads_within_the_limit_are_accepted_with_larger_bodies_on_one_connection() -> None:
    async with connected() as (reader, writer):
        for size in (0, 1, LIMIT * 3, 10, LIMIT * 40):
            head = b"POST / HTTP/1.1\r\nhost: x\r\nx: %b\r\ncontent-length: %d\r\n\r\n" % (b"y" * (LIMIT - 200), size)
            writer.write(head + b"z" * size)
            status, body = await answer(reader)
            assert (status, int(body)) == (b"HTTP/1.1 200 OK", size)


async def test_pipelined_small_requests_in_one_chunk_are_each_answered() -> None:
    async with connected() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 400)
        for _ in range(400):
            assert (await answer(reader))[0] == b"HTTP/1.1 200 OK"


ENDLESS = {
    "one header": (b"GET / HTTP/1.1\r\nx: ", b"y" * 1000),
    "many headers": (b"GET / HTTP/1.1\r\n", b"x: y\r\n" * 100),
    "the name of a header": (b"GET / HTTP/1.1\r\n", b"x" * 1000),
    "the path": (b"GET /", b"y" * 1000),
    "blank lines": (b"", b"\r\n" * 500),
}


@pytest.mark.parametrize("kind", ENDLESS)
async def test_an_endless_head_is_refused_early(kind: str) -> None:
    begin, more = ENDLESS[kind]
    async with connected() as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nz" + begin)
        assert await answer(reader) == (b"HTTP/1.1 200 OK", b"1")
        refused = asyncio.create_task(reader.read())
        sent = 0
        while not refused.done():
            try:
                writer.write(more)
                await writer.drain()
                await asyncio.wait({refused}, timeout=0.001)  # the server's turn
            except ConnectionError:
                break
            sent += len(more)
            assert sent < 100 * LIMIT
        said = await refused
    assert said.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")


async def test_a_large_head_in_one_chunk_is_refused_and_the_request_before_it_is_answered() -> None:
    async with connected() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await answer(reader))[0] == b"HTTP/1.1 200 OK"
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"y" * LIMIT + b"\r\n\r\n")
        assert (await answer(reader))[0] == b"HTTP/1.1 431 Request Header Fields Too Large"
        assert await reader.read() == b""


async def test_invalid_http_is_still_a_400() -> None:
    async with connected() as (reader, writer):
        writer.write(b"\x16\x03\x01 hello\r\n\r\n")
        assert (await answer(reader))[0].startswith(b"HTTP/1.1 400")
