"""Group commit: operations that arrive during one write share the next one, because a disk syncs 50 as fast as one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Operation = TypeVar("Operation")
Result = TypeVar("Result")


class GroupCommit(Generic[Operation, Result]):
    """One writer for many callers; each caller gets its own result once the shared write is durable.

    Args:
        write: Writes a batch in order, in one transaction, and returns one result for each operation. A result that
            is an exception is raised to the caller of that operation only. When `write` itself raises, nothing of
            the batch may be kept; the operations are then written one by one, so that only the faulty one fails.
        outage: Errors of the storage as a whole: they fail the batch at once, without attempts one by one.
        max_batch: The most operations in one transaction.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Operation]], Awaitable[Sequence[Result | Exception]]],
        *,
        outage: type[Exception] | tuple[type[Exception], ...] = (),
        max_batch: int = 256,
    ) -> None:
        self._write, self._outage, self._max_batch = write, outage, max_batch
        self._queue: list[tuple[Operation, asyncio.Future[Result]]] = []
        self._task: asyncio.Task[None] | None = None

    async def run(self, operation: Operation) -> Result:
        """Write one operation and return its result.

        A caller that is cancelled before its write begins leaves the queue; later it cannot know whether the
        operation was written. The operations of other callers are not affected.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue.append((operation, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain(), name="group-commit")
        return await future

    async def aclose(self) -> None:
        """Wait until every queued operation is written or has failed."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _drain(self) -> None:
        batch: list[tuple[Operation, asyncio.Future[Result]]] = []
        try:
            while self._queue:
                batch, self._queue = self._queue[: self._max_batch], self._queue[self._max_batch :]
                batch = [entry for entry in batch if not entry[1].done()]
                await self._write_batch(batch)
        finally:
            for _, future in (*batch, *self._queue):  # left over only when this task is cancelled with the process
                future.cancel()

    async def _write_batch(self, batch: Sequence[tuple[Operation, asyncio.Future[Result]]]) -> None:
        if not batch:
            return
        try:
            results = await self._write([operation for operation, _ in batch])
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, self._outage):
                for entry in batch:
                    await self._write_batch([entry])
                return
            results = [error] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
