"""Group commit: decisions that wait together are written together, in one transaction, in the order they came."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any, TypeVar, cast

from discovery.registry.store import StoreError
from discovery.registry.table import Draft

MOST_AT_ONCE = 256
ONE_SECONDS = 50e-6  # what reading and answering one takes, about

Answer = TypeVar("Answer")
Decide = Callable[[Draft], Any]
Tell = Callable[[Any], None]

logger = logging.getLogger(__name__)


class Writer:
    """Takes decisions from many callers. One that gives up waiting takes nothing back: it may be written."""

    def __init__(
        self,
        commit: Callable[[Sequence[Decide]], Awaitable[Sequence[Any]]],
        *,
        elapsed: Callable[[], float] = monotonic,
    ) -> None:
        self._commit, self._elapsed = commit, elapsed
        self._waiting: deque[tuple[Decide, Tell]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._took = 0.0  # seconds of the latest transaction
        self._crowd = 0  # how many asked while it was written, those that it was for included

    def submit(self, decide: Decide, tell: Tell) -> None:
        """Have something decided and written. `tell` hears what was decided once it is durable, or what failed."""
        self._waiting.append((decide, tell))
        if self._task is None:
            self._task = asyncio.create_task(self._drain(), name="discovery-writer")

    async def write(self, decide: Callable[[Draft], Answer]) -> Answer:
        """What was decided, once it is durable. An exception that the decision returns is raised here.

        Raises:
            StoreError: Nothing was changed.
        """
        return cast("Answer", await answered(lambda tell: self.submit(decide, tell)))

    async def aclose(self) -> None:
        """Wait until all that was asked for is written or refused."""
        if self._task is not None:
            await self._task

    async def _drain(self) -> None:
        try:
            while self._waiting:
                batch, begun = self._next(), self._elapsed()
                await self._write(batch)
                self._took, self._crowd = self._elapsed() - begun, len(batch) + len(self._waiting)
        finally:
            self._task = None
            for _, tell in self._waiting:  # cancelled with the process: nobody may wait for ever
                tell(asyncio.CancelledError())

    def _next(self) -> list[tuple[Decide, Tell]]:
        """All that wait; or half of a crowd, where writing is quick beside reading and answering the other half."""
        crowd = max(self._crowd, len(self._waiting))
        most = (crowd + 1) // 2 if self._took < crowd * ONE_SECONDS else MOST_AT_ONCE
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), most, MOST_AT_ONCE))]

    async def _write(self, batch: Sequence[tuple[Decide, Tell]]) -> None:
        try:
            answers = await self._commit([decide for decide, _ in batch])
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, StoreError):
                for one in batch:  # one of them cannot be written: the others need not suffer for it
                    await self._write([one])
                return
            answers = [error] * len(batch)
        # Not now: the storage is given the next batch first.
        asyncio.get_running_loop().call_soon(_tell, batch, answers)


async def answered(submit: Callable[[Tell], None]) -> Any:
    """What is told about something that is submitted; an exception is raised."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def tell(answer: Any) -> None:
        if future.done():
            return
        if isinstance(answer, asyncio.CancelledError):
            future.cancel()
        elif isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    submit(tell)
    return await future


def _tell(batch: Sequence[tuple[Decide, Tell]], answers: Sequence[Any]) -> None:
    for (_, tell), answer in zip(batch, answers, strict=True):
        try:
            tell(answer)
        except Exception:  # the others are to hear of theirs
            logger.exception("one who asked for a change could not be told of it")
