"""Locks that processes of one machine, or of containers that share a folder, hold against each other.

The operating system frees them when their process ends, however it ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

_POLL_SECONDS = 0.02


@asynccontextmanager
async def fair_file_lock(file: Path, *, deadline: float) -> AsyncGenerator[None]:
    """Hold the lock `file` until the block ends. A process that takes it again and again does not starve another.

    `deadline` is in the loop's time; TimeoutError is raised there.
    """
    # A turnstile: who waits for the lock holds it, and whoever held the lock last has to come through it again.
    async with file_lock(file.with_suffix(".next"), deadline=deadline):
        held = await _acquired(file, deadline)
    try:
        yield
    finally:
        _release(file, held)


@asynccontextmanager
async def file_lock(file: Path, *, deadline: float) -> AsyncGenerator[None]:
    """Hold the lock `file` until the block ends; raises TimeoutError at the deadline. The file goes with the lock."""
    held = await _acquired(file, deadline)
    try:
        yield
    finally:
        _release(file, held)


async def _acquired(file: Path, deadline: float) -> int:
    loop = asyncio.get_running_loop()
    while (held := _try(file)) is None:
        if loop.time() >= deadline:
            raise TimeoutError("another process holds its lock")
        await asyncio.sleep(_POLL_SECONDS)
    return held


def _try(file: Path) -> int | None:
    """The descriptor of the locked file, or None: somebody has it, or removed it while we were at it."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:  # somebody has cleaned up the folder
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    if _locked(descriptor):
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), file.stat()):
                return descriptor
    os.close(descriptor)
    return None


def _release(file: Path, descriptor: int) -> None:
    with suppress(OSError):  # Windows removes no file that is open; the next holder finds it and uses it
        file.unlink()
    os.close(descriptor)


if sys.platform == "win32":
    import msvcrt

    def _locked(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _locked(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
