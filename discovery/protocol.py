"""How uvicorn speaks HTTP here: what `Express` can answer never becomes an ASGI call, all the rest does.

A call of the fleet costs the parsing of its head and the writing of its answer; scope, task, messages and middleware
around it cost as much again.
"""

import logging
from asyncio import Event
from collections.abc import Awaitable
from functools import lru_cache, partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from discovery.express import Express, Headers, Reply, is_small_json
from discovery.gathered import LARGE_BYTES
from discovery.heads import Protocol, bounded_heads
from discovery.tokens import Caller

if TYPE_CHECKING:
    from httptools import HttpRequestParser
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

logger = logging.getLogger(__name__)

NOT_MODIFIED = 304
# Other parts of the application have a word in these: an origin, a proxy that says who asks, a body without a length.
_APART = frozenset({b"origin", b"x-forwarded-for", b"transfer-encoding"})


def options() -> dict[str, Any]:
    """Options for uvicorn: this protocol, with heads that are bounded."""
    return bounded_heads(below=ExpressProtocol)


class _Call:
    """A request that is answered here. To uvicorn it looks like one of its own."""

    message_event = Event()  # nobody waits for it
    disconnected = False

    def __init__(self, headers: Headers, caller: Caller) -> None:
        self.headers, self.caller = headers, caller
        self.body = b""
        self.keep_alive = True
        self.response_complete = False


class ExpressProtocol(Protocol):
    """Answers the calls of the fleet itself."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._idle_from: float | None = None
        self._common: tuple[list[tuple[bytes, bytes]], bytes] = ([], b"")

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self.url, self.headers, self.expect_100_continue = b"", [], False

    def on_headers_complete(self) -> None:
        call = self._taken()
        if call is None:
            self._ask_application()
        else:
            self.cycle = cast("RequestResponseCycle", call)

    def on_body(self, body: bytes) -> None:
        if isinstance(self.cycle, _Call):
            self.cycle.body += body
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        call = self.cycle
        if not isinstance(call, _Call):
            super().on_message_complete()
            return
        if self.url != b"/agents":
            peer = self.client[0] if self.client else None
            if not self._express.registered(call.caller, bytes(call.body), peer, partial(self._send, call)):
                self._hand_on(call)
            return
        reply = self._express.listed(call.headers)
        if isinstance(reply, Reply):
            self._send(call, reply)
        elif reply is None:
            self._hand_on(call)
        else:
            task = self.loop.create_task(self._send_later(call, reply))
            task.add_done_callback(self.tasks.discard)
            self.tasks.add(task)

    @property
    def _express(self) -> Express:
        return cast("Express", self.app_state["express"])

    def _taken(self) -> _Call | None:
        """The request as a call, if it is an ordinary one, and the one before has been answered and sent."""
        listed = self.url == b"/agents"
        if not listed and self.url != b"/register":
            return None
        parser, before = cast("HttpRequestParser", self.parser), cast("RequestResponseCycle | None", self.cycle)
        if parser.get_method() != (b"GET" if listed else b"POST") or parser.get_http_version() != "1.1":
            return None
        if not parser.should_keep_alive() or parser.should_upgrade() or self.expect_100_continue:
            return None
        if self.flow.write_paused or self.pipeline or not (before is None or before.response_complete):
            return None
        headers = dict(reversed(self.headers))  # the first of each name, as everywhere else
        if not _APART.isdisjoint(headers) or (b"content-length" in headers if listed else not is_small_json(headers)):
            return None
        caller = self._express.admits(headers, "read" if listed else "register")
        return None if caller is None else _Call(headers, caller)

    def _hand_on(self, call: _Call) -> None:
        """Let the application have it, as if it had just come."""
        call.response_complete = True
        self._ask_application()
        if call.body:
            super().on_body(call.body)
        super().on_message_complete()

    def _ask_application(self) -> None:
        """What it is told of a request is put together for it alone."""
        url, headers, expect_100_continue = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expect_100_continue
        self.headers += headers
        super().on_headers_complete()

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
        if len(body) < LARGE_BYTES:
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
