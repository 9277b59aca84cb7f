"""Group commit: which operations share a write, who gets which result, and what a failure does to the others."""

import asyncio
from collections.abc import Sequence

import pytest

from infrastructure.group_commit import GroupCommit


class Storage:
    """Doubles numbers; 13 makes a batch fail, a negative number fails alone."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def write(self, numbers: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(numbers))
        await self.open.wait()
        if 13 in numbers:
            raise ZeroDivisionError
        if 404 in numbers:
            raise ConnectionError("the disk is gone")
        return [ValueError(number) if number < 0 else 2 * number for number in numbers]


@pytest.fixture
async def storage() -> Storage:
    return Storage()


@pytest.fixture
async def commit(storage: Storage) -> GroupCommit[int, int]:
    return GroupCommit(storage.write, outage=ConnectionError, max_batch=4)


Commit = GroupCommit[int, int]


async def test_operations_that_arrive_during_a_write_share_the_next_one_in_their_order(
    storage: Storage, commit: Commit
) -> None:
    storage.open.clear()
    first = asyncio.create_task(commit.run(1))
    await asyncio.sleep(0.01)
    rest = [asyncio.create_task(commit.run(number)) for number in range(2, 8)]
    await asyncio.sleep(0.01)
    storage.open.set()
    assert await asyncio.gather(first, *rest) == [2, 4, 6, 8, 10, 12, 14]
    assert storage.batches == [[1], [2, 3, 4, 5], [6, 7]]


async def test_a_single_operation_is_written_at_once(storage: Storage, commit: Commit) -> None:
    assert [await commit.run(number) for number in (1, 2, 3)] == [2, 4, 6]
    assert storage.batches == [[1], [2], [3]]


async def test_a_faulty_operation_fails_alone(storage: Storage, commit: Commit) -> None:
    outcomes = await asyncio.gather(*(commit.run(number) for number in (1, 13, -1, 2)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [int, ZeroDivisionError, ValueError, int]
    assert storage.batches[0] == [1, 13, -1, 2]


async def test_an_outage_fails_the_batch_without_attempts_one_by_one(storage: Storage, commit: Commit) -> None:
    outcomes = await asyncio.gather(*(commit.run(number) for number in (1, 404, 2)), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["the disk is gone"] * 3
    assert storage.batches == [[1, 404, 2]]
    assert await commit.run(1) == 2


async def test_a_caller_that_is_cancelled_does_not_lose_the_writes_of_others(storage: Storage, commit: Commit) -> None:
    storage.open.clear()
    writing = [asyncio.create_task(commit.run(number)) for number in (1, 2)]
    await asyncio.sleep(0.01)
    waiting = [asyncio.create_task(commit.run(number)) for number in (3, 4)]
    await asyncio.sleep(0.01)
    writing[0].cancel()
    waiting[0].cancel()
    storage.open.set()
    outcomes = await asyncio.gather(*writing, *waiting, return_exceptions=True)
    assert outcomes[1::2] == [4, 8]
    assert [type(outcome) for outcome in outcomes[::2]] == [asyncio.CancelledError] * 2
    assert storage.batches == [[1, 2], [4]]


async def test_closing_waits_for_what_is_queued(storage: Storage, commit: Commit) -> None:
    storage.open.clear()
    tasks = [asyncio.create_task(commit.run(number)) for number in range(6)]
    await asyncio.sleep(0.01)
    closing = asyncio.create_task(commit.aclose())
    await asyncio.sleep(0.01)
    assert not closing.done()
    storage.open.set()
    await closing
    assert [await task for task in tasks] == [0, 2, 4, 6, 8, 10]
    await commit.aclose()
