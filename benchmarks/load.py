"""A client that asks as fast as it is answered: `python -m benchmarks.load PORT CONNECTIONS REQUESTS`.

Prints one JSON object: requests a second, errors, and the latency that half and 99 of 100 requests stay below. Each
connection talks in sessions of a few turns, as people do.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop

TURNS = 5  # of a session
_REQUEST = (
    "POST /chat HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
)


class Load:
    """What a run of the client has seen."""

    def __init__(self, port: int, requests: int) -> None:
        self._port = port
        self._left = iter(range(requests))
        self._begun = time.time_ns()
        self.seconds: list[float] = []
        self.errors = 0

    async def connection(self, number: int) -> None:
        """One connection, asking until nothing is left to ask."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        for asked, _ in enumerate(self._left):
            session_id = f"{self._begun}-{number}-{asked // TURNS}"
            body = json.dumps({"message": "What is 17 plus 25?", "session_id": session_id})
            began = time.perf_counter()
            writer.write(_REQUEST.format(length=len(body), body=body).encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            answer = await reader.readexactly(int(length.split(b":")[1]))
            self.seconds.append(time.perf_counter() - began)
            self.errors += not (head.startswith(b"HTTP/1.1 200") and b"42" in answer)
        writer.close()


async def _main(port: int, connections: int, requests: int) -> None:
    load = Load(port, requests)
    began = time.perf_counter()
    await asyncio.gather(*(load.connection(number) for number in range(connections)))
    wall = time.perf_counter() - began
    sorted_seconds = sorted(load.seconds)
    told = {
        "per_second": requests / wall,
        "errors": load.errors,
        "p50_ms": sorted_seconds[len(sorted_seconds) // 2] * 1000,
        "p99_ms": sorted_seconds[len(sorted_seconds) * 99 // 100] * 1000,
    }
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    uvloop.run(_main(*map(int, sys.argv[1:4])))
