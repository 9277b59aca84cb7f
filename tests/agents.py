"""Agent files for tests, and the command line as a person would start it."""

import asyncio
import os
import pty
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agent_runtime.events import ToolCall

MODEL = {"provider": "openai", "name": "test-model", "endpoint": "http://127.0.0.1:9/v1"}  # nothing listens there
TOOLS = '''
import time


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: the first
        b: the second
    """
    return a + b


def shout(text: str) -> str:
    """Repeat a text loudly."""
    return text.upper() + "!"


def fail(reason: str) -> str:
    """Fail."""
    raise RuntimeError(reason)
'''


def write_agent(folder: Path, *, code: str = TOOLS, **sections: Any) -> Path:
    """An agent file that is good as it is; `sections` replace or add top-level keys."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "calculator.py").write_text(code, encoding="utf-8")
    document = {"name": "helper", "model": MODEL, "session": {"store": "memory"}, **sections}
    file = folder / "agent.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return file


def called(name: str, arguments: str = "{}", *, call_id: str = "c1") -> ToolCall:
    """A tool call of a scripted model."""
    return ToolCall(call_id, name, arguments)


async def eventually(condition: Callable[[], Awaitable[Any]], seconds: float = 5) -> Any:
    """What a condition gives as soon as that is true; for what another process or task does in its own time."""
    async with asyncio.timeout(seconds):
        while True:
            if found := await condition():
                return found
            await asyncio.sleep(0.01)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(slots=True)
class Ended:
    """What a command left behind."""

    status: int
    out: str
    err: str


async def myagent(*arguments: str | Path, cwd: Path, environment: Mapping[str, str] | None = None) -> Ended:
    """Run one command to its end; at most 30 seconds."""
    async with started(*arguments, cwd=cwd, environment=environment) as process:
        out, err = await process.communicate()
        return Ended(process.returncode or 0, out.decode(), err.decode())


@asynccontextmanager
async def started(
    *arguments: str | Path, cwd: Path, environment: Mapping[str, str] | None = None
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """Start `myagent …`; killed if it is still there when the block ends, and after 30 seconds."""
    command = [sys.executable, "-W", "error", "-m", "agent_runtime", *map(str, arguments)]
    async with asyncio.timeout(30), running(command, cwd, environment) as process:
        yield process


async def on_a_terminal(*arguments: str | Path, cwd: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """Run one command on a pseudo-terminal without `NO_COLOR`; its exit status and what the terminal received."""
    ours, theirs = pty.openpty()
    variables = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    command = [sys.executable, "-m", "agent_runtime", *map(str, arguments)]
    try:
        async with asyncio.timeout(30):
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=cwd,
                env={**variables, "TERM": "xterm", **environment},
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
            )
            status = await process.wait()
        return status, os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)


@asynccontextmanager
async def running(
    command: list[str], cwd: Path, environment: Mapping[str, str] | None = None
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """Start a program with pipes; it never outlives the block."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env={**os.environ, "NO_COLOR": "1", **(environment or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
