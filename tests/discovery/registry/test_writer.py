"""Group commit: who is written together, who hears of it, and what one who fails does to the others."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from discovery.registry.store import StoreError
from discovery.registry.table import Draft, Table
from discovery.registry.writer import Decide, Writer
from tests.discovery.conftest import Clock

CROWD = 50


class Storage:
    """Writes what it is given, and takes as long for it as a test says."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock, self._seconds = clock, seconds
        self.sizes: list[int] = []

    async def commit(self, batch: Sequence[Decide]) -> Sequence[Any]:
        self.sizes.append(len(batch))
        await asyncio.sleep(0)
        self._clock.turn(self._seconds)
        draft = Draft(Table(), self._clock())
        return [decide(draft) for decide in batch]


def refused(_: Draft) -> Exception:
    return ValueError("refused")


def broken(_: Draft) -> Exception:
    raise ZeroDivisionError


@pytest.mark.parametrize(("seconds", "sizes"), [(0.001, [25, 25, 25, 25]), (0.02, [25, 25, 50])])
async def test_a_crowd_is_written_by_halves_where_that_is_quick(clock: Clock, seconds: float, sizes: list[int]) -> None:
    storage = Storage(clock, seconds)
    writer = Writer(storage.commit, elapsed=clock.elapsed)
    for _ in range(2):
        answers = await asyncio.gather(*(writer.write(lambda _, number=number: number) for number in range(CROWD)))
        assert answers == list(range(CROWD))
    assert storage.sizes == sizes


async def test_one_alone_is_written_at_once(clock: Clock) -> None:
    storage = Storage(clock, 0.001)
    writer = Writer(storage.commit, elapsed=clock.elapsed)
    for _ in range(3):
        await writer.write(lambda draft: draft.next)
    assert storage.sizes == [1, 1, 1]


async def test_what_is_refused_or_cannot_be_decided_is_told_to_who_asked_and_to_nobody_else(clock: Clock) -> None:
    writer = Writer(Storage(clock, 0.001).commit, elapsed=clock.elapsed)
    asked = (refused, broken, lambda draft: draft.next)
    answers = await asyncio.gather(*(writer.write(decide) for decide in asked), return_exceptions=True)
    assert [type(answer) for answer in answers] == [ValueError, ZeroDivisionError, int]


async def test_when_the_storage_fails_all_hear_of_it(clock: Clock) -> None:
    async def commit(batch: Sequence[Decide]) -> Sequence[Any]:
        raise StoreError("gone")

    writer = Writer(commit, elapsed=clock.elapsed)
    asked = [writer.write(lambda draft: draft.next) for _ in range(3)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [str(answer) for answer in answers] == ["gone"] * 3


async def test_one_who_cannot_be_told_does_not_keep_it_from_the_others(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    writer = Writer(Storage(clock, 0.001).commit, elapsed=clock.elapsed)

    def fail(answer: Any) -> None:
        raise RuntimeError(answer)

    writer.submit(lambda draft: draft.next, fail)
    assert await writer.write(lambda draft: draft.next) == 1
    assert "could not be told" in caplog.text
