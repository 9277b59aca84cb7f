"""A head and its body leave together: one call of the system for an answer, and one piece for who reads it."""

import asyncio
from typing import Any

LARGE_BYTES = 16 * 1024  # is worth a call of its own, and uvloop passes on what is one piece much faster


class Gathered:
    """A transport that keeps what is written until the event loop comes round, and sends it in one go.

    By then all that had come has been read: answers that leave together wake who reads them less often.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.is_closing = transport.is_closing  # looked at in every answer
        self._later = asyncio.get_running_loop().call_soon
        self._pieces: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """As of every transport; also a server that writes piece by piece sends whole answers."""
        if len(data) > LARGE_BYTES:
            self._send()
            self._transport.write(data)
            return
        if not self._pieces:
            self._later(self._send)
        self._pieces.append(data)

    def close(self) -> None:
        """Nothing that was written is lost."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        pieces, self._pieces = self._pieces, []
        if pieces and not self._transport.is_closing():  # or whom it was for has gone
            self._transport.writelines(pieces)
