"""What keeps a list of agents, each in a process of its own: ours, the limit, a tutorial's, etcd. And who asks it."""

from __future__ import annotations

import os
import sys
from asyncio import StreamReader
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.contenders import Contender, program, python_of

OURS, LIMIT, TUTORIAL, ETCD = "myagent", "uvicorn", "tutorial", "etcd"
CONNECTIONS = 50


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs."""

    port: int
    pid: int

    def cpu(self) -> float:
        """Seconds of CPU that its process took so far, all threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def ours(file: Path) -> AsyncGenerator[Served]:
    """Our registry as an operator starts it, its table in a file."""
    options = ("--port", "0", "--log-level", "warning", "--database-url", f"sqlite:///{file}")
    async with program(sys.executable, "-m", "discovery", *options) as process:
        yield await _served(process)


@asynccontextmanager
async def other(name: str, argument: Path) -> AsyncGenerator[Served]:
    """One of the others, with the file or folder that it wants."""
    python = await python_of(name) if name == ETCD else sys.executable
    async with program(python, "-m", f"benchmarks.registries.{name}", str(argument)) as process:
        yield await _served(process)


@asynccontextmanager
async def asking() -> AsyncGenerator[Contender]:
    """A process that asks registries when it is told to; see `asking.py`."""
    async with program(sys.executable, "-m", "benchmarks.registries.asking") as process:
        yield Contender("the client", process)


async def counted(client: Contender, server: Served, calls: str, **more: Any) -> dict[str, Any]:
    """Ask, and tell the server's CPU too: what came out for a second, and the microseconds of one request."""
    before = server.cpu()
    told = await client.do("ask", port=server.port, calls=calls, **{"connections": CONNECTIONS} | more)
    assert told["answered"], f"nothing was answered on port {server.port}"
    return told | {"cpu_us": (server.cpu() - before) / told["answered"] * 1e6}


async def _served(process: Process) -> Served:
    assert isinstance(process.stdout, StreamReader)
    line = (await process.stdout.readline()).decode().strip()
    if not line:
        raise RuntimeError("a server ended before it listened; what it wrote stands above")
    return Served(int(line.rpartition(":")[2]), process.pid)


def errors(*told: dict[str, Any]) -> str:
    """What a reader of a row should know of refused requests."""
    failed, answered = sum(one["errors"] for one in told), sum(one["answered"] for one in told)
    return f"{failed:,} of {failed + answered:,}"
