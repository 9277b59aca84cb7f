"""A loop beside everything else, begun and ended with a block."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

_ENDING_SECONDS = 5


class Background:
    """Runs `work`, which lets no error out, until the block ends; without work it does nothing."""

    # A class and not a generator: an event loop that ends closes every open generator by itself, in any order, and
    # this one stands on the exit stack of another.

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]] | None, *, name: str) -> None:
        self._work = work
        self._name = name
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Background:
        if self._work is not None:
            self._task = asyncio.create_task(self._work(), name=self._name)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=_ENDING_SECONDS)
