"""One turn of a session at a time, within this process. Stores that are shared add a lock that others see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from agent_runtime.errors import SessionBusy
from agent_runtime.sessions.base import SessionKey

WAIT_SECONDS = 60.0  # how long a turn waits for the one before


class Turns:
    """The queues of this process; first come, first served."""

    def __init__(self, wait_seconds: float = WAIT_SECONDS) -> None:
        self._wait_seconds = wait_seconds
        self._locks: WeakValueDictionary[SessionKey, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, key: SessionKey) -> AsyncGenerator[float]:
        """Hold a session in this process; yields until when, in the loop's time, the turn may wait for others.

        Raises:
            SessionBusy: it was somebody else's turn for too long.
        """
        lock = self._locks.setdefault(key, asyncio.Lock())
        deadline = asyncio.get_running_loop().time() + self._wait_seconds
        try:
            async with asyncio.timeout_at(deadline):
                await lock.acquire()
        except TimeoutError:
            raise busy() from None
        try:
            yield deadline
        finally:
            lock.release()


def busy() -> SessionBusy:
    """The one sentence for a session that is somebody else's for too long."""
    return SessionBusy("another turn of this session is still running")
