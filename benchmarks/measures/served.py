"""Served over HTTP: `POST /chat` on 50 connections, ours with its sessions in SQLite, all others without any."""

from __future__ import annotations

import json
import socket
import sys
from contextlib import AsyncExitStack
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.contenders import ALL, OURS, REFERENCE, contenders, fake_openai, program
from benchmarks.figures import Row, Scale

CONNECTIONS = 50


async def measure(scale: Scale) -> list[Row]:
    """CPU of the server per request, and requests a second."""
    cpu = Row("chat_cpu", "Served: CPU per `/chat` request, SQLite sessions", "ms", OURS, REFERENCE, "less", 0.7)
    cpu.note = "50 connections, 0 ms model; the reference and the peers behind FastAPI keep no sessions"
    rate = Row("chat_rate", "… requests a second", "/s", OURS, REFERENCE, "more")
    count, connections = scale.count(200), scale.count(CONNECTIONS, least=2)
    async with fake_openai() as fake, contenders([*ALL[:2], *scale.peers]) as everybody, AsyncExitStack() as stack:
        ports: dict[str, int] = {}
        for one in everybody:
            folder, ports[one.name] = stack.enter_context(TemporaryDirectory()), _free_port()
            await one.do("open", url=f"{fake}/v1")
            await one.do("serve", port=ports[one.name], folder=folder)
            await _load(ports[one.name], connections, scale.count(100))
        for _ in range(scale.rounds):
            cpus, rates = dict[str, float](), dict[str, float]()
            for one in everybody:
                before = (await one.do("usage"))["cpu"]
                rates[one.name] = (await _load(ports[one.name], connections, count))["per_second"]
                cpus[one.name] = ((await one.do("usage"))["cpu"] - before) / count * 1000
            cpu.add(cpus)
            rate.add(rates)
    return [cpu, rate]


async def _load(port: int, connections: int, requests: int) -> dict[str, Any]:
    async with program(sys.executable, "-m", "benchmarks.load", str(port), str(connections), str(requests)) as process:
        out, _ = await process.communicate()
    told = json.loads(out)
    assert not told["errors"], f"{told['errors']} of {requests} requests were not answered as they should"
    return told


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
