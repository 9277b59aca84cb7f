"""A background task that starts and ends with a block."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

_CANCEL_SECONDS = 5


class BackgroundTask:
    """Runs `work`, which must catch its own errors, until the block ends; with None it does nothing."""

    # A class, not a generator: an event loop that is closed ends open generators by itself, in any order, and this
    # context manager is on the exit stack of another one.

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]] | None, *, name: str) -> None:
        self._work = work
        self._name = name
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> BackgroundTask:
        if self._work is not None:
            self._task = asyncio.create_task(self._work(), name=self._name)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=_CANCEL_SECONDS)
