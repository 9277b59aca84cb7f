"""Child processes: a command that receives the signals of this process, and stopping one in bounded time."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress

from agent_runtime.errors import ConfigError, Problem

STOP_SECONDS = 10.0
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


@asynccontextmanager
async def run_child(command: Sequence[str]) -> AsyncGenerator[asyncio.Task[int]]:
    """Run a command on the standard streams of this process; the task returns the status that a shell would.

    Raises:
        ConfigError: the command cannot be started.
    """
    try:
        child = await asyncio.create_subprocess_exec(*command)
    except OSError as error:
        raise ConfigError(command[0], [Problem(f"cannot be run: {error.strerror}")]) from error
    loop = asyncio.get_running_loop()
    for number in FORWARDED:
        loop.add_signal_handler(number, _forward, child, number)
    try:
        yield asyncio.create_task(_wait(child), name="command")
    finally:
        await stop_child(child)
        for number in FORWARDED:
            loop.remove_signal_handler(number)


async def _wait(child: asyncio.subprocess.Process) -> int:
    status = await child.wait()
    return 128 - status if status < 0 else status


def _forward(child: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if number in {signal.SIGINT, signal.SIGQUIT} and _is_foreground():
        return  # the terminal sends its Ctrl-C to the command as well
    with suppress(ProcessLookupError):
        child.send_signal(number)


def _is_foreground() -> bool:
    """Whether this process, and with it the command, is in the foreground of a terminal."""
    try:
        with open("/dev/tty", "rb") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


async def stop_child(child: asyncio.subprocess.Process) -> None:
    """Terminate a process that is still running, and kill it if it does not exit in time."""
    if child.returncode is not None:
        return
    child.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()
