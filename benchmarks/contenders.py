"""Starts what is measured: contenders in environments of their own, and the fake of the model's API.

An environment is made once, from `requirements/NAME.txt`, in the folder `.peers`; delete it to have it made anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
OURS, REFERENCE = "myagent", "bare_openai"
PEERS = ("agno", "pydantic_ai", "openai_agents", "langgraph", "google_adk")
ALL = (OURS, REFERENCE, *PEERS)
_LINE_BYTES = 1024 * 1024


class Contender:
    """One worker process, told what to do line by line; see `worker.py`."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process

    async def do(self, what: str, **details: Any) -> dict[str, Any]:
        """Have it do something and wait for its figures."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": what, **details}).encode() + b"\n")
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended while it was to do {what}; its errors stand above")
        return json.loads(line)


@asynccontextmanager
async def contender(name: str) -> AsyncGenerator[Contender]:
    """A contender that waits for orders."""
    async with program(await python_of(name), "-m", "benchmarks.worker", name) as process:
        yield Contender(name, process)


@asynccontextmanager
async def contenders(names: Sequence[str]) -> AsyncGenerator[list[Contender]]:
    """Several of them side by side; only one is asked at a time, so the others cost nothing."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(contender(name)) for name in names]


@asynccontextmanager
async def fake_openai() -> AsyncGenerator[str]:
    """The fake in a process of its own; its address, without `/v1` and the options before it."""
    async with program(sys.executable, "-m", "benchmarks.fake_openai") as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(await process.stdout.readline())}"


async def once(name: str, url: str) -> dict[str, Any]:
    """What it costs a process to start and to make one agent."""
    async with program(await python_of(name), "-m", "benchmarks.worker", name, url) as process:
        assert process.stdout is not None
        return json.loads(await process.stdout.readline())


async def output_of(name: str, code: str) -> str:
    """What a few lines of Python print in a contender's environment."""
    async with program(await python_of(name), "-c", code) as process:
        out, _ = await process.communicate()
        return out.decode().strip()


@asynccontextmanager
async def program(*command: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    """A program of ours with pipes; it ends with the block."""
    pipe = asyncio.subprocess.PIPE
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OTEL_SDK_DISABLED": "true"}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, limit=_LINE_BYTES
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def python_of(name: str) -> str:
    """The Python of a contender's environment, which is made if it is not there; the reference runs in ours."""
    if name in {OURS, REFERENCE}:
        return sys.executable
    requirements = HERE / "requirements" / f"{name}.txt"
    digest = hashlib.sha256(await asyncio.to_thread(requirements.read_bytes)).hexdigest()[:12]
    folder = HERE / ".peers" / f"{name}-{digest}"
    python = folder / "bin" / "python"
    if not folder.exists():
        print(f"installing {name} …", file=sys.stderr)
        half = folder.with_suffix(".half")
        await _checked(sys.executable, "-m", "venv", "--clear", str(half))
        await _checked(str(half / "bin" / "python"), "-m", "pip", "install", "--quiet", "-r", str(requirements))
        half.rename(folder)
    return str(python)


async def _checked(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stdout=sys.stderr)
    if await process.wait():
        raise RuntimeError(f"{' '.join(command)} failed; its errors stand above")
