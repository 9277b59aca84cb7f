"""A deadline for something that is waited for piece by piece."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from agent_runtime.engine.deadline import Deadline


async def numbers(*before_silence: int) -> AsyncGenerator[int]:
    for number in before_silence:
        yield number
    await asyncio.Event().wait()


def soon() -> float:
    return asyncio.get_running_loop().time() + 0.05


async def test_items_that_are_there_in_time_are_passed_on_and_silence_is_ended() -> None:
    async with aclosing(numbers(1, 2)) as items:
        with Deadline(soon()) as deadline:
            assert [await deadline.next(items), await deadline.next(items)] == [1, 2]
            with pytest.raises(TimeoutError):
                await deadline.next(items)
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_a_deadline_that_passes_while_nobody_waits_ends_the_next_wait() -> None:
    async with aclosing(numbers(1, 2)) as items:
        with Deadline(asyncio.get_running_loop().time()) as deadline:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            with pytest.raises(TimeoutError):
                await deadline.next(items)


async def test_a_deadline_that_was_left_strikes_no_more() -> None:
    async with aclosing(numbers(1)) as items:
        with Deadline(soon()) as deadline:
            assert await deadline.next(items) == 1
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await deadline.next(items)


async def test_who_is_cancelled_by_somebody_else_is_cancelled() -> None:
    async def waiting() -> None:
        async with aclosing(numbers()) as items:
            with Deadline(asyncio.get_running_loop().time() + 60) as deadline:
                await deadline.next(items)

    task = asyncio.create_task(waiting())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
