"""Writes that arrive together become one: a disk takes as long to make fifty of them durable as it takes for one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class GroupCommit(Generic[T]):
    """Hands `write` what has gathered while the last write was under way; it writes all of it or nothing."""

    def __init__(self, write: Callable[[Sequence[T]], Awaitable[None]]) -> None:
        self._write = write
        self._gathered: list[tuple[T, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def add(self, item: T) -> None:
        """Wait until the item is written.

        Raises what `write` raised for it. Who is cancelled does not know whether it was written.
        """
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gathered.append((item, written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all(), name="group-commit")
        await written

    async def aclose(self) -> None:
        """Wait until everything that was added is written."""
        if self._writing is not None:
            await asyncio.wait({self._writing})

    async def _write_all(self) -> None:
        while self._gathered:
            batch, self._gathered = self._gathered, []
            await self._write_batch([(item, written) for item, written in batch if not written.cancelled()])

    async def _write_batch(self, batch: Sequence[tuple[T, asyncio.Future[None]]]) -> None:
        try:
            await self._write([item for item, _ in batch])
        except Exception as error:  # whatever a database raises is for those who wait, each for its own
            if len(batch) > 1:
                for one in batch:
                    await self._write_batch([one])
            elif batch and not batch[0][1].done():
                batch[0][1].set_exception(error)
            return
        for _, written in batch:
            if not written.done():
                written.set_result(None)
