"""The processes of a benchmark: servers that print their port, and helpers that obey orders line by line."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
START_SECONDS = 120.0  # a peer may have to be installed first
STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs."""

    port: int
    pid: int

    def cpu(self) -> float:
        """Seconds of CPU that it took so far, all threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Helper:
    """A process that obeys."""

    process: asyncio.subprocess.Process

    async def __call__(self, do: str, **order: Any) -> Any:
        """Give an order, and wait for the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **order}).encode() + b"\n")
        line = await self.process.stdout.readline()
        if not line:
            raise RuntimeError("a process of the benchmark ended; what it wrote says why")
        return json.loads(line)


@asynccontextmanager
async def served(module: str, *arguments: str) -> AsyncGenerator[Served]:
    """Run `python -m MODULE …` until the block ends; the last word of its first line is its port, or an address."""
    async with _running(module, *arguments) as process:
        assert process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            line = (await process.stdout.readline()).decode().strip()
        if not line:
            raise RuntimeError(f"{module} ended before it listened; what it wrote says why")
        yield Served(int(line.rpartition(":")[2]), process.pid)


@asynccontextmanager
async def helper(module: str, *arguments: str) -> AsyncGenerator[Helper]:
    """Run `python -m MODULE …` until the block ends, and give it orders."""
    async with _running(module, *arguments) as process:
        yield Helper(process)


@asynccontextmanager
async def _running(module: str, *arguments: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, cwd=ROOT, stdin=pipe, stdout=pipe, limit=64 * 1024 * 1024
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
