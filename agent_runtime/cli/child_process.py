"""A command run in the place of this process: it gets our signals, and its end is ours."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress

from agent_runtime.errors import ConfigError, Problem

STOP_SECONDS = 10.0
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


@asynccontextmanager
async def run_child(command: Sequence[str]) -> AsyncGenerator[asyncio.Task[int]]:
    """Run a command on our own standard streams; the task ends with the status that a shell would give.

    Raises:
        ConfigError: there is no such command, or it may not be run.
    """
    try:
        child = await asyncio.create_subprocess_exec(*command)
    except OSError as error:
        raise ConfigError(command[0], [Problem(f"cannot be run: {error.strerror}")]) from error
    loop = asyncio.get_running_loop()
    for number in PASSED_ON:
        loop.add_signal_handler(number, _pass_on, child, number)
    try:
        yield asyncio.create_task(_ended(child), name="command")
    finally:
        await stop_child(child)
        for number in PASSED_ON:
            loop.remove_signal_handler(number)


async def _ended(child: asyncio.subprocess.Process) -> int:
    status = await child.wait()
    return 128 - status if status < 0 else status


def _pass_on(child: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if number in {signal.SIGINT, signal.SIGQUIT} and _is_in_front():
        return  # a terminal sends its Ctrl-C to the command as well
    with suppress(ProcessLookupError):
        child.send_signal(number)


def _is_in_front() -> bool:
    """Whether this process, and with it the command, is what a terminal is talking to."""
    try:
        with open("/dev/tty", "rb") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


async def stop_child(child: asyncio.subprocess.Process) -> None:
    """Ask a process to end, and end it when it does not; nothing where it has ended already."""
    if child.returncode is not None:
        return
    child.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()
