"""What is written at once leaves at once, over a real socket and with a transport that keeps what it is given."""

import asyncio
import socket
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from infrastructure.gathered import Gathered
from tests.discovery.stores.test_storage_trouble import registry
from tests.discovery.test_command import SECONDS


class Kept(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.sent: list[bytes] = []
        self.closed = False

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.sent.append(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


async def test_what_is_written_at_once_is_sent_in_one_piece_and_the_rest_in_the_next() -> None:
    kept = Kept()
    gathered = Gathered(kept)
    gathered.write(b"head ")
    gathered.write(b"body")
    assert kept.sent == []
    await asyncio.sleep(0)
    gathered.write(b"more")
    await asyncio.sleep(0)
    assert (kept.sent, gathered.get_extra_info("peername")) == ([b"head body", b"more"], ("127.0.0.1", 1))


async def test_closing_sends_what_was_written_and_nothing_is_sent_to_who_has_gone() -> None:
    kept = Kept()
    gathered = Gathered(kept)
    gathered.write(b"last words")
    gathered.close()
    gathered.write(b"too late")
    await asyncio.sleep(0)
    assert (kept.sent, kept.closed) == ([b"last words"], True)


def test_callers_who_hang_up_while_they_are_answered_leave_nothing_in_the_log(tmp_path: Path) -> None:
    with registry(tmp_path / "registry.db", stderr=subprocess.PIPE) as (process, http):
        for _ in range(500):
            with socket.create_connection((http.base_url.host, http.base_url.port)) as caller:
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed by a reset
                caller.sendall(b"GET /agents HTTP/1.1\r\nhost: localhost\r\n\r\n" * 2)
        process.terminate()
        assert process.communicate(timeout=SECONDS)[1] == ""
