"""From a run's coroutine to the code that uses it: an asynchronous generator of events, and calls that block."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack, suppress
from typing import ParamSpec, TypeVar

from agent_runtime.events import Emit, Event

P = ParamSpec("P")
T = TypeVar("T")

_MAX_UNREAD = 64  # events; a run that is further ahead waits for its reader


async def stream_events(run: Callable[[Emit], Awaitable[object]]) -> AsyncGenerator[Event, None]:
    """Yield the events that a run emits. Errors of the run are raised here; closing the generator cancels the run."""
    unread: deque[Event] = deque()
    has_news, has_space = asyncio.Event(), asyncio.Event()  # and no asyncio.Queue: this takes half its time

    async def emit(event: Event) -> None:
        while len(unread) >= _MAX_UNREAD:
            has_space.clear()
            await has_space.wait()
        unread.append(event)
        has_news.set()

    # A task of its own: time-outs and cancellation inside the run cannot reach the code that reads.
    task = asyncio.ensure_future(run(emit))
    task.add_done_callback(lambda _: has_news.set())
    try:
        while unread or not task.done():
            if unread:
                has_space.set()
                yield unread.popleft()
            else:
                has_news.clear()
                await has_news.wait()
        await task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # nobody waits for it where the generator is closed early


class BlockingPortal:
    """Runs coroutines for code that is not asynchronous, from any number of threads.

    Their event loop has a thread of its own, so that it works in a notebook, whose main thread runs a loop already.
    """

    def __init__(self) -> None:
        from anyio.from_thread import start_blocking_portal

        self._stack = ExitStack()
        self._portal = self._stack.enter_context(start_blocking_portal(name="myagent-loop"))
        # A script that ends without `close` still closes what it opened: the interpreter joins this thread at its end.
        # (atexit comes too late: the libraries' own threads are joined before it.)
        threading.Thread(target=self._close_with_main_thread, name="myagent-close").start()

    def call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Wait for the result; an interrupt cancels the call."""
        future = self._portal.start_task_soon(lambda: function(*args, **kwargs))
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel what is running, and end the thread; safe to call twice."""
        with suppress(RuntimeError):  # it is closed
            self._portal.call(self._portal.stop, True)
        self._stack.close()

    def _close_with_main_thread(self) -> None:
        threading.main_thread().join()
        self.close()
