"""One turn of a session at a time: locks within a process, and file locks between the processes of one machine."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from weakref import WeakValueDictionary

from agent_runtime.errors import SessionBusy
from agent_runtime.sessions.base import SessionKey

WAIT_SECONDS = 60.0  # how long a turn waits for the turn before
_POLL_SECONDS = 0.02


class SessionLocks:
    """One lock per session in this process: first come, first served. Shared stores add a lock between processes."""

    def __init__(self, wait_seconds: float = WAIT_SECONDS) -> None:
        self._wait_seconds = wait_seconds
        self._locks: WeakValueDictionary[SessionKey, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def hold(self, key: SessionKey) -> AsyncGenerator[float]:
        """Hold the lock of a session; yields the deadline, in the loop's time, for taking further locks.

        Raises:
            SessionBusy: another turn held the session for too long.
        """
        lock = self._locks.setdefault(key, asyncio.Lock())
        deadline = asyncio.get_running_loop().time() + self._wait_seconds
        try:
            async with asyncio.timeout_at(deadline):
                await lock.acquire()
        except TimeoutError:
            raise session_busy() from None
        try:
            yield deadline
        finally:
            lock.release()


def session_busy() -> SessionBusy:
    """The error for a session that is locked for too long."""
    return SessionBusy("another turn of this session is still running")


@asynccontextmanager
async def fair_file_lock(file: Path, *, deadline: float) -> AsyncGenerator[None]:
    """Hold the lock `file` until the block ends. A process that takes it repeatedly does not starve another.

    `deadline` is in the loop's time; TimeoutError is raised then.
    """
    # A turnstile: the process that waits for the lock holds it, and the previous holder must pass it again.
    async with file_lock(file.with_suffix(".next"), deadline=deadline):
        descriptor = await _acquire(file, deadline)
    try:
        yield
    finally:
        _release(file, descriptor)


@asynccontextmanager
async def file_lock(file: Path, *, deadline: float) -> AsyncGenerator[None]:
    """Hold the lock `file`, which is deleted at the end of the block; raises TimeoutError at the deadline.

    The operating system releases it when the process ends for any reason.
    """
    descriptor = await _acquire(file, deadline)
    try:
        yield
    finally:
        _release(file, descriptor)


async def _acquire(file: Path, deadline: float) -> int:
    loop = asyncio.get_running_loop()
    while (descriptor := _try_acquire(file)) is None:
        if loop.time() >= deadline:
            raise TimeoutError("another process holds its lock")
        await asyncio.sleep(_POLL_SECONDS)
    return descriptor


def _try_acquire(file: Path) -> int | None:
    """The descriptor of the locked file; None if another process holds it, or deleted it at the same time."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:  # the folder was deleted
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    if _lock(descriptor):
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), file.stat()):
                return descriptor
    os.close(descriptor)
    return None


def _release(file: Path, descriptor: int) -> None:
    with suppress(OSError):  # Windows does not delete an open file; the next holder uses it again
        file.unlink()
    os.close(descriptor)


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
