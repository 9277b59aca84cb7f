"""How uvicorn speaks HTTP here: what `Express` can answer never becomes an ASGI call, all the rest does.

Parsing, scope, task, messages and middleware around a call of the fleet cost several times what it costs itself. The
heads of such calls repeat themselves to the letter: what one says is found out once.
"""

import logging
from asyncio import Event
from collections.abc import Awaitable
from functools import lru_cache, partial
from http import HTTPStatus
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from discovery.api.express import Express, Headers, Reply, is_small_json
from discovery.tokens import Caller
from infrastructure.heads import BoundedProtocol, bounded_heads

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

logger = logging.getLogger(__name__)

LIST, REGISTER = b"GET /agents HTTP/1.1\r\n", b"POST /register HTTP/1.1\r\n"
HEAD_END = b"\r\n\r\n"
LARGEST_HEAD_BYTES = 4096
NOT_MODIFIED = 304
JOINED_BYTES = 64 * 1024  # are copied sooner than a piece more is sent
# Other parts of the application have a word in these: an origin, a proxy that says who asks, a body without a length.
_APART = frozenset({b"origin", b"x-forwarded-for", b"transfer-encoding", b"expect", b"upgrade"})


def options() -> dict[str, Any]:
    """Options for uvicorn: this protocol, with heads that are bounded."""
    return bounded_heads(protocol=ExpressProtocol)


class _Head(NamedTuple):
    """What an ordinary head says."""

    is_list: bool  # or else a registration
    headers: Headers
    body_bytes: int


class _Call:
    """A request that is answered here. To uvicorn it looks like one of its own."""

    message_event = Event()  # nobody waits for it
    disconnected = False

    def __init__(self, head: _Head, caller: Caller, request_bytes: int) -> None:
        self.head, self.caller, self.request_bytes = head, caller, request_bytes
        self.keep_alive = True
        self.response_complete = False


class ExpressProtocol(BoundedProtocol):
    """Answers the calls of the fleet itself."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._is_parsing = False  # a request, for the application
        self._call: _Call
        self._coming: bytearray | None = None  # a call whose body is not all there
        self._idle_from: float | None = None
        self._common: tuple[list[tuple[bytes, bytes]], bytes] = ([], b"")

    def connection_made(self, transport: Any) -> None:
        self._express: Express = self.app_state["express"]
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._is_parsing = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._is_parsing = False
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        while data:
            data = self._rest_of(data)

    def _rest_of(self, data: bytes) -> bytes:
        """Take what is here of one request; what stands behind it comes back."""
        if self._coming is None and (self._is_parsing or not self._begins(data)):
            super().data_received(data)
            return b""
        come: bytes | bytearray = data
        if self._coming is not None:
            self._coming += data
            come = self._coming
        call = self._call
        if len(come) < call.request_bytes:
            self._coming = self._coming or bytearray(data)
            return b""
        self._coming = None
        if not self._is_taken(call, bytes(come[: call.request_bytes])):
            call.response_complete = True
            super().data_received(bytes(come[: call.request_bytes]))  # the application has it, as if it had just come
        return bytes(come[call.request_bytes :])

    def _begins(self, data: bytes) -> bool:
        """Whether an ordinary call begins here, and the one before has been answered and sent."""
        end = data.find(HEAD_END) if data.startswith((REGISTER, LIST)) else -1
        head = _head(data[:end]) if 0 < end < LARGEST_HEAD_BYTES else None
        before = cast("RequestResponseCycle | None", self.cycle)
        if head is None or not (before is None or before.response_complete):
            return False
        if self.flow.write_paused or self.pipeline or self.transport.is_closing():
            return False
        caller = self._express.admits(head.headers, "read" if head.is_list else "register")
        if caller is None:
            return False
        self._unset_keepalive_if_required()
        self._call = _Call(head, caller, end + len(HEAD_END) + head.body_bytes)
        self.cycle = cast("RequestResponseCycle", self._call)
        return True

    def _is_taken(self, call: _Call, request: bytes) -> bool:
        """Answer it now or later; False where the application has to."""
        if not call.head.is_list:
            peer = self.client[0] if self.client else None
            body = request[len(request) - call.head.body_bytes :]
            return self._express.registered(call.caller, body, peer, partial(self._send, call))
        reply = self._express.listed(call.head.headers)
        if isinstance(reply, Reply):
            self._send(call, reply)
        elif reply is not None:
            task = self.loop.create_task(self._send_later(call, reply))
            task.add_done_callback(self.tasks.discard)
            self.tasks.add(task)
        return reply is not None

    async def _send_later(self, call: _Call, later: Awaitable[Reply]) -> None:
        try:
            reply = await later
        except Exception:
            logger.exception("a request failed")
            reply = None
        self._send(call, reply)

    def _send(self, call: _Call, reply: Reply | None) -> None:
        call.response_complete = True
        if self.transport.is_closing():
            return
        if reply is None:
            self.transport.close()  # nobody is left waiting for an answer that does not come
            return
        status, lines, body = reply
        head = [_status_line(status), self._common_lines(), lines]
        if status != NOT_MODIFIED:
            head.append(b"content-length: %d\r\n" % len(body))
        if not call.keep_alive:
            head.append(b"connection: close\r\n")
        if len(body) <= JOINED_BYTES:
            self.transport.write(b"".join([*head, b"\r\n", body]))
        else:
            self.transport.write(b"".join([*head, b"\r\n"]))
            self.transport.write(body)
        if not call.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _common_lines(self) -> bytes:
        """What every head has; uvicorn makes it anew each second."""
        common = self.server_state.default_headers
        if common is not self._common[0]:
            self._common = common, b"".join([b"%b: %b\r\n" % one for one in common])
        return self._common[1]

    # One timer for a connection, which looks whether it is time, and not a new one after each answer.

    def _unset_keepalive_if_required(self) -> None:
        self._idle_from = None

    def on_response_complete(self) -> None:
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._idle_from = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_in(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        if self._idle_from is None:
            return  # the next answer begins anew
        left = self._idle_from + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._look_in(left)
        else:
            super().timeout_keep_alive_handler()

    def _look_in(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)


@lru_cache
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()


@lru_cache(maxsize=1024)
def _head(text: bytes) -> _Head | None:
    """What a head says, the blank line not included; None for one that is out of the ordinary."""
    from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

    headers: list[tuple[bytes, bytes]] = []

    def on_header(name: bytes, value: bytes) -> None:
        headers.append((name.lower(), value))

    try:
        HttpRequestParser(SimpleNamespace(on_header=on_header)).feed_data(text + HEAD_END)
    except (HttpParserError, HttpParserUpgrade):
        return None
    if not text.count(b"\n") == text.count(b"\r\n") == len(headers):
        return None  # it ends elsewhere than it seems to
    said, is_list = dict(reversed(headers)), text.startswith(LIST)  # the first of each name, as everywhere else
    if not _APART.isdisjoint(said) or said.get(b"connection", b"keep-alive").lower() != b"keep-alive":
        return None
    if is_list:
        return None if b"content-length" in said else _Head(True, said, 0)
    return _Head(False, said, int(said[b"content-length"])) if is_small_json(said) else None
