"""HTTP as the registry speaks it, over a raw connection."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import httpx
import pytest

from discovery.app import create_app
from discovery.registry import StoreError
from discovery.registry.table import Change
from discovery.settings import Settings
from discovery.stores.memory import MemoryStore
from infrastructure.heads import bounded_heads
from tests.discovery.conftest import MINIMAL, RunRegistry, eventually, running
from tests.serving import serve

BODY = json.dumps(MINIMAL).encode()


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Caller:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def say(self, *requests: bytes) -> None:
        self._writer.write(b"".join(requests))

    async def hear(self) -> Answer:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(head[0].split()[1]), headers, body)

    async def is_left_alone(self) -> bool:
        """Whether the registry has closed the connection, with nothing more to say."""
        return await self._reader.read() == b""

    def leave(self) -> None:
        self._writer.close()


@asynccontextmanager
async def calling(url: str | httpx.URL) -> AsyncIterator[Caller]:
    where = httpx.URL(url)
    reader, writer = await asyncio.open_connection(where.host, where.port)
    async with asyncio.timeout(10):
        yield Caller(reader, writer)
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


def get(path: str = "/agents", version: str = "1.1", **headers: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"GET {path} HTTP/{version}\r\nhost: localhost\r\n{lines}\r\n".encode()


def register(body: bytes = BODY, **headers: str) -> bytes:
    said = {"content_type": "application/json", "content_length": str(len(body))} | headers
    return get("/register", **said).replace(b"GET", b"POST", 1) + body


async def test_requests_that_come_in_one_piece_are_answered_in_their_order(registry: RunRegistry) -> None:
    async with registry() as http, calling(http.base_url) as caller:
        other = json.dumps(MINIMAL | {"name": "other"}).encode()
        caller.say(register(), get(), register(), get("/agents?limit=1"), register(other), get("/livez"), get())
        answers = [await caller.hear() for _ in range(7)]
        assert [answer.status for answer in answers] == [201, 200, 200, 200, 201, 200, 200]
        assert [len(answers[place].json()) for place in (1, 3, 6)] == [1, 1, 2]
        assert answers[2].json()["changed"] is False
        assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)


async def test_requests_in_one_piece_may_be_many(registry: RunRegistry) -> None:
    async with registry() as http, calling(http.base_url) as caller:
        caller.say(get() * 3000, register())
        assert {(await caller.hear()).body for _ in range(3000)} == {b"[]"}
        assert (await caller.hear()).status == 201


async def test_a_request_may_come_byte_by_byte(registry: RunRegistry) -> None:
    async with registry() as http, calling(http.base_url) as caller:
        for request, status in ((register(), 201), (register(), 200), (get(), 200)):
            for place in range(len(request)):
                caller.say(request[place : place + 1])
                await asyncio.sleep(0)
            assert (await caller.hear()).status == status


@pytest.mark.parametrize(
    ("request_", "status", "stays"),
    [
        (get(connection="close"), 200, False),
        (get(version="1.0"), 200, False),
        (register(connection="close"), 200, False),
        (get(upgrade="websocket", connection="upgrade"), 200, True),
        (get(content_length="2") + b"{}", 200, True),
        (get().replace(b"GET", b"PUT"), 405, True),
        (register().replace(b"POST", b"PATCH"), 405, True),
        (register(b"{}"), 422, True),
        (register(content_type="text/plain"), 422, True),
        (register(b'{"name": "\xff"}'), 400, True),
        (get(host="evil.example").replace(b"host: localhost\r\n", b""), 403, True),
    ],
)
async def test_an_unusual_request_is_answered_and_the_connection_stays_where_it_may(
    registry: RunRegistry, request_: bytes, status: int, stays: bool
) -> None:
    async with registry() as http:
        await http.post("/register", content=BODY, headers={"content-type": "application/json"})
        async with calling(http.base_url) as caller:
            caller.say(request_)
            answer = await caller.hear()
            assert answer.status == status
            assert answer.headers["x-request-id"]
            assert answer.headers["date"]
            if stays:
                caller.say(get())
                assert len((await caller.hear()).json()) == 1
            else:
                assert answer.headers["connection"] == "close"
                assert await caller.is_left_alone()


HEAD = b"POST /register HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
LENGTH = b"content-length: %d\r\n" % len(BODY)


@pytest.mark.parametrize(
    "request_",
    [
        HEAD + b"x: y\n" + LENGTH + b"\r\n" + BODY,
        HEAD + b"x: y\r\n folded\r\n" + LENGTH + b"\r\n" + BODY,
        HEAD + LENGTH + b"\n" + BODY,
        HEAD + LENGTH + LENGTH + b"\r\n" + BODY,
        HEAD + b"content-length: +%d\r\n\r\n" % len(BODY) + BODY,
        HEAD + b"content-length: %d, %d\r\n\r\n" % (len(BODY), len(BODY)) + BODY,
        HEAD + LENGTH + b"transfer-encoding: chunked\r\n\r\n" + BODY,
        HEAD + b" " + LENGTH + b"\r\n" + BODY,
        HEAD + b"no colon\r\n" + LENGTH + b"\r\n" + BODY,
        HEAD.replace(b"HTTP/1.1", b"HTTP/1.9") + LENGTH + b"\r\n" + BODY,
        HEAD + b"x: \x00\r\n" + LENGTH + b"\r\n" + BODY,
        b"\r\n\r\n" + HEAD + LENGTH + b"\r\n" + BODY,
        b"GET /agents HTTP/1.1\r\n\r\n",
        b"GET /agents HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n",
    ],
)
async def test_an_unusual_head_is_accepted_or_refused_as_by_plain_uvicorn(request_: bytes) -> None:
    statuses: list[list[int]] = []
    for serving in (bounded_heads(), {}):
        async with running(**serving)() as http, calling(http.base_url) as caller:
            caller.say(register())
            assert (await caller.hear()).status == 201
            caller.say(request_, get(connection="close"))
            heard: list[int] = []
            with suppress(asyncio.IncompleteReadError):
                while True:
                    heard.append((await caller.hear()).status)
            statuses.append(heard)
    assert statuses[0] == statuses[1]
    assert statuses[0]


@pytest.mark.parametrize("ends", [10, -len(BODY) - 2, -len(BODY), -len(BODY) + 1, -1])
async def test_a_request_may_come_in_two_pieces_with_another_behind_it(registry: RunRegistry, ends: int) -> None:
    async with registry() as http, calling(http.base_url) as caller:
        caller.say(register())
        assert (await caller.hear()).status == 201
        request = register()
        for piece in (request[:ends], request[ends:] + get()[:20], get()[20:]):
            caller.say(piece)
            await http.get("/livez")  # the registry has had it by now
        assert [(await caller.hear()).status for _ in range(2)] == [200, 200]


async def test_a_large_body_is_put_together_from_its_pieces(registry: RunRegistry) -> None:
    tools = [{"name": f"tool-{number}", "description": "words " * 200} for number in range(150)]
    async with registry() as http, calling(http.base_url) as caller:
        caller.say(register(json.dumps(MINIMAL | {"tools": tools}).encode()), get())
        assert (await caller.hear()).status == 201
        assert len((await caller.hear()).json()[0]["tools"]) == 150


async def test_who_waits_to_be_told_to_go_on_is_told(registry: RunRegistry) -> None:
    async with registry() as http, calling(http.base_url) as caller:
        caller.say(register(expect="100-continue").removesuffix(BODY))
        assert (await caller.hear()).status == 100
        caller.say(BODY)
        assert (await caller.hear()).status == 201


async def test_who_comes_through_a_proxy_is_known_by_its_own_address(registry: RunRegistry) -> None:
    async with registry() as http, calling(http.base_url) as caller:
        caller.say(register(x_forwarded_for="10.9.8.7"))
        assert (await caller.hear()).json()["observed_address"] == "10.9.8.7"


async def test_a_page_of_another_origin_hears_whether_it_may_read(registry: RunRegistry) -> None:
    allowed = "https://portal.example"
    async with registry(cors_origins=(allowed,)) as http, calling(http.base_url) as caller:
        caller.say(get(origin=allowed), get(origin="https://other.example"), get())
        heard = [(await caller.hear()).headers.get("access-control-allow-origin") for _ in range(3)]
        assert heard == [allowed, None, None]


async def test_nothing_more_is_made_for_a_reader_who_does_not_read() -> None:
    waiting: list[int] = []
    protocol = bounded_heads()["http"]

    class Watched(protocol):
        def on_response_complete(self) -> None:
            waiting.append(self.transport.get_write_buffer_size())
            super().on_response_complete()

    long = [json.dumps(MINIMAL | {"name": f"a{n}", "description": "x" * 8000}).encode() for n in range(50)]
    async with running(http=Watched)() as http, calling(http.base_url) as caller:
        for body in long:
            await http.post("/register", content=body, headers={"content-type": "application/json"})
        size = len((await http.get("/agents")).content)
        waiting.clear()
        caller.say(*[get()] * 100)
        await eventually(lambda: waiting)
        assert [len((await caller.hear()).body) for _ in range(100)] == [size] * 100
        assert max(waiting) < 3 * size


class Held(MemoryStore):
    """Takes its time over what is written, until it is told to go on; or to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.goes_on = asyncio.Event(), asyncio.Event()
        self.fails = False

    async def append(self, changes: Sequence[Change]) -> None:
        self.entered.set()
        await self.goes_on.wait()
        if self.fails:
            raise StoreError("the disk is on fire")
        await super().append(changes)


