"""Opens SQLite connections; an attempt that fails or is cancelled leaves no thread behind."""

import asyncio
import sqlite3
from contextlib import suppress
from pathlib import Path

import aiosqlite

CANCEL_SECONDS = 1.0  # for an attempt that hangs on its disk: it is abandoned then


async def connect(path: Path | str, *, busy_seconds: float = 5.0) -> aiosqlite.Connection:
    """Open a connection in autocommit mode; the caller closes it.

    Where opening fails or is cancelled, aiosqlite stops its thread without waiting for it, and the thread then reports
    to an event loop that may be closed. So the file is opened before aiosqlite's thread starts, and a cancelled attempt
    is completed and closed before the cancellation goes on.

    Raises:
        sqlite3.Error: the file cannot be opened.
    """
    attempt = asyncio.create_task(_connect(path, busy_seconds), name="sqlite-connect")
    try:
        return await asyncio.shield(attempt)
    except asyncio.CancelledError:
        await asyncio.wait({attempt}, timeout=CANCEL_SECONDS)
        if attempt.done():
            with suppress(Exception, asyncio.CancelledError):
                await attempt.result().close()
        raise


async def _connect(path: Path | str, busy_seconds: float) -> aiosqlite.Connection:
    opened = await asyncio.to_thread(
        sqlite3.connect, path, timeout=busy_seconds, isolation_level=None, check_same_thread=False
    )
    return await aiosqlite.Connection(lambda: opened, iter_chunk_size=64)
