"""Group commit: decisions that wait together are written together, in one transaction, in the order they came."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast

from discovery.stores.base import StoreError
from discovery.table import Draft

MOST_AT_ONCE = 256

Answer = TypeVar("Answer")
Decide = Callable[[Draft], Any]


class Writer:
    """Takes decisions from many tasks. A caller that gives up waiting takes nothing back: it may be written."""

    def __init__(self, commit: Callable[[Sequence[Decide]], Awaitable[Sequence[Any]]]) -> None:
        self._commit = commit
        self._waiting: deque[tuple[Decide, asyncio.Future[Any]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def write(self, decide: Callable[[Draft], Answer]) -> Answer:
        """What was decided, once it is durable. An exception that the decision returns is raised here.

        Raises:
            StoreError: Nothing was changed.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((decide, future))
        if self._task is None:
            self._task = asyncio.create_task(self._drain(), name="discovery-writer")
        return cast("Answer", await future)

    async def aclose(self) -> None:
        """Wait until all that was asked for is written or refused."""
        if self._task is not None:
            await self._task

    async def _drain(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
                await self._write([(decide, future) for decide, future in batch if not future.done()])
        finally:
            self._task = None
            for _, future in self._waiting:  # cancelled with the process: nobody may wait for ever
                future.cancel()

    async def _write(self, batch: list[tuple[Decide, "asyncio.Future[Any]"]]) -> None:
        try:
            answers = await self._commit([decide for decide, _ in batch])
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, StoreError):
                for one in batch:  # one of them cannot be written: the others need not suffer for it
                    await self._write([one])
                return
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
