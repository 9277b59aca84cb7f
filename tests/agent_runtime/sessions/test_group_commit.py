"""Writes that arrive together become one."""

import asyncio
from collections.abc import Sequence

import pytest

from agent_runtime.sessions.group_commit import GroupCommit


class Disk:
    """Writes when it is let, and refuses what is called bad."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.free = asyncio.Event()

    async def write(self, items: Sequence[str]) -> None:
        await self.free.wait()
        if "bad" in items:
            raise OSError("the disk refuses it")
        self.batches.append(list(items))


async def test_what_arrives_during_a_write_is_written_together_in_order() -> None:
    disk = Disk()
    commits = GroupCommit(disk.write)
    adding = [asyncio.create_task(commits.add("first"))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    adding += [asyncio.create_task(commits.add(name)) for name in ("second", "third")]
    await asyncio.sleep(0)
    disk.free.set()
    await asyncio.gather(*adding)
    assert disk.batches == [["first"], ["second", "third"]]


async def test_one_that_fails_takes_none_of_the_others_with_it() -> None:
    disk = Disk()
    disk.free.set()
    commits = GroupCommit(disk.write)
    outcomes = await asyncio.gather(*(commits.add(name) for name in ("a", "bad", "b")), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["None", "the disk refuses it", "None"]
    assert disk.batches == [["a"], ["b"]]


async def test_one_that_is_no_longer_waited_for_before_its_write_is_not_written() -> None:
    disk = Disk()
    commits = GroupCommit(disk.write)
    adding = [asyncio.create_task(commits.add("first"))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    left, kept = (asyncio.create_task(commits.add(name)) for name in ("left", "kept"))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.sleep(0)
    disk.free.set()
    await asyncio.gather(*adding, kept)
    assert disk.batches == [["first"], ["kept"]]
    with pytest.raises(asyncio.CancelledError):
        await left


async def test_closing_waits_for_what_was_added() -> None:
    disk = Disk()
    commits = GroupCommit(disk.write)
    adding = asyncio.create_task(commits.add("late"))
    await asyncio.sleep(0)
    disk.free.set()
    await commits.aclose()
    assert disk.batches == [["late"]]
    await adding
