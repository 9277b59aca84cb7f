"""Asks a server over many connections as fast as it answers, and says how fast that was: in a process of its own.

    python -m benchmarks.registries.asking

A line on standard input is a JSON object whose `do` names a method of `Client`; the answer is a line on standard
output. A connection sends its next request when the last answer is complete. An answer is counted when its whole body
came: its head is read for its status and length, its body is only measured.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

import uvloop

from benchmarks import fleet

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_END = b"\r\n\r\n"
BUFFER_BYTES = 1024 * 1024
CALLS = {"reads": fleet.reads, "registrations": fleet.registrations, "puts": fleet.puts}


class _Asking(asyncio.BufferedProtocol):
    """One connection. Reads into the one buffer that all share: nothing is kept of a body."""

    def __init__(self, round_: _Round) -> None:
        self._round = round_
        self._transport: Any = None
        self._head = b""
        self._left = 0  # bytes of the body that are still to come
        self._begun = 0.0
        self._status = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._round.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._left:
            self._left -= nbytes
        else:
            self._head += self._round.buffer[:nbytes]
            end = self._head.find(_END)
            if end < 0:
                return
            self._status = int(self._head[9:12])
            length = _LENGTH.search(self._head, 0, end)
            self._left = (int(length[1]) if length else 0) - (len(self._head) - end - len(_END))
            self._head = b""
        if self._left == 0:
            self._round.answered(self._status, time.perf_counter() - self._begun)
            self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self._round.lost(self)

    def close(self) -> None:
        self._transport.close()

    def ask(self) -> None:
        """Send the next request, if there is one."""
        request = self._round.next()
        if request is not None:
            self._begun = time.perf_counter()
            self._transport.write(request)


class _Round:
    """What all connections of one measurement share."""

    def __init__(self, calls: Iterator[bytes], count: int | None) -> None:
        self.buffer = bytearray(BUFFER_BYTES)
        self.over = asyncio.Event()
        self.took: list[float] = []
        self.statuses: Counter[int] = Counter()
        self._calls = calls if count is None else itertools.islice(calls, count)
        self._asked = 0

    def next(self) -> bytes | None:
        """The next request, or None when it is over."""
        request = None if self.over.is_set() else next(self._calls, None)
        if request is None and self._asked == len(self.took):
            self.over.set()
        self._asked += request is not None
        return request

    def answered(self, status: int, seconds: float) -> None:
        """Count an answer."""
        self.statuses[status] += 1
        self.took.append(seconds)

    def lost(self, connection: _Asking) -> None:
        """A connection broke before it was over: that is an error like any other."""
        if not self.over.is_set():
            self.statuses[0] += 1
            self.over.set()


class _Paced(_Round):
    """Requests at a fixed rate, each on a connection that is idle."""

    def __init__(self) -> None:
        super().__init__(iter(()), None)
        self.due: deque[bytes] = deque()
        self.idle: deque[_PacedAsking] = deque()

    def next(self) -> bytes | None:
        return self.due.popleft() if self.due else None


class _PacedAsking(_Asking):
    """A connection that waits for the next request that is due."""

    def __init__(self, round_: _Paced) -> None:
        super().__init__(round_)
        self._paced = round_

    def ask(self) -> None:
        if self._paced.due:
            super().ask()
        else:
            self._paced.idle.append(self)


class Client:
    """What can be asked of this process."""

    def __init__(self) -> None:
        self._watchers: list[_Watching] = []

    async def ask(
        self,
        port: int,
        calls: str,
        connections: int,
        options: dict[str, Any] | None = None,
        seconds: float | None = None,
        count: int | None = None,
        made: int | None = None,
    ) -> dict[str, Any]:
        """Ask for some seconds, or so many times: how often it was answered, how, and how long each took.

        `made` requests are encoded before time is taken; it is over when there are no more of them.
        """
        requests = CALLS[calls](**options or {})
        round_ = _Round(requests if made is None else iter(list(itertools.islice(requests, made))), count)
        loop = asyncio.get_running_loop()
        opened = [
            (await loop.create_connection(lambda: _Asking(round_), "127.0.0.1", port))[1] for _ in range(connections)
        ]
        begun, moment = time.perf_counter(), time.monotonic()
        for connection in opened:
            connection.ask()
        try:
            async with asyncio.timeout(seconds):
                await round_.over.wait()
        except TimeoutError:
            round_.over.set()
        wall = time.perf_counter() - begun
        for connection in opened:
            connection.close()
        took = sorted(round_.took) or [0.0]
        answered = sum(number for status, number in round_.statuses.items() if status in {200, 201, 304})
        return {
            "begun": moment,
            "answered": answered,
            "errors": sum(round_.statuses.values()) - answered,
            "per_second": answered / wall,
            "p50_ms": took[len(took) // 2] * 1e3,
            "p99_ms": took[int(len(took) * 0.99)] * 1e3,
        }

    async def pace(
        self, port: int, options: dict[str, Any], connections: int, per_second: float, seconds: float
    ) -> dict[str, Any]:
        """Send registrations at a fixed rate for some seconds: how many were answered, and how long each took."""
        round_, requests = _Paced(), fleet.registrations(**options)
        loop = asyncio.get_running_loop()
        opened = [
            (await loop.create_connection(lambda: _PacedAsking(round_), "127.0.0.1", port))[1]
            for _ in range(connections)
        ]
        round_.idle.extend(opened)
        begun = time.perf_counter()
        sent = 0
        while (passed := time.perf_counter() - begun) < seconds:
            while sent < passed * per_second:
                round_.due.append(next(requests))
                sent += 1
                if round_.idle:
                    round_.idle.popleft().ask()
            await asyncio.sleep(1 / per_second)
        await asyncio.sleep(0.2)
        round_.over.set()
        for connection in opened:
            connection.close()
        took = sorted(round_.took) or [0.0]
        answered = round_.statuses[200] + round_.statuses[201]
        return {"answered": answered, "errors": sent - answered, "p99_ms": took[int(len(took) * 0.99)] * 1e3}

    async def watch(self, port: int, readers: int) -> dict[str, int]:
        """Open so many streams of events; answers when each has had its first event."""
        loop = asyncio.get_running_loop()
        for _ in range(readers):
            _, watcher = await loop.create_connection(_Watching, "127.0.0.1", port)
            self._watchers.append(watcher)
        async with asyncio.timeout(60):
            for watcher in self._watchers:
                await watcher.until(b"event: reset")
        return {"readers": len(self._watchers)}

    async def heard(self, mark: str) -> dict[str, list[float]]:
        """When each reader had the event with this mark in it, by a clock that all processes of a machine share."""
        async with asyncio.timeout(60):
            return {"at": [await watcher.until(mark.encode()) for watcher in self._watchers]}

    async def unwatch(self) -> dict[str, int]:
        """Let all streams go."""
        for watcher in self._watchers:
            watcher.close()
        self._watchers.clear()
        return {"readers": 0}


class _Watching(asyncio.Protocol):
    """One reader: remembers when what came."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._pieces: list[tuple[float, bytes]] = []
        self._news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.write(fleet.watching())

    def data_received(self, data: bytes) -> None:
        self._pieces.append((time.monotonic(), data))
        self._news.set()

    def close(self) -> None:
        self._transport.close()

    async def until(self, mark: bytes) -> float:
        """When a mark came; what came until then is forgotten."""
        while True:
            self._news.clear()
            for at, piece in self._pieces:
                if mark in piece:
                    self._pieces.clear()
                    return at
            await self._news.wait()


async def _obey() -> None:
    client = Client()
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        print(json.dumps(await getattr(client, order.pop("do"))(**order)), flush=True)


if __name__ == "__main__":
    uvloop.run(_obey())