async def is_refused(url: str) -> bool:
    try:
        async with calling(url):
            return False
    except OSError:
        return True


async def test_a_registry_that_ends_finishes_the_registration_it_has_begun() -> None:
    store = Held()
    app = create_app(Settings(database_url="memory://"), store=store)
    ended = asyncio.Event()

    async def serving(found: asyncio.Future[str]) -> None:
        async with serve(app, timeout_graceful_shutdown=10, **bounded_heads()) as url:
            found.set_result(url)
            await ended.wait()

    found: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serving(found))
    url = await found
    async with calling(url) as caller:
        caller.say(register())
        await store.entered.wait()
        ended.set()
        await eventually(lambda: is_refused(url))
        store.goes_on.set()
        answer = await caller.hear()
        assert (answer.status, answer.headers["connection"]) == (201, "close")
        assert await caller.is_left_alone()
    await server


async def test_a_registration_is_kept_although_its_sender_has_gone(
    registry: RunRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    store = Held()
    async with registry(store) as http:
        async with calling(http.base_url) as caller:
            caller.say(register())
            await store.entered.wait()
        store.goes_on.set()
        await eventually(lambda: store.revision == 1)
        assert len((await http.get("/agents")).json()) == 1
    assert caplog.text == ""


async def test_what_fails_while_it_is_written_is_explained_and_the_connection_stays(registry: RunRegistry) -> None:
    store = Held()
    store.fails = True
    store.goes_on.set()
    async with registry(store) as http, calling(http.base_url) as caller:
        caller.say(register())
        answer = await caller.hear()
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        store.fails = False
        caller.say(register())
        assert (await caller.hear()).status == 201


async def test_a_connection_is_kept_while_it_is_used_and_closed_when_nobody_does() -> None:
    async with running(timeout_keep_alive=2, **bounded_heads())() as http, calling(http.base_url) as caller:
        for _ in range(5):
            caller.say(get())
            assert (await caller.hear()).json() == []
            await asyncio.sleep(0.5)
        caller.say(get())
        assert (await caller.hear()).json() == []
        assert await caller.is_left_alone()
