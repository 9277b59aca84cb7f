"""An instant at which waiting ends, for something that is waited for piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")


class Deadline:
    """Waits for the items of a generator until `when`, in the loop's time.

    `asyncio.timeout` would do, but must not stay open while a generator yields: it would have to be set for every
    item anew, which takes longer than most items. This one is set once, and strikes only while somebody waits.
    """

    def __init__(self, when: float) -> None:
        self._when = when
        self._waiting: asyncio.Task[object] | None = None
        self._is_over = False

    def __enter__(self) -> Deadline:
        self._timer = asyncio.get_running_loop().call_at(self._when, self._strike)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()

    async def next(self, items: AsyncGenerator[T]) -> T | None:
        """The next item, or None behind the last one.

        Raises:
            TimeoutError: the deadline is over.
        """
        if self._is_over:
            raise TimeoutError
        task = self._waiting = asyncio.current_task()
        assert task is not None
        cancelled_before = task.cancelling()
        try:
            return await anext(items, None)
        except asyncio.CancelledError:
            if self._is_over and task.uncancel() <= cancelled_before:
                raise TimeoutError from None
            raise  # by somebody else, or by both
        finally:
            self._waiting = None

    def _strike(self) -> None:
        self._is_over = True
        if self._waiting is not None:
            self._waiting.cancel()
