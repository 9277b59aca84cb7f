"""An event loop in a thread of its own: how a script or a notebook runs the one asynchronous code path.

A notebook's main thread already runs a loop, so the script's calls go to another thread in every case.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class OwnLoop:
    """Runs coroutines one caller at a time or many at once; ends with `close`, or with the script."""

    def __init__(self) -> None:
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)), name="myagent-loop")
        self._thread.start()
        self._loop = started.result()
        # The loop's thread keeps the process alive until what runs on it is closed, and a script that forgets to
        # close must still end: the watcher stops the loop as soon as the main thread is done. (atexit comes too late,
        # the interpreter joins threads first.)
        threading.Thread(target=self._end_with_main_thread, name="myagent-loop-end", daemon=True).start()

    async def _serve(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        self._stop = asyncio.Event()
        started.set_result(asyncio.get_running_loop())
        await self._stop.wait()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end and return its result; an interrupt cancels it."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Stop the loop and wait for its thread; safe to call twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def _end_with_main_thread(self) -> None:
        threading.main_thread().join()
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
