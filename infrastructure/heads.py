"""A limit on the head of a request: its first line and all its headers.

httptools keeps what it receives until the head is complete, so no application could refuse one that never ends. This
is the only code below ASGI, shared by both services.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or find_spec("httptools"):
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as Protocol
else:  # Windows: h11 has a limit of its own
    from uvicorn.protocols.http.h11_impl import H11Protocol as Protocol

MAX_HEADER_BYTES = 64 * 1024
_TOO_LARGE = "The head of the request is too large."


class BoundedProtocol(Protocol):
    """uvicorn's protocol, counting the bytes of a head that is not complete."""

    limit_bytes = MAX_HEADER_BYTES

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._in_head = True
        self._complete_heads = 0
        self._pending = 0  # bytes of a head that is not complete
        self._received = 0  # bytes of the chunk that is parsed now
        self._is_too_large = False

    def data_received(self, data: bytes) -> None:
        in_head, complete, self._received = self._in_head, self._complete_heads, len(data)
        super().data_received(data)
        # After the end of a head or a body, less than a chunk is pending.
        self._pending = self._pending + self._received if in_head and complete == self._complete_heads else 0
        if self._pending > self.limit_bytes and not self.transport.is_closing():
            self._is_too_large = True
            self.send_400_response(_TOO_LARGE)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._complete_heads += 1
        if self._pending + self._received > self.limit_bytes and self._head_bytes() > self.limit_bytes:
            self._is_too_large = True
            raise ValueError(_TOO_LARGE)  # ends the parsing; uvicorn then calls `send_400_response`
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        if not self._is_too_large:
            super().send_400_response(msg)
            return
        body = _TOO_LARGE.encode()
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body)
        )
        self.transport.close()

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)


def bounded_heads(limit_bytes: int = MAX_HEADER_BYTES) -> dict[str, Any]:
    """Options for uvicorn: a larger head is answered with 431, and the connection is closed."""
    if not find_spec("httptools"):
        return {"http": "h11", "h11_max_incomplete_event_size": limit_bytes}
    return {"http": type("BoundedProtocol", (BoundedProtocol,), {"limit_bytes": limit_bytes})}
