"""How large the head of a request may be: its first line and all its headers.

The parser in front of an application keeps what it is sent until the head is whole, so the application itself could
never refuse one that does not end.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from infrastructure.gathered import Gathered

if TYPE_CHECKING or find_spec("httptools"):
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as Protocol
else:  # Windows: a parser that has a limit of its own
    from uvicorn.protocols.http.h11_impl import H11Protocol as Protocol

MAX_HEADER_BYTES = 64 * 1024
_TOO_LARGE = "The head of the request is too large."


class BoundedProtocol(Protocol):
    """Counts the pieces that a head comes in; most come in one."""

    limit_bytes = MAX_HEADER_BYTES

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._in_head = True  # nothing has come yet, and what comes first is one
        self._heads = 0  # that are whole
        self._waiting = 0  # bytes of a head that is not
        self._piece = 0  # bytes of what has just come
        self._is_too_large = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(Gathered(transport))  # pyright: ignore[reportArgumentType]

    def data_received(self, data: bytes) -> None:
        in_head, heads, self._piece = self._in_head, self._heads, len(data)
        super().data_received(data)
        # Behind the end of a head or a body, less than a piece waits.
        self._waiting = self._waiting + self._piece if in_head and heads == self._heads else 0
        if self._waiting > self.limit_bytes and not self.transport.is_closing():
            self._is_too_large = True
            self.send_400_response(_TOO_LARGE)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._heads += 1
        if self._waiting + self._piece > self.limit_bytes and self._size() > self.limit_bytes:
            self._is_too_large = True
            raise ValueError(_TOO_LARGE)  # ends the parsing, and `send_400_response` is called
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

    def _size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)


def bounded_heads(
    limit_bytes: int = MAX_HEADER_BYTES, *, protocol: type[BoundedProtocol] = BoundedProtocol
) -> dict[str, Any]:
    """Options for uvicorn: a larger head is answered with 431, and the connection closed.

    Without httptools the parser has a limit of its own, and the protocol is not asked.
    """
    if not find_spec("httptools"):
        return {"http": "h11", "h11_max_incomplete_event_size": limit_bytes}
    return {"http": type(protocol.__name__, (protocol,), {"limit_bytes": limit_bytes})}
